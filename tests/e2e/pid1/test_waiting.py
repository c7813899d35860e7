"""Whatever ends becomes no zombie."""

import signal
import subprocess

import psutil
import pytest

from tests.support.processes import app
from tests.support.waiting import wait_until


@pytest.mark.parametrize("count", [1, 400])
def test_orphans_are_reaped(start, pid1, count):
    running = start(["--", "sh", "-c", 'sleep 0.3; exec "$@"', "sh", *app("orphans", str(count))], pid1=pid1)
    running.wait_for_output("ready")
    leader = running.children()[0]

    wait_until(lambda: _others(running, leader) == [], what="no orphans and no zombies")
    running.send(signal.SIGTERM)
    assert running.wait() == 0
    assert running.stderr.count("\n") == len(running.log)


def test_an_orphan_comes_to_us_and_not_to_the_machines_init(start, pid1):
    running = start(
        ["--", "sh", "-c", "read line; (exec sleep 30 &); exec sleep 30"], pid1=pid1, stdin=subprocess.PIPE
    )
    running.wait_for_phase("skipped")
    running.process.stdin.write(b"go\n")
    running.process.stdin.close()

    wait_until(lambda: [one.name() for one in running.children()] == ["sleep"] * 2, what="the orphan")


def test_children_from_before_our_start_are_reaped_and_not_taken_for_the_app(start):
    # `sh -c 'something & exec entrypoint ...'`: they are ours without our having started them.
    running = start(app("wait", "7"), wrapper=["sh", "-c", 'sleep 0.6 & (exit 3) & exec "$@"', "sh"])
    running.wait_for_phase("skipped")
    wait_until(lambda: len(running.children()) == 1, what="the strangers' end")
    running.send(signal.SIGTERM)

    assert running.wait() == 7


def test_orphans_in_a_session_of_their_own_are_reaped_as_well(start, pid1):
    running = start(app("leave_behind", "elsewhere", "wait"), pid1=pid1)
    running.wait_for_phase("skipped")
    (leader,) = running.children()
    (left,) = leader.children()
    leader.send_signal(signal.SIGSTOP)
    left.kill()
    wait_until(lambda: left.status() == psutil.STATUS_ZOMBIE, what="a zombie whose parent lives")
    leader.send_signal(signal.SIGCONT)
    running.send(signal.SIGTERM)

    assert running.wait() == 3
    wait_until(lambda: not psutil.pid_exists(left.pid), what="the zombie's end")


def _others(running, leader):
    return [one for one in running.children() if one.pid != leader.pid]
