"""An engine that forbids clone3, as Docker before 20.10.10 does: processes are started all the same."""

import os
import signal
import subprocess
import sys

import pytest

from entrypoint import fork
from tests.support.processes import REPO

FORBIDDEN = f"""
import os, sys
sys.path.insert(0, {str(REPO)!r})
from tests.support import seccomp
seccomp.forbid(seccomp.CLONE3, 1)
"""


def start(*argv, env=None, mask=frozenset(), actions=(), reset=()):
    return fork.start(
        argv[0], list(argv), env or dict(os.environb), mask=mask, file_actions=actions, reset=reset
    )


def output(read_to, pid):
    with open(read_to, "rb") as file:
        said = file.read()
    assert os.waitpid(pid, 0)[1] == 0
    return said


def test_it_runs_in_a_group_of_its_own_with_what_is_given():
    reader, writer = os.pipe()
    actions = ((os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0), (os.POSIX_SPAWN_DUP2, writer, 1))
    env = {b"A": b"\xff", b"PATH": os.environb[b"PATH"]}

    pid = start("sh", "-c", "cat; echo $A; ps -o pgid= -p $$", env=env, actions=actions)
    os.close(writer)

    value, group, _ = output(reader, pid).split(b"\n")
    assert value == b"\xff"
    assert int(group) == pid


def test_signals_are_as_asked_for():
    reader, writer = os.pipe()
    actions = ((os.POSIX_SPAWN_DUP2, writer, 1),)
    usr1, pipe = (1 << (number - 1) for number in (signal.SIGUSR1, signal.SIGPIPE))

    pid = start(
        "grep", "-E", "Sig(Blk|Ign)", "/proc/self/status",
        actions=actions, mask={signal.SIGUSR1}, reset=(signal.SIGPIPE,),
    )  # fmt: skip
    os.close(writer)

    blocked, ignored = (int(line.split()[1], 16) for line in output(reader, pid).splitlines())
    assert blocked == usr1
    assert not ignored & pipe


@pytest.mark.parametrize("target", range(3, 16))
def test_the_pipe_for_our_answer_is_no_hindrance(target):
    """Whichever number it has, an action may want that."""
    reader, writer = os.pipe()
    actions = ((os.POSIX_SPAWN_DUP2, writer, target),)

    pid = start("sh", "-c", f"echo said >/dev/fd/{target}", actions=actions)
    os.close(writer)

    assert output(reader, pid) == b"said\n"


@pytest.mark.parametrize(("name", "number"), [("no-such-program", 2), ("/dev/null", 13)])
def test_why_it_cant_be_started_is_told(name, number):
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())

    with pytest.raises(OSError) as caught:
        start(name)

    assert caught.value.errno == number
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_signal_that_we_handle_is_as_by_default_there():
    handled = signal.signal(signal.SIGUSR2, lambda *_: None)
    try:
        pid = start("sh", "-c", "kill -USR2 $$")
    finally:
        signal.signal(signal.SIGUSR2, handled)

    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGUSR2


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (["sh", "-c", "echo started; exit 7"], 7, "started\n"),
        (["no-such-program"], 127, ""),
        (["/dev/null"], 126, ""),
    ],
)
def test_the_app_starts_where_clone3_is_forbidden(tmp_path, command, code, said):
    script = f"{FORBIDDEN}os.execv(sys.executable, [sys.executable, '-m', 'entrypoint', '--', *{command!r}])"
    env = {**os.environ, "SKIP_MIGRATIONS": "1", "ENTRYPOINT_STATE_DIR": str(tmp_path)}

    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=REPO, env=env, timeout=60
    )

    assert (done.returncode, done.stdout) == (code, said)
    assert "Traceback" not in done.stderr
    if code == 7:
        assert "app.exited" in done.stderr  # the supervisor's word, not that of what stands in for it
