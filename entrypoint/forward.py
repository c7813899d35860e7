"""Signals on their way to the app: passed on, rewritten, held back for a while, and at last enforced."""

from __future__ import annotations

import _signal

from entrypoint import launch, system
from entrypoint.ending import Account
from entrypoint.line import Log
from entrypoint.loop import Loop, clock
from entrypoint.options import Options
from migrator import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# SIGQUIT isn't one of them: it makes a JVM print its threads.
_STOP_SIGNALS = frozenset((_signal.SIGTERM, _signal.SIGINT))


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
        """
        assert self._app.pid is not None
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
