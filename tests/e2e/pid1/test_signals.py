"""Signals reach the app, each once, at whatever moment they come."""

import ctypes
import errno
import os
import resource
import signal
import subprocess

import psutil
import pytest

from entrypoint import launch
from tests.e2e.conftest import init_command
from tests.support.processes import app
from tests.support.waiting import wait_until

END = signal.SIGUSR1
# TTIN and TTOU are ignored by whoever has a terminal, and TSTP is a test of its own.
REAL_TIME = [number for number in sorted(launch.CATCHABLE) if number >= signal.SIGRTMIN]
ORDINARY = sorted(
    launch.CATCHABLE - {*REAL_TIME, END, signal.SIGCHLD, signal.SIGTTIN, signal.SIGTTOU, signal.SIGTSTP}
)


@pytest.mark.parametrize("numbers", [ORDINARY, REAL_TIME], ids=["ordinary signals", "real-time signals"])
def test_every_catchable_signal_is_forwarded_once(start, pid1, init, numbers):
    running = start(app("print_signals", str(int(END))), pid1=pid1, init=init)
    running.wait_for_output("ready")

    for number in numbers:
        running.send(number)
        running.wait_for_output(f"got {int(number)}\n")
    running.send(END)

    assert running.wait() == 0
    assert running.stdout == "ready\n" + "".join(f"got {int(number)}\n" for number in [*numbers, END])


def test_the_decided_exceptions_are_the_only_ones():
    # PIPE and XFSZ tell us of our own writes, KILL and STOP can't be caught, the rest are our own faults.
    left = signal.valid_signals() - launch.CATCHABLE - launch.FAULTS

    assert left == {signal.SIGPIPE, signal.SIGXFSZ, signal.SIGKILL, signal.SIGSTOP}


def test_a_stop_key_from_elsewhere_reaches_the_app(start, pid1, init):
    running = start(app("print_signals", str(int(END))), pid1=pid1, init=init)
    running.wait_for_output("ready")
    running.send(signal.SIGTSTP)
    running.wait_for_output("got 20\n", timeout_s=3)
    running.send(END)

    assert running.wait(5) == 0


@pytest.mark.parametrize("trial", range(3))
def test_a_signal_as_soon_as_the_app_speaks_is_not_lost(start, pid1, init, trial):
    # Ours has no handlers yet: they are held.
    running = start(app("print_signals"), pid1=pid1, init=init)
    running.wait_for_output("ready")
    running.send(signal.SIGTERM)

    assert running.wait(5) == 0
    assert running.stdout == "ready\ngot 15\n"


@pytest.mark.parametrize("trial", range(10))
def test_a_signal_right_after_the_start_is_not_lost(start, trial):
    # Not before our first statement: 12 ms of the interpreter's own start can't be helped.
    running = start(["--", "sleep", "30"])
    # sigtimedwait(2) shows what it waits for as not blocked: by then the app is there.
    wait_until(
        lambda: _is_held_or_handled(running.pid, signal.SIGTERM) or running.children(), what="the hold"
    )
    running.send(signal.SIGTERM)

    assert running.wait(5) == 128 + signal.SIGTERM


def test_signals_that_come_while_the_app_is_being_started_are_held_and_delivered_once(start, pid1, held_exec):
    # tini and dumb-init hand them on before the exec, where they kill what would have handled them.
    sent = [signal.SIGHUP, signal.SIGTERM, signal.SIGRTMIN + 1, signal.SIGRTMIN + 3, signal.SIGRTMIN + 3]
    command = held_exec.hold(app("print_signals", str(int(END))))
    running = start(command, pid1=pid1, env={"LOG_LEVEL": "debug"})
    held_exec.wait_for_exec()
    for number in sent:
        running.send(number)
    running.send(signal.SIGSTOP)  # not to be quicker than the app, which has to block them first
    held_exec.let_go()
    running.wait_for_output("ready", timeout_s=4)
    sent.append(signal.SIGCONT)
    running.send(signal.SIGCONT)

    wait_until(lambda: running.stdout.count("got ") == len(sent), timeout_s=4, what="all of them")
    running.send(END)
    assert running.wait() == 0
    assert sorted(running.stdout.split("\n")) == sorted(
        ["", "ready", *(f"got {int(number)}" for number in [*sent, END])]
    )
    # The kernel's own order of pending signals: by number, those of one number as they came.
    order = "SIGHUP SIGTERM SIGCONT SIGRTMIN+1 SIGRTMIN+3 SIGRTMIN+3 SIGUSR1"
    assert [line["signal"] for line in running.events("signal.forwarded")] == order.split()


def test_a_second_and_a_third_sigterm_are_passed_on_like_the_first(start, pid1, init):
    running = start(app("print_signals", str(int(END))), pid1=pid1, init=init)
    running.wait_for_output("ready")

    for count in (1, 2, 3):
        running.send(signal.SIGTERM)
        wait_until(lambda count=count: running.stdout.count("got 15") == count, what=f"SIGTERM {count}")
    running.send(END)

    assert running.wait() == 0
    assert "internal error" not in running.stderr


def test_sigterm_inherited_blocked_still_works(start, pid1):
    running = start(
        app("print_signals"),
        pid1=pid1,
        preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM}),
    )
    running.settle()
    running.send(signal.SIGTERM)

    assert running.wait() == 0


def test_a_real_time_signal_burst_is_not_merged_away(start, pid1, init):
    running = start(app("print_signals"), pid1=pid1, init=init)
    running.wait_for_output("ready")
    for _ in range(20):
        running.send(signal.SIGRTMIN + 3)
    wait_until(lambda: running.stdout.count("got ") == 20, what="20 signals")
    running.send(signal.SIGTERM)

    assert running.wait() == 0


def test_a_real_time_signal_waits_for_room_where_the_kernel_keeps_few(start):
    # The limit is one for all processes of a user, so a slow app takes the room of everybody.
    running = start(
        app("print_signals"), preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_SIGPENDING, (20, 20))
    )
    running.wait_for_output("ready")
    running.wait_for_phase("skipped")
    libc = ctypes.CDLL(None, use_errno=True)
    for _ in range(1000):
        while libc.sigqueue(running.pid, signal.SIGRTMIN + 3, None):
            assert ctypes.get_errno() == errno.EAGAIN
    wait_until(lambda: running.stdout.count("got ") == 1000, what="1000 signals")
    running.send(signal.SIGTERM)

    assert running.wait() == 0


def test_a_stopped_app_without_room_for_signals_holds_nobody_up(start):
    running = start(
        app("print_signals"), preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_SIGPENDING, (20, 20))
    )
    running.wait_for_output("ready")
    running.wait_for_phase("skipped")
    running.send(signal.SIGTSTP)
    child = psutil.Process(running.marker()["app"]["pid"])
    wait_until(lambda: running.stdout.endswith("got 20\n"), what="SIGTSTP")
    child.send_signal(signal.SIGSTOP)
    for _ in range(100):
        running.send(signal.SIGRTMIN + 3)
    running.send(signal.SIGTERM)

    assert running.wait(8) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_reaches_an_app_that_leaves_us_no_processor(start, number):
    one = {min(os.sched_getaffinity(0))}
    hog = ["--", "sh", "-c", "echo ready; while :; do :; done"]
    running = start(hog, preexec_fn=lambda: os.sched_setaffinity(0, one))
    running.wait_for_output("ready")
    running.send(number)

    assert running.wait(5) == 128 + number


def test_a_signal_to_an_app_that_has_just_ended_changes_nothing(start, pid1):
    running = start(["--", "sh", "-c", "read line; exit 6"], pid1=pid1, stdin=subprocess.PIPE)
    running.wait_for_phase("skipped")
    leader = running.app()
    running.send(signal.SIGSTOP)  # the exit and the signal come at the same time
    wait_until(lambda: psutil.Process(running.pid).status() == psutil.STATUS_STOPPED, what="the stop")
    running.process.stdin.close()
    wait_until(lambda: leader.status() == psutil.STATUS_ZOMBIE, what="the app's end")
    running.send(signal.SIGTERM)
    running.send(signal.SIGHUP)
    running.send(signal.SIGCONT)

    assert running.wait() == 6
    assert "internal error" not in running.stderr


def test_a_fault_signal_kills_us_and_is_not_handed_on(start, pid1, init):
    # As PID 1 the kernel lets nothing of it through that was sent, only a fault itself.
    running = start(
        app("print_signals", str(int(END))),
        pid1=pid1,
        init=init,
        wrapper=["sh", "-c", 'ulimit -c 0; exec "$@"', "sh"],
    )
    running.settle()
    family = psutil.Process(running.pid).children(recursive=True)
    running.send(signal.SIGSEGV)
    if pid1:
        running.send(END)
        assert running.wait() == 0
    else:
        try:
            assert running.wait(3) == -signal.SIGSEGV
        finally:
            for one in family:
                one.send_signal(signal.SIGKILL)
            psutil.wait_procs(family, timeout=5)
    assert "got 11" not in running.stdout


def test_a_fault_of_our_own_ends_pid_1_too(start, tmp_path):
    # Not a signal that is sent: null is read, as a bug in C would.
    running = start(app("wait"), pid1=True, env=_crash_on_usr2(tmp_path))
    running.settle()
    running.send(signal.SIGUSR2)

    assert running.wait() in (-signal.SIGSEGV, 128 + signal.SIGSEGV)


def test_the_stop_signal_setting_takes_the_place_of_sigterm_only(start, pid1):
    running = start(app("print_signals", str(int(END))), pid1=pid1, env={"ENTRYPOINT_STOP_SIGNAL": "RTMIN+3"})
    running.wait_for_output("ready")
    stop = signal.SIGRTMIN + 3

    running.send(signal.SIGTERM)
    running.wait_for_output(f"got {stop}\n")
    running.send(signal.SIGINT)
    running.wait_for_output("got 2\n")
    running.send(END)
    assert running.wait() == 0
    assert "got 15" not in running.stdout
    assert running.events("stop.started")[0]["signal"] == "SIGTERM"


def test_the_stop_signal_itself_is_a_request_to_stop(start, pid1):
    running = start(
        app("ignore_term"),
        pid1=pid1,
        env={"ENTRYPOINT_STOP_SIGNAL": "USR1", "ENTRYPOINT_STOP_GRACE": "5"},
    )
    running.wait_for_output("ready")
    running.send(signal.SIGUSR1)

    assert running.wait() == 128 + signal.SIGUSR1
    assert running.events("stop.started")[0]["signal"] == "SIGUSR1"


def test_a_wrong_stop_signal_is_said_and_sigterm_works_as_ever(start, pid1):
    running = start(app("wait", "3"), pid1=pid1, env={"ENTRYPOINT_STOP_SIGNAL": "NONSENSE"})
    running.settle()
    running.send(signal.SIGTERM)

    assert running.wait() == 3
    assert "ENTRYPOINT_STOP_SIGNAL" in running.events("settings.refused")[0]["reason"]


def test_rewriting_replaces_drops_and_wins_over_the_stop_signal(start, pid1):
    env = {"ENTRYPOINT_REWRITE_SIGNALS": "HUP:USR2,WINCH:0,TERM:QUIT", "ENTRYPOINT_STOP_SIGNAL": "ALRM"}
    running = start(app("print_signals", str(int(END))), pid1=pid1, env=env)
    running.wait_for_output("ready")

    for number, arrives in [(signal.SIGHUP, signal.SIGUSR2), (signal.SIGTERM, signal.SIGQUIT)]:
        running.send(number)
        running.wait_for_output(f"got {int(arrives)}\n")
    running.send(signal.SIGWINCH)
    running.send(signal.SIGCONT)
    running.wait_for_output(f"got {int(signal.SIGCONT)}\n")
    running.send(END)
    assert running.wait() == 0
    assert running.stdout == "ready\ngot 12\ngot 3\ngot 18\ngot 10\n"


@pytest.mark.parametrize(("to", "count"), [("leader", 1), ("group", 2)])
def test_the_signal_group_setting_decides_who_gets_them(start, pid1, to, count):
    # Two processes of one group, and each says what it gets.
    pair = ["sh", "-c", '"$@" & exec "$@"', "sh", *app("print_signals", str(int(END)))]
    running = start(pair, pid1=pid1, env={"ENTRYPOINT_SIGNAL_GROUP": to, "ENTRYPOINT_STOP_GRACE": "0.3"})
    wait_until(lambda: running.stdout.count("ready") == 2, what="both")
    running.send(signal.SIGHUP)
    wait_until(lambda: running.stdout.count("got 1\n") == count, what="SIGHUP")
    running.send(END)

    assert running.wait() == 0
    assert running.stdout.count("got 1\n") == count
    assert running.stdout.count("got 15\n") == (0 if to == "group" else 1)  # what the end does to the rest


@pytest.mark.parametrize("inner", ["entrypoint", "tini", "dumb-init"])
def test_an_init_within_ours_passes_signals_and_exit_code_on(start, pid1, inner):
    running = start([*init_command(inner, pid1=False), *app("wait", "6")], pid1=pid1)
    running.settle()
    running.send(signal.SIGTERM)

    assert running.wait() == 6


def test_we_end_with_our_parent_where_that_is_wished(start):
    # `sh` is killed; without the setting, we would live on.
    running = start(
        app("print_signals"),
        wrapper=["sh", "-c", '"$@" & read line', "sh"],
        stdin=subprocess.PIPE,
        env={"ENTRYPOINT_PDEATHSIG": "TERM"},
    )
    running.settle()
    (entrypoint,) = running.children()
    running.process.kill()
    running.process.wait()
    running.process.stdin.close()

    running.wait_for_output("got 15\n")
    wait_until(lambda: not psutil.pid_exists(entrypoint.pid), what="our end")
    assert running.marker()["app"]["exitCode"] == 0


def _is_held_or_handled(pid, number):
    found = _status_of(pid)
    return any(int(found[name], 16) >> (number - 1) & 1 for name in ("SigBlk", "SigCgt"))


def _crash_on_usr2(tmp_path):
    shim = tmp_path / "shim"
    shim.mkdir()
    (shim / "sitecustomize.py").write_text(
        "import ctypes, sys\n"
        "if sys.orig_argv[1:3] == ['-m', 'entrypoint']:\n"
        "    from entrypoint.forward import Forwarder\n"
        "    take = Forwarder.take\n"
        f"    Forwarder.take = lambda self, n: ctypes.string_at(0) if n == {int(signal.SIGUSR2)} else take(self, n)\n"
    )
    return {"PYTHONPATH": str(shim)}


def _status_of(pid):
    with open(f"/proc/{pid}/status") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
