"""PID 1's end of the overseer: start it, hear from it, stop it."""

from __future__ import annotations

import _signal
import os

from entrypoint import launch, record
from entrypoint.line import Log
from entrypoint.loop import READ, Loop
from entrypoint.modules import module_env, python_module
from entrypoint.record import REPORT_FD, Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Link:
    """The overseer as a process: it sees the migrations through, and the private Postgres."""

    def __init__(self, app: launch.App, loop: Loop, log: Log, on_record: Callable[[Record], None]) -> None:
        """Hand each record to `on_record` as it arrives."""
        self._app = app
        self._loop = loop
        self._log = log
        self._on_record = on_record
        self._fd = -1
        self._buffer = b""
        self._told_of_garbage = False
        self.pid: int | None = None
        # It ran and has ended, or could not be started.
        self.ended = False

    def start(self, skip_reason: str | None = None, log_level: str | None = None) -> str | None:
        """Start it; why it can't be started, if it can't.

        Args:
            skip_reason: Why nothing is to be migrated here, whatever the settings say.
            log_level: Instead of the settings'.
        """
        read_fd, write_fd = os.pipe()
        actions = (
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, write_fd, REPORT_FD),
        )
        env = {
            **os.environb,
            **{os.fsencode(name): os.fsencode(value) for name, value in module_env().items()},
        }
        if log_level is not None:
            env[b"LOG_LEVEL"] = log_level.encode()
        try:
            argv = python_module("entrypoint.oversee", *([skip_reason] if skip_reason else []))
            self.pid = launch.spawn(argv, env, frozenset(), actions)
        except (OSError, ValueError) as error:
            os.close(read_fd)
            self.ended = True
            return str(error)
        finally:
            os.close(write_fd)
        self._app.others.add(self.pid)
        os.set_blocking(read_fd, False)
        self._fd = read_fd
        self._loop.watch(read_fd, READ, lambda _: self._read())
        return None

    def signal(self, number: int) -> None:
        """Ask it: SIGTERM to stop the migrations, SIGINT to end all that it started."""
        if self.pid is not None and not self.ended:
            launch.signal_process(self.pid, number)

    def on_exit(self) -> None:
        """It has been reaped. All that it wrote before is in the pipe now."""
        self.ended = True
        self._app.others.discard(self.pid or 0)
        if self._fd >= 0:
            self._read()
        self._close()

    def kill(self) -> None:
        """End it and whatever it may have left."""
        for leader in self._app.others:
            launch.signal_group(leader, _signal.SIGKILL)

    def _read(self) -> None:
        while self._fd >= 0:
            try:
                chunk = os.read(self._fd, 65536)
            except BlockingIOError:
                return
            if not chunk:
                self._close()
                return
            *lines, self._buffer = (self._buffer + chunk).split(b"\n")
            for line in lines:
                self._take(line)
            if len(self._buffer) > record.MAX_BYTES:
                self._buffer = b""

    def _take(self, line: bytes) -> None:
        try:
            told = record.decode(line)
        except ValueError as error:
            if not self._told_of_garbage:
                self._told_of_garbage = True
                self._log.warning("report.unreadable", reason=str(error))
            return
        own = {self.pid} if self.pid is not None and not self.ended else set()
        self._app.others = own | told.groups
        self._on_record(told)

    def _close(self) -> None:
        if self._fd >= 0:
            self._loop.forget(self._fd)
            os.close(self._fd)
            self._fd = -1
