"""Whatever ends becomes no zombie."""

import os
import signal
import subprocess

import psutil

from tests.support.processes import app, name_of
from tests.support.waiting import wait_until


def test_a_burst_of_orphans_is_reaped(start, pid1, init):
    # They wait to be told, so that they end while we look: one SIGCHLD stands for many.
    running = start(
        ["sh", "-c", 'echo here; read line; exec "$@"', "sh", *app("orphans", "2000")],
        pid1=pid1,
        init=init,
        stdin=subprocess.PIPE,
    )
    running.settle()
    leader = running.app()
    running.process.stdin.write(b"go\n")
    running.process.stdin.close()
    running.wait_for_output("made")

    wait_until(lambda: _strangers(running, leader) == [], timeout_s=15, what="no orphans and no zombies")
    running.send(signal.SIGTERM)
    assert running.wait() == 0
    if init == "entrypoint":
        assert running.stderr.count("\n") == len(running.log)  # no warning of the interpreter's among them


def test_an_orphan_comes_to_us_and_not_to_the_machines_init(start, pid1, init):
    running = start(
        ["sh", "-c", "read line; (exec sleep 30 &); exec sleep 30"],
        pid1=pid1,
        init=init,
        stdin=subprocess.PIPE,
    )
    _wait_for_the_app_alone(running, init)
    running.process.stdin.write(b"go\n")
    running.process.stdin.close()

    wait_until(
        lambda: [name_of(one) for one in running.children()] == ["sleep"] * 2,
        timeout_s=5,
        what="the orphan",
    )


def test_children_from_before_our_start_are_reaped_and_not_taken_for_the_app(
    start, pid1, init, long_migration
):
    # `sh -c 'something & exec entrypoint ...'`: ours without our having started them, one a zombie already.
    # The migrations go on meanwhile, so that no end of a child of ours makes us look.
    running = start(
        app("wait", "7"),
        pid1=pid1,
        init=init,
        wrapper=app("have_children"),
        stdin=subprocess.PIPE,
        env=long_migration,
    )
    running.wait_for_output("ready")
    zombie, other = (int(pid) for pid in running.stdout.split()[:2])
    wait_until(lambda: _zombies(running) == [], timeout_s=5, what="the end of the zombie from before")
    assert running.process.poll() is None
    running.process.stdin.close()
    wait_until(lambda: other not in _pids(running), timeout_s=5, what="the end of the other one")
    assert running.process.poll() is None
    assert zombie != other
    running.send(signal.SIGTERM)

    assert running.wait() == 7


def test_sigchld_inherited_as_ignored_doesnt_hide_the_exit_code(start, pid1, init):
    # tini and catatonit hang for ever (cpython#76296).
    running = start(["sh", "-c", "exit 5"], pid1=pid1, init=init, wrapper=["env", "--ignore-signal=CHLD"])

    assert running.wait(3) == 5


def test_an_app_that_ends_before_we_listen_is_noticed(start, pid1, init):
    for _ in range(3):
        running = start(["sh", "-c", "exit 9"], pid1=pid1, init=init)

        assert running.wait(5) == 9


def test_many_ends_at_once_hide_nobody(start, pid1, init):
    # The app and 50 of its own end while the init stands still: it is told of them once.
    running = start(app("burst", "50", "7"), pid1=pid1, init=init, stdin=subprocess.PIPE)
    running.settle()
    leader = running.app()
    running.send(signal.SIGSTOP)
    running.process.stdin.close()
    wait_until(lambda: leader.status() == psutil.STATUS_ZOMBIE, what="the app's end")
    running.send(signal.SIGCONT)

    assert running.wait(8) == 7


def test_a_stopped_app_is_alive(start, pid1, init):
    running = start(app("wait", "4"), pid1=pid1, init=init)
    running.settle()
    child = running.app()
    for _ in range(2):
        child.send_signal(signal.SIGSTOP)
        wait_until(lambda: child.status() == psutil.STATUS_STOPPED, what="the stop")
        child.send_signal(signal.SIGCONT)
        wait_until(lambda: child.status() == psutil.STATUS_SLEEPING, what="the app to go on")
    assert running.process.poll() is None
    running.send(signal.SIGTERM)

    assert running.wait() == 4


def test_an_app_that_daemonises_has_ended(start, pid1):
    # As under every init: what stays is asked to end. As an ordinary process it is on its own.
    running = start(app("leave_behind", "elsewhere"), pid1=pid1)

    assert running.wait(8) == 3
    left = int(running.stdout.split()[1])
    if not pid1:
        os.kill(left, signal.SIGKILL)
        wait_until(lambda: not psutil.pid_exists(left), what="its end")


def test_a_zombie_whose_parent_lives_is_left_to_it(start, pid1, init):
    running = start(app("keep_zombie"), pid1=pid1, init=init)
    running.settle()
    child = running.app()
    (zombie,) = child.children()
    wait_until(lambda: zombie.status() == psutil.STATUS_ZOMBIE, what="a zombie")
    running.send(signal.SIGTERM)

    # The app itself got the status of its child, for nobody had taken it.
    assert running.wait() == 42


def test_who_holds_the_output_open_doesnt_delay_the_end(start, pid1, init):
    # It sleeps in a session of its own with our stdout; waiting for the end of file would take a minute.
    read_fd, write_fd = os.pipe()
    running = start(["sh", "-c", "setsid sleep 60 & echo $!; exit 5"], pid1=pid1, init=init, stdout=write_fd)
    os.close(write_fd)

    assert running.wait(8) == 5
    if not pid1:
        os.kill(int(os.read(read_fd, 99)), signal.SIGKILL)
    os.close(read_fd)


def test_orphans_in_a_session_of_their_own_are_reaped_as_well(start, pid1, init):
    script = "read line; (setsid sh -c 'echo there; exec sleep 60' &); exec sleep 60"
    running = start(["sh", "-c", script], pid1=pid1, init=init, stdin=subprocess.PIPE)
    _wait_for_the_app_alone(running, init)
    running.process.stdin.write(b"go\n")
    running.process.stdin.flush()
    running.wait_for_output("there")
    leader = running.app()
    (orphan,) = wait_until(lambda: _strangers(running, leader), timeout_s=5, what="the orphan")
    orphan.kill()

    wait_until(lambda: not psutil.pid_exists(orphan.pid), timeout_s=5, what="its end, without a zombie")
    running.process.stdin.close()
    running.send(signal.SIGTERM)
    assert running.wait() == 128 + signal.SIGTERM


def _wait_for_the_app_alone(running, init):
    """The overseer ends in its own time, and as it does, it looks like anybody."""
    if init == "entrypoint":
        running.wait_for_phase("skipped")
    wait_until(lambda: len(running.children()) == 1, what="nobody but the app")


def _strangers(running, leader):
    return [one for one in running.children() if one.pid != leader.pid and not _is_ours(one)]


def _pids(running):
    return [one.pid for one in running.children()]


def _zombies(running):
    return [one for one in running.children() if _is_zombie(one)]


def _is_zombie(process):
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _is_ours(process):
    try:
        return "entrypoint.oversee" in process.cmdline()
    except psutil.Error:
        return False
