"""With a terminal: the app is in the foreground, as if we weren't there."""

import os
import pty
import re
import signal
import subprocess
import sys

import pytest

from tests.support.processes import REPO, app, clean_env
from tests.support.waiting import wait_until


class Terminal:
    """A program on a terminal of its own, as its session's leader."""

    def __init__(self, argv, tmp_path):
        self.fd, inner = pty.openpty()
        # A new session has no terminal; the first one that it opens becomes its own.
        own = ["env", "--default-signal=HUP", "sh", "-c", f'exec "$@" <>{os.ttyname(inner)}', "sh"]
        self.process = subprocess.Popen(
            [*own, *argv],
            stdin=inner,
            stdout=inner,
            stderr=inner,
            cwd=REPO,
            env=clean_env(ENTRYPOINT_STATE_DIR=str(tmp_path / "state"), NO_COLOR="1"),
            start_new_session=True,
        )
        os.close(inner)
        os.set_blocking(self.fd, False)
        self.text = ""

    def shows(self, pattern):
        try:
            self.text += os.read(self.fd, 65536).decode()
        except OSError:  # nothing new, or the other side was closed
            pass
        return re.search(pattern, self.text)

    def wait_for(self, pattern):
        return wait_until(lambda: self.shows(pattern), what=f"{pattern!r} on the terminal")


@pytest.fixture
def terminal(tmp_path):
    opened = []

    def open_one(argv):
        opened.append(Terminal(argv, tmp_path))
        return opened[-1]

    yield open_one
    for one in opened:
        if one.process.poll() is None:
            one.process.terminate()
            one.process.wait(10)
        os.close(one.fd)


def entrypoint(*argv):
    return [sys.executable, "-m", "entrypoint", "--", *argv]


def test_ctrl_c_reaches_the_app_exactly_once(terminal):
    running = terminal(entrypoint(*app("print_signals")))
    running.wait_for("ready")
    running.wait_for("Status changed")
    os.write(running.fd, b"\x03")
    running.wait_for("got 2\r")
    os.write(running.fd, b"\x1c")
    running.wait_for("got 3\r")
    running.process.terminate()

    assert running.process.wait(10) == 0
    running.wait_for("got 15\r")
    assert running.text.count("got ") == 3


def test_the_apps_group_is_the_foreground_and_we_write_without_being_stopped(terminal):
    running = terminal(entrypoint("sh", "-c", "stty tostop; ps -o stat= -p $$; exec sleep 30"))
    stat = running.wait_for(r"(?m)^([A-Z][a-z+]*)\r$")[1]

    assert "+" in stat
    running.wait_for("Status changed")
    running.process.terminate()
    assert running.process.wait(10) == 128 + signal.SIGTERM


def test_the_foreground_is_given_back_to_the_shell_that_called_us(terminal, tmp_path):
    script = tmp_path / "script.sh"
    command = " ".join(entrypoint("sh", "-c", "'exit 3'"))
    script.write_text(f"{command}; echo code=$?; read line; echo read=$line\n")

    running = terminal(["sh", str(script)])
    running.wait_for("code=3")
    os.write(running.fd, b"words\n")

    running.wait_for("read=words")
    assert running.process.wait(10) == 0


def test_an_app_that_reads_the_terminal_can_do_so_at_once(terminal):
    running = terminal(entrypoint("sh", "-c", "read line; echo read=$line"))
    os.write(running.fd, b"early\n")

    running.wait_for("read=early")
    assert running.process.wait(10) == 0


def test_a_hang_up_of_the_terminal_ends_the_app(terminal):
    running = terminal(entrypoint("sleep", "60"))
    running.wait_for("Status changed")
    os.close(running.fd)
    running.fd = os.open("/dev/null", os.O_RDONLY)

    assert running.process.wait(10) == 128 + signal.SIGHUP


def test_log_lines_on_a_terminal_are_for_eyes(terminal):
    running = terminal(entrypoint("true"))
    running.wait_for("App exited")

    assert '{"timestamp"' not in running.text
    assert running.process.wait(10) == 0
