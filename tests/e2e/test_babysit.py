"""Our own code is broken: the app must not notice."""

import os
import signal

import psutil
import pytest

from tests.support.processes import app
from tests.support.waiting import wait_until

# What raises, by a shim that comes before everything else: our own module, and ones it can't do without.
BROKEN = ["entrypoint.supervisor", "asyncio", "structlog", "json", "enum"]


@pytest.fixture
def broken(tmp_path):
    """An environment in which an import fails."""

    def shim(name):
        directory = tmp_path / f"shim-{name}"
        directory.mkdir(exist_ok=True)
        (directory / "sitecustomize.py").write_text(
            "import sys\n"
            "class Broken:\n"
            "    def find_spec(self, name, path=None, target=None):\n"
            f"        if name == {name!r}:\n"
            "            raise RuntimeError('broken for the test')\n"
            "sys.meta_path.insert(0, Broken())\n"
        )
        return {"PYTHONPATH": str(directory)}

    return shim


def _wait_until_broken(running):
    wait_until(lambda: "internal error" in running.stderr, what="the fall-back")


@pytest.mark.parametrize("module", BROKEN)
def test_without_a_supervisor_the_app_keeps_running_with_its_signals_and_exit_code(
    start, broken, pid1, module
):
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


@pytest.mark.parametrize("code", [0, 7])
def test_the_fall_back_passes_the_exit_code_on(start, broken, pid1, code):
    running = start(app("wait", str(code)), pid1=pid1, env=broken("entrypoint.supervisor"))
    running.wait_for_output("ready")
    _wait_until_broken(running)
    running.send(signal.SIGTERM)

    assert running.wait() == code


def test_the_fall_back_tells_of_a_death_by_signal(start, broken, pid1):
    running = start(["--", "sleep", "60"], pid1=pid1, env=broken("entrypoint.supervisor"))
    _wait_until_broken(running)
    running.send(signal.SIGTERM)

    assert running.wait() == 128 + signal.SIGTERM


def test_an_app_that_ended_before_the_fall_back_keeps_its_code(start, broken, pid1):
    for _ in range(3):
        running = start(["--", "sh", "-c", "exit 6"], pid1=pid1, env=broken("entrypoint.supervisor"))

        assert running.wait() == 6


def test_the_fall_back_reaps_orphans(start, broken):
    running = start(app("orphans", "50"), pid1=True, env=broken("entrypoint.supervisor"))
    running.wait_for_output("ready")
    _wait_until_broken(running)

    wait_until(lambda: len(running.children()) == 1, what="only the app")
    running.send(signal.SIGTERM)
    assert running.wait() == 0


def test_the_fall_back_says_so_even_into_a_broken_pipe(start, broken):
    read_fd, write_fd = os.pipe()
    running = start(["--", "sleep", "0.6"], stderr=write_fd, env=broken("entrypoint.supervisor"))
    os.close(write_fd)
    os.close(read_fd)

    assert running.wait() == 0


def test_a_supervisor_that_fails_later_leaves_the_app_alone_and_ends_its_own_children(start, tmp_path, pid1):
    # Replaced through the import system, since we don't mock: the real loop breaks off half-way.
    shim = tmp_path / "shim"
    shim.mkdir()
    (shim / "sitecustomize.py").write_text(
        "import os, sys\n"
        "if os.path.basename(sys.orig_argv[0]).startswith('python') and 'entrypoint' in sys.orig_argv:\n"
        "    import asyncio.base_events as events\n"
        "    original = events.BaseEventLoop._run_once\n"
        "    count = 0\n"
        "    def run_once(self):\n"
        "        global count\n"
        "        original(self)\n"
        "        count += 1\n"
        "        if any('migrator' in open(f'/proc/{pid}/cmdline').read()\n"
        "               for pid in open('/proc/self/task/%d/children' % os.getpid()).read().split()):\n"
        "            raise RuntimeError('the loop broke')\n"
        "    events.BaseEventLoop._run_once = run_once\n"
    )
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "1_a.sql").write_text("select 1;")
    env = {
        "PYTHONPATH": str(shim),
        "NODE_ENV": "production",
        "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
        "MIGRATIONS_DIR": str(tmp_path / "m"),
    }
    running = start(app("print_signals", str(int(signal.SIGUSR1))), pid1=pid1, env=env)
    running.wait_for_output("ready")
    _wait_until_broken(running)
    migrator = running.migrator()

    running.send(signal.SIGTERM)
    running.wait_for_output("got 15")
    running.send(signal.SIGUSR1)
    assert running.wait() == 0
    wait_until(lambda: not psutil.pid_exists(migrator.pid), what="the migrator's end")
    assert "the loop broke" in running.stderr
