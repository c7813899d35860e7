"""An event loop of one page: descriptors, timers, and signals that are never lost.

PID 1's own, since asyncio is 6 MiB of memory that an init keeps for good, and its self-pipe is a
socket that overflows after some 280 signals.
"""

from __future__ import annotations

import _signal
import os
import select
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# pipe(7): a pipe's size, and the most that one without privileges may have.
_DEFAULT_WAKE_BYTES, _MOST_WAKE_BYTES = 65536, 1024 * 1024
_F_SETPIPE_SZ, _F_GETPIPE_SZ = 1031, 1032
# More signals than this at once are a flood: no further ones are taken before these are dealt with. Those
# wait in the kernel, which merges ordinary ones and makes the sender of queued ones wait (EAGAIN). Not
# sooner: what waits there takes the room in which we want to queue signals for the app.
_FLOOD = 16384

READ = select.POLLIN
WRITE = select.POLLOUT

# Timers fire by this clock, in seconds; it doesn't jump.
clock = time.monotonic


class Loop:
    """Waits for descriptors, timers and signals, and calls whoever asked for them."""

    def __init__(self) -> None:
        """Nothing is watched yet."""
        self._poll = select.poll()
        self._callbacks: dict[int, Callable[[int], None]] = {}
        self._timers: dict[str, tuple[float, Callable[[], None]]] = {}
        self._numbers: frozenset[int] = frozenset()
        self._on_signal: Callable[[int], None] = _ignore
        self._wake = -1
        # Of the pipe, in signals.
        self._wake_bytes = 0
        # Numbers of signals that came since the pipe was read last.
        self._came: set[int] = set()

    def watch(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        """Call `callback(ready events)` whenever `fd` is ready, until `forget`."""
        self._callbacks[fd] = callback
        self._poll.register(fd, events)

    def forget(self, fd: int) -> None:
        """Watch it no longer; it isn't closed."""
        if self._callbacks.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def at(self, name: str, moment_s: float, callback: Callable[[], None]) -> None:
        """Call it once, at a moment of `clock`. A timer of that name is replaced."""
        self._timers[name] = moment_s, callback

    def cancel(self, name: str) -> None:
        """Drop a timer, if there is one of that name."""
        self._timers.pop(name, None)

    def has_timer(self, name: str) -> bool:
        """Whether a timer of that name is still to come."""
        return name in self._timers

    def take_signals(self, numbers: frozenset[int], callback: Callable[[int], None]) -> None:
        """Call `callback(number)` for each of these signals, in the order of their coming; unblock them.

        They go through a pipe, written by CPython's handler, with room for all that the kernel may have to
        deliver at once. Where that can't be had, each number comes at least once.
        """
        self._on_signal = callback
        self._wake, write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC) if hasattr(os, "pipe2") else _pipe()
        self._wake_bytes = _make_room(write_fd)
        _signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
        self._numbers = numbers
        self.watch(self._wake, READ, self._hand_on)
        self.listen()

    def listen(self) -> None:
        """Listen to the signals of `take_signals`, also again after they were blocked or ignored."""
        # One by one: of several that are pending, the kernel would lay the handlers' frames on top of each
        # other, so that the one it delivers last runs first.
        for number in sorted(self._numbers):
            _signal.signal(number, self._note)
            _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (number,))

    def run_once(self) -> None:
        """Wait for whatever comes first, and deal with all that is there."""
        for fd, events in self._poll.poll(self._timeout_ms()):
            callback = self._callbacks.get(fd)
            if callback is not None:  # one before it may have had it forgotten
                callback(events)
        now_s = clock()
        for name, (moment_s, due) in sorted(self._timers.items(), key=_moment):
            if moment_s > now_s:
                break
            if self._timers.get(name) == (moment_s, due):  # one before it may have replaced it
                del self._timers[name]
                due()

    def _timeout_ms(self) -> float | None:
        if not self._timers:
            return None
        first_s = min(moment_s for moment_s, _ in self._timers.values())
        return max(0.0, (first_s - clock()) * 1000 + 1)  # rather late than twice

    def _hand_on(self, _events: int) -> None:
        numbers = os.read(self._wake, self._wake_bytes)  # all of them
        if len(numbers) >= self._wake_bytes:  # it was full, so of some there is no byte
            numbers += bytes(self._came - set(numbers))
        self._came.clear()
        is_flood = len(numbers) > _FLOOD
        if is_flood:
            _signal.pthread_sigmask(_signal.SIG_BLOCK, self._numbers)
        for number in numbers:
            self._on_signal(number)
        if is_flood:
            _signal.pthread_sigmask(_signal.SIG_UNBLOCK, self._numbers)

    def _note(self, number: int, _frame: object) -> None:
        """The byte in the pipe is what counts; without a handler there would be none."""
        self._came.add(number)


def _make_room(pipe_fd: int) -> int:
    """Let a pipe hold as many signals as the kernel queues for us; its size in bytes.

    Not more: all pipes of a user together get 64 MiB in a machine (pipe(7)), and the app has pipes, too.
    """
    try:
        import fcntl
        import resource

        size: int = fcntl.fcntl(pipe_fd, _F_GETPIPE_SZ)
        pending, _ = resource.getrlimit(resource.RLIMIT_SIGPENDING)
    except (ImportError, OSError, AttributeError):  # not Linux
        return _DEFAULT_WAKE_BYTES
    wanted = _MOST_WAKE_BYTES if pending < 0 else min(pending, _MOST_WAKE_BYTES)
    try:
        return fcntl.fcntl(pipe_fd, _F_SETPIPE_SZ, wanted) if wanted > size else size
    except OSError:  # those 64 MiB are used up
        return size


def _ignore(_number: int) -> None:
    """Nobody has asked for signals yet."""


def _moment(timer: tuple[str, tuple[float, object]]) -> float:
    return timer[1][0]


def _pipe() -> tuple[int, int]:
    """Macs have no pipe2. Python's descriptors are close-on-exec by themselves."""
    read_fd, write_fd = os.pipe()
    for fd in (read_fd, write_fd):
        os.set_blocking(fd, False)
    return read_fd, write_fd
