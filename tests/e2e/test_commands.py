"""entrypoint --healthcheck, --status, --help: asking a running one."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.support.processes import REPO, app, clean_env


def ask(*arguments, state_dir="/nowhere", python=(sys.executable,), **env):
    return subprocess.run(
        [*python, "-m", "entrypoint", *arguments],
        env=clean_env(ENTRYPOINT_STATE_DIR=str(state_dir), **env),
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=20,
    )


def test_a_healthy_entrypoint_passes_its_health_check(start):
    running = start(app("wait"))
    running.wait_for_phase("skipped")

    done = ask("--healthcheck", state_dir=running.state_dir)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("healthy: app running, migrations skipped")


def test_failed_migrations_fail_the_health_check_with_the_reason(start):
    running = start(app("wait"), env={"NODE_ENV": "production", "MIGRATION_TIMEOUT": "soon"})
    running.wait_for_phase("failed")

    done = ask("--healthcheck", state_dir=running.state_dir)
    assert done.returncode == 1
    assert done.stdout.startswith("unhealthy: ")
    assert "MIGRATION_TIMEOUT" in done.stdout


def test_after_its_end_the_health_check_fails(start):
    running = start(["--", "true"])
    running.wait()

    assert ask("--healthcheck", state_dir=running.state_dir).returncode == 1


def test_a_killed_entrypoint_fails_the_health_check_although_its_marker_says_ok(start):
    running = start(app("wait"))
    marker = running.wait_for_phase("skipped")
    child = psutil.Process(marker["app"]["pid"])
    running.send(signal.SIGKILL)
    running.wait()
    child.terminate()
    child.wait(5)

    assert marker["status"] == "ok"
    done = ask("--healthcheck", state_dir=running.state_dir)
    assert (done.returncode, done.stdout) == (1, "unhealthy: the entrypoint has ended\n")


@pytest.mark.parametrize(
    "arguments", [["--healthcheck", "--nonsense"], ["--healthcheck", "x"], ["--healthcheck", "--status"]]
)
def test_a_health_check_never_exits_with_the_code_2_that_docker_reserves(arguments):
    assert ask(*arguments).returncode == 1


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"app": {"pid": "x"}}', "not json", '{"status": "ok", "app": {}}']
)
def test_a_marker_that_holds_something_else_is_unhealthy_without_a_traceback(tmp_path, content):
    (tmp_path / "status.json").write_text(content)

    done = ask("--healthcheck", state_dir=tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    assert ask("--status", state_dir=tmp_path).returncode == 1


def test_where_there_can_be_no_socket_the_marker_answers(start, tmp_path):
    deep = tmp_path / ("d" * 90)
    running = start(app("wait"), env={"ENTRYPOINT_STATE_DIR": str(deep)})
    running.wait_for_phase("skipped")

    assert ask("--healthcheck", state_dir=deep).returncode == 0


def test_an_entrypoint_that_doesnt_answer_is_unhealthy_whatever_its_marker_says(start):
    running = start(app("wait"))
    running.wait_for_phase("skipped")
    running.send(signal.SIGSTOP)

    done = ask("--healthcheck", state_dir=running.state_dir)
    running.send(signal.SIGCONT)
    assert (done.returncode, done.stdout) == (1, "unhealthy: timed out\n")


@contextlib.contextmanager
def health_check_of(directory):
    """A health check that has reached a socket of the test's own: the process, and the connection."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "entrypoint.sock"))
        listener.listen()
        process = subprocess.Popen(
            [sys.executable, "-m", "entrypoint", "--healthcheck"],
            env=clean_env(ENTRYPOINT_STATE_DIR=str(directory)),
            cwd=REPO,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        client, _ = listener.accept()
        yield process, client


def test_something_else_behind_the_socket_is_unhealthy(tmp_path):
    with health_check_of(tmp_path) as (process, client):
        client.recv(1000)
        client.sendall(b"220 mail ready\r\n")
        client.close()
        out, err = process.communicate(timeout=10)

    assert (process.returncode, err) == (1, b"")
    assert out.startswith(b"unhealthy: ")


def test_status_as_json_is_what_is_published(start):
    running = start(app("wait"))
    running.wait_for_phase("skipped")

    done = ask("--status", "--json", state_dir=running.state_dir)
    assert done.returncode == 0
    assert json.loads(done.stdout)["migrations"] == running.marker()["migrations"]


def test_status_for_people_is_one_line(start):
    running = start(app("wait"))
    running.wait_for_phase("skipped")

    done = ask("--status", state_dir=running.state_dir)
    assert done.returncode == 0
    assert done.stdout.startswith("app running, migrations skipped (NODE_ENV is not set")
    assert done.stdout.count("\n") == 1


def test_status_without_an_entrypoint_says_so():
    done = ask("--status")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("entrypoint: cannot ask the running entrypoint: ")


def test_help_names_the_commands_and_an_example():
    done = ask("--help")

    assert done.returncode == 0
    for word in ("--healthcheck", "--status", "--version", "example:", "DATABASE_URL"):
        assert word in done.stdout


def test_the_version_is_told():
    done = ask("--version")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip().count(".") == 2


def test_a_health_check_needs_nothing_but_the_standard_library(start):
    # From a checkout that isn't installed, as in a slim image: no metadata, no site-packages.
    running = start(app("wait"))
    running.wait_for_phase("skipped")

    done = ask(
        "--healthcheck", state_dir=running.state_dir, python=(sys.executable, "-S"), PYTHONPATH=str(REPO)
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("arguments", [["--nonsense"], ["-x"], []])
def test_a_wrong_option_is_a_usage_error_without_a_traceback(arguments):
    done = ask(*arguments)

    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("where", [">/dev/full", "| true", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("arguments", ["--healthcheck", "--status", "--version", "--help"])
def test_an_answer_that_nobody_takes_makes_no_traceback_and_the_exit_code_still_tells(
    start, arguments, where
):
    running = start(app("wait"))
    running.wait_for_phase("skipped")

    done = subprocess.run(
        ["sh", "-c", f"{{ $PYTHON -m entrypoint {arguments}; echo $? >&3; }} 3>&2 {where}"],
        env=clean_env(ENTRYPOINT_STATE_DIR=str(running.state_dir), PYTHON=sys.executable),
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=20,
    )

    assert done.stderr.splitlines()[-1] == "0"
    assert "Error" not in done.stderr  # argparse gives its help there if there is no other place


def test_a_health_check_offers_itself_to_the_kernel_before_the_app(tmp_path):
    # Docker starts it as it starts the app, so that in a full container its few MiB could cost the app its life.
    with health_check_of(tmp_path) as (process, client):
        score = Path(f"/proc/{process.pid}/oom_score_adj").read_text()
        client.close()
        process.communicate(timeout=10)

    assert score == "1000\n"
