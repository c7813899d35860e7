"""The generic cases run under tini and dumb-init too, so that a test which asks too much or too little shows."""

from __future__ import annotations

import fcntl
import os
import shlex
import signal
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

INITS = ("entrypoint", "tini", "dumb-init")

_OWN_SUSPEND = "on TSTP it sends STOP to the app and stops itself"
_FORGETFUL = "it unblocks everything in the app and forgets what was ignored"
_NO_STDIN = "it takes the terminal of a closed standard input for an error"
_NO_SUBREAPER = "it doesn't make itself the subreaper, so that orphans pass it by unless it is PID 1"

# Case -> init -> why it fails there. A part of the parameters in brackets narrows the case down. Strict:
# whatever passes against expectation fails the run.
KNOWN_TO_FAIL: dict[str, dict[str, str]] = {
    "test_a_stop_key_from_elsewhere_reaches_the_app": {"dumb-init": _OWN_SUSPEND},
    "test_a_fault_signal_kills_us_and_is_not_handed_on": {
        "dumb-init": "it catches faults too, and hands them on instead of ending"
    },
    "test_sigchld_inherited_as_ignored_doesnt_hide_the_exit_code": {
        "tini": "the kernel throws the status away, and it waits for ever"
    },
    "test_children_from_before_our_start_are_reaped_and_not_taken_for_the_app": {
        "dumb-init": "it looks for ends only at SIGCHLD, and none comes for a zombie from before"
    },
    "test_who_cant_be_started_gives_the_code_of_a_shell_and_its_name": {
        "dumb-init": "it ends with 2 whatever the reason"
    },
    "test_closed_standard_streams_dont_change_the_apps_fate[input]": {"tini": _NO_STDIN},
    "test_closed_standard_streams_dont_change_the_apps_fate[all]": {"tini": _NO_STDIN},
    "test_everything_is_inherited_as_by_a_plain_exec": {"dumb-init": _FORGETFUL},
    "test_a_signal_that_was_ignored_stays_ignored_as_nohup_wants": {"dumb-init": _FORGETFUL},
    "test_an_orphan_comes_to_us_and_not_to_the_machines_init[ordinary]": {"dumb-init": _NO_SUBREAPER},
    "test_orphans_in_a_session_of_their_own_are_reaped_as_well[ordinary]": {"dumb-init": _NO_SUBREAPER},
}


@pytest.fixture
def long_migration(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Settings with which the migrator would go on for long: a database that accepts and never answers."""
    directory = tmp_path / "migrations"
    directory.mkdir()
    (directory / "1_a.sql").write_text("select 1;")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield {
            "NODE_ENV": "production",
            "DATABASE_URL": f"postgresql://nobody@127.0.0.1:{listener.getsockname()[1]}/none",
            "MIGRATIONS_DIR": str(directory),
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
