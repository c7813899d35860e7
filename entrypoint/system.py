"""What the kernel says of processes, and what we ask of it. Each steps aside where it can't be had."""

from __future__ import annotations

import _signal
import os

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


class Process:
    """A line of /proc/PID/stat, as far as it matters here."""

    __slots__ = ("group", "name", "parent", "pid", "state")

    def __init__(self, stat: bytes) -> None:
        """Parse it; the name may hold anything, a parenthesis too (proc(5))."""
        pid, _, rest = stat.partition(b" (")
        name, _, tail = rest.rpartition(b") ")
        fields = tail.split(None, 3)
        self.pid = int(pid)
        self.name = name.decode(errors="replace")
        self.state = fields[0].decode()
        self.parent = int(fields[1])
        self.group = int(fields[2])


def process(pid: int | str) -> Process | None:
    """One process; None if it is gone or there is no /proc."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            return Process(file.read() or b"")
    except (OSError, ValueError, IndexError):
        return None


def processes() -> list[Process]:
    """All that we can see and that aren't zombies; empty where there is no /proc."""
    try:
        names = os.listdir("/proc")
    except OSError:
        return []
    found = (process(name) for name in names if name.isdecimal())
    return [one for one in found if one is not None and one.state not in "ZX"]


def has_proc() -> bool:
    """Whether there is a /proc to look into."""
    return process("self") is not None


def is_stopped(pid: int) -> bool:
    """Whether a process stands still, by a signal or by the terminal."""
    found = process(pid)
    return found is not None and found.state == "T"


def stop_signal_of(pid: int) -> int:
    """The signal that has just stopped our child; 0 if none has."""
    try:
        told = os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG)
    except (OSError, AttributeError):  # it has been reaped, or this isn't Linux
        return 0
    return told.si_status if told is not None else 0


def is_foreground(group: int) -> bool:
    """Whether our terminal is this process group's, so that there is nothing to wait for."""
    try:
        return os.tcgetpgrp(0) == group
    except OSError:  # no terminal any more
        return False


def is_group_orphaned() -> bool:
    """Whether nobody is left to continue our process group, so that the kernel ignores Ctrl-Z for it.

    That is so unless its leader's parent is in the same session: a shell with job control.
    """
    leader = process(os.getpgrp())
    parent = leader.parent if leader is not None else os.getppid()
    try:
        return os.getpid() == 1 or os.getsid(0) == os.getpid() or os.getsid(parent) != os.getsid(0)
    except OSError:
        return True


def become_subreaper() -> bool:
    """Let orphans of our descendants come to us (prctl(2)); whether the kernel agreed."""
    return _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(number: int) -> bool:
    """Get this signal when our parent ends, and at once if it has ended; whether the kernel agreed."""
    parent = os.getppid()
    agreed = _prctl(_PR_SET_PDEATHSIG, number)
    if agreed and os.getppid() != parent:
        os.kill(os.getpid(), number)
    return agreed


def give_way(nice: int) -> None:
    """Leave the processor, the disk and the kernel's mercy to the app."""
    try:
        os.nice(nice)
    except OSError:
        pass
    # When memory runs out, the kernel shall take us before the app, and the migrator before us.
    offer_to_kernel(900)


def offer_to_kernel(score: int) -> None:
    """When memory runs out, let it take us before others: 1000 is first, 0 as everybody (proc(5))."""
    try:
        with open("/proc/self/oom_score_adj", "wb", buffering=0) as file:
            file.write(b"%d" % score)
    except OSError:
        pass


def send(pid: int, number: int) -> bool:
    """Send a signal; whether it could be sent. That a process has ended is normal, as is one of root's."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def send_group(leader: int, number: int) -> bool:
    """Send a signal to a process group; whether it reached anybody."""
    try:
        os.killpg(leader, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def stop_ourselves() -> None:
    """Stop our whole process group, as Ctrl-Z would have; returns when somebody continues it."""
    send_group(os.getpgrp(), _signal.SIGSTOP)


def _prctl(option: int, argument: int) -> bool:
    import ctypes  # late: a PID 1 doesn't need it

    try:
        return bool(ctypes.CDLL(None).prctl(option, argument, 0, 0, 0) == 0)
    except (OSError, AttributeError):  # no prctl outside Linux
        return False
