"""Which job `MIGRATION_RUNNER` means here."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import Protocol

from migrator import shorten
from migrator.errors import ConfigError
from migrator.migration import Migration
from migrator.plan import HistoryRow
from migrator.programs import environment, outcome, psql, scripts, steps, supabase
from migrator.programs.held import Held
from migrator.programs.process import Program
from migrator.programs.settings import ProgramSettings
from migrator.programs.steps import Steps
from migrator.programs.whole import Whole
from migrator.session import Session
from migrator.settings import Settings

_SHOWN_CHARS = 80
_CLI = "supabase"
_CLI_DIRECTORY = ("supabase", "migrations")


class Job(Protocol):
    """What is done under the lease."""

    name: str

    def is_settled(self, history: list[HistoryRow] | None) -> bool:
        """Whether nothing is to be done, by what is on record (None: nothing is)."""

    async def run(self, held: Held) -> int | None:
        """Do it; how many were applied, if that is known."""


def job(session: Session, settings: ProgramSettings) -> Job | None:
    """What is to be done; None if there is nothing to do it with: no migrations directory.

    Raises:
        ConfigError: A program or plug-in isn't there.
        PlanError: The files make no sense.
    """
    runner, _, plugin = settings.runner.partition(":")
    match runner:
        case "command":
            return _command(settings)
        case "exec":
            from migrator.programs import extension  # late: importlib.metadata is 15 ms

            point = extension.find(plugin)
            return extension.Extension(f"exec:{point.name}", extension.load(point))
        case _:
            return _shell(session, settings)


def counts_files(settings: Settings) -> bool:
    """Whether the steps, and so what is applied and pending, can be told from files and history."""
    if settings.runner != "shell" or scripts.find(settings.directories, Path()) is not None:
        return False
    return _has_scripts(steps.load(settings).migrations) or not _is_for_cli(settings)


def _command(settings: ProgramSettings) -> Job:
    words = settings.command
    what = shorten.middle(settings.redact(shlex.join(words)), _SHOWN_CHARS)
    if shutil.which(words[0], path=settings.path) is None:
        raise ConfigError(f"cannot run MIGRATION_COMMAND: {settings.redact(words[0])!r} {_why_not(words[0])}")
    return _whole(Program(what=what, argv=words, variables=settings.variables))


def _why_not(program: str) -> str:
    """Why it can't be run, and what to do."""
    install = "install it in this image, or correct the command"
    if "/" not in program:
        return f"isn't in PATH; {install}"
    if Path(program).is_dir():
        return "is a directory; name a program in it"
    if Path(program).exists():
        return "isn't executable; make it executable (chmod +x)"
    return f"isn't there; {install}"


def _shell(session: Session, settings: ProgramSettings) -> Job | None:
    of_session = session.settings
    script = scripts.find(of_session.directories, Path())
    if script is not None:
        argv = scripts.command(script)
        return _whole(Program(what=str(script), argv=argv, variables=settings.variables))
    if not of_session.directories:
        return None
    found = steps.load(of_session)
    cli = None if _has_scripts(found.migrations) else _find_cli(of_session, settings)
    if cli is not None:
        return Whole("supabase db push", lambda held: _push(held, cli))
    if any(one.filename.endswith(".sql") for one in found.migrations):
        psql.require(settings.path)

    def warn(text: str) -> None:
        session.log.warning("migration.odd", reason=text)

    for text in found.warnings:
        warn(text)
    return Steps(of_session, found.migrations, session.teller, warn)


def _whole(program: Program) -> Whole:
    async def made(_held: Held) -> Program:
        return program

    return Whole(program.what, made)


def _has_scripts(migrations: tuple[Migration, ...]) -> bool:
    return any(one.filename.endswith(".sh") for one in migrations)


def _is_for_cli(settings: Settings) -> bool:
    """It reads one directory, of this name, and of an environment's own it knows nothing."""
    return len(settings.directories) == 1 and settings.directories[0].absolute().parts[-2:] == _CLI_DIRECTORY


def _find_cli(of_session: Settings, settings: ProgramSettings) -> str | None:
    if not _is_for_cli(of_session):
        return None
    return shutil.which(_CLI, path=f"{settings.path}:node_modules/.bin")


async def _push(held: Held, cli: str) -> Program:
    """`supabase db push`, in the words of its version."""
    settings, dsn = held.settings, held.session.settings.require_url()
    variables = {**settings.libpq, "SUPABASE_TELEMETRY_DISABLED": "1"}
    if settings.memory_bytes is not None and settings.memory_bytes < supabase.NEEDS_BYTES:
        mib = 1024 * 1024
        held.session.log.warning(
            "runner.short_of_memory",
            reason=f"the Supabase CLI and we need about {supabase.NEEDS_BYTES // mib} MiB, and may use "
            f"{settings.memory_bytes // mib}: raise MIGRATION_MAX_MEMORY_MB, or give the container more than "
            "twice as much",
        )
    ask = Program(what="supabase --version", argv=[cli, "--version"], variables=variables, quiet=True)
    ended = await held.run(ask)
    if not ended.succeeded:
        raise outcome.failure(ask.what, ended, settings.retry_exits)
    major = supabase.major_of(ended.tail)
    if major is None:
        raise ConfigError(
            f"cannot tell the version of {cli}: it says {shorten.middle(ended.tail, _SHOWN_CHARS)!r}; "
            "put the Supabase CLI into PATH, or run what is there by MIGRATION_COMMAND"
        )
    # Beside the migrations: .../supabase/migrations.
    workdir = of_workdir(held.session.settings)
    argv = supabase.push(cli, major, environment.without_password(dsn), workdir)
    return Program(what="supabase db push", argv=argv, variables=variables)


def of_workdir(settings: Settings) -> str:
    """The directory that holds `supabase/`."""
    return str(settings.directories[0].absolute().parent.parent)
