"""The command line of the migrator."""

from __future__ import annotations

import importlib
import os

from migrator import log as logs
from migrator import secret_file
from migrator.errors import ConfigError, Redactor
from migrator.report import MigrationPhase, Report
from migrator.session import Session, reporter
from migrator.settings import Settings

# Whoever is woken when migrations fail wants to know of these.
_MIGRATING = frozenset({"up", "down"})


def main(arguments: list[str]) -> int:
    """Run the command line; the exit code."""
    name, given = "up", None
    if arguments not in (["up"], ["--run"]):
        from migrator import options  # late: argparse takes 3 ms

        given = options.parse(arguments)
        if given is None:
            return 2
        name = given.command or "up"
    try:
        settings = Settings.from_env(os.environ, secret_file.read, os.path.isdir)
    except ConfigError as error:
        return _refuse_settings(error)
    redact = Redactor(settings.secrets)
    log = logs.configure(
        component="migration-runner",
        level=settings.log_level,
        mask=redact,
        **logs.destination(os.environ, log_format=settings.log_format, output=settings.log_output),
    )
    if settings.report_fd is None:  # else the supervisor says it
        _warn(settings, log)
    if settings.database and settings.database.ignored:
        log.warning(
            "settings.ignored",
            reason="parameters of the database URL that mean nothing here: "
            + ", ".join(settings.database.ignored),
        )
    session = Session(settings, log, redact, migrates=name in _MIGRATING)
    command = importlib.import_module(f"migrator.commands.{name}")
    return session.run(lambda: command.run(session, given))


def _warn(settings: Settings, log: logs.Log) -> None:
    """What is wrong about the environment, but no reason to stop."""
    from migrator.misspelt import misspelt  # late: the supervisor's child does without

    for reason in (*settings.complaints, *misspelt(os.environ)):
        log.warning("settings.ignored", reason=reason)


def _refuse_settings(error: ConfigError) -> int:
    """Settings can't be trusted yet, so the log's can't either: the defaults say what is wrong."""
    log = logs.configure(
        component="migration-runner",
        level="info",
        mask=Redactor(()),
        **logs.destination(os.environ, log_format=None, output=None),
    )
    fd = os.environ.get("MIGRATOR_REPORT_FD", "")
    tell = reporter(int(fd) if fd.isdecimal() else None, Redactor(()))
    tell(Report(phase=MigrationPhase.FAILED, error=str(error)))
    log.error("settings.refused", reason=str(error), exit_code=error.exit_code)
    return error.exit_code
