"""A tree of processes: who belongs to it, what it uses, and how to end all of it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator, Mapping

from msgspec import Struct

PROC = "/proc"
# A killer that stops first needs two or three rounds, whatever it is up against; this only bounds it.
_MAX_ROUNDS = 200
_DEAD = frozenset("ZXx")


class Process(Struct, frozen=True, kw_only=True):
    """What `/proc/<pid>/stat` says, as far as we ask.

    Attributes:
        started: When, in clock ticks since the boot: with the pid, it names a process for good.
        rss_pages: Pages of memory it has in use.
    """

    pid: int
    parent: int
    state: str
    started: int
    rss_pages: int

    @property
    def key(self) -> tuple[int, int]:
        """A pid alone may be another's tomorrow."""
        return self.pid, self.started


def parse_stat(text: bytes) -> Process:
    """One line of `/proc/<pid>/stat` (proc(5)); the name in it may hold spaces and brackets.

    Raises:
        ValueError: It is none.
    """
    before, bracket, after = text.rpartition(b")")
    fields = after.split()
    if not bracket or len(fields) < 22:
        raise ValueError("not a line of /proc/<pid>/stat")
    return Process(
        pid=int(before.partition(b"(")[0]),
        state=fields[0].decode(),
        parent=int(fields[1]),
        started=int(fields[19]),
        rss_pages=int(fields[21]),
    )


def snapshot(proc: str = PROC) -> dict[int, Process]:
    """Every process that lives and that we may see. Empty where there is no /proc."""
    found = {}
    for pid in _pids(proc):
        try:
            with open(f"{proc}/{pid}/stat", "rb") as file:
                process = parse_stat(file.read())
        except (OSError, ValueError):  # it has ended while we looked
            continue
        if process.state not in _DEAD:
            found[pid] = process
    return found


def members(processes: Mapping[int, Process], roots: Iterable[int]) -> dict[tuple[int, int], Process]:
    """The roots that live and all their descendants."""
    children: dict[int, list[Process]] = {}
    for process in processes.values():
        children.setdefault(process.parent, []).append(process)
    waiting = [processes[pid] for pid in roots if pid in processes]
    tree: dict[tuple[int, int], Process] = {}
    while waiting:
        process = waiting.pop()
        if process.key not in tree:
            tree[process.key] = process
            waiting += children.get(process.pid, ())
    return tree


class Tree:
    """What has grown from one child of ours.

    A process leaves its group with setsid(2) and its parent with a second fork, but it stays below the
    child while that lives and is a subreaper. Once the child has ended, two things tell whose it was: we
    have seen it below the child, or it carries the child's mark in its environment.
    """

    def __init__(self, root: int, mark: str, proc: str = PROC) -> None:
        """`mark` is a `NAME=value` that the child was started with and nobody else has."""
        self._root = root
        self._mark = mark.encode()
        self._proc = proc
        self._seen: dict[tuple[int, int], Process] = {}
        self.root_reaped = False

    def look(self) -> list[Process]:
        """Who belongs to it now; remembered for `kill`."""
        found = members(snapshot(self._proc), () if self.root_reaped else (self._root,))
        self._seen.update(found)
        return list(found.values())

    def kill(self, others: Iterable[int] = ()) -> int:
        """SIGKILL to all of it, however fast it grows; how many there were.

        Everybody is stopped first: what can't run can't fork, so that the rounds come to an end. And
        nobody is killed before all are stopped, or a grandchild would lose the parent that shows whose
        it is. `others` are pids known from elsewhere.
        """
        stopped: dict[tuple[int, int], Process] = {}
        for _ in range(_MAX_ROUNDS):
            found = [one for one in self._everyone(others) if one.key not in stopped]
            if not found:
                break
            for process in found:
                _signal(process.pid, signal.SIGSTOP)
                stopped[process.key] = process
        for process in stopped.values():
            _signal(process.pid, signal.SIGKILL)
        return len(stopped)

    def _everyone(self, others: Iterable[int]) -> Iterator[Process]:
        processes = snapshot(self._proc)
        roots = {one.pid for one in processes.values() if one.key in self._seen}
        roots.update(others)
        if not self.root_reaped:
            roots.add(self._root)
        below = members(processes, roots)
        strangers = [one.pid for one in processes.values() if one.key not in below]
        roots.update(pid for pid in strangers if self._is_marked(pid))
        roots -= {os.getpid(), os.getppid(), 1}
        everyone = members(processes, roots)
        self._seen.update(everyone)
        return iter(everyone.values())

    def _is_marked(self, pid: int) -> bool:
        try:
            with open(f"{self._proc}/{pid}/environ", "rb") as file:
                return self._mark in file.read().split(b"\0")
        except OSError:  # another user's, and so none that we could signal
            return False


def _pids(proc: str) -> list[int]:
    try:
        return [int(name) for name in os.listdir(proc) if name.isdecimal()]
    except OSError:
        return []


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):  # it has ended, or became another user
        pass
