"""The app finds itself as under a plain exec: nothing of ours rubs off, nothing of its own is missing."""

import json
import os
import resource
import signal
import subprocess

from tests.support.processes import app, clean_env
from tests.support.waiting import wait_until


def _plain(env, *arguments, **options):
    done = subprocess.run(
        [*app("inherited"), *arguments], env=env, stdout=subprocess.PIPE, check=True, **options
    )
    return json.loads(done.stdout)


def _comparable(found, state_dir):
    ours = {
        f"ENTRYPOINT_STATUS_FILE={state_dir}/status.json",
        f"ENTRYPOINT_SOCKET={state_dir}/entrypoint.sock",
    }
    found["environ"] = sorted(set(found["environ"]) - ours)
    del found["fds"]["1"], found["fds"]["2"], found["leads_group"]
    return found


def _unusual():
    """Everything that can be inherited, set to what nobody has by chance."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.umask(0o027)
    os.nice(3)
    resource.setrlimit(resource.RLIMIT_NOFILE, (500, 600))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("300")


ARGUMENTS = ["", "a b", "--", "-x", "line\nend", "é", b"\xff\xfe"]


def test_everything_is_inherited_as_by_a_plain_exec(start, pid1, init, tmp_path):
    read_fd, write_fd = os.pipe()
    options = {"pass_fds": [read_fd], "cwd": tmp_path, "preexec_fn": _unusual}
    env = {"ENTRYPOINT_STATE_DIR": str(tmp_path / "state"), "EMPTY": "", "NOT_UTF8": "\udcff", "A": "b=c\n"}

    running = start([*app("inherited"), *ARGUMENTS], pid1=pid1, init=init, env=env, **options)

    assert running.wait() == 0
    found = json.loads(running.stdout)
    assert found["leads_group"]
    assert found["fds"]["0"] == "/dev/null"
    assert str(read_fd) in found["fds"]
    expected = _plain({**clean_env(), **env}, *ARGUMENTS, stdin=subprocess.DEVNULL, **options)
    assert _comparable(found, tmp_path / "state") == _comparable(expected, tmp_path / "state")
    assert found["nice"] == os.nice(0) + 3
    os.close(read_fd)
    os.close(write_fd)


def test_standard_streams_are_the_very_same_files(start, pid1, init, tmp_path):
    # By inheritance: a pump would show as a pipe, and could lose the tail.
    running = start(
        ["sh", "-c", "readlink /proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2"], pid1=pid1, init=init
    )

    assert running.wait() == 0
    assert running.stdout.split() == ["/dev/null", str(running.stdout_path), str(running.stderr_path)]


def test_the_locale_that_python_sets_for_itself_doesnt_leak(start, pid1, tmp_path):
    # PEP 538: an interpreter in a container without a locale puts LC_CTYPE into its environment.
    env = {"LANG": "", "LC_ALL": "", "ENTRYPOINT_STATE_DIR": str(tmp_path / "state")}

    running = start(["--", "env"], pid1=pid1, env=env)

    assert running.wait() == 0
    assert "LC_CTYPE" not in running.stdout


def test_a_locale_that_was_set_stays(start, pid1):
    running = start(["--", "env"], pid1=pid1, env={"LANG": "", "LC_CTYPE": "C.UTF-8"})

    assert running.wait() == 0
    assert "LC_CTYPE=C.UTF-8\n" in running.stdout


def test_signals_that_python_ignores_for_itself_are_not_ignored_in_the_app(start, pid1, init):
    command = ["sh", "-c", "grep SigIgn /proc/self/status"]
    plain = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    running = start(command, pid1=pid1, init=init)

    assert running.wait() == 0
    assert _ignored(running.stdout) == _ignored(plain)


def test_a_signal_that_was_ignored_stays_ignored_as_nohup_wants(start, pid1, init):
    running = start(
        ["sh", "-c", "grep SigIgn /proc/self/status"],
        pid1=pid1,
        init=init,
        wrapper=["env", "--ignore-signal=HUP"],
    )

    assert running.wait() == 0
    assert signal.SIGHUP in _ignored(running.stdout)


def test_sigchld_that_was_ignored_is_not_so_in_the_app(start, pid1):
    # By choice: the kernel would throw the exit codes of the app's own children away.
    running = start(
        ["sh", "-c", "grep SigIgn /proc/self/status"], pid1=pid1, wrapper=["env", "--ignore-signal=CHLD"]
    )

    assert running.wait() == 0
    assert signal.SIGCHLD not in _ignored(running.stdout)


def test_names_in_scrub_env_are_kept_from_the_app_but_not_from_us(start, pid1):
    env = {
        "ENTRYPOINT_SCRUB_ENV": "DATABASE_URL, SECRET",
        "DATABASE_URL": "postgresql://a:b@c/d",
        "SECRET": "x",
    }

    running = start(["--", "env"], pid1=pid1, env=env)

    assert running.wait() == 0
    assert "DATABASE_URL=" not in running.stdout
    assert "\nSECRET=" not in running.stdout


def test_sockets_handed_down_by_systemd_are_the_apps(start, pid1):
    # LISTEN_PID names whom they are for (sd_listen_fds(3)); it named us.
    running = start(
        ["sh", "-c", 'test "$LISTEN_PID" = $$ && echo for the app'],
        pid1=pid1,
        wrapper=["sh", "-c", 'LISTEN_PID=$$ exec "$@"', "sh"],
    )

    assert running.wait() == 0
    assert running.stdout == "for the app\n"


def test_the_app_reads_our_standard_input_to_its_end(start, pid1, init):
    read_fd, write_fd = os.pipe()
    running = start(["cat"], pid1=pid1, init=init, stdin=read_fd)
    os.close(read_fd)
    os.write(write_fd, b"hello\n")
    os.close(write_fd)

    assert running.wait() == 0
    assert running.stdout == "hello\n"


def test_a_gated_app_inherits_the_same_although_everything_is_loaded_by_then(start, pid1, tmp_path):
    env = {
        "ENTRYPOINT_STATE_DIR": str(tmp_path / "state"),
        "MIGRATION_MODE": "gate",
        "SKIP_MIGRATIONS": "true",
    }
    options = {"preexec_fn": lambda: signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})}

    running = start(app("inherited"), pid1=pid1, env=env, **options)

    assert running.wait() == 0
    found = _comparable(json.loads(running.stdout), tmp_path / "state")
    expected = _plain({**clean_env(), **env}, stdin=subprocess.DEVNULL, **options, cwd=found["cwd"])
    assert found == _comparable(expected, tmp_path / "state")


def test_the_app_starts_before_anything_heavy_is_loaded(start, tmp_path):
    # Law 1. Whoever starts the app after `import asyncio` is seen here, however fast the machine:
    # the supervisor's modules are behind a FIFO that nobody opens until the app has spoken.
    held = tmp_path / "shim"
    held.mkdir()
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    (held / "sitecustomize.py").write_text(
        "import sys\n"
        "class Hold:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name in ('entrypoint.init', 'select', 'asyncio', 'enum', 'signal', 'structlog'):\n"
        f"            open({str(fifo)!r}).read()\n"
        "sys.meta_path.insert(0, Hold())\n"
    )
    running = start(app("wait"), env={"PYTHONPATH": str(held)})
    running.wait_for_output("ready")

    assert not running.state_dir.exists()
    with wait_until(lambda: fifo.open("w"), what="the supervisor's first import"):
        pass
    _feed(running, fifo)
    running.send(signal.SIGTERM)
    assert running.wait() == 0


def _ignored(line):
    mask = int(line.split()[1], 16)
    # glibc's posix_spawn ignores 32 and 33, which it keeps for itself and sets up anew after the exec.
    return {number for number in signal.valid_signals() if mask >> (number - 1) & 1} - {32, 33}


def _feed(running, fifo):
    """Let the supervisor load, one held import after the other."""

    def fed():
        try:
            os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
        except OSError:  # nobody waits there at the moment
            pass
        return running.marker()

    wait_until(fed, what="the supervisor")
