"""The one place that waits for processes: every exit goes to whoever asked for that pid."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

from entrypoint import system


class Reaper:
    """Waits for every child, ours and adopted, when SIGCHLD says so.

    waitpid(-1) takes everybody's exit codes, so nothing else in this process may wait, asyncio's
    subprocesses included (15 of 20 exit codes lost on Python 3.11).
    """

    def __init__(self, on_orphan: Callable[[int, int], None]) -> None:
        """Call `on_orphan(pid, status)` for each process that nobody watches."""
        self._watched: dict[int, asyncio.Future[int]] = {}
        self._on_orphan = on_orphan
        self._anyone = asyncio.Event()

    def install(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start listening. Orphans come to us also where we aren't PID 1 (Linux)."""
        loop.add_signal_handler(signal.SIGCHLD, self.reap)
        tolerate_full_wakeup_pipe()
        if os.getpid() != 1:
            system.become_subreaper()

    def watch(self, pid: int) -> asyncio.Future[int]:
        """A future of that child's wait status. Call it before the next await after the spawn."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._watched[pid] = future
        return future

    def reap(self) -> None:
        """Collect every process that has ended. SIGCHLD coalesces, so until there is none left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            future = self._watched.pop(pid, None)
            if future is None:
                self._on_orphan(pid, status)
            elif not future.done():
                future.set_result(status)
            self._anyone.set()

    async def next_exit(self, at_most_s: float) -> None:
        """Wait until any process has been reaped, or for so long."""
        self._anyone.clear()
        try:
            async with asyncio.timeout(at_most_s):
                await self._anyone.wait()
        except TimeoutError:
            pass


def tolerate_full_wakeup_pipe() -> None:
    """Let a burst of a few hundred exits pass without a word from the interpreter.

    It tells the loop of each SIGCHLD by a byte. Where so many wait that no more fit, one of them will do,
    but CPython writes a traceback about every further one, unless told otherwise; asyncio doesn't.
    """
    try:
        signal.set_wakeup_fd(signal.set_wakeup_fd(-1), warn_on_full_buffer=False)
    except ValueError:  # not in the main thread
        pass
