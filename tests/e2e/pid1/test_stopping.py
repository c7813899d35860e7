"""Asked to stop, or left by the app: everything ends in time, and is accounted for."""

import os
import signal
import time
from contextlib import suppress

import psutil
import pytest

from tests.support.processes import app
from tests.support.waiting import wait_until

END = signal.SIGUSR1


def _last_line(running):
    """The one line at the end, and there is nothing after it."""
    assert running.log[-1]["event"] == "stop.finished"
    assert len(running.events("stop.finished")) == 1
    return running.log[-1]


def test_an_app_that_ignores_sigterm_is_killed_after_the_grace(start, pid1):
    running = start(app("ignore_term"), pid1=pid1, env={"ENTRYPOINT_STOP_GRACE": "0.3"})
    running.settle()
    leader = _leader(running)
    before_s = time.monotonic()
    running.send(signal.SIGTERM)

    assert running.wait(5) == 128 + signal.SIGKILL
    assert 0.25 < time.monotonic() - before_s < 3
    assert running.events("stop.escalated")
    last = _last_line(running)
    assert last["asked_by"] == "SIGTERM"
    assert [(one["signal"], one["to"]) for one in last["signals"]] == [
        ("SIGTERM", "app"),
        ("SIGKILL", "group"),
    ]
    assert last["signals"][0]["at_ms"] < 100
    assert 250 <= last["signals"][1]["at_ms"] < 2000
    assert [one["name"] for one in last["held_up_by"]] == [leader]
    assert last["held_up_by"][0]["ms"] >= 250
    assert [one["name"] for one in last["killed"]] == [leader]
    assert last["exit_code"] == 137
    assert last["duration"] >= 300


def test_an_obedient_app_leaves_an_account_without_victims(start, pid1):
    running = start(app("wait", "3"), pid1=pid1)
    running.settle()
    running.send(signal.SIGTERM)

    assert running.wait() == 3
    last = _last_line(running)
    assert (last["exit_code"], last["killed"]) == (3, [])
    assert last["signals"][0] == {
        "signal": "SIGTERM",
        "to": "app",
        "at_ms": last["signals"][0]["at_ms"],
    }


def test_the_whole_group_is_killed_at_the_deadline(start, pid1):
    # The leader goes at once; what it started ignores SIGTERM.
    running = start(app("leave_behind", "stubborn", "wait"), pid1=pid1, env={"ENTRYPOINT_STOP_GRACE": "0.4"})
    running.settle()
    (left,) = running.app().children()
    running.send(signal.SIGTERM)

    assert running.wait(4) == 3
    wait_until(lambda: not psutil.pid_exists(left.pid), what="the end of what was left")
    assert [one["name"] for one in _last_line(running)["killed"]] == [left_name(running)]


def left_name(running):
    return running.events("stop.finished")[0]["held_up_by"][0]["name"]


def test_as_pid_1_whatever_is_left_in_another_session_is_killed_and_named(start):
    running = start(
        app("leave_behind", "stubborn", "elsewhere", "wait"), pid1=True, env={"ENTRYPOINT_STOP_GRACE": "0.4"}
    )
    running.settle()
    (left,) = running.app().children()
    name = left.name()
    running.send(signal.SIGTERM)

    assert running.wait(4) == 3
    assert not psutil.pid_exists(left.pid)
    assert [one["name"] for one in _last_line(running)["killed"]] == [name]


def test_as_an_ordinary_process_a_daemon_in_its_own_session_survives(start):
    # Where we aren't all of the container, `setsid` is how people say: this one is to stay.
    running = start(app("leave_behind", "stubborn", "elsewhere", "wait"))
    running.settle()
    (left,) = running.app().children()
    running.send(signal.SIGTERM)
    try:
        assert running.wait(4) == 3
        assert left.is_running()
        assert _last_line(running)["killed"] == []
    finally:
        left.kill()
        wait_until(lambda: not psutil.pid_exists(left.pid), what="its end")


def test_an_app_that_left_its_group_is_killed_as_well(start, pid1):
    running = start(app("ignore_term", "elsewhere"), pid1=pid1, env={"ENTRYPOINT_STOP_GRACE": "0.3"})
    running.settle()
    running.send(signal.SIGTERM)

    assert running.wait(5) == 128 + signal.SIGKILL


def test_a_stopped_app_is_continued_so_that_it_can_act_on_the_request(start, pid1):
    running = start(app("wait", "3"), pid1=pid1, env={"ENTRYPOINT_STOP_GRACE": "5"})
    running.settle()
    child = running.app()
    child.send_signal(signal.SIGSTOP)
    wait_until(lambda: child.status() == psutil.STATUS_STOPPED, what="the app to stop")
    running.send(signal.SIGTERM)

    assert running.wait(3) == 3
    assert {"SIGTERM", "SIGCONT"} == {one["signal"] for one in _last_line(running)["signals"]}


def test_the_grace_begins_with_the_first_sigterm_only_and_status_says_stopping(start, pid1):
    running = start(app("ignore_term"), pid1=pid1, env={"ENTRYPOINT_STOP_GRACE": "1"})
    running.settle()
    running.send(signal.SIGTERM)
    before_s = time.monotonic()
    wait_until(lambda: running.marker()["app"]["status"] == "stopping", what="status stopping")

    assert running.request("/ready")[0] == 503
    assert running.request("/live")[0] == 200
    count = 0
    while running.process.poll() is None and time.monotonic() < before_s + 4:
        with suppress(ProcessLookupError):  # it has just ended, and `unshare` is about to
            running.send(signal.SIGTERM)
        count += 1
        time.sleep(0.1)  # a pace, not a hope: somebody who asks again and again
    assert running.wait() == 128 + signal.SIGKILL
    assert count > 2
    assert time.monotonic() - before_s < 2.5


@pytest.mark.parametrize("kind", ["obedient", "stubborn"])
def test_what_the_app_leaves_in_its_group_is_ended(start, pid1, kind):
    running = start(app("leave_behind", kind), pid1=pid1, env={"ENTRYPOINT_STOP_GRACE": "0.3"})

    assert running.wait(8) == 3
    killed = _last_line(running)["killed"]
    assert len(killed) == (1 if kind == "stubborn" else 0)
    assert _last_line(running)["asked_by"] is None


def test_leftovers_of_a_stopped_app_get_the_rest_of_the_grace_only(start, pid1):
    running = start(app("leave_behind", "stubborn", "wait"), pid1=pid1, env={"ENTRYPOINT_STOP_GRACE": "0.5"})
    running.settle()
    running.send(signal.SIGTERM)

    assert running.wait(4) == 3
    assert _last_line(running)["duration"] < 2000


def test_the_delay_lets_a_load_balancer_go_first(start, pid1):
    env = {"ENTRYPOINT_STOP_DELAY": "60", "ENTRYPOINT_STOP_GRACE": "5"}
    running = start(app("print_signals", str(int(END))), pid1=pid1, env=env)
    running.settle()
    running.send(signal.SIGTERM)
    wait_until(lambda: running.marker()["app"]["status"] == "stopping", what="status stopping")

    assert running.request("/ready")[0] == 503
    assert running.request("/live")[0] == 200
    assert running.stdout == "ready\n"
    running.send(signal.SIGTERM)  # who asks twice doesn't want to wait
    running.wait_for_output("got 15\n")
    running.send(END)
    assert running.wait(5) == 0
    # Many an app breaks off at the second.
    assert [one["signal"] for one in _last_line(running)["signals"]].count("SIGTERM") == 1


def test_the_delay_ends_by_itself_and_the_grace_begins_then(start, pid1):
    env = {"ENTRYPOINT_STOP_DELAY": "0.5", "ENTRYPOINT_STOP_GRACE": "0.3"}
    running = start(app("ignore_term"), pid1=pid1, env=env)
    running.settle()
    running.send(signal.SIGTERM)

    assert running.wait(5) == 128 + signal.SIGKILL
    term, kill = _last_line(running)["signals"]
    assert (term["signal"], kill["signal"]) == ("SIGTERM", "SIGKILL")
    assert 500 <= term["at_ms"] < 1500
    assert 250 <= kill["at_ms"] - term["at_ms"] < 1500


def test_other_signals_pass_during_the_delay(start, pid1):
    running = start(app("print_signals", str(int(END))), pid1=pid1, env={"ENTRYPOINT_STOP_DELAY": "60"})
    running.settle()
    running.send(signal.SIGTERM)
    wait_until(lambda: running.marker()["app"]["status"] == "stopping", what="status stopping")
    running.send(signal.SIGHUP)
    running.wait_for_output("got 1\n")
    running.send(END)

    assert running.wait() == 0
    assert "got 15" not in running.stdout


def test_the_migrator_ends_in_parallel_with_the_app(start, pid1, long_migration):
    running = start(app("print_signals", str(int(END))), pid1=pid1, env=long_migration)
    running.wait_for_output("ready")
    migrator = running.migrator()
    running.send(signal.SIGTERM)
    running.wait_for_output("got 15")

    wait_until(lambda: not psutil.pid_exists(migrator.pid), what="the migrator's end, while the app lives")
    running.send(END)
    assert running.wait() == 0
    assert running.marker()["migrations"]["status"] in ("unknown", "failed")


ENDS = {
    "by itself": ("exit 7", 7, "exited with code 7"),
    "by a signal": ("kill -USR2 $$", 140, "killed by SIGUSR2"),
}


@pytest.mark.parametrize("end", ENDS)
def test_exit_code_and_reason_stay_in_the_marker_and_the_termination_log(start, pid1, tmp_path, end):
    script, code, reason = ENDS[end]
    last_words = tmp_path / "termination-log"
    last_words.write_text("what an earlier life said " * 100)
    running = start(["sh", "-c", script], pid1=pid1, env={"ENTRYPOINT_TERMINATION_LOG": str(last_words)})

    assert running.wait() == code
    assert running.marker()["app"]["status"] == "exited"
    assert running.marker()["app"]["exitCode"] == code
    assert running.marker()["app"]["reason"] == reason
    assert last_words.read_text().startswith(f"app {reason}; migrations ")
    assert last_words.read_text().count("\n") == 1
    assert "earlier life" not in last_words.read_text()


def test_a_termination_log_that_isnt_there_is_not_made(start, pid1, tmp_path):
    running = start(["true"], pid1=pid1, env={"ENTRYPOINT_TERMINATION_LOG": str(tmp_path / "none")})

    assert running.wait() == 0
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("kind", ["closed pipe", "full disk", "closed"])
def test_a_log_that_cant_be_written_changes_nobodys_fate(start, pid1, kind):
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    if kind == "full disk":
        os.close(write_fd)
        write_fd = os.open("/dev/full", os.O_WRONLY)
    wrapper = ["sh", "-c", 'exec "$@" 2>&-', "sh"] if kind == "closed" else []
    running = start(
        app("leave_behind", "wait"), pid1=pid1, stderr=write_fd, wrapper=wrapper, env={"LOG_LEVEL": "debug"}
    )
    os.close(write_fd)
    running.settle()
    running.send(signal.SIGHUP)  # a line more; the app dies of it

    assert running.wait(5) == 128 + signal.SIGHUP


def test_a_full_termination_log_changes_nobodys_fate(start, pid1):
    running = start(["sh", "-c", "exit 5"], pid1=pid1, env={"ENTRYPOINT_TERMINATION_LOG": "/dev/full"})

    assert running.wait() == 5


def _leader(running):
    return running.app().name()
