"""A job that is a team's own runner in Python; see `plugin` for what that is."""

from __future__ import annotations

import asyncio
import inspect
import traceback
from collections.abc import Sequence
from importlib import metadata

from migrator.errors import ConfigError, MigrationFailed, MigratorError
from migrator.plan import HistoryRow
from migrator.programs.held import Held
from migrator.programs.plugin import GROUP, Context, Runner
from migrator.programs.process import Program
from migrator.report import MigrationPhase


def find(wanted: str) -> metadata.EntryPoint:
    """The plug-in of that name, or the only one there is.

    Raises:
        ConfigError: There is none, or more than one without a name.
    """
    found = sorted(metadata.entry_points(group=GROUP), key=lambda one: one.name)
    names = ", ".join(one.name for one in found)
    if not found:
        raise ConfigError(
            "cannot use MIGRATION_RUNNER=exec: no installed package has an entry point in the group "
            f"{GROUP}; install yours into the migrator's environment"
        )
    chosen = [one for one in found if one.name == wanted] if wanted else found
    if len(chosen) == 1:
        return chosen[0]
    if wanted:
        raise ConfigError(
            f"cannot use MIGRATION_RUNNER=exec:{wanted}: the plug-ins installed here are {names}"
        )
    raise ConfigError(
        f"cannot use MIGRATION_RUNNER=exec: choose one, as in exec:{chosen[0].name}, of {names}"
    )


def load(point: metadata.EntryPoint) -> Runner:
    """Make the runner.

    Raises:
        ConfigError: It can't be imported, or isn't a runner.
    """
    try:
        runner: Runner = point.load()()
    except Exception as error:
        raise ConfigError(
            f"cannot load the plug-in {point.name} ({point.value}): {type(error).__name__}: {error}"
        ) from error
    if not inspect.iscoroutinefunction(getattr(runner, "run", None)):
        raise ConfigError(
            f"cannot use the plug-in {point.name} ({point.value}): it needs a method "
            "`async def run(self, context)`"
        )
    return runner


class Extension:
    """Runs a plug-in."""

    def __init__(self, name: str, runner: Runner) -> None:
        """`name` it to people."""
        self.name = name
        self._runner = runner

    def is_settled(self, _history: list[HistoryRow] | None) -> bool:
        """Never: only the plug-in can tell."""
        return False

    async def run(self, held: Held) -> int | None:
        """Run it; how many were applied isn't known.

        Raises:
            MigratorError: It failed.
        """
        session, settings = held.session, held.settings
        log, redact = session.log, settings.redact

        async def execute(argv: Sequence[str]) -> int | None:
            program = Program(what=redact(argv[0]), argv=argv, variables=settings.variables)
            return (await held.programs.run(program)).code

        def progress(applied: int | None, pending: int | None, current: str | None) -> None:
            session.teller(
                MigrationPhase.APPLYING, applied=applied, pending=pending, current=current or self.name
            )

        context = Context(
            url=settings.url,
            directories=session.settings.directories,
            environment=session.settings.environment,
            variables=settings.variables,
            say=lambda text: log.info("runner.output", stream="plugin", text=redact(text)),
            progress=progress,
            execute=execute,
        )
        progress(None, None, None)
        log.info("runner.started", program=self.name)
        try:
            async with asyncio.timeout(settings.timeout_s), held.kept():
                await self._runner.run(context)
        except asyncio.CancelledError:
            held.tell_stopped(self.name)
            raise
        except (MigratorError, MemoryError):
            raise
        except TimeoutError as error:
            raise MigrationFailed(
                f"cannot migrate with {self.name}: it took too long{_told(error)}"
            ) from error
        # What is written for a command line ends so, and would end us without a word.
        except SystemExit as error:
            raise MigrationFailed(
                f"cannot migrate with {self.name}: it called sys.exit({redact(repr(error.code))}), so that "
                "how far it came isn't known; let it return, or raise an error"
            ) from error
        except Exception as error:
            raise MigrationFailed(
                redact(f"cannot migrate with {self.name}: {type(error).__name__}: {error}{_place(error)}")
            ) from error
        log.info("runner.exited", program=self.name, exit_code=0, left=0)
        report = session.teller.report
        session.teller(MigrationPhase.COMPLETED, applied=report.applied, pending=report.pending)
        return None


def _told(error: TimeoutError) -> str:
    return f": {error}" if str(error) else "; raise MIGRATION_TIMEOUT"


def _place(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
