"""`docker run -it`: the app has the terminal, its keys and its size, as if nobody stood between."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios

import pytest

from tests.conftest import needs
from tests.e2e.docker.conftest import app
from tests.support.docker import docker
from tests.support.waiting import wait_until

CTRL_C = b"\x03"


class Terminal:
    """`docker run -it` on a terminal of its own."""

    def __init__(self, *arguments):
        self._fd, inner = pty.openpty()
        self.resize(80, 24)
        self.process = subprocess.Popen(
            [needs("setsid"), "--ctty", "docker", "run", "--interactive", "--tty", *arguments],
            stdin=inner,
            stdout=inner,
            stderr=inner,
        )
        os.close(inner)
        os.set_blocking(self._fd, False)
        self.text = ""

    def resize(self, columns, lines):
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, keys):
        os.write(self._fd, keys)

    def shows(self, pattern):
        try:
            self.text += os.read(self._fd, 65536).decode()
        except OSError:  # nothing new, or it has ended
            pass
        return re.search(pattern, self.text)

    def wait_for(self, pattern):
        return wait_until(lambda: self.shows(pattern), what=f"{pattern!r} on the terminal in {self.text!r}")

    def close(self):
        self.process.kill()
        self.process.wait(10)
        os.close(self._fd)


@pytest.fixture(params=[(), ("--init",)], ids=["as PID 1", "under --init"])
def run(request, containers, app_image):
    """Run a command in the image on a terminal: the terminal, and the container's name."""
    opened = []

    def run_one(*command, **env):
        name = containers.new_name()
        given = [word for pair in env.items() for word in ("--env", "=".join(pair))]
        opened.append(Terminal(*request.param, "--name", name, *given, app_image, *command))
        return opened[-1], name

    yield run_one
    for one in opened:
        one.close()


def test_ctrl_c_reaches_the_app_once_and_the_window_has_its_size(run):
    terminal, name = run(*app("terminal"))
    terminal.wait_for("ready ")
    # Docker sets the size after the start, so that the first one may come as a change.
    terminal.wait_for("80x24")
    terminal.wait_for("Status changed")
    terminal.resize(101, 33)
    terminal.wait_for("size 101x33")
    terminal.type(CTRL_C)
    terminal.wait_for("interrupted 101x33")
    docker("stop", name)

    assert terminal.process.wait(20) == 5
    assert terminal.shows("App exited")
    assert terminal.text.count("interrupted") == 1


def test_ctrl_c_ends_an_app_that_doesnt_care_for_it(run):
    terminal, _ = run("sh", "-c", "echo ready; exec sleep 60", NO_COLOR="1")
    terminal.wait_for("ready")
    terminal.wait_for("Status changed")
    terminal.type(CTRL_C)

    assert terminal.process.wait(20) == 130
    assert terminal.shows("App exited.*exit_code=130")


def test_a_shell_has_job_control_and_the_windows_size(run):
    terminal, _ = run("bash", "--norc", PS1="prompt> ")
    terminal.wait_for("prompt> ")
    # Docker sets the size only after the start.
    terminal.type(b"until stty size | grep '24 80'; do sleep 0.05; done; sleep 60\r")
    terminal.wait_for("24 80\r")
    terminal.type(CTRL_C)
    terminal.type(b"echo code $?; sleep 61 &\r")
    terminal.wait_for("code 130")
    terminal.type(b"jobs; exit 9\r")

    assert terminal.process.wait(20) == 9
    assert terminal.shows(r"Running +sleep 61")
    assert "no job control" not in terminal.text
