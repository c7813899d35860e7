"""Which commands are an app, and which a person gives in its place."""

import os.path
import sys

import pytest

from entrypoint import byhand


@pytest.mark.parametrize(
    "command",
    [
        "sh",
        "/bin/sh",
        "bash",
        "/usr/bin/bash -l",
        "bash -i",
        "bash -li",
        "bash --login",
        "bash --rcfile /etc/rc -i",
        "bash --init-file=/etc/rc",
        "bash -eo pipefail",
        "bash -O extglob -l",
        "bash -e +o posix",
        "sh -s first second",
        "sh -",
        "sh --",
        "sh -x",
        "zsh -f",
        "fish",
        "ash -l",
        "busybox sh",
        "/bin/busybox ash -l",
    ],
)
def test_a_shell_that_reads_its_input_is_for_a_person(command):
    reason = byhand.why(command.split())

    assert reason is not None
    assert "is a shell for a person" in reason


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("migrator up", "migrator"),
        ("migrator", "migrator"),
        ("python3 -m migrator status --json", "migrator"),
        ("/opt/x/bin/python3.13 -m migrator", "migrator"),
        ("entrypoint --check", "entrypoint"),
        ("entrypoint --status --json", "entrypoint"),
        ("python -m entrypoint --healthcheck", "entrypoint"),
    ],
)
def test_a_command_of_ours_is_run_by_hand(command, name):
    assert byhand.why(command.split()) == f"{name} was run by hand, and nothing migrates beside it"


@pytest.mark.parametrize(
    "command",
    [
        "node server.js",
        "sh -c node_server",
        "/bin/sh -c sh",
        "bash -lc app",
        "bash -o pipefail -c app",
        "bash -l -c app",
        "bash -euxc app",
        "bash --rcfile /etc/rc -c app",
        "fish --command=app",
        "fish --command app",
        "bash start.sh",
        "sh /app/start.sh -s",
        "bash -e start.sh",
        "bash -eo pipefail start.sh",
        "bash -O extglob start.sh",
        "bash -- start.sh",
        "sh - start.sh",
        "./sh.py",
        "bashful",
        "busybox httpd -f",
        "busybox",
        "toybox sh start.sh",
        "python3",
        "python3 -m",
        "python3 -m http.server",
        "python3 -mmigrator",
        "/app/migrator",
        "/usr/local/bin/entrypoint --status",
        "entrypoint",
        "entrypoint node server.js",
        "entrypoint -- node server.js",
        "",
    ],
)
def test_anything_else_is_an_app(command):
    assert byhand.why(command.split()) is None


def test_by_its_path_too_a_command_of_ours_is_run_by_hand():
    """As release commands name it, where PATH isn't ours to set."""
    ours = os.path.dirname(sys.executable)

    assert byhand.is_ours([f"{ours}/migrator", "up"])
    assert byhand.is_ours([f"{ours}/entrypoint", "--check"])
    assert not byhand.is_ours([f"{ours}/entrypoint", "--", "app"])
    assert not byhand.is_ours([f"{ours}/uvicorn", "migrator"])
