"""The command line of the migrator."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import secrets
import signal
import sys
import time
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import replace
from typing import Any

from migrator import direct, secret_file, variables
from migrator import log as logs
from migrator import migration as files
from migrator.direct import DirectTransport
from migrator.errors import NOT_KNOWN, ConfigError, Crowded, MigratorError, Redactor, Unavailable
from migrator.log import Log
from migrator.migrate import Engine, Teller, meaning_of
from migrator.plan import HistoryRow, is_changed
from migrator.report import MigrationPhase, Report, encode, timestamp
from migrator.settings import Settings
from migrator.store import Store
from migrator.version import Version

_FIRST_KNOCK_S = 0.1
_LAST_KNOCK_S = 1.0
INTERRUPTED = 128

_EPILOG = """\
exit codes: 0 done, 1 a migration failed, 2 usage, 65 files don't fit the history,
            69 database unreachable, 75 lock busy or lost, 78 configuration
example:    DATABASE_URL=postgresql://user:password@host/database migrator up"""


def main(arguments: list[str]) -> int:
    """Run the command line; the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.run and options.command not in (None, "up"):
        parser.error(f"--run means up, not {options.command}")
    if options.command is None and not options.run:
        parser.print_help(sys.stderr)
        return 2
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
    if settings.complaints and settings.report_fd is None:  # else the supervisor says it
        log.warning("settings.ignored", reason="; ".join(settings.complaints))
    if settings.ignored_runner:
        log.warning(
            "settings.ignored",
            reason="USE_NODE_MIGRATIONS=false asks for the shell runner, which this version doesn't have; "
            "the SQL files are applied directly",
        )
    if settings.database and settings.database.ignored:
        log.warning(
            "settings.ignored",
            reason="parameters of the database URL that mean nothing here: "
            + ", ".join(settings.database.ignored),
        )
    session = _Session(settings, log, redact)
    if options.command == "status":
        return session.run(lambda: session.status(as_json=options.json))
    return session.run(session.up)


class _Session:
    """One command, from settings to exit code."""

    def __init__(self, settings: Settings, log: Log, redact: Redactor) -> None:
        self._settings = settings
        self._log = log
        self._redact = redact
        # Random, so that two containers with one name and pid are told apart.
        self._holder = f"{os.uname().nodename}/{os.getpid()}/{secrets.token_hex(3)}"
        self._teller = Teller(_reporter(settings.report_fd, redact))
        self._signal = 0
        # An answer of the server was too long; asyncpg knows only that the connection is gone.
        self._out_of_memory = False

    def run(self, command: Callable[[], Any]) -> int:
        """Run a coroutine function on uvloop; errors become messages and exit codes."""
        import uvloop

        async def interruptible() -> int:
            task = asyncio.current_task()
            assert task is not None
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._interrupt, number, task)
            self._watch_supervisor(task)
            loop.set_exception_handler(self._on_loop_error)
            return int(await command())

        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                return runner.run(interruptible())
        except asyncio.CancelledError:
            return self._say_aborted()
        except MigratorError as error:
            if self._out_of_memory and isinstance(error, Unavailable):
                return self._fail_without_memory()
            return self._fail(str(error), error.exit_code)
        except MemoryError:
            return self._fail_without_memory()
        except Exception as error:  # noqa: BLE001 - a bug of ours: one line, and no secret in it
            place = traceback.extract_tb(error.__traceback__)[-1]
            return self._fail(f"internal error: {error!r} at {place.filename}:{place.lineno}", 1)

    async def up(self) -> int:
        if not self._settings.directories:
            reason = "there is no migrations directory (looked for supabase/migrations, migrations)"
            self._teller(MigrationPhase.SKIPPED, reason=reason)
            self._say(f"nothing to do: {reason}")
            return 0
        self._settings.require_database()
        # A hundred replicas that start together would take every connection that the app has left.
        await asyncio.sleep(random.uniform(0, self._settings.start_spread_s))  # noqa: S311 - no secret
        async with _database(self._settings):
            engine = Engine(
                settings=self._settings,
                open_store=self._open_store,
                holder=self._holder,
                tell=self._teller,
                log=self._log,
            )
            done = await engine.up()
        total = self._teller.report.applied
        self._log.info("migration.completed", applied=total, new=done, duration_ms=self._teller.elapsed_ms)
        self._say(f"{done} applied, {total} in all, nothing pending")
        return 0

    async def status(self, *, as_json: bool) -> int:
        found = files.load(
            self._settings.directories, self._settings.environment, chosen=self._settings.chosen
        )
        dsn = self._settings.require_database()
        async with _database(self._settings), self._open_store() as store:
            history = await store.history()
            holder = None if history is None else await store.holder()
        rows = _status_rows(found.migrations, history or [])
        pending = sum(row["state"] in ("pending", "half done") for row in rows)
        if as_json:
            document = {
                "database": str(dsn),
                "pending": pending,
                "holder": holder.name if holder else None,
                "migrations": rows,
            }
            _print(json.dumps(document, indent=2))
            return 0
        for row in rows:
            _print(f"{row['state']:9} {row['executedAt'] or '':24} {row['filename']}")
        _print(f"{len(rows)} migrations, {pending} pending, on {dsn}")
        if holder:
            _print(f"{holder.name} has been migrating for {holder.held_s:.0f} s")
        return 0

    @asynccontextmanager
    async def _open_store(self) -> AsyncIterator[Store]:
        """A store over a new connection."""
        if self._out_of_memory:  # the one before ended for that, and none of what a new one needs would fit
            raise MemoryError
        async with AsyncExitStack() as stack:
            yield Store(await self._knock(stack), self._settings.schema)

    async def _knock(self, stack: AsyncExitStack) -> DirectTransport:
        """Connect; again for a while, where somebody waits with us."""
        dsn = self._settings.require_database()
        give_up_s = time.monotonic() + self._settings.connect_wait_s
        pause_s = _FIRST_KNOCK_S
        while True:
            try:
                return await stack.enter_async_context(direct.connect(dsn, f"migrator/{self._holder}"))
            except Unavailable as error:
                if isinstance(error, Crowded):
                    pause_s = _LAST_KNOCK_S
                if time.monotonic() + pause_s > give_up_s:
                    raise
                if self._teller.report.phase is MigrationPhase.CONNECTING:
                    self._teller(MigrationPhase.CONNECTING, reason=str(error))
            # Never all at once: those who were refused for want of a place would take the app's, too.
            await asyncio.sleep(random.uniform(pause_s / 2, pause_s))  # noqa: S311 - no secret
            pause_s = min(pause_s * 2, _LAST_KNOCK_S)

    def _on_loop_error(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What asyncio would print as text, with a traceback."""
        error = context.get("exception")
        if isinstance(error, MemoryError):
            self._out_of_memory = True
            return
        if direct.is_loss(error):  # whoever waits for the connection tells it
            return
        self._log.error("loop.failed", reason=f"{context.get('message')}: {error!r}")

    def _interrupt(self, number: int, task: asyncio.Task[int]) -> None:
        if not self._signal:
            self._signal = number
            task.cancel()

    def _watch_supervisor(self, task: asyncio.Task[int]) -> None:
        """Stop when nobody reads our reports any more: the supervisor was killed, the container with it."""
        fd = self._settings.report_fd
        if fd is None:
            return

        def closed() -> None:
            asyncio.get_running_loop().remove_reader(fd)
            self._interrupt(signal.SIGTERM, task)

        # The write end of a pipe is never readable; it wakes only for the error of having no reader.
        asyncio.get_running_loop().add_reader(fd, closed)

    def _say_aborted(self) -> int:
        name = signal.Signals(self._signal).name if self._signal else "cancelled"
        if self._teller.report.phase is not MigrationPhase.ABORTED:
            self._teller(MigrationPhase.ABORTED, error=f"stopped by {name}: nothing was being applied")
        self._log.warning("migration.aborted", reason=self._teller.report.error)
        return INTERRUPTED + self._signal

    def _fail_without_memory(self) -> int:
        known = f"\n{NOT_KNOWN}" if self._out_of_memory else ""
        return self._fail(_out_of_memory(self._teller.report.current) + known, 1)

    def _fail(self, message: str, code: int) -> int:
        message = self._redact(message)
        self._teller(MigrationPhase.FAILED, error=message, current=self._teller.report.current)
        self._log.error("migration.failed", reason=message, exit_code=code)
        return code

    def _say(self, text: str) -> None:
        """For the person who runs us by hand; under a supervisor stdout belongs to the app."""
        if self._settings.report_fd is not None:
            return
        try:
            print(self._redact(text), flush=True)
        except OSError:  # the log and the exit code tell it as well
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="migrator",
        description="Bring a Postgres database up to date from SQL files.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=Version, nargs=0, help="which version this is")
    parser.add_argument("--run", action="store_true", help="the same as the command up")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("up", help="apply what is pending")
    status = commands.add_parser("status", help="which migrations are applied and which are pending")
    status.add_argument("--json", action="store_true", help="for machines")
    return parser


def _out_of_memory(current: str | None) -> str:
    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    where = f" while applying {current}" if current else ""
    # A supervisor gives us no more than half of what the container has.
    return (
        f"out of memory at {limit // variables.MIB} MiB{where}; raise MIGRATION_MAX_MEMORY_MB, or give the "
        "container more than twice as much memory"
    )


def _print(text: str) -> None:
    """To standard output, if anybody still reads it; `__main__` tells if it is lost."""
    try:
        print(text)
    except OSError:
        pass


def _database(settings: Settings) -> AbstractAsyncContextManager[None]:
    """The database runs: by itself, or as long as the body does."""
    if not settings.embedded:
        return nullcontext()
    from migrator import embedded  # late: 4 ms to load

    return embedded.running(settings)


def _refuse_settings(error: ConfigError) -> int:
    """Settings can't be trusted yet, so the log's can't either: the defaults say what is wrong."""
    log = logs.configure(
        component="migration-runner",
        level="info",
        mask=Redactor(()),
        **logs.destination(os.environ, log_format=None, output=None),
    )
    fd = os.environ.get("MIGRATOR_REPORT_FD", "")
    tell = _reporter(int(fd) if fd.isdecimal() else None, Redactor(()))
    tell(Report(phase=MigrationPhase.FAILED, error=str(error)))
    log.error("settings.refused", reason=str(error), exit_code=error.exit_code)
    return error.exit_code


def _reporter(fd: int | None, redact: Redactor) -> Callable[[Report], None]:
    def tell(report: Report) -> None:
        if fd is None:
            return
        shown = replace(
            report,
            error=report.error and redact(report.error),
            reason=report.reason and redact(report.reason),
        )
        try:
            os.write(fd, encode(shown))
        except OSError:  # nobody reads any more; `_watch_supervisor` deals with it
            pass

    return tell


def _status_rows(migrations: tuple[files.Migration, ...], history: list[HistoryRow]) -> list[dict[str, Any]]:
    rows = {row.version: row for row in history}
    listed = []
    for migration in migrations:
        row = rows.pop(migration.version, None)
        state = "pending"
        if row is not None:
            state = "applied" if row.finished else "half done"
            if row.finished and is_changed(migration, row, meaning_of):
                state = "changed"
        listed.append(_status_row(migration.version, migration.filename, state, row))
    listed += [_status_row(row.version, row.filename, "missing", row) for row in rows.values()]
    return sorted(listed, key=lambda row: (str(row["version"]), str(row["filename"])))


def _status_row(version: str, filename: str, state: str, row: HistoryRow | None) -> dict[str, Any]:
    executed_at = timestamp(row.executed_at) if row else None
    return {"version": version, "filename": filename, "state": state, "executedAt": executed_at}
