"""Stands between the migrator and a program, so that nothing of the program's tree outlives either of them.

Run by its path (`python -I -S guard.py STATUS_FD COMMAND ...`), so it imports nothing of ours. Any byte on
standard input asks the program to end. The end of that input means that the migrator is gone, whatever
killed it: all of it is killed, as the lease is free then. How the program ended is one line on STATUS_FD:
`exit N`, `signal N` or `error ERRNO`, and how many processes it had left behind. A line `pid N` comes first.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
# Who forks faster than we look is stopped first; this only bounds it.
_MAX_ROUNDS = 200


def main() -> None:
    """Run the command in `sys.argv`, to its end or ours."""
    status_fd, argv = int(sys.argv[1]), sys.argv[2:]
    os.set_inheritable(status_fd, False)
    prctl = _prctl()
    # Who leaves its parent behind comes to us.
    prctl(_PR_SET_CHILD_SUBREAPER, 1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    woken, wake = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    program = os.fork()
    if program == 0:
        _become(argv, status_fd, prctl)
    os.write(status_fd, f"pid {program}\n".encode())
    # Ours are copies: whoever reads them waits for the program and its kind only.
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.dup2(null, 2)
    ended = _watch(program, woken)
    left = kill_all()
    if ended is not None:
        os.write(status_fd, f"{ended} {left}\n".encode())
    os._exit(0)


def _watch(program: int, woken: int) -> str | None:
    """How the program ended; None if all of it is to be killed instead."""
    poll = select.poll()
    poll.register(0, select.POLLIN)
    poll.register(woken, select.POLLIN)
    while True:
        ready = dict(poll.poll())
        if woken in ready:
            os.read(woken, 4096)
        ended = _reap(program)
        if ended is not None:
            return ended
        if 0 in ready:
            orders = os.read(0, 64)
            if not orders:
                return None
            for number in (signal.SIGTERM, signal.SIGCONT):  # stopped, it couldn't obey
                _to(os.killpg, program, number)


def _reap(program: int) -> str | None:
    """Wait for whoever has ended; how the program did, once it is among them."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return None
        if pid == 0:
            return None
        if pid == program:
            code = os.waitstatus_to_exitcode(status)
            return f"exit {code}" if code >= 0 else f"signal {-code}"


def kill_all() -> int:
    """SIGKILL to everybody below us; how many there were.

    All are stopped before any is killed: who can't run can't fork, and who still has a parent can be found.
    """
    stopped: set[int] = set()
    for _ in range(_MAX_ROUNDS):
        found = _below(os.getpid()) - stopped
        if not found:
            break
        for pid in found:
            _to(os.kill, pid, signal.SIGSTOP)
        stopped |= found
    for pid in stopped:
        _to(os.kill, pid, signal.SIGKILL)
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return len(stopped)


def _below(root: int) -> set[int]:
    """Every process that lives below `root`; zombies don't."""
    children: dict[int, list[int]] = {}
    dead = set()
    for name in os.listdir("/proc") if os.path.isdir("/proc/self") else ():
        if name.isdecimal():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:  # it has ended
                continue
            children.setdefault(int(fields[1]), []).append(int(name))
            if fields[0] in b"ZX":
                dead.add(int(name))
    found: set[int] = set()
    waiting = [root]
    while waiting:
        for pid in children.get(waiting.pop(), ()):
            if pid not in found:
                found.add(pid)
                waiting.append(pid)
    return found - dead


def _become(argv: list[str], status_fd: int, prctl: Callable[[int, int], None]) -> None:
    """Turn into the program; never returns."""
    try:
        # We are in a session without a terminal already, so that nothing can ask there for a password.
        os.setpgid(0, 0)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        signal.set_wakeup_fd(-1)
        # Python ignores the last two.
        for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGCHLD", "SIGPIPE", "SIGXFSZ"):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
        # Our own limit is lower: programs map far more data than they use, node and Go above all.
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        os.execvp(argv[0], argv)  # noqa: S606 - a shell is what the user didn't ask for
    except OSError as error:
        os.write(status_fd, f"error {error.errno} 0\n".encode())
    finally:
        os._exit(127)


def _to(send: Callable[[int, int], None], pid: int, number: int) -> None:
    try:
        send(pid, number)
    except (ProcessLookupError, PermissionError):  # it has ended, or became another user
        pass


def _prctl() -> Callable[[int, int], None]:
    try:
        import ctypes

        function = ctypes.CDLL(None).prctl
    except (ImportError, OSError, AttributeError):  # no prctl outside of Linux
        return lambda _option, _value: None
    return lambda option, value: function(option, value, 0, 0, 0)


if __name__ == "__main__":
    main()
