"""With a terminal: the app is in the foreground, as if we weren't there."""

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
from contextlib import suppress

import psutil
import pytest

from tests.e2e.conftest import AS_PID_1, init_command
from tests.support.processes import REPO, app, clean_env, name_of
from tests.support.waiting import wait_until

CTRL_C, CTRL_Z, CTRL_BACKSLASH = b"\x03", b"\x1a", b"\x1c"


class Terminal:
    """A program on a terminal of its own, as its session's leader; as PID 1 like an engine with `-it` has it."""

    def __init__(self, argv, state_dir, *, pid1=False, env=None):
        self.fd, inner = pty.openpty()
        self._pid1 = pid1
        if pid1:
            own = [*AS_PID_1, "setsid", "--ctty"]
        else:
            # A new session has no terminal; the first one that it opens becomes its own.
            own = ["sh", "-c", f'exec "$@" <>{os.ttyname(inner)}', "sh"]
        self.process = subprocess.Popen(
            ["env", "--default-signal=HUP", *own, *argv],
            stdin=inner,
            stdout=inner,
            stderr=inner,
            cwd=REPO,
            env=clean_env(ENTRYPOINT_STATE_DIR=str(state_dir), NO_COLOR="1", PS1="prompt> ", **(env or {})),
            start_new_session=True,
        )
        os.close(inner)
        os.set_blocking(self.fd, False)
        self.text = ""

    @property
    def pid(self):
        if not self._pid1:
            return self.process.pid
        return wait_until(lambda: psutil.Process(self.process.pid).children(), what="PID 1")[0].pid

    def type(self, keys):
        os.write(self.fd, keys)

    def send(self, number):
        os.kill(self.pid, number)

    def shows(self, pattern):
        try:
            self.text += os.read(self.fd, 65536).decode()
        except OSError:  # nothing new, or the other side was closed
            pass
        return re.search(pattern, self.text)

    def wait_for(self, pattern):
        return wait_until(lambda: self.shows(pattern), what=f"{pattern!r} on the terminal")

    def hang_up(self):
        os.close(self.fd)
        self.fd = os.open("/dev/null", os.O_RDONLY)

    def end(self):
        if self.process.poll() is None:
            for one in psutil.Process(self.process.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):  # it ended with another one
                    one.kill()
            self.process.kill()
            self.process.wait(10)
        os.close(self.fd)


@pytest.fixture
def terminal(tmp_path):
    opened = []

    def open_one(argv, **options):
        opened.append(Terminal(argv, tmp_path / "state", **options))
        return opened[-1]

    yield open_one
    for one in opened:
        one.end()


@pytest.fixture
def on_terminal(terminal, pid1):
    """The entrypoint, or another init in its place, with an app on a terminal."""

    def run(argv, init="entrypoint", **options):
        return terminal([*init_command(init, pid1=pid1), *argv], pid1=pid1, **options)

    return run


def entrypoint(*argv):
    return [*init_command("entrypoint", pid1=False), "--", *argv]


def test_ctrl_c_reaches_the_app_exactly_once(on_terminal, init):
    running = on_terminal(app("print_signals"), init)
    running.wait_for("ready")
    if init == "entrypoint":
        running.wait_for("Status changed")
    running.type(CTRL_C)
    running.wait_for("got 2\r")
    running.type(CTRL_BACKSLASH)
    running.wait_for("got 3\r")
    running.send(signal.SIGTERM)

    assert running.process.wait(10) == 0
    running.wait_for("got 15\r")
    assert re.findall("got [0-9]+", running.text) == ["got 2", "got 3", "got 15"]


def test_a_change_of_the_window_reaches_the_app_once(on_terminal, init):
    running = on_terminal(app("print_signals"), init)
    running.wait_for("ready")
    if init == "entrypoint":
        running.wait_for("Status changed")
    fcntl.ioctl(running.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 20, 60, 0, 0))
    running.wait_for("got 28\r")
    running.send(signal.SIGTERM)

    assert running.process.wait(10) == 0
    running.wait_for("got 15\r")
    assert re.findall("got [0-9]+", running.text) == ["got 28", "got 15"]


def test_job_control_works_in_a_shell(on_terminal, init):
    running = on_terminal(["sh", "-i"], init)
    running.wait_for("prompt> ")
    running.type(b"sleep 60; echo left=$?\n")
    sleep = wait_until(lambda: _named("sleep", running), what="sleep")
    wait_until(lambda: os.tcgetpgrp(running.fd) == os.getpgid(sleep.pid), what="its foreground")
    running.type(CTRL_Z)
    running.wait_for("left=148")
    running.type(b"fg\n")
    wait_until(lambda: sleep.status() == psutil.STATUS_SLEEPING, what="sleep to go on")
    group = os.getpgid(sleep.pid)
    wait_until(lambda: os.tcgetpgrp(running.fd) == group, what="its foreground")
    running.type(CTRL_C)
    # Not its prompt: a log line of ours may come behind that.
    wait_until(lambda: os.tcgetpgrp(running.fd) != group, what="the shell's foreground")
    running.type(b"exit 7\n")

    assert running.process.wait(10) == 7
    assert "job control turned off" not in running.text
    assert "can't access tty" not in running.text


def test_the_apps_group_is_the_foreground_and_we_write_without_being_stopped(on_terminal):
    running = on_terminal(["sh", "-c", "stty tostop; ps -o stat= -p $$; exec sleep 30"])
    stat = running.wait_for(r"(?m)^([A-Z][a-z+]*) *\r$")[1]

    assert "+" in stat
    running.wait_for("Status changed")
    running.send(signal.SIGTERM)
    assert running.process.wait(10) == 128 + signal.SIGTERM
    running.wait_for("Stop finished")


def test_ctrl_z_never_wedges(on_terminal):
    # Nobody could continue the app: so it goes on, and ends when it is told to.
    running = on_terminal(["sleep", "60"])
    running.wait_for("Status changed")
    sleep = _named("sleep", running)
    running.type(CTRL_Z)
    running.wait_for(r"\^Z")
    running.send(signal.SIGHUP)

    assert running.process.wait(10) == 128 + signal.SIGHUP
    assert not sleep.is_running()


def test_ctrl_z_leaves_the_app_running_where_nobody_could_continue_it(on_terminal):
    running = on_terminal(["sh", "-c", "trap 'echo on again' CONT; echo ready; while :; do read line; done"])
    running.wait_for("ready")
    running.wait_for("Status changed")
    running.type(CTRL_Z)

    running.wait_for("on again")
    running.type(CTRL_C)
    assert running.process.wait(10) == 128 + signal.SIGINT


@pytest.mark.parametrize("name", ["TTIN", "TTOU"])
def test_who_stops_late_for_the_terminal_that_it_has_by_now_goes_on(on_terminal, name):
    # bash with job control sees that the terminal is not its own yet, and then stops itself to wait for it.
    running = on_terminal(["sh", "-c", f"echo ready; read line; kill -{name} $$; echo on again; read line"])
    running.wait_for("ready")
    running.wait_for("Status changed")
    running.type(b"stop\n")

    running.wait_for("on again\r")
    running.type(b"end\n")
    assert running.process.wait(10) == 0


def test_a_job_of_a_shell_can_be_stopped_and_continued(terminal):
    running = terminal(["sh", "-i"])
    running.wait_for("prompt> ")
    running.type(" ".join(entrypoint("sleep", "60")).encode() + b"; echo left=$?\n")
    running.wait_for("Status changed")
    sleep = _named("sleep", running)
    running.type(CTRL_Z)
    running.wait_for("left=14[78]")
    assert sleep.status() == psutil.STATUS_STOPPED
    running.type(b"fg\n")
    wait_until(lambda: sleep.status() == psutil.STATUS_SLEEPING, what="the app to go on")
    wait_until(lambda: os.tcgetpgrp(running.fd) == sleep.pid, what="the app's foreground")
    running.type(CTRL_C)
    wait_until(lambda: not sleep.is_running(), what="the app's end")
    running.wait_for("Stop finished(?s:.*)prompt> $")
    running.type(b"exit\n")
    assert running.process.wait(10) >= 0


def test_we_dont_take_the_foreground_from_somebody_else(terminal):
    running = terminal(["sh", "-i"])
    running.wait_for("prompt> ")
    shell = running.process.pid
    running.type(" ".join(entrypoint("sleep", "60")).encode() + b" &\n")
    running.wait_for("Status changed")

    assert os.tcgetpgrp(running.fd) == shell
    running.type(b"echo the shell $((1 + 1)) answers\n")
    running.wait_for("the shell 2 answers")
    running.type(b"kill %1; wait; exit 4\n")
    running.wait_for("Stop finished")
    assert running.process.wait(10) == 4


def test_a_gated_app_on_a_terminal_doesnt_inherit_what_we_ignore_for_it(on_terminal):
    env = {"MIGRATION_MODE": "gate", "SKIP_MIGRATIONS": "true"}
    running = on_terminal(["sh", "-c", "grep SigIgn /proc/self/status"], env=env)
    ignored = int(running.wait_for(r"SigIgn:\s*([0-9a-f]+)")[1], 16)

    assert [number for number in (signal.SIGTTIN, signal.SIGTTOU) if ignored >> (number - 1) & 1] == []
    assert running.process.wait(10) == 0


def test_the_foreground_is_given_back_to_the_shell_that_called_us(terminal, tmp_path):
    script = tmp_path / "script.sh"
    command = " ".join(entrypoint("sh", "-c", "'exit 3'"))
    script.write_text(f"{command}; echo code=$?; read line; echo read=$line\n")

    running = terminal(["sh", str(script)])
    running.wait_for("code=3")
    os.write(running.fd, b"words\n")

    running.wait_for("read=words")
    assert running.process.wait(10) == 0


def test_an_app_that_reads_the_terminal_can_do_so_at_once(on_terminal, init):
    running = on_terminal(["sh", "-c", "read line; echo read=$line"], init)
    running.type(b"early\n")

    running.wait_for("read=early")
    assert running.process.wait(10) == 0


def test_a_hang_up_of_the_terminal_ends_the_app(on_terminal, init):
    running = on_terminal(["sh", "-c", "echo ready; exec sleep 60"], init)
    running.wait_for("ready")
    if init == "entrypoint":
        running.wait_for("Status changed")
    running.hang_up()

    assert running.process.wait(10) == 128 + signal.SIGHUP


def test_log_lines_on_a_terminal_are_for_eyes(on_terminal):
    running = on_terminal(["true"])
    running.wait_for("App exited")

    assert '{"timestamp"' not in running.text
    assert running.process.wait(10) == 0


def _named(name, running):
    """A process below ours; None if there is none of that name."""
    for one in psutil.Process(running.process.pid).children(recursive=True):
        if name_of(one) == name:
            return one
    return None
