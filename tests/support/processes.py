"""Our programs as real processes, and what they say."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import psutil

from tests.support.waiting import wait_until

REPO = Path(__file__).resolve().parents[2]
APPS = Path(__file__).parent / "apps"


def clean_env(**extra: str) -> dict[str, str]:
    """An environment in which nothing of this machine decides."""
    env = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "LANG": "C.UTF-8"}
    return {**env, **extra}


def app(name: str, *arguments: str) -> list[str]:
    """The command of one of tests/support/apps."""
    return [sys.executable, "-I", "-S", str(APPS / f"{name}.py"), *arguments]


def name_of(process: psutil.Process) -> str:
    """What it is called; empty if it has ended since it was found."""
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""


def finished(command: Sequence[str], *, timeout_s: float, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, with what it writes.

    Its standard error is a file: into a pipe our log drops what isn't read in time, and we may be late.
    """
    with tempfile.TemporaryFile("w+") as stderr:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=stderr, text=True, timeout=timeout_s, **options
        )
        stderr.seek(0)
        done.stderr = stderr.read()
    return done


def run_migrator(
    url: str, directory: Path | str, *arguments: str, **extra: str
) -> subprocess.CompletedProcess[str]:
    """`python -m migrator`, to its end."""
    return run_migrator_by({"DATABASE_URL": url}, directory, *arguments, **extra)


def run_migrator_by(
    env: Mapping[str, str], directory: Path | str, *arguments: str, **extra: str
) -> subprocess.CompletedProcess[str]:
    """`python -m migrator`, to its end; `env` names the way to the database."""
    return finished(
        [sys.executable, "-m", "migrator", *(arguments or ("up",))],
        env=clean_env(MIGRATIONS_DIR=str(directory), **{**env, **extra}),
        timeout_s=60,
    )


def start_migrator_by(env: Mapping[str, str], directory: Path | str, **extra: str) -> subprocess.Popen[str]:
    """`python -m migrator up`, running; `env` names the way to the database."""
    return subprocess.Popen(
        [sys.executable, "-m", "migrator", "up"],
        env=clean_env(MIGRATIONS_DIR=str(directory), **{**env, **extra}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_migrator(
    url: str, directory: Path | str, process_group: int | None = None, **extra: str
) -> subprocess.Popen[str]:
    """`python -m migrator up`, running."""
    return subprocess.Popen(
        [sys.executable, "-m", "migrator", "up"],
        env=clean_env(DATABASE_URL=url, MIGRATIONS_DIR=str(directory), **extra),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=process_group,
    )


def log_lines(text: str) -> list[dict[str, Any]]:
    """Every JSON line in what a program wrote."""
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


class Entrypoint:
    """A running `python -m entrypoint -- ...`; a context manager that leaves no process behind."""

    def __init__(
        self,
        argv: Sequence[str],
        state_dir: Path,
        env: Mapping[str, str] | None = None,
        *,
        prefix: Sequence[str] = (),
        stdin: int | None = subprocess.DEVNULL,
        cwd: Path | None = None,
    ) -> None:
        """Start it with `prefix` before the command, e.g. `unshare`, and its state in `state_dir`."""
        self.state_dir = state_dir
        state_dir.mkdir(parents=True, exist_ok=True)
        self.stderr_path = state_dir / "stderr.txt"
        self.stdout_path = state_dir / "stdout.txt"
        with self.stderr_path.open("wb") as stderr, self.stdout_path.open("wb") as stdout:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, "-m", "entrypoint", *argv],
                env=clean_env(ENTRYPOINT_STATE_DIR=str(state_dir), **(env or {})),
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                cwd=cwd or REPO,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(5)

    @property
    def stdout(self) -> str:
        return self.stdout_path.read_text()

    @property
    def stderr(self) -> str:
        return self.stderr_path.read_text()

    @property
    def log(self) -> list[dict[str, Any]]:
        """Our lines on standard error; the last one only if it is whole."""
        text = self.stderr
        return log_lines(text[: text.rfind("\n") + 1])

    def events(self, name: str) -> list[dict[str, Any]]:
        return [line for line in self.log if line["event"] == name]

    def marker(self) -> dict[str, Any]:
        """The marker file's content; empty while there is none."""
        try:
            content: dict[str, Any] = json.loads((self.state_dir / "status.json").read_bytes())
        except FileNotFoundError:
            return {}
        return content

    def wait_for_output(self, text: str, timeout_s: float = 20) -> None:
        wait_until(lambda: text in self.stdout, timeout_s=timeout_s, what=f"{text!r} on stdout")

    def wait_for_event(self, name: str) -> dict[str, Any]:
        return wait_until(lambda: self.events(name), what=f"the event {name}")[-1]

    def wait_for_phase(self, *phases: str, timeout_s: float = 30) -> dict[str, Any]:
        """The marker once `migrations.phase` is one of these."""
        return wait_until(
            lambda: marker if (marker := self.marker()) and marker["migrations"]["phase"] in phases else None,
            timeout_s=timeout_s,
            what=f"phase {' or '.join(phases)} (stderr: {self.stderr[-2000:]})",
        )

    def wait(self, timeout_s: float = 30) -> int:
        """The exit code."""
        return self.process.wait(timeout_s)

    def request(self, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body that the socket answers."""
        connection = http.client.HTTPConnection("localhost", timeout=10)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(10)
        connection.sock.connect(str(self.state_dir / "entrypoint.sock"))
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()
        finally:
            connection.close()
