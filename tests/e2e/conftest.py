"""Starting the entrypoint as an ordinary process and as PID 1."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import needs
from tests.support import docker
from tests.support.processes import REPO, Entrypoint, clean_env
from tests.support.waiting import wait_until

AS_PID_1 = ("unshare", "--fork", "--pid", "--mount-proc", "--kill-child")


def init_command(init: str, *, pid1: bool) -> list[str]:
    """How our entrypoint, or another init in its place, is called; the app's command follows."""
    if init == "entrypoint":
        return [sys.executable, "-m", "entrypoint"]
    # tini reaps as an ordinary process only if told to; dumb-init can't.
    return [needs(init), *(["-s"] if init == "tini" and not pid1 else []), "--"]


class Running(Entrypoint):
    """An entrypoint whose every circumstance a test can choose; `pid` is its own, not the prefix's."""

    def __init__(
        self,
        argv: Sequence[str],
        directory: Path,
        *,
        pid1: bool = False,
        env: Mapping[str, str] | None = None,
        wrapper: Sequence[str] = (),
        init: str = "entrypoint",
        **popen: Any,
    ) -> None:
        self.state_dir = Path((env or {}).get("ENTRYPOINT_STATE_DIR", directory / "state"))
        self.stderr_path = directory / "stderr.txt"
        self.stdout_path = directory / "stdout.txt"
        prefix = (*AS_PID_1, *wrapper) if pid1 else wrapper
        self._pid1 = pid1
        self._inner_pid: int | None = None
        self._init = init
        with self.stderr_path.open("wb") as stderr, self.stdout_path.open("wb") as stdout:
            options: dict[str, Any] = {
                "stdin": subprocess.DEVNULL,
                "stdout": stdout,
                "stderr": stderr,
                "cwd": REPO,
                "start_new_session": True,
                **popen,
            }
            self.process = subprocess.Popen(
                [*prefix, *init_command(init, pid1=pid1), *argv],
                env={**clean_env(ENTRYPOINT_STATE_DIR=str(self.state_dir)), **(env or {})},
                **options,
            )

    @property
    def pid(self) -> int:
        """Of the entrypoint itself, as seen from here."""
        if not self._pid1:
            return self.process.pid
        if self._inner_pid is None:  # found once: at its end there is none any more
            inner = wait_until(lambda: psutil.Process(self.process.pid).children(), what="PID 1")
            self._inner_pid = inner[0].pid
        return self._inner_pid

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.pid).children()

    def settle(self) -> None:
        """Return once the app has spoken and the init has nothing more to prepare."""
        wait_until(lambda: self.stdout, what="a word of the app's")
        if self._init == "entrypoint":
            self.wait_for_phase("skipped")

    def app(self) -> psutil.Process:
        """The app's process: the first that was started, whatever its pid, since they begin anew at the highest."""

        def others() -> list[psutil.Process]:
            return [one for one in self.children() if "entrypoint.oversee" not in _command(one)]

        return min(wait_until(others, what="the app"), key=lambda one: one.create_time())

    def migrator(self) -> psutil.Process:
        """The migrator child, once it runs its module."""

        def find() -> psutil.Process | None:
            family = psutil.Process(self.pid).children(recursive=True)
            found = [one for one in family if "migrator" in _command(one)]
            return found[0] if found else None

        return wait_until(find, what="the migrator child")

    def end(self) -> None:
        """Leave nothing behind, however the test ended."""
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
        if self.process.poll() is None:
            try:
                self.send(signal.SIGTERM)
                self.process.wait(8 if self._init == "entrypoint" else 0.5)
            except (subprocess.TimeoutExpired, ProcessLookupError, AssertionError, psutil.Error):
                for one in psutil.Process(self.process.pid).children(recursive=True):
                    with contextlib.suppress(psutil.NoSuchProcess):  # it ended with another one
                        one.kill()
                self.process.kill()
                self.process.wait(5)


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


Start = Callable[..., Running]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start an entrypoint; it is ended with the test."""
    started: list[Running] = []

    def start_one(argv: Sequence[str], *, pid1: bool = False, **options: Any) -> Running:
        if pid1:
            needs("unshare")
        directory = tmp_path / f"run{len(started)}"
        directory.mkdir()
        started.append(Running(argv, directory, pid1=pid1, **options))
        return started[-1]

    yield start_one
    for one in started:
        one.end()


@pytest.fixture(params=[False, True], ids=["ordinary", "as_pid_1"])
def pid1(request: pytest.FixtureRequest) -> bool:
    """Whether to run as PID 1; a test with it runs both ways."""
    return bool(request.param)


@pytest.fixture(scope="session")
def engine() -> None:
    """A Docker engine, and what makes a base image where there is no registry to fetch one from."""
    problem = docker.engine_problem()
    if problem is not None:
        pytest.skip(f"needs a Docker engine ({problem}); .ci/run starts one")
    needs("debootstrap")


@pytest.fixture(scope="session")
def bare_image(engine: None) -> str:
    """Debian without Python."""
    return docker.ensure_bare()


@pytest.fixture(scope="session")
def image(engine: None) -> str:
    """Ours, as the Dockerfile makes it."""
    return docker.build_ours()


@pytest.fixture(scope="session")
def postgres_image(engine: None) -> str:
    """A Postgres server for a network of containers."""
    return docker.ensure_postgres()


@pytest.fixture
def containers(engine: None, tmp_path: Path) -> Iterator[docker.Containers]:
    """Start containers; they are gone with the test, however it ends."""
    started = docker.Containers(tmp_path)
    try:
        yield started
    finally:
        started.close()
