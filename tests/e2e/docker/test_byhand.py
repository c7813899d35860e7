"""`docker run IMAGE sh` and its kind: what a person runs, and beside what nothing migrates."""

import subprocess

import pytest

from tests.e2e.docker.conftest import PASSWORD
from tests.support.docker import docker


@pytest.fixture
def run(containers, image, database, mounted):
    """`docker run` in the foreground, where an app would have its database migrated."""
    files = mounted(_1_a="create table a (id int);")

    def run_one(*command, options=(), **popen):
        env = [word for pair in database.env.items() for word in ("--env", "=".join(pair))]
        own = ["--name", containers.new_name(), *database.options, *files, *env, *options]
        return docker("run", *own, image, *command, check=False, **popen)

    return run_one


def until(status):
    """Lines for a shell: wait until the entrypoint says so, and show it."""
    return f"for i in $(seq 200); do entrypoint --status | grep '{status}' && break; sleep 0.05; done\n"


def migrated(database):
    return database.fetch("select to_regclass('a') is not null") == "t"


@pytest.mark.parametrize("shell", [["sh"], ["/bin/bash", "-l"], ["sh", "-s", "x", "y"]], ids=" ".join)
def test_a_shell_runs_what_it_reads_and_nothing_migrates(run, database, shell):
    done = run(*shell, options=["--interactive"], input=until("migrations skipped") + "exit 7\n")

    assert done.returncode == 7
    assert "migrations skipped (" in done.stdout
    assert f"{shell[0].split('/')[-1]} without a command or a script is a shell for a person" in done.stdout
    assert not migrated(database)


@pytest.mark.parametrize(
    "command",
    [["/bin/sh", "-c", "{}"], ["bash", "-lc", "{}"]],
    ids=" ".join,
)
def test_the_shell_form_of_cmd_is_an_app(run, database, command):
    done = run(*[word.format(until("migrations completed")) for word in command])

    assert done.returncode == 0
    assert migrated(database)


def test_a_shell_with_a_script_is_an_app(run, database, tmp_path):
    script = tmp_path / "start"
    script.write_text(until("migrations completed"))
    done = run("sh", "/start", options=["--volume", f"{script}:/start:ro"])

    assert done.returncode == 0
    assert migrated(database)


def test_the_migrator_by_hand_has_the_database_to_itself(run, database):
    plan, up, status = (run("migrator", word) for word in ("plan", "up", "status"))

    assert [done.returncode for done in (plan, up, status)] == [0, 0, 0]
    assert "1_a" in plan.stdout
    assert "App spawned" not in up.stderr
    assert "applied" in status.stdout
    assert migrated(database)


def test_what_migrates_beside_a_shell_if_somebody_says_so(run, database):
    done = run("sh", "-c", "sh", options=["--interactive"], input=until("migrations completed"))

    assert done.returncode == 0
    assert migrated(database)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--version"], 0, "0."),
        (["--help"], 0, "usage: entrypoint"),
        (["--healthcheck"], 1, "unhealthy: nothing is published"),
        (["--status"], 1, "cannot ask the running entrypoint: nothing is published"),
        (["--check", "--json"], None, '"checks"'),
        (["--port", "80"], 2, "unrecognized arguments: --port"),
        (["--", "echo", "an app"], 0, "an app"),
        (["no-such-app"], 127, "cannot start the app 'no-such-app': not found"),
        (["/etc/passwd"], 126, "cannot start the app '/etc/passwd': not executable"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_comes_behind_the_images_name(containers, image, arguments, code, said):
    done = docker("run", "--name", containers.new_name(), image, *arguments, check=False)

    assert said in done.stdout + done.stderr
    assert code is None or done.returncode == code
    assert "Traceback" not in done.stderr


def test_whoever_it_is_can_ask_in_the_container(containers, image, database, mounted):
    running = containers.run(
        image, "sleep", "60", options=[*database.options, *mounted(_1_a="select 1;")], **database.env
    )
    running.wait_for_phase("completed")

    for user in ("0", "65532", "10001:0", "nobody"):
        for command, said in (
            (("entrypoint", "--healthcheck"), "healthy: app running, migrations completed"),
            (("entrypoint", "--status"), "app running, migrations completed"),
            (("migrator", "status"), "1_a"),
        ):
            done = running.exec(*command, user=user)
            assert said in done.stdout
            assert PASSWORD not in done.stdout + done.stderr


def test_on_a_terminal_the_prompt_comes_without_log_lines_behind_it(containers, image):
    arguments = ["run", "--name", containers.new_name(), "--tty", "--interactive", image, "sh"]
    # `script` gives docker the terminal that it insists on.
    done = subprocess.run(
        ["script", "--quiet", "--return", "--command", " ".join(["docker", *arguments]), "/dev/null"],
        input=until("migrations skipped") + "exit 7\n",
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 7
    assert "migrations skipped" in done.stdout
    assert "App spawned" not in done.stdout
    assert "Status changed" not in done.stdout
