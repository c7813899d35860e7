"""Our own words: JSON on stderr, and never in the app's way."""

import fcntl
import os
import signal
import socket

import pytest

from tests.support.processes import app
from tests.support.waiting import wait_until


def test_stdout_holds_only_what_the_app_wrote_and_stderr_only_json_lines(start):
    running = start(["--", "sh", "-c", "echo out; sleep 0.5"], env={"LOG_LEVEL": "debug"})

    assert running.wait() == 0
    assert running.stdout == "out\n"
    assert running.stderr.count("\n") == len(running.log) > 2
    for line in running.log:
        assert {"timestamp", "level", "message", "component", "instanceId", "event"} <= line.keys()


def test_log_output_stdout_moves_our_lines_there(start):
    running = start(["--", "sh", "-c", "exec sleep 0.5"], env={"LOG_OUTPUT": "stdout"})

    assert running.wait() == 0
    assert running.stderr == ""
    assert '"app.spawned"' in running.stdout


def test_a_log_that_nobody_reads_any_more_doesnt_change_the_apps_fate(start, pid1):
    # The kernel's SIGPIPE for our own line was handed to the app. `sleep` dies of it, unlike Python.
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    running = start(["--", "sleep", "600"], pid1=pid1, stderr=write_fd, env={"LOG_LEVEL": "debug"})
    os.close(write_fd)
    running.wait_for_phase("skipped")
    running.send(signal.SIGTERM)

    assert running.wait() == 128 + signal.SIGTERM  # not of SIGPIPE


def test_a_log_on_a_full_disk_doesnt_change_the_apps_fate(start):
    with open("/dev/full", "wb") as full:
        running = start(app("wait", "3"), stderr=full)
    running.wait_for_phase("skipped")
    running.send(signal.SIGTERM)

    assert running.wait() == 3


@pytest.mark.parametrize("level", ["info", "debug"])
def test_a_full_pipe_that_nobody_reads_doesnt_hold_signals_up(start, level):
    read_fd, write_fd = os.pipe()
    fcntl.fcntl(write_fd, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(write_fd, False)
    try:
        while True:
            os.write(write_fd, b"x" * 512)
    except BlockingIOError:
        os.set_blocking(write_fd, True)
    running = start(app("print_signals", str(int(signal.SIGUSR1))), stderr=write_fd, env={"LOG_LEVEL": level})
    os.close(write_fd)
    running.wait_for_phase("skipped")
    for count in range(1, 30):
        running.send(signal.SIGHUP)
        wait_until(lambda count=count: running.stdout.count("got 1\n") == count, what="SIGHUP")
    running.send(signal.SIGUSR1)

    assert running.wait(5) == 0
    os.close(read_fd)


def test_a_log_into_a_socket_works(start):
    ours, theirs = socket.socketpair()
    running = start(app("wait", "3"), stderr=theirs)
    theirs.close()
    running.wait_for_phase("skipped")
    assert b"app.spawned" in ours.recv(65536)
    ours.close()
    running.send(signal.SIGTERM)

    assert running.wait() == 3
