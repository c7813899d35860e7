"""Signals reach the app, each once, at whatever moment they come."""

import os
import signal
import time

import psutil
import pytest

from entrypoint import launch
from tests.support.processes import app
from tests.support.waiting import wait_until

FORWARDED = sorted(
    launch.CATCHABLE - {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGTTIN, signal.SIGTTOU}
)


def test_every_catchable_signal_is_forwarded_once(start, pid1):
    running = start(app("print_signals"), pid1=pid1)
    running.wait_for_output("ready")
    running.wait_for_phase("skipped")

    for number in FORWARDED:
        running.send(number)
        running.wait_for_output(f"got {number}\n")
    running.send(signal.SIGTERM)

    assert running.wait() == 0
    expected = [*FORWARDED, signal.SIGTERM]
    assert running.stdout == "ready\n" + "".join(f"got {int(number)}\n" for number in expected)
    assert signal.SIGRTMIN in FORWARDED


@pytest.mark.parametrize("trial", range(5))
def test_a_signal_before_the_supervisor_is_loaded_is_not_lost(start, pid1, trial):
    running = start(app("print_signals"), pid1=pid1)
    running.wait_for_output("ready")
    running.send(signal.SIGTERM)

    assert running.wait(5) == 0
    assert running.stdout == "ready\ngot 15\n"


@pytest.mark.parametrize("trial", range(10))
def test_a_signal_right_after_the_start_is_not_lost(start, trial):
    # Not before our first statement: 12 ms of the interpreter's own start can't be helped.
    running = start(["--", "sleep", "30"])
    wait_until(
        lambda: int(_status_of(running.pid)["SigBlk"], 16) >> (signal.SIGTERM - 1) & 1, what="the hold"
    )
    running.send(signal.SIGTERM)

    assert running.wait(5) == 128 + signal.SIGTERM


def test_a_second_and_a_third_sigterm_are_forwarded_and_do_no_harm(start, pid1):
    running = start(app("print_signals", str(int(signal.SIGUSR1))), pid1=pid1)
    running.wait_for_phase("skipped")

    for count in (1, 2, 3):
        running.send(signal.SIGTERM)
        wait_until(lambda count=count: running.stdout.count("got 15") == count, what=f"SIGTERM {count}")
    running.send(signal.SIGUSR1)

    assert running.wait() == 0
    assert "internal error" not in running.stderr


def test_sigterm_inherited_blocked_still_works(start):
    running = start(
        app("print_signals"),
        preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM}),
    )
    running.wait_for_phase("skipped")
    running.send(signal.SIGTERM)

    assert running.wait() == 0


def test_sigchld_inherited_as_ignored_doesnt_hide_the_exit_code(start, pid1):
    # tini and catatonit hang for ever (cpython#76296).
    running = start(
        ["--", "sh", "-c", "sleep 0.5; exit 5"],
        pid1=pid1,
        wrapper=["env", "--ignore-signal=CHLD"],
    )

    assert running.wait(5) == 5


def test_an_app_that_ignores_sigterm_is_killed_after_the_grace(start, pid1):
    running = start(app("ignore_term"), pid1=pid1, env={"ENTRYPOINT_STOP_GRACE": "0.3"})
    running.wait_for_output("ready")
    running.wait_for_phase("skipped")
    before_s = time.monotonic()
    running.send(signal.SIGTERM)

    assert running.wait(5) == 128 + signal.SIGKILL
    assert 0.25 < time.monotonic() - before_s < 3
    assert running.events("stop.escalated")


def test_an_app_that_left_its_group_is_killed_as_well(start):
    running = start(app("ignore_term", "elsewhere"), env={"ENTRYPOINT_STOP_GRACE": "0.3"})
    running.wait_for_output("ready")
    running.wait_for_phase("skipped")
    running.send(signal.SIGTERM)

    assert running.wait(5) == 128 + signal.SIGKILL


def test_a_stopped_app_is_killed_after_the_grace(start):
    running = start(app("wait"), env={"ENTRYPOINT_STOP_GRACE": "0.3"})
    running.wait_for_phase("skipped")
    running.send(signal.SIGTSTP)
    (child,) = running.children()
    wait_until(lambda: child.status() == psutil.STATUS_STOPPED, what="the app to stop")
    running.send(signal.SIGTERM)

    assert running.wait(5) == 128 + signal.SIGKILL


def test_the_grace_begins_with_the_first_sigterm_only_and_status_says_stopping(start):
    running = start(app("print_signals", str(int(signal.SIGUSR1))))
    running.wait_for_phase("skipped")
    running.send(signal.SIGTERM)
    wait_until(lambda: running.marker()["app"]["status"] == "stopping", what="status stopping")

    assert running.request("/ready")[0] == 503
    assert running.request("/live")[0] == 200
    running.send(signal.SIGUSR1)
    assert running.wait() == 0


@pytest.mark.parametrize("kind", ["obedient", "stubborn"])
def test_what_the_app_leaves_in_its_group_is_ended(start, kind):
    running = start(app("leave_behind", kind), env={"ENTRYPOINT_STOP_GRACE": "0.3"})

    assert running.wait(8) == 3
    left = int(running.stdout.split()[1])
    wait_until(lambda: not psutil.pid_exists(left), what="the end of what was left")


def test_leftovers_of_a_stopped_app_get_the_rest_of_the_grace_only(start):
    running = start(app("leave_behind", "stubborn", "wait"), env={"ENTRYPOINT_STOP_GRACE": "0.5"})
    running.wait_for_phase("skipped")
    running.send(signal.SIGTERM)

    assert running.wait(4) == 3


def test_a_real_time_signal_burst_is_not_merged_away(start):
    running = start(app("print_signals"))
    running.wait_for_phase("skipped")
    for _ in range(20):
        running.send(signal.SIGRTMIN + 3)
    wait_until(lambda: running.stdout.count("got ") == 20, what="20 signals")
    running.send(signal.SIGTERM)

    assert running.wait() == 0


def test_the_faults_of_our_own_arent_handed_on(start):
    running = start(app("print_signals"), wrapper=["sh", "-c", 'ulimit -c 0; exec "$@"', "sh"])
    running.wait_for_phase("skipped")
    (child,) = running.children()
    running.send(signal.SIGSEGV)

    assert running.wait() == -signal.SIGSEGV
    assert "got 11" not in running.stdout
    os.kill(child.pid, signal.SIGTERM)


def _status_of(pid):
    with open(f"/proc/{pid}/status") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
