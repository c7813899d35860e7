"""Signals on their way to the app: passed on, rewritten, held back for a while, and at last enforced."""

from __future__ import annotations

import _signal
import errno
import time

from entrypoint import launch, system
from entrypoint.ending import Account
from entrypoint.line import Log
from entrypoint.loop import Loop, clock
from entrypoint.options import Options
from migrator import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# SIGQUIT isn't one of them: it makes a JVM print its threads.
_STOP_SIGNALS = frozenset((_signal.SIGTERM, _signal.SIGINT))

# Seconds that a real-time signal waits for room in the kernel, and between two attempts.
_ROOM_S = 1.0
_ATTEMPT_INTERVAL_S = 0.0001
_FIRST_REAL_TIME = getattr(_signal, "SIGRTMIN", 65)  # Macs have none


class Queue:
    """Sends real-time signals: unlike kill(2), sigqueue(3) says when the kernel has no room for another one.

    There is room for RLIMIT_SIGPENDING of all processes of a user; beyond that, kill merges them.
    """

    def __init__(self) -> None:
        """Nothing is loaded before the first one."""
        self._libc: Any = None
        # The last one found room in time: who has none for long isn't waited for again and again.
        self._is_patient = True

    def send(self, pid: int, number: int) -> None:
        """Send it, as soon as there is room; merged, where there is none within `_ROOM_S`."""
        if not self._is_queued(pid, number):
            system.send(pid, number)

    def _is_queued(self, pid: int, number: int) -> bool:
        import ctypes  # late: few apps get one

        try:
            if self._libc is None:
                self._libc = ctypes.CDLL(None, use_errno=True)
            until_s = clock() + (_ROOM_S if self._is_patient else 0)
            while self._libc.sigqueue(pid, number, None) != 0:
                if ctypes.get_errno() != errno.EAGAIN:
                    return False
                if clock() >= until_s:
                    self._is_patient = False
                    return False
                time.sleep(_ATTEMPT_INTERVAL_S)
        except (OSError, AttributeError):  # a libc without it
            return False
        self._is_patient = True
        return True


class Forwarder:
    """Hands signals on to the app, and sees to it that a request to stop is followed."""

    def __init__(
        self,
        app: launch.App,
        options: Options,
        *,
        account: Account,
        loop: Loop,
        log: Log,
        on_stop: Callable[[], None],
    ) -> None:
        """Call `on_stop` with the first request to stop."""
        self._app = app
        self._options = options
        self._account = account
        self._loop = loop
        self._log = log
        self._on_stop = on_stop
        self._stop_signals = _STOP_SIGNALS | {options.stop_signal or _signal.SIGTERM}
        # What the app may get as a request to stop.
        self._asks = self._stop_signals | {self._translate(number) for number in self._stop_signals}
        # A stop signal that waits for the end of ENTRYPOINT_STOP_DELAY.
        self._delayed = 0
        self._skip_continue = False
        self._queue = Queue()
        # Signals that the app got from us.
        self.forwarded: set[int] = set()
        # The moment of SIGKILL, by the loop's clock.
        self.deadline_s: float | None = None
        # The app didn't end in time.
        self.was_killed = False

    @property
    def is_stopping(self) -> bool:
        """Whether we were asked to stop."""
        return self.deadline_s is not None or bool(self._delayed)

    def take(self, number: int) -> None:
        """Deal with a signal that we got."""
        if number == _signal.SIGCONT and self._skip_continue:
            self._skip_continue = False  # the shell's, for us; the app has had its own
        elif number in self._stop_signals:
            self._on_stop_signal(number)
        else:
            self._deliver(number)

    def _on_stop_signal(self, number: int) -> None:
        if not self.is_stopping:
            self._account.begin(number)
            self._log.info("stop.started", signal=signals.name(number))
            self._on_stop()
            if self._options.stop_delay_s and self._app.pid is not None:
                self._delayed = number
                self._loop.at("delay", clock() + self._options.stop_delay_s, self._end_delay)
                return
            self._set_deadline()
        elif self._delayed:  # who asks twice doesn't want to wait
            is_the_same = number == self._delayed
            self._end_delay()
            if is_the_same:
                return  # one, as the kernel makes of two pending ones: many an app breaks off at the second
        self._deliver(number)

    def _end_delay(self) -> None:
        self._loop.cancel("delay")
        number, self._delayed = self._delayed, 0
        self._set_deadline()
        self._deliver(number)

    def _set_deadline(self) -> None:
        self.deadline_s = clock() + self._options.stop_grace_s
        self._loop.at("kill", self.deadline_s, self._escalate)

    def _deliver(self, number: int) -> None:
        """Hand a signal on to the app: the same one, or what the settings have in its place."""
        number = self._translate(number)
        if number == 0 or self._app.pid is None or self._app.status is not None:
            return  # reaped, its pid may be another's by now
        if self._options.whole_group:
            system.send_group(self._app.pid, number)
        elif number >= _FIRST_REAL_TIME:
            self._queue.send(self._app.pid, number)
        else:
            system.send(self._app.pid, number)
        self.forwarded.add(number)
        self._account.signalled(number, "group" if self._options.whole_group else "app")
        if self.is_stopping and number in self._asks and system.is_stopped(self._app.pid):
            system.send_group(self._app.pid, _signal.SIGCONT)  # stopped, it doesn't act on anything
            self._account.signalled(_signal.SIGCONT, "group")
        self._log.debug("signal.forwarded", signal=signals.name(number))

    def _escalate(self) -> None:
        """The grace is over and the app still there."""
        if self._app.pid is None or self._app.status is not None:
            return
        self._log.warning("stop.escalated", grace_s=self._options.stop_grace_s)
        self.was_killed = True
        members = [one for one in system.processes() if one.group == self._app.pid]
        self._account.still_there(members, from_the_beginning=True)
        for one in members:
            self._account.killed(one.pid, one.name)
        self._account.signalled(_signal.SIGKILL, "group")
        system.send_group(self._app.pid, _signal.SIGKILL)
        system.send(self._app.pid, _signal.SIGKILL)  # it may have left its group

    def _translate(self, number: int) -> int:
        wanted = self._options.stop_signal if number == _signal.SIGTERM else None
        return self._options.rewrite.get(number, wanted or number)

    def follow_stop(self, number: int) -> None:
        """The app was stopped by Ctrl-Z: stop with it where a shell can continue us, else go on.

        Ctrl-Z is ignored by whom nobody could continue (an orphaned process group); without us the app of
        a container would be such a one, and so it stays.

        It may also have stopped for a terminal that it has been given meanwhile: a shell looks whose the
        terminal is, and stops itself a moment later, which on a busy machine is after our last look.
        """
        assert self._app.pid is not None
        if number in launch.TERMINAL and system.is_foreground(self._app.pid):
            system.send_group(self._app.pid, _signal.SIGCONT)
        if number != _signal.SIGTSTP:
            return
        if system.is_group_orphaned():
            system.send_group(self._app.pid, _signal.SIGCONT)
            return
        launch.take_terminal_back()
        system.stop_ourselves()
        # Here again with `fg`, or with `bg`, when the terminal stays the shell's.
        if launch.share_terminal(self._app.pid):
            self._skip_continue = True
        # In the background SIGCONT is handed on like any other signal, and continues the app.
