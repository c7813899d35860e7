"""Runs of the migrator in which something else migrates."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support.processes import clean_env, finished, log_lines

PYTHON = [sys.executable, "-I", "-S", "-c"]


def migrate(
    url: str, cwd: Path, *arguments: str, command: str | None = None, timeout_s: float = 60, **extra: str
) -> subprocess.CompletedProcess[str]:
    """`python -m migrator up` in the directory `cwd`, to its end."""
    return finished(
        [sys.executable, "-m", "migrator", *(arguments or ("up",))],
        env=environment(url, command, **extra),
        cwd=cwd,
        timeout_s=timeout_s,
    )


def start(url: str, cwd: Path, command: str | None = None, **extra: str) -> subprocess.Popen[str]:
    """`python -m migrator up` in the directory `cwd`, running."""
    return subprocess.Popen(
        [sys.executable, "-m", "migrator", "up"],
        env=environment(url, command, **extra),
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def environment(url: str, command: str | None, **extra: str) -> dict[str, str]:
    chosen = {} if command is None else {"MIGRATION_COMMAND": command}
    return clean_env(**{"DATABASE_URL": url, **chosen, **extra})


def output(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What the program wrote, as the log has it."""
    return [line["text"] for line in log_lines(done.stderr) if line["event"] == "runner.output"]


def reason(done: subprocess.CompletedProcess[str]) -> str:
    """Why the run failed."""
    return next(line["reason"] for line in reversed(log_lines(done.stderr)) if line["level"] == "error")


def script(path: Path, text: str) -> Path:
    """An executable shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def is_gone(pid: int) -> bool:
    """Whether a process has ended; zombies have."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def written(path: Path) -> str | None:
    """What is in the file, once there is something."""
    return path.read_text() if path.exists() and os.path.getsize(path) else None
