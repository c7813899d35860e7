"""What an app leaves behind: found, asked to end, waited for, killed, and accounted for."""

from __future__ import annotations

import _signal
import os

from entrypoint import launch, system
from entrypoint.loop import clock
from migrator import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from entrypoint.system import Process

# Somebody may send signals without end; the account stays one line.
_MAX_ENTRIES = 20


class Account:
    """Who was signalled when, who held us up, what was killed, how long it took.

    Kept from the moment when we are asked to stop, or the app ends by itself.
    """

    def __init__(self) -> None:
        """Nothing has happened yet."""
        # The one that asked us to stop; 0 if none did.
        self.signal = 0
        self._began: float | None = None
        self._signals: list[dict[str, object]] = []
        self._held_up: dict[int, tuple[str, float, float]] = {}
        self._killed: dict[int, str] = {}

    def begin(self, signal: int = 0) -> None:
        """The end begins; only the first time counts."""
        if self._began is None:
            self._began = clock()
            self.signal = signal

    def signalled(self, number: int, to: str) -> None:
        """A signal was sent."""
        if self._began is not None and len(self._signals) < _MAX_ENTRIES:
            at_ms = self._since_ms(clock())
            self._signals.append({"signal": signals.name(number), "to": to, "at_ms": at_ms})

    def still_there(self, some: Iterable[Process], *, from_the_beginning: bool = False) -> None:
        """These are what we wait for, since now or since we were asked to stop."""
        now_s = clock()
        since_s = self._began if from_the_beginning and self._began is not None else now_s
        for one in some:
            name, first_s, _ = self._held_up.get(one.pid, (one.name, since_s, now_s))
            self._held_up[one.pid] = name, first_s, now_s

    def killed(self, pid: int, name: str) -> None:
        """This one didn't end in time."""
        self._killed[pid] = name

    def fields(self) -> dict[str, object]:
        """The account, for the log line at the end."""
        now_s = clock()
        longest = sorted(self._held_up.items(), key=_shortness)
        return {
            "asked_by": signals.name(self.signal) if self.signal else None,
            "duration": self._since_ms(now_s),
            "signals": self._signals,
            "held_up_by": [
                {"pid": pid, "name": name, "ms": round((last_s - first_s) * 1000)}
                for pid, (name, first_s, last_s) in longest[:_MAX_ENTRIES]
            ],
            "killed": [{"pid": pid, "name": name} for pid, name in list(self._killed.items())[:_MAX_ENTRIES]],
        }

    def _since_ms(self, moment_s: float) -> int:
        return 0 if self._began is None else round((moment_s - self._began) * 1000)


class Leftovers:
    """What is alive of the app's process group, and in a container whatever else has come to us."""

    def __init__(self, app: launch.App, account: Account, *, adopts: bool) -> None:
        """Nothing is asked to end yet; `adopts`: orphans that came to us end with us."""
        self._app = app
        self._account = account
        self._adopts = adopts
        self._asked: set[int] = set()

    def are_gone(self, *, childless: bool) -> bool:
        """Look, and ask with SIGTERM whoever wasn't asked yet.

        Args:
            childless: waitpid said that we have no children: nothing has come to us.
        """
        is_group_there = self._is_group_there()
        left = self._find(is_group_there=is_group_there, childless=childless)
        if is_group_there and self._app.pid not in self._asked:
            self._asked |= {self._app.pid or 0, *(one.pid for one in left if one.group == self._app.pid)}
            self._account.signalled(_signal.SIGTERM, "group")
            self._end_group(_signal.SIGTERM)
        for one in left:
            if one.pid not in self._asked:
                self._asked.add(one.pid)
                self._account.signalled(_signal.SIGTERM, one.name)
                system.send(one.pid, _signal.SIGTERM)
            if one.state == "T":  # stopped, it doesn't act on anything
                system.send(one.pid, _signal.SIGCONT)
        self._account.still_there(left)
        return not left and not (is_group_there and not system.has_proc())

    def are_killed(self, *, childless: bool) -> bool:
        """Look, and send SIGKILL to whoever is there; whether nobody was."""
        is_group_there = self._is_group_there()
        left = self._find(is_group_there=is_group_there, childless=childless)
        for one in left:
            self._account.killed(one.pid, one.name)
            system.send(one.pid, _signal.SIGKILL)
        if is_group_there:
            self._end_group(_signal.SIGKILL)
        return not left

    def _is_group_there(self) -> bool:
        return self._app.pid is not None and system.send_group(self._app.pid, 0)

    def _end_group(self, number: int) -> None:
        assert self._app.pid is not None
        system.send_group(self._app.pid, number)

    def _find(self, *, is_group_there: bool, childless: bool) -> list[Process]:
        adopts = self._adopts and not childless
        if not is_group_there and not adopts:
            return []
        ours = self._app.others | {os.getpid()}
        return [
            one
            for one in system.processes()
            if one.pid not in ours
            and one.group not in ours
            and (one.group == self._app.pid or (adopts and one.parent == os.getpid()))
        ]


def say_last_words(path: str, text: str, limit_bytes: int = 1024) -> None:
    """Write why the container ended to where Kubernetes looks for it, if there is such a file."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # there is none: this isn't Kubernetes
        return
    try:
        os.write(fd, text.encode(errors="backslashreplace")[:limit_bytes])
    except OSError:
        pass
    finally:
        os.close(fd)


def _shortness(held_up: tuple[int, tuple[str, float, float]]) -> float:
    _, (_, first_s, last_s) = held_up
    return first_s - last_s
