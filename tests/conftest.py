"""Fixtures of all tests."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.postgres import Server, new_database, running_server


def needs(program: str) -> str:
    """The path of a real component. Without it a laptop skips the test, and CI fails."""
    path = shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    if path is None:
        pytest.skip(f"needs {program}; .ci/run installs it")
    return path


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a component that isn't there is a failure: nothing would have been proved."""
    report = yield
    reason = report.longrepr[2] if report.skipped and isinstance(report.longrepr, tuple) else ""
    if os.environ.get("CI") and "needs " in reason:
        report.outcome = "failed"
        report.longrepr = f"{reason} (a skipped test in CI)"
    return report


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """One server for the whole run."""
    with running_server() as server:
        yield server


@pytest.fixture
def database(postgres: Server) -> Iterator[str]:
    """The URL of an empty database of the test's own."""
    with new_database(postgres) as url:
        yield url


@pytest.fixture
def open_dir() -> Iterator[Path]:
    """A directory that `nobody` can reach, as whom Postgres runs where we are root.

    pytest's own isn't one, and another run of pytest closes it at its start.
    """
    made = Path(tempfile.mkdtemp(prefix="entrypoint-test-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def migrations(tmp_path: Path) -> Callable[..., Path]:
    """Write files, `name=content`, into a directory; its path."""

    def write(**files: str) -> Path:
        directory = tmp_path / "migrations"
        directory.mkdir(exist_ok=True)
        for name, content in files.items():
            (directory / f"{name.removeprefix('_')}.sql").write_text(content)
        return directory

    return write


@pytest.fixture(autouse=True)
def leaves_nothing(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test leaves no process behind."""
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    yield
    if "postgres" in request.fixturenames:
        before |= _server_pids(request)
    left = [one for one in psutil.Process().children(recursive=True) if one.pid not in before]
    _, alive = psutil.wait_procs(left, timeout=5)
    alive = [one for one in alive if not _belongs_to_server(one, before)]
    described = []
    for one in alive:
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended since
            described.append(f"{one.pid} {one.name()}")
            one.kill()
    assert not described, f"processes left behind: {described}"


def _server_pids(request: pytest.FixtureRequest) -> set[int]:
    server: Server = request.getfixturevalue("postgres")
    return {server.process.pid} if server.process else set()


def _belongs_to_server(process: psutil.Process, before: set[int]) -> bool:
    try:
        return any(parent.pid in before for parent in process.parents())
    except psutil.NoSuchProcess:
        return True
