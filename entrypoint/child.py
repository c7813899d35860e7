"""The migrator as a child process: start it, read what it says, watch what it uses, stop all of it."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import time
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from entrypoint import cgroup, launch, policy
from entrypoint import relay as relay_module
from entrypoint.cgroup import Cgroup, Hierarchies
from entrypoint.modules import module_env, python_module
from entrypoint.pipe import LineReader
from entrypoint.policy import Cause, Limits, Outcome
from entrypoint.reaper import Reaper, tolerate_full_wakeup_pipe
from entrypoint.record import REPORT_FD
from entrypoint.relay import Relay
from entrypoint.tree import Tree
from migrator import log as logs
from migrator.log import Log
from migrator.report import MAX_LINE_BYTES, Report, decode

# By this name in their environment we know the migrator's processes, wherever they went.
MARK = "MIGRATOR_MARK"
# Seconds between two looks at the child's tree. Nothing tells us, so we have to look; a fork bomb
# doubles every few milliseconds.
LOOK_INTERVAL_S = 0.1
MAX_REPORTS_AT_ONCE = 1000
# Seconds that the killed get to die where we were told to end at once.
CUT_SHORT_S = 0.05


class Child:
    """A process of ours beside the app, in a group of its own, from spawn to reaped."""

    def __init__(self, argv: list[str], extra_env: dict[str, str], groups: set[int]) -> None:
        """Remember what to start; while it lives, it is in `groups`, so that PID 1 could end it."""
        self._argv = argv
        self._extra_env = extra_env
        self._groups = groups
        self.pid = 0

    def start(
        self,
        reaper: Reaper,
        file_actions: tuple[tuple[object, ...], ...] = (),
        blocked: frozenset[int] = frozenset(),
    ) -> asyncio.Future[int]:
        """Spawn it, with the signals `blocked` that it will unblock itself; a future of its wait status.

        Raises:
            OSError: It can't be started.
        """
        env = dict(os.environb)
        env.update((name.encode(), os.fsencode(value)) for name, value in self._extra_env.items())
        stdin = (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)
        self.pid = launch.spawn(self._argv, env, blocked, (stdin, *file_actions))
        self._groups.add(self.pid)
        exited = reaper.watch(self.pid)
        exited.add_done_callback(lambda _: self._groups.discard(self.pid))
        return exited

    async def stop(self, exited: asyncio.Future[int], number: int, grace_s: float) -> None:
        """Ask with a signal, and after the grace kill the whole group. Bounded, whatever it does."""
        try:
            if not exited.done():
                launch.signal_process(self.pid, number)
                launch.signal_process(self.pid, signal.SIGCONT)  # stopped, it couldn't obey
                await asyncio.wait({exited}, timeout=grace_s)
        finally:  # also where a cancellation cuts the grace short
            self._kill()
        if not exited.done():
            await asyncio.wait({exited}, timeout=grace_s)

    def _kill(self) -> None:
        """SIGKILL to all of it."""
        launch.signal_group(self.pid, signal.SIGKILL)


class Migrator(Child):
    """One attempt of the migrator."""

    def __init__(self, groups: set[int], on_report: Callable[[Report], None], log: Log) -> None:
        """Hand each report to `on_report` as it arrives."""
        super().__init__(python_module("migrator", "up"), {}, groups)
        self._on_report = on_report
        self._log = log
        self._mark = secrets.token_hex(8)
        self._tree: Tree | None = None
        self._cgroup: Cgroup | None = None
        self.last: Report | None = None
        self._unreadable = 0

    async def run(self, reaper: Reaper, limits: Limits) -> Outcome:
        """Run it to its end, or to the end of its time, memory or processes."""
        hierarchies = Hierarchies.read()
        container_bytes = cgroup.memory_limit_bytes(hierarchies)
        memory_bytes = policy.memory_limit_bytes(limits.memory_limit_bytes, container_bytes)
        for_eyes, looks = _looks()
        self._extra_env = {**_migrator_env(self._mark, memory_bytes), **looks, **self._extra_env}
        relay = Relay(self._log, for_eyes=for_eyes)
        readers: list[LineReader] = []
        try:
            exited = self._start_with_pipes(reaper, relay, readers)
        except OSError as error:
            self._close(readers, relay)
            return Outcome(cause=Cause.NOT_STARTED, code=126, last=None, detail=str(error))
        self._log.info("migrator.spawned", pid=self.pid)
        cause = Cause.STOPPING
        kills_before = cgroup.oom_kills(hierarchies)
        before_end: Report | None = None
        try:
            self._confine(exited, hierarchies, memory_bytes)
            cause = await self._wait(exited, limits.timeout_s, memory_bytes)
            before_end = self.last if cause is not Cause.EXITED else None
        finally:
            if cause in (Cause.MEMORY, Cause.PROCESSES):
                self._kill()
            try:
                await self.stop(exited, signal.SIGTERM, policy.MIGRATOR_GRACE_S)
                oom_kills = await self._remove_cgroup()
            finally:
                self._close(readers, relay)
                if self._cgroup is not None and not self._cgroup.remove():
                    # Cancelled twice: no time to await, and nobody is held up by so short a wait.
                    time.sleep(CUT_SHORT_S)  # noqa: ASYNC251
                    self._cgroup.remove()
        code = launch.exit_code(exited.result()) if exited.done() else launch.SIGNAL_BASE
        if cause is Cause.EXITED and oom_kills and code:
            cause = Cause.MEMORY
        self._log.info("migrator.exited", pid=self.pid, exit_code=code, cause=cause)
        # Of our own group, and not the migrator's: that one has a limit of its own. Whoever was killed, the
        # migrator or a program that it ran (or the app's): what failed may have failed by that.
        starved = code != 0 and cgroup.oom_kills(hierarchies) > kills_before
        outcome = Outcome(cause=cause, code=code, last=self.last, starved=starved, before_end=before_end)
        if container_bytes is None or memory_bytes == limits.memory_limit_bytes:
            return outcome
        return replace(
            outcome, memory_limit_bytes=memory_bytes, detail=f"{container_bytes // (1024 * 1024)} MiB"
        )

    def _start_with_pipes(
        self, reaper: Reaper, relay: Relay, readers: list[LineReader]
    ) -> asyncio.Future[int]:
        actions: list[tuple[object, ...]] = []
        write_fds: list[int] = []
        try:
            for fd, on_lines, max_line_bytes in (
                (1, relay.to(1), relay_module.MAX_LINE_BYTES),
                (2, relay.to(2), relay_module.MAX_LINE_BYTES),
                # Last: an end of the other pipes may have its number.
                (REPORT_FD, self._take, MAX_LINE_BYTES),
            ):
                read_fd, write_fd = os.pipe()
                write_fds.append(write_fd)
                readers.append(LineReader(read_fd, on_lines, max_line_bytes))
                actions.append((os.POSIX_SPAWN_DUP2, write_fd, fd))
            return self.start(reaper, tuple(actions))
        finally:
            for write_fd in write_fds:
                os.close(write_fd)

    def _confine(self, exited: asyncio.Future[int], hierarchies: Hierarchies, memory_bytes: int) -> None:
        """Everything that keeps it from hurting others, and that it can't do by itself."""
        tree = self._tree = Tree(self.pid, f"{MARK}={self._mark}")
        exited.add_done_callback(lambda _: setattr(tree, "root_reaped", True))
        self._cgroup = Cgroup.make(
            hierarchies,
            f"migrator-{self._mark}",
            memory_bytes=memory_bytes,
            max_tasks=policy.MAX_TASKS,
            log=self._log,
        )
        if self._cgroup is not None:
            self._cgroup.add(self.pid)
            for process in tree.look():  # born while it was on its way
                self._cgroup.add(process.pid)

    def _kill(self) -> None:
        """The child, its group, and whoever left the group: nobody of them is to survive the attempt."""
        tolerate_full_wakeup_pipe()
        if self._tree is not None:
            self._tree.kill(self._cgroup.pids() if self._cgroup is not None else ())
        if self._cgroup is not None:
            self._cgroup.kill()
        super()._kill()

    async def _remove_cgroup(self) -> int:
        """Remove it; how often the kernel had killed in it for want of memory."""
        if self._cgroup is None:
            return 0
        oom_kills = self._cgroup.oom_kills()
        for _ in range(100):
            if self._cgroup.remove():
                break
            await asyncio.sleep(0.01)  # the killed take a moment to die, and nothing tells when
        return oom_kills

    async def _wait(self, exited: asyncio.Future[int], timeout_s: float, memory_bytes: int) -> Cause:
        async with asyncio.TaskGroup() as tasks:
            watch = tasks.create_task(self._exceeded(memory_bytes), name="limits")
            either: set[asyncio.Future[Any]] = {exited, watch}
            try:
                done, _ = await asyncio.wait(either, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            finally:
                watch.cancel()
        if exited in done:
            return Cause.EXITED
        return watch.result() if watch in done else Cause.DEADLINE

    async def _exceeded(self, memory_bytes: int) -> Cause:
        """Return when the child and its descendants use more than allowed: of what."""
        assert self._tree is not None
        _idle_io(self.pid)
        page_bytes = os.sysconf("SC_PAGE_SIZE")
        loop = asyncio.get_running_loop()
        while True:
            began_s = loop.time()
            tree = self._tree.look()
            if len(tree) > policy.MAX_PROCESSES:
                self._log.error("migrator.over_processes", count=len(tree), limit=policy.MAX_PROCESSES)
                return Cause.PROCESSES
            rss_bytes = sum(one.rss_pages for one in tree) * page_bytes
            if rss_bytes > memory_bytes:
                self._log.error("migrator.over_memory", rss_bytes=rss_bytes, limit=memory_bytes)
                return Cause.MEMORY
            # On a machine with thousands of processes a look takes long, and may not take all our time.
            await asyncio.sleep(max(LOOK_INTERVAL_S, 50 * (loop.time() - began_s)))

    def _close(self, readers: list[LineReader], relay: Relay) -> None:
        for reader in readers:
            reader.close()
        relay.close()

    def _take(self, lines: list[bytes]) -> None:
        # Each is a whole snapshot, so that from a flood the last ones will do.
        for line in lines[-MAX_REPORTS_AT_ONCE:]:
            try:
                report = decode(line)
            except (ValueError, RecursionError) as error:
                self._unreadable += 1
                if self._unreadable == 1:  # one line about it, however many follow
                    self._log.warning("report.unreadable", reason=str(error))
                continue
            self.last = report
            self._on_report(report)


def _migrator_env(mark: str, memory_limit_bytes: int) -> dict[str, str]:
    # One thread for DNS and one malloc arena: 25 instead of 49 MiB of data (reference/ecosystem.md).
    lean = {"UV_THREADPOOL_SIZE": "1", "MALLOC_ARENA_MAX": "1"}
    return {
        **lean,
        **module_env(),
        MARK: mark,
        "MIGRATOR_REPORT_FD": str(REPORT_FD),
        "MIGRATOR_PARENT_PID": str(os.getpid()),
        "MIGRATOR_MEMORY_LIMIT": str(memory_limit_bytes),
        "MIGRATOR_NICE_ALREADY": str(_nice_already()),
    }


def _nice_already() -> int:
    """By how much we gave way ourselves: MIGRATION_NICE counts from the app, as whose nice PID 1 runs."""
    return max(0, os.nice(0) - os.getpriority(os.PRIO_PROCESS, os.getppid()))


def _looks() -> tuple[bool, dict[str, str]]:
    """Whether log lines are for eyes, and what the child must be told since it can't see it any more."""
    named = {name: (os.environ.get(name) or "").strip() for name in ("LOG_FORMAT", "LOG_OUTPUT")}
    given = {name: value.lower() or None for name, value in named.items()}
    found = logs.destination(os.environ, log_format=given["LOG_FORMAT"], output=given["LOG_OUTPUT"])
    looks = {} if named["LOG_FORMAT"] else {"LOG_FORMAT": "console" if found["console"] else "json"}
    if found["console"] and os.isatty(1 if found["to_stdout"] else 2):
        looks["FORCE_COLOR"] = os.environ.get("FORCE_COLOR", "1")
    return found["console"], looks


def _idle_io(pid: int) -> None:
    import psutil  # late: 35 ms that the app's first second needn't share

    try:
        psutil.Process(pid).ionice(psutil.IOPRIO_CLASS_IDLE)
    except (psutil.Error, OSError, AttributeError):  # it has ended, or this isn't Linux
        pass
