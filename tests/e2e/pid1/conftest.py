"""The generic cases run under tini and dumb-init too, so that a test which asks too much or too little shows."""

from __future__ import annotations

import fcntl
import os
import shlex
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

INITS = ("entrypoint", "tini", "dumb-init")

_OWN_SUSPEND = "on TSTP it sends STOP to the app and stops itself"
_NO_SUBREAPER = "it doesn't make itself the subreaper, so that orphans pass it by unless it is PID 1"

# Case -> init -> why it fails there. A part of the parameters in brackets narrows the case down. Strict:
# whatever passes against expectation fails the run.
KNOWN_TO_FAIL: dict[str, dict[str, str]] = {
    "test_a_stop_key_from_elsewhere_reaches_the_app": {"dumb-init": _OWN_SUSPEND},
    "test_a_fault_signal_kills_us_and_is_not_handed_on": {
        "dumb-init": "it catches faults too, and hands them on instead of ending"
    },
}


@pytest.fixture
def held_exec(tmp_path: Path) -> Iterator[HeldExec]:
    """Make an app whose exec stands still until the test lets go."""
    held = HeldExec(tmp_path / "held-app")
    yield held
    held.let_go()


class HeldExec:
    """A script that can't be opened, and so not be executed, while we have the lease on it (fcntl(2))."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._mask: set[int] = set()

    def hold(self, command: Sequence[str]) -> list[str]:
        """The command that will stand still on its way to `command`."""
        self._path.write_text(f"#!/bin/sh\nexec {shlex.join(command)}\n")
        self._path.chmod(0o755)
        self._mask = {int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGIO})}
        self._fd = os.open(self._path, os.O_RDONLY)
        fcntl.fcntl(self._fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        return [str(self._path)]

    def wait_for_exec(self) -> None:
        """Return once somebody is about to execute it: the kernel tells the lease's holder."""
        assert signal.sigtimedwait({signal.SIGIO}, 20) is not None

    def let_go(self) -> None:
        """Let the exec go on; once or more often."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            signal.sigtimedwait({signal.SIGIO}, 0)
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)


@pytest.fixture(params=INITS)
def init(request: pytest.FixtureRequest) -> str:
    """Which init to run; a test with it runs under ours and under the others."""
    return str(request.param)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is known to fail under another init."""
    for item in items:
        callspec = getattr(item, "callspec", None)
        if callspec is None or "init" not in callspec.params:
            continue
        for case, reasons in KNOWN_TO_FAIL.items():
            name, _, narrowed = case.rstrip("]").partition("[")
            reason = reasons.get(callspec.params["init"])
            if reason and item.originalname == name and set(narrowed.split()) <= set(callspec.id.split("-")):
                item.add_marker(pytest.mark.xfail(reason=reason, strict=True))
