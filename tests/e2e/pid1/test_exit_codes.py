"""The app's end is the container's end."""

import os
import signal
import subprocess
import sys

import pytest

from tests.conftest import needs
from tests.support.processes import REPO, app, clean_env


@pytest.mark.parametrize("code", [0, 1, 7, 255])
def test_the_exit_code_is_the_apps(start, pid1, init, code):
    running = start(["sh", "-c", f"exit {code}"], pid1=pid1, init=init)

    assert running.wait() == code


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGPIPE, signal.SIGSEGV])
def test_an_app_killed_by_a_signal_gives_128_plus_its_number(start, pid1, init, number):
    running = start(["sh", "-c", f"ulimit -c 0; kill -{int(number)} $$"], pid1=pid1, init=init)

    assert running.wait() == 128 + number


@pytest.mark.parametrize("words", [["--"], []], ids=["after two dashes", "without dashes"])
def test_the_apps_arguments_are_passed_on_untouched(start, words):
    running = start([*words, "printf", "%s|", "--", "-x", "", "a b", "é\n"])

    assert running.wait() == 0
    assert running.stdout == "--|-x||a b|é\n|"


REFUSALS = [
    ("no-such-program", 127, "not found"),
    ("/no/such/program", 127, "not found"),
    ("", 127, "not found"),
    ("/etc/passwd/below-a-file", 127, "Not a directory"),
    ("no-such-program server.js", 127, "no shell splits it into words"),
    ("/etc/passwd", 126, "not executable"),
    ("/tmp", 126, "not executable"),
    ("{script}", 127, "interpreter"),
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=[command for command, _, _ in REFUSALS])
def test_an_app_that_cant_start_gives_one_line_and_the_code_of_a_shell(start, pid1, tmp_path, refusal):
    command, code, says = refusal
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    command = command.format(script=script)

    running = start(["--", command], pid1=pid1)

    assert running.wait() == code
    assert running.stderr.startswith(f"entrypoint: cannot start the app {command!r}: ")
    assert says in running.stderr
    assert len(running.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("command", "code"), [("no-such-program", 127), ("/etc/passwd", 126)], ids=["not found", "not executable"]
)
def test_who_cant_be_started_gives_the_code_of_a_shell_and_its_name(start, pid1, init, command, code):
    running = start([command, "with", "arguments"], pid1=pid1, init=init)

    assert running.wait(5) == code
    assert command in running.stderr


@pytest.mark.parametrize("in_path", [True, False], ids=["found in PATH", "named by its path"])
def test_a_script_without_interpreter_line_runs_by_sh(start, pid1, init, tmp_path, in_path):
    script = tmp_path / "bin" / "script"
    script.parent.mkdir()
    script.write_text('echo "ran with $1"; exit 4\n')
    script.chmod(0o755)
    env = {"PATH": f"{script.parent}:{os.environ['PATH']}"}

    running = start(["script" if in_path else str(script), "a b"], pid1=pid1, init=init, env=env)

    assert running.wait() == 4
    assert running.stdout == "ran with a b\n"


def test_an_app_that_ends_before_the_supervisor_is_up_keeps_its_code_and_is_reported(start, pid1):
    running = start(["--", "sh", "-c", "exit 9"], pid1=pid1)

    assert running.wait() == 9
    assert running.marker()["app"]["status"] == "exited"
    assert running.marker()["app"]["exitCode"] == 9


def test_what_an_early_app_left_behind_doesnt_cost_the_grace(start, pid1):
    running = start(["--", "sh", "-c", "sleep 60 & exit 6"], pid1=pid1, env={"ENTRYPOINT_STOP_GRACE": "9"})

    assert running.wait(timeout_s=5) == 6


EMPTY = {
    "nothing": ([], "no app given"),
    "two dashes": (["--"], "no app given"),
    "an unknown option": (["--no-such-option"], "--no-such-option"),
}


@pytest.mark.parametrize("case", EMPTY)
def test_no_command_is_a_usage_error_without_a_traceback(start, pid1, case):
    argv, says = EMPTY[case]
    running = start(argv, pid1=pid1)

    assert running.wait() == 2
    assert says in running.stderr
    assert "Traceback" not in running.stderr


def test_two_dashes_twice_are_as_good_as_once(start, pid1):
    # The first may be an image's ENTRYPOINT, and the second somebody's habit.
    running = start(["--", "--", "sh", "-c", "exit 3"], pid1=pid1)

    assert running.wait() == 3


def test_an_option_of_the_app_isnt_taken_for_ours(start, pid1):
    running = start(["sh", "-c", "exit 3"], pid1=pid1)

    assert running.wait() == 3


REMAPPED = {
    "a code": ("143=0", "exit 143", 0),
    "another code": ("143=0", "exit 3", 3),
    "a signal that we forwarded": ("forwarded=0", "", 0),
    "a code wins over the rule": ("forwarded=0,143=9", "", 9),
    "a death that we didn't cause": ("forwarded=0", "kill -TERM $$", 143),
}


@pytest.mark.parametrize("case", REMAPPED)
def test_exit_codes_are_mapped_as_wished(start, pid1, case):
    remap, script, code = REMAPPED[case]
    asked = not script
    running = start(
        ["sh", "-c", script or "echo ready; exec sleep 60"], pid1=pid1, env={"ENTRYPOINT_REMAP_EXIT": remap}
    )
    if asked:
        running.wait_for_output("ready")
        running.send(signal.SIGTERM)

    assert running.wait() == code
    assert running.marker()["app"]["exitCode"] == code
    assert running.events("stop.finished")[0]["exit_code"] == code


@pytest.mark.parametrize("name", ["=x", "==1"])
def test_a_strange_name_in_the_environment_is_no_reason_not_to_start(name, tmp_path):
    # `env` and shells let such names through; posix_spawn refuses the whole environment.
    done = subprocess.run(
        [
            "env",
            "-i",
            f"{name}=1",
            f"ENTRYPOINT_STATE_DIR={tmp_path}",
            sys.executable,
            "-m",
            "entrypoint",
            "true",
        ],
        env=clean_env(),
        cwd=REPO,
        capture_output=True,
    )

    assert (done.returncode, b"cannot start" in done.stderr) == (0, False)


def test_a_working_directory_that_was_deleted_is_no_reason_not_to_start(start, tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()

    running = start(
        ["--", "sh", "-c", "exit 8"],
        cwd=gone,
        wrapper=["sh", "-c", f'rmdir {gone}; exec "$@"', "sh"],
        env={"ENTRYPOINT_STATE_DIR": "relative"},
    )

    assert running.wait() == 8


def test_modules_in_the_apps_directory_dont_replace_ours(start, tmp_path):
    project = tmp_path / "project"
    project.mkdir()
    for name in ("email", "asyncio", "migrator", "json", "socket"):
        (project / f"{name}.py").write_text("raise SystemExit('the wrong module')\n")

    running = start(app("wait", "3"), cwd=project)
    running.settle()
    running.send(signal.SIGTERM)

    assert running.wait() == 3
    assert "internal error" not in running.stderr


@pytest.mark.parametrize(
    "closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"], ids=["input", "output", "errors", "all"]
)
def test_closed_standard_streams_dont_change_the_apps_fate(start, pid1, init, closed):
    # The supervisor's own sockets got the numbers 0 to 2, and log lines became signals.
    running = start(
        ["sleep", "0.6"],
        pid1=pid1,
        init=init,
        wrapper=["sh", "-c", f'exec "$@" {closed}', "sh"],
        env={"LOG_LEVEL": "debug"},
    )

    assert running.wait() == 0
    if init == "entrypoint":
        # On a busy machine the app ends before the overseer has spoken.
        assert running.marker()["migrations"]["phase"] in ("skipped", "aborted")


def test_an_app_that_became_root_can_be_out_of_reach_without_harm(start):
    if os.geteuid() != 0:
        pytest.skip("needs root, to run as somebody else")
    # `nobody`, who may read everything here and change users, but not signal others.
    drop = [needs("setpriv"), "--reuid=65534", "--regid=65534", "--clear-groups"]
    drop += ["--inh-caps=+dac_override,+setuid", "--ambient-caps=+dac_override,+setuid"]

    stop_soon = {"ENTRYPOINT_STOP_GRACE": "0.1"}
    running = start(app("become_root"), wrapper=drop, stdin=subprocess.PIPE, env=stop_soon)
    running.wait_for_output("ready")
    running.wait_for_event("status.changed")
    running.send(signal.SIGTERM)
    running.wait_for_event("stop.escalated")
    running.process.stdin.close()

    assert running.wait() == 5
    assert "internal error" not in running.stderr
    assert "Traceback" not in running.stderr
