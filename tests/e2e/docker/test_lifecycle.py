"""From start to stop: who comes first, who is told, what is left, and the container's exit code."""

import re
from datetime import datetime

import pytest

from tests.e2e.docker.conftest import SLEEPING, app
from tests.support.docker import docker
from tests.support.waiting import wait_until


@pytest.fixture(params=[(), ("--init",)], ids=["as PID 1", "under --init"])
def maybe_init(request):
    """Docker's own init in front of us, or not; a test with it runs both ways."""
    return request.param


@pytest.fixture
def long_migration(database, mounted):
    """Options and environment of a container whose migration doesn't end by itself."""
    return [*database.options, *mounted(_1_a="select pg_sleep(600);")], database.env


def moment(text):
    """Seconds since 1970 of what Docker or our log has written."""
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d*", r"\1", text)).timestamp()


def test_the_apps_first_byte_comes_before_the_migrator_is_even_started(
    containers, app_image, database, mounted
):
    options = [*database.options, *mounted(_1_a="select 1;")]
    running = containers.run(app_image, "sh", "-c", "echo up; exec sleep 60", options=options, **database.env)
    running.wait_for_output("up")
    migrator = moment(running.wait_for_event("migrator.spawned")["timestamp"])

    first = moment(docker("logs", "--timestamps", running.name).stdout.split()[0])
    assert first < migrator
    assert first - moment(running.inspect(".State.StartedAt")) < 2
    running.wait_for_phase("completed")


STOPPED = {
    # What the app does: its command, variables, the container's exit code.
    "ends well": (app("wait"), {}, 0),
    "ends with a code": (app("wait", "7"), {}, 7),
    "knows nothing of signals": (["sleep", "60"], {}, 143),
    "was given in the shell form of CMD": (["/bin/sh", "-c", "echo ready; sleep 60; echo never"], {}, 143),
    "knows nothing of signals, and that is fine": (["sleep", "60"], {"ENTRYPOINT_REMAP_EXIT": "143=0"}, 0),
    "doesn't listen": (app("ignore_term"), {"ENTRYPOINT_STOP_GRACE": "1"}, 137),
    "doesn't listen, and nobody has set anything": (app("ignore_term"), {}, 137),
    "leaves somebody who doesn't listen": (
        app("leave_behind", "stubborn", "wait"),
        {"ENTRYPOINT_STOP_GRACE": "1"},
        3,
    ),
}


@pytest.mark.parametrize("case", STOPPED)
def test_docker_stop_comes_to_an_end_of_ours_and_not_of_dockers(containers, app_image, maybe_init, case):
    command, env, code = STOPPED[case]
    running = containers.run(app_image, *command, options=maybe_init, NODE_ENV="test", **env)
    running.wait_for_event("status.changed")
    if command != ["sleep", "60"]:
        wait_until(lambda: running.stdout, what="a word of the app's")

    assert running.stop() == code
    assert running.log[-1]["event"] == "stop.finished"  # SIGKILL would have left no time for it
    assert running.log[-1]["asked_by"] == "SIGTERM"


@pytest.mark.parametrize(("signal", "number"), [("SIGINT", 2), ("SIGQUIT", 3), ("SIGUSR1", 10)])
def test_the_stop_signal_of_docker_run_reaches_the_app(containers, app_image, signal, number):
    running = containers.run(app_image, *app("print_signals", str(number)), options=["--stop-signal", signal])
    running.wait_for_output("ready")

    assert running.stop() == 0
    assert f"got {number}\n" in running.stdout


def test_docker_stop_ends_the_migration_with_the_app(
    containers, app_image, database, long_migration, maybe_init
):
    options, env = long_migration
    running = containers.run(app_image, *app("wait"), options=[*maybe_init, *options], **env)
    running.wait_for_phase("applying")

    assert running.stop() == 0
    assert running.events("status.changed")[-1]["phase"] == "aborted"
    assert database.fetch(f"select count(*) {SLEEPING}") == "0"


def test_kill_9_of_the_app_ends_the_container_with_137(containers, app_image, long_migration, maybe_init):
    options, env = long_migration
    running = containers.run(app_image, *app("ignore_term"), options=[*maybe_init, *options], **env)
    pid = running.wait_for_phase("applying")["app"]["pid"]
    running.exec("sh", "-c", f"kill -9 {pid}")

    assert running.wait() == 137
    assert running.events("app.exited")[0]["reason"] == "killed by SIGKILL"
    assert running.inspect(".State.OOMKilled") is False


def test_kill_9_of_the_migrator_is_no_business_of_the_apps(containers, app_image, long_migration):
    options, env = long_migration
    running = containers.run(app_image, *app("wait"), options=options, MIGRATION_RETRY_COUNT="0", **env)
    running.wait_for_phase("applying")
    running.exec("sh", "-c", f"kill -9 {running.events('migrator.spawned')[0]['pid']}")

    status = running.wait_for_phase("failed")
    assert "killed by signal 9 while applying 1_a.sql" in status["migrations"]["error"]
    assert status["app"]["status"] == "running"
    assert running.stop() == 0


def processes(container):
    """State and command of each process in it, as the host's `ps` sees them."""
    lines = docker("top", container.name, "-eo", "pid,stat,args").stdout.splitlines()[1:]
    return [tuple(line.split(None, 2)[1:]) for line in lines]


def test_orphans_are_reaped_and_leave_no_zombie(containers, app_image, maybe_init):
    running = containers.run(app_image, *app("orphans", "200"), options=maybe_init, NODE_ENV="test")
    running.wait_for_output("ready")
    running.wait_for_event("status.changed")

    expected = 3 if maybe_init else 2
    wait_until(lambda: len(processes(running)) == expected, what="nobody but the app, us and Docker's init")
    assert running.stop() == 0


def test_what_the_app_leaves_in_another_session_ends_with_the_container(containers, app_image, maybe_init):
    running = containers.run(app_image, *app("leave_behind", "elsewhere", "wait"), options=maybe_init)
    running.wait_for_output("left")

    assert running.stop() == 3
    assert not running.events("stop.escalated")
    signals = [(one["to"], one["signal"]) for one in running.log[-1]["signals"]]
    assert signals == [("app", "SIGTERM"), ("python3", "SIGTERM")]  # and not only the kernel's SIGKILL


def test_an_app_that_ends_by_itself_ends_the_container(containers, app_image, maybe_init):
    running = containers.run(app_image, "sh", "-c", "exit 42", options=maybe_init)

    assert running.wait() == 42


def test_a_container_that_is_started_again_begins_anew(containers, app_image, database, mounted):
    options = [*database.options, *mounted(_1_a="create table a (id int);")]
    running = containers.run(app_image, *app("wait"), options=options, **database.env)
    running.wait_for_phase("completed")
    running.send("KILL")
    assert running.wait() == 137
    first = running.log
    running.start()  # with the marker and the socket of the life before

    running.wait_for_phase("completed")
    assert running.stop() == 0
    second = [line["event"] for line in running.log[len(first) :]]
    assert "migrator.spawned" in second
    assert "marker.failed" not in second
