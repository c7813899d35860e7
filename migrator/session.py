"""One run of a command: its signals, its connection, its errors as messages and exit codes."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import secrets
import signal
import time
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from migrator import output, variables
from migrator.dsn import Dsn
from migrator.errors import NOT_KNOWN, Crowded, MigratorError, Redactor, Unavailable
from migrator.log import Log
from migrator.report import MigrationPhase, Report, encode
from migrator.settings import Settings
from migrator.store import Store
from migrator.teller import Teller
from migrator.transport import Transport

if TYPE_CHECKING:
    from migrator.ledger import Ledger

_FIRST_KNOCK_S = 0.1
_LAST_KNOCK_S = 1.0
INTERRUPTED = 128


class Session:
    """One command, from settings to exit code."""

    def __init__(self, settings: Settings, log: Log, redact: Redactor, *, migrates: bool) -> None:
        """Run with `settings`; what is said to people goes through `redact`.

        `migrates`: what ends in an error is a migration, to whoever watches the log, and not a mere look.
        """
        self.settings = settings
        self.log = log
        self.redact = redact
        self._migrates = migrates
        # Random, so that two containers with one name and pid are told apart.
        self.holder = f"{os.uname().nodename}/{os.getpid()}/{secrets.token_hex(3)}"
        self.teller = Teller(reporter(settings.report_fd, redact))
        self._signal = 0
        # An answer of the server was too long; asyncpg knows only that the connection is gone.
        self._out_of_memory = False
        # Only the way that is taken is loaded, and here, where `__main__` tells if there is no memory for it.
        if settings.rest is None:
            from migrator import direct

            self._is_loss: Callable[[object], bool] = direct.is_loss
        else:
            from migrator import rest

            self._is_loss = rest.is_loss

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

    def database(self) -> AbstractAsyncContextManager[None]:
        """The database runs: by itself, or as long as the body does."""
        if not self.settings.embedded:
            return nullcontext()
        from migrator import embedded  # late: 4 ms to load

        return embedded.running(self.settings)

    def ledger(self) -> AbstractAsyncContextManager[Ledger]:
        """The history, ours alone as long as the body runs; see `ledger.opened`."""
        from migrator import ledger  # late: few commands change it

        return ledger.opened(
            self.open_store, holder=self.holder, ttl_s=self.settings.lease_ttl_s, log=self.log
        )

    @asynccontextmanager
    async def open_store(self, *, advise: bool = True) -> AsyncIterator[Store]:
        """A store over a new connection; `advise`: if there is none, the error names what waits for one."""
        if self._out_of_memory:  # the one before ended for that, and none of what a new one needs would fit
            raise MemoryError
        async with AsyncExitStack() as stack:
            # Where a supervisor has started us, it tries again itself.
            advise = advise and self.settings.report_fd is None
            yield Store(await self._knock(stack, advise=advise), self.settings.schema)

    def _connect(self) -> AbstractAsyncContextManager[Transport]:
        """By the way that the settings ask for, whose module is loaded."""
        place = self.settings.require_database()
        if isinstance(place, Dsn):
            from migrator import direct

            return direct.connect(place, f"migrator/{self.holder}")
        from migrator import rest

        return rest.connect(place)

    async def _knock(self, stack: AsyncExitStack, *, advise: bool) -> Transport:
        """Connect; again for a while, where somebody waits with us."""
        give_up_s = time.monotonic() + self.settings.connect_wait_s
        pause_s = _FIRST_KNOCK_S
        # The private Postgres was started with us: the supervisor tells when it can't run.
        told = not self._migrates or self.settings.embedded
        while True:
            try:
                return await stack.enter_async_context(self._connect())
            except Unavailable as error:
                if isinstance(error, Crowded):
                    pause_s = _LAST_KNOCK_S
                if time.monotonic() + pause_s > give_up_s:
                    if not advise:
                        raise
                    raise type(error)(f"{error}; `migrator wait` waits for it") from error
                if not told:
                    self.log.warning("database.awaited", reason=str(error))
                    told = True
                if self.teller.report.phase is MigrationPhase.CONNECTING:
                    self.teller(MigrationPhase.CONNECTING, reason=str(error))
            # Never all at once: those who were refused for want of a place would take the app's, too.
            await asyncio.sleep(random.uniform(pause_s / 2, pause_s))  # noqa: S311 - no secret
            pause_s = min(pause_s * 2, _LAST_KNOCK_S)

    def _on_loop_error(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What asyncio would print as text, with a traceback."""
        error = context.get("exception")
        if isinstance(error, MemoryError):
            self._out_of_memory = True
            return
        if self._is_loss(error):  # whoever waits for the connection tells it
            return
        self.log.error("loop.failed", reason=f"{context.get('message')}: {error!r}")

    def _interrupt(self, number: int, task: asyncio.Task[int]) -> None:
        if not self._signal:
            self._signal = number
            task.cancel()

    def _watch_supervisor(self, task: asyncio.Task[int]) -> None:
        """Stop when nobody reads our reports any more: the supervisor was killed, the container with it."""
        fd = self.settings.report_fd
        if fd is None:
            return

        def closed() -> None:
            asyncio.get_running_loop().remove_reader(fd)
            self._interrupt(signal.SIGTERM, task)

        # The write end of a pipe is never readable; it wakes only for the error of having no reader.
        asyncio.get_running_loop().add_reader(fd, closed)

    def _say_aborted(self) -> int:
        name = signal.Signals(self._signal).name if self._signal else "cancelled"
        if self.teller.report.phase is not MigrationPhase.ABORTED:
            self.teller(MigrationPhase.ABORTED, error=f"stopped by {name}: nothing was being applied")
        self.log.warning("migration.aborted", reason=self.teller.report.error)
        return INTERRUPTED + self._signal

    def _fail_without_memory(self) -> int:
        known = f"\n{NOT_KNOWN}" if self._out_of_memory else ""
        return self._fail(_out_of_memory(self.teller.report.current) + known, 1)

    def _fail(self, message: str, code: int) -> int:
        message = self.redact(message)
        self.teller(MigrationPhase.FAILED, error=message, current=self.teller.report.current)
        if self._migrates:
            self.log.error("migration.failed", reason=message, exit_code=code)
        else:
            self.log.error("command.failed", reason=message, exit_code=code)
        return code

    def answer(self, text: str) -> None:
        """What a command was asked for, without any secret that a file may hold."""
        output.write(self.redact(text))

    def say(self, text: str) -> None:
        """For the person who runs us by hand; under a supervisor stdout belongs to the app."""
        if self.settings.report_fd is not None:
            return
        try:
            print(self.redact(text), flush=True)
        except OSError:  # the log and the exit code tell it as well
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def reporter(fd: int | None, redact: Redactor) -> Callable[[Report], None]:
    """A function that sends a snapshot to the supervisor at the other end of `fd`; None: there is none."""

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


def _out_of_memory(current: str | None) -> str:
    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    where = f" while applying {current}" if current else ""
    # A supervisor gives us no more than half of what the container has.
    return (
        f"out of memory at {limit // variables.MIB} MiB{where}; raise MIGRATION_MAX_MEMORY_MB, or give the "
        "container more than twice as much memory"
    )
