"""The migrator as a child process: start it, read its reports, watch its memory, stop it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Any

from entrypoint import launch, policy
from entrypoint.modules import module_env, python_module
from entrypoint.policy import Cause, Limits, Outcome
from entrypoint.reaper import Reaper
from entrypoint.record import REPORT_FD
from migrator.log import Log
from migrator.report import MAX_LINE_BYTES, Report, decode

# Seconds between two looks at the memory of the child's tree. Nothing tells us, so we have to look.
MEMORY_INTERVAL_S = 1.0


class Child:
    """A process of ours beside the app, in a group of its own, from spawn to reaped."""

    def __init__(self, argv: list[str], extra_env: dict[str, str], groups: set[int]) -> None:
        """Remember what to start; `groups` learns of it, so that PID 1 could end it."""
        self._argv = argv
        self._extra_env = extra_env
        self._groups = groups
        self.pid = 0

    def start(self, reaper: Reaper, file_actions: tuple[tuple[object, ...], ...] = ()) -> asyncio.Future[int]:
        """Spawn it; a future of its wait status.

        Raises:
            OSError: It can't be started.
        """
        env = dict(os.environb)
        env.update((name.encode(), os.fsencode(value)) for name, value in self._extra_env.items())
        stdin = (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)
        self.pid = launch.spawn(self._argv, env, frozenset(), (stdin, *file_actions))
        self._groups.add(self.pid)
        exited = reaper.watch(self.pid)
        exited.add_done_callback(lambda _: self._groups.discard(self.pid))
        return exited

    async def stop(self, exited: asyncio.Future[int], number: int, grace_s: float) -> None:
        """Ask with a signal, and after the grace kill the whole group. Bounded, whatever it does."""
        try:
            if not exited.done():
                launch.signal_process(self.pid, number)
                await asyncio.wait({exited}, timeout=grace_s)
        finally:  # also where a cancellation cuts the grace short
            launch.signal_group(self.pid, signal.SIGKILL)
        if not exited.done():
            await asyncio.wait({exited}, timeout=grace_s)


class Migrator(Child):
    """One attempt of the migrator."""

    def __init__(self, groups: set[int], on_report: Callable[[Report], None], log: Log) -> None:
        """Hand each report to `on_report` as it arrives."""
        super().__init__(python_module("migrator", "up"), _migrator_env(), groups)
        self._on_report = on_report
        self._log = log
        self._buffer = b""
        self.last: Report | None = None
        self._unreadable = 0

    async def run(self, reaper: Reaper, limits: Limits) -> Outcome:
        """Run it to its end, or to the end of its time or memory."""
        loop = asyncio.get_running_loop()
        read_fd, write_fd = os.pipe()
        try:
            exited = self.start(reaper, ((os.POSIX_SPAWN_DUP2, write_fd, REPORT_FD),))
        except OSError as error:
            os.close(read_fd)
            return Outcome(cause=Cause.NOT_STARTED, code=126, last=None, detail=str(error))
        finally:
            os.close(write_fd)
        self._log.info("migrator.spawned", pid=self.pid)
        os.set_blocking(read_fd, False)
        loop.add_reader(read_fd, self._read, read_fd)
        cause = Cause.STOPPING
        try:
            cause = await self._wait(exited, limits)
        finally:
            if cause is Cause.MEMORY:
                launch.signal_group(self.pid, signal.SIGKILL)
            try:
                await self.stop(exited, signal.SIGTERM, policy.MIGRATOR_GRACE_S)
            finally:
                # All that was written before the exit is in the pipe now. Waiting for its end instead
                # would hang on a grandchild that inherited the descriptor.
                self._read(read_fd)
                loop.remove_reader(read_fd)
                os.close(read_fd)
        code = launch.exit_code(exited.result()) if exited.done() else launch.SIGNAL_BASE
        self._log.info("migrator.exited", pid=self.pid, exit_code=code, cause=cause)
        return Outcome(cause=cause, code=code, last=self.last)

    async def _wait(self, exited: asyncio.Future[int], limits: Limits) -> Cause:
        async with asyncio.TaskGroup() as tasks:
            memory = tasks.create_task(self._exceeds(limits.memory_limit_bytes), name="memory")
            either: set[asyncio.Future[Any]] = {exited, memory}
            try:
                done, _ = await asyncio.wait(
                    either, timeout=limits.timeout_s, return_when=asyncio.FIRST_COMPLETED
                )
            finally:
                memory.cancel()
        if exited in done:
            return Cause.EXITED
        return Cause.MEMORY if memory in done else Cause.DEADLINE

    async def _exceeds(self, limit_bytes: int) -> None:
        """Return when the child and its descendants use more memory than allowed."""
        import psutil  # late: 35 ms that the app's first second needn't share

        try:
            psutil.Process(self.pid).ionice(psutil.IOPRIO_CLASS_IDLE)
        except (psutil.Error, OSError, AttributeError):  # it has ended, or this isn't Linux
            pass
        while True:
            rss_bytes = 0
            try:
                process = psutil.Process(self.pid)
                tree = [process, *process.children(recursive=True)]
                rss_bytes = sum(one.memory_info().rss for one in tree)
            except (psutil.Error, OSError):  # one ended while we looked
                pass
            if rss_bytes > limit_bytes:
                self._log.error("migrator.over_memory", rss_bytes=rss_bytes, limit=limit_bytes)
                return
            await asyncio.sleep(MEMORY_INTERVAL_S)

    def _read(self, fd: int) -> None:
        while True:
            try:
                chunk = os.read(fd, 65536)
            except BlockingIOError:
                return
            if not chunk:
                asyncio.get_running_loop().remove_reader(fd)
                return
            *lines, self._buffer = (self._buffer + chunk).split(b"\n")
            for line in lines:
                self._take(line)
            if len(self._buffer) > MAX_LINE_BYTES:
                self._take(self._buffer)
                self._buffer = b""

    def _take(self, line: bytes) -> None:
        try:
            report = decode(line)
        except (ValueError, RecursionError) as error:
            self._unreadable += 1
            if self._unreadable == 1:  # one line about it, however many follow
                self._log.warning("report.unreadable", reason=str(error))
            return
        self.last = report
        self._on_report(report)


def _migrator_env() -> dict[str, str]:
    # One thread for DNS and one malloc arena: 25 instead of 49 MiB of data (reference/ecosystem.md).
    lean = {"UV_THREADPOOL_SIZE": "1", "MALLOC_ARENA_MAX": "1"}
    return {**lean, **module_env(), "MIGRATOR_REPORT_FD": str(REPORT_FD)}
