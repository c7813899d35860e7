"""Our own code is broken: the app must not notice."""

import os
import signal

import psutil
import pytest

from tests.support.processes import app
from tests.support.waiting import wait_until

# What PID 1 needs once the app runs: our own modules, and others that it can't do without.
BROKEN = [
    "entrypoint.init",
    "entrypoint.loop",
    "entrypoint.ending",
    "migrator.env",
    "_socket",
    "select",
    "errno",
]
# What only the overseer needs.
BROKEN_OVERSEER = ["entrypoint.overseer", "asyncio", "psutil", "json"]

SHIM = """\
import sys
class Broken:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            raise RuntimeError('broken for the test')
sys.modules.pop({name!r}, None)
sys.meta_path.insert(0, Broken())
"""


@pytest.fixture
def broken(tmp_path):
    """An environment in which an import fails."""

    def shim(name):
        return _shim(tmp_path, SHIM.format(name=name))

    return shim


def _shim(tmp_path, code):
    """An environment in which every interpreter runs `code` before the main module."""
    directory = tmp_path / "shim"
    directory.mkdir(exist_ok=True)
    (directory / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": str(directory)}


def _wait_until_broken(running):
    wait_until(lambda: "internal error" in running.stderr, what="the fall-back")


@pytest.mark.parametrize("module", BROKEN)
def test_the_app_keeps_running_with_its_signals_and_exit_code(start, broken, pid1, module):
    running = start(app("print_signals", str(int(signal.SIGUSR1))), pid1=pid1, env=broken(module))
    running.wait_for_output("ready")
    _wait_until_broken(running)

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGRTMIN):
        running.send(number)
        running.wait_for_output(f"got {int(number)}\n")
    running.send(signal.SIGUSR1)

    assert running.wait() == 0
    assert len(running.stderr.splitlines()) == 1
    assert "broken for the test" in running.stderr


def test_the_marker_of_the_fall_back_claims_nothing_and_goes_with_the_app(start, broken, pid1, tmp_path):
    state_dir = tmp_path / "state"
    state_dir.mkdir()
    env = {**broken("entrypoint.init"), "ENTRYPOINT_STATE_DIR": str(state_dir)}
    running = start(app("wait", "4"), pid1=pid1, env=env)
    running.wait_for_output("ready")
    _wait_until_broken(running)
    wait_until(running.marker, what="the marker")

    assert running.marker()["migrations"]["status"] == "unknown"
    running.send(signal.SIGTERM)
    assert running.wait() == 4
    assert not running.marker()


@pytest.mark.parametrize("code", [0, 7])
def test_the_fall_back_passes_the_exit_code_on(start, broken, pid1, code):
    running = start(app("wait", str(code)), pid1=pid1, env=broken("entrypoint.init"))
    running.wait_for_output("ready")
    _wait_until_broken(running)
    running.send(signal.SIGTERM)

    assert running.wait() == code


def test_the_fall_back_tells_of_a_death_by_signal(start, broken, pid1):
    running = start(["--", "sleep", "60"], pid1=pid1, env=broken("entrypoint.init"))
    _wait_until_broken(running)
    running.send(signal.SIGTERM)

    assert running.wait() == 128 + signal.SIGTERM


def test_an_app_that_ended_before_the_fall_back_keeps_its_code(start, broken, pid1):
    running = start(["--", "sh", "-c", "exit 6"], pid1=pid1, env=broken("entrypoint.init"))

    assert running.wait() == 6


def test_the_fall_back_reaps_orphans(start, broken):
    running = start(app("orphans", "50"), pid1=True, env=broken("entrypoint.init"))
    running.wait_for_output("ready")
    _wait_until_broken(running)

    wait_until(lambda: len(running.children()) == 1, what="only the app")
    running.send(signal.SIGTERM)
    assert running.wait() == 0


def test_the_fall_back_says_so_even_into_a_broken_pipe(start, broken, pid1):
    read_fd, write_fd = os.pipe()
    running = start(["--", "sleep", "0.6"], pid1=pid1, stderr=write_fd, env=broken("entrypoint.init"))
    os.close(write_fd)
    os.close(read_fd)

    assert running.wait() == 0


def test_a_pid_1_that_fails_later_leaves_the_app_alone_and_ends_its_own_children(start, tmp_path, pid1):
    # Replaced through the import system, since we don't mock: the real loop breaks off half-way.
    shim = _shim(
        tmp_path,
        "import os, sys\n"
        "if sys.orig_argv[1:3] == ['-m', 'entrypoint']:\n"
        "    from entrypoint.loop import Loop\n"
        "    original = Loop.run_once\n"
        "    def run_once(self):\n"
        "        original(self)\n"
        f"        if os.path.exists({str(tmp_path / 'now')!r}):\n"
        "            raise RuntimeError('the loop broke')\n"
        "    Loop.run_once = run_once\n",
    )
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "1_a.sql").write_text("select 1;")
    env = {
        **shim,
        "NODE_ENV": "production",
        "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
        "MIGRATIONS_DIR": str(tmp_path / "m"),
    }
    running = start(app("print_signals", str(int(signal.SIGUSR1))), pid1=pid1, env=env)
    running.wait_for_output("ready")
    running.wait_for_phase("connecting")
    (overseer,) = [one for one in running.children() if "entrypoint.oversee" in one.cmdline()]
    (tmp_path / "now").touch()
    running.send(signal.SIGHUP)  # for the loop to come round
    running.wait_for_output("got 1\n")
    _wait_until_broken(running)

    marker = running.wait_for_phase("unknown")
    assert marker["migrations"]["status"] == "unknown"
    assert marker["app"]["status"] == "running"
    running.send(signal.SIGTERM)
    running.wait_for_output("got 15")
    running.send(signal.SIGUSR1)
    assert running.wait() == 0
    wait_until(lambda: not psutil.pid_exists(overseer.pid), what="the overseer's end")
    assert "the loop broke" in running.stderr
    assert not running.marker()


@pytest.mark.parametrize("module", BROKEN_OVERSEER)
def test_a_broken_overseer_fails_the_migrations_and_nothing_else(start, broken, pid1, module):
    env = {
        **broken(module),
        "NODE_ENV": "production",
        "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
    }
    running = start(app("print_signals", str(int(signal.SIGUSR1))), pid1=pid1, env=env)
    told = running.wait_for_phase("failed")

    assert told["migrations"]["status"] == "failed"
    assert "broken for the test" in told["migrations"]["error"]
    assert told["app"]["status"] == "running"
    assert running.request("/ready")[0] == 503
    running.send(signal.SIGHUP)
    running.wait_for_output("got 1\n")
    running.send(signal.SIGUSR1)
    assert running.wait() == 0
    assert "Traceback" not in running.stderr
