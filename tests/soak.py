"""Starts and stops thousands of containers' worth of runs, and looks for anything that is left of them.

    python -m tests.soak [--count 2000] [--seed N] [--jobs 4] [--only NUMBER]      (`make soak`)

Each run is an entrypoint with a short app of some kind, alone or as PID 1 of its own namespace (unshare), most
of them without migrations and some with a database that refuses, hangs up or never answers. At random moments
it gets random signals, and now and then the overseer is killed beside it. Afterwards there must be

- an exit code that this app, these signals and nothing else explain,
- no process and no zombie,
- no socket and no temporary file; the marker file stays, as it shall,
- and in the end no descriptor more than before in our own process.

Every choice comes from the seed, which is printed, so `--seed S --only N` repeats run N as far as the scheduler
lets it. Ends with 1 if anything was wrong. tests/e2e/test_soak.py runs a short one.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import contextlib
import ctypes
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.processes import APPS, REPO, clean_env

AS_PID_1 = ("unshare", "--fork", "--pid", "--mount-proc", "--kill-child")
MARK = "ENTRYPOINT_SOAK"
GRACE_S = 0.3
# Seconds after which a run is asked to stop, and those within which it must have stopped.
LIFE_S = 1.5
STOP_S = 10.0
_PR_SET_CHILD_SUBREAPER = 36

SIGNALS = (
    signal.SIGTERM,
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGWINCH,
    signal.SIGURG,
    signal.SIGCONT,
    signal.SIGTSTP,
    signal.SIGCHLD,
    signal.SIGPIPE,
    signal.Signals(signal.SIGRTMIN),
    signal.Signals(signal.SIGRTMAX),
)
# What a program that says nothing about them doesn't die of.
HARMLESS = {signal.SIGWINCH, signal.SIGURG, signal.SIGCONT, signal.SIGTSTP, signal.SIGCHLD, signal.SIGPIPE}


@dataclass(frozen=True)
class Kind:
    """A kind of app: what to run, and with what it may end by itself."""

    argv: tuple[str, ...]
    codes: frozenset[int] = frozenset({0})


def _shell(script: str) -> tuple[str, ...]:
    return ("sh", "-c", script)


def _python(name: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-I", "-S", str(APPS / f"{name}.py"), *arguments)


KINDS = {
    "exits at once": Kind(("true",)),
    "exits with 7": Kind(_shell("exit 7"), frozenset({7})),
    "isn't there": Kind(("/nonexistent/app",), frozenset({127})),
    "dies by itself": Kind(_shell("kill -ABRT $$"), frozenset({128 + signal.SIGABRT})),
    "knows no signals": Kind(("sleep", "0.7")),
    "obeys": Kind(
        _shell("trap 'exit 3' TERM; i=0; while [ $i -lt 90 ]; do sleep 0.01; i=$((i+1)); done"),
        frozenset({0, 3}),
    ),
    "takes every signal": Kind(_python("print_signals"), frozenset({0})),
    "ignores SIGTERM": Kind(_python("ignore_term"), frozenset()),
    "ignores it elsewhere": Kind(_python("ignore_term", "elsewhere"), frozenset()),
    "leaves a child": Kind(_python("leave_behind"), frozenset({3})),
    "leaves a stubborn child": Kind(_python("leave_behind", "stubborn"), frozenset({3})),
    "orphans a burst": Kind(_python("orphans", "30"), frozenset({0})),
    "orphans in sessions": Kind(_shell("for i in 1 2 3; do (setsid sleep 0.2 &) ; done; sleep 0.3")),
    "daemonises": Kind(_shell("(setsid sleep 0.4 >/dev/null 2>&1 &); exit 4"), frozenset({4})),
    "forks a lot": Kind(
        _shell("for i in 1 2 3 4 5 6 7 8 9; do (exit $i) & done; wait; exit 5"), frozenset({5})
    ),
}


@dataclass
class Run:
    """One life of a container, all of it decided by its seed."""

    number: int
    seed: int
    directory: Path
    ports: dict[str, int]
    signals: list[signal.Signals] = field(default_factory=list)
    code: int | None = None
    overseer_was_killed: bool = False

    def __post_init__(self) -> None:
        self._random = random.Random(f"{self.seed}/{self.number}")
        self.name = self._random.choice(list(KINDS))
        self.kind = KINDS[self.name]
        self.as_pid_1 = self.number % 2 == 0
        self.database = self._random.choice([*[None] * 5, "refuses", "hangs up", "never answers"])
        self.mark = f"{os.getpid()}.{self.seed}.{self.number}"
        self.state = self.directory / "state"

    def __str__(self) -> str:
        where = "as PID 1" if self.as_pid_1 else "ordinary"
        database = f"database {self.database}" if self.database else "no migrations"
        sent = ", ".join(one.name if isinstance(one, signal.Signals) else str(one) for one in self.signals)
        killed = ", overseer killed" if self.overseer_was_killed else ""
        return f"run {self.number} ({self.name}, {where}, {database}; got {sent or 'nothing'}{killed})"

    def go(self) -> list[str]:
        """Run it; everything that was wrong."""
        temporary = self.directory / "tmp"
        temporary.mkdir()
        prefix = AS_PID_1 if self.as_pid_1 else ()
        with (self.directory / "stderr").open("wb") as stderr:
            process = subprocess.Popen(
                [*prefix, sys.executable, "-m", "entrypoint", "--", *self.kind.argv],
                env=self._environ(temporary),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                cwd=REPO,
                start_new_session=True,
            )
        return [*self._live(process), *self._explain(), *self._last_words(), *self._leftovers(temporary)]

    def _environ(self, temporary: Path) -> dict[str, str]:
        extra = {
            MARK: self.mark,
            "ENTRYPOINT_STATE_DIR": str(self.state),
            "ENTRYPOINT_STOP_GRACE": str(GRACE_S),
            "TMPDIR": str(temporary),
            "HOME": str(temporary),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        if self.database is None:
            extra["SKIP_MIGRATIONS"] = "true"
        else:
            extra["NODE_ENV"] = "production"
            extra["DATABASE_URL"] = f"postgresql://nobody@127.0.0.1:{self.ports[self.database]}/none"
            extra["MIGRATION_RETRY_DELAY"] = "0.1"
        return clean_env(**extra)

    def _live(self, process: subprocess.Popen[bytes]) -> list[str]:
        choose = self._random
        began_s = time.monotonic()
        moments = sorted(
            choose.choice((0.1, 0.4, LIFE_S)) * choose.random() for _ in range(choose.randrange(6))
        )
        kills_overseer = choose.random() < 0.1
        for moment_s in moments:
            if self._ends_within(process, began_s + moment_s - time.monotonic()):
                return []
            if kills_overseer:
                kills_overseer, self.overseer_was_killed = False, self._kill_overseer(process.pid)
            self._send(process, choose.choice(SIGNALS))
        if self._ends_within(process, began_s + LIFE_S - time.monotonic()):
            return []
        wrong = self._zombies(process.pid)
        self._send(process, signal.SIGCONT)
        self._send(process, signal.SIGTERM)
        if self._ends_within(process, STOP_S):
            return wrong
        wrong.append(f"doesn't stop: {_describe(self.mark)}")
        for pid in marked(self.mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.kill()
        process.wait()
        return wrong

    def _zombies(self, pid: int) -> list[str]:
        """Those that PID 1 should have waited for long ago."""
        give_up_s = time.monotonic() + 2
        while time.monotonic() < give_up_s:
            inner = children(pid) if self.as_pid_1 else [pid]
            found = [one for ours in inner for one in children(ours) if _state(one) == "Z"]
            if not found:
                return []
            time.sleep(0.05)
        return [f"didn't reap: {', '.join(_read(f'/proc/{one}/comm').decode().strip() for one in found)}"]

    def _ends_within(self, process: subprocess.Popen[bytes], seconds: float) -> bool:
        try:
            self.code = process.wait(max(seconds, 0.0001))
        except subprocess.TimeoutExpired:
            return False
        return True

    def _send(self, process: subprocess.Popen[bytes], number: signal.Signals) -> None:
        pid = process.pid
        if self.as_pid_1:
            inner = children(pid)
            if not inner:  # unshare hasn't forked yet, or is done
                return
            pid = inner[0]
        if (number == signal.SIGINT or not self.as_pid_1) and not _holds_signals(pid):
            # In the interpreter's own first milliseconds they do to us what they do to any Python; a PID 1
            # doesn't get them, but for SIGINT, which CPython takes: KeyboardInterrupt out of `site`.
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
            self.signals.append(number)

    def _kill_overseer(self, pid: int) -> bool:
        for one in marked(self.mark):
            if b"entrypoint.oversee" in _read(f"/proc/{one}/cmdline"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(one, signal.SIGKILL)
                    return True
        return False

    def _explain(self) -> list[str]:
        """Nothing, if the exit code is one of those that can be."""
        # Also the app that takes them all dies of the one that comes before it has said so.
        possible = self.kind.codes | {128 + number for number in self.signals if number not in HARMLESS}
        if {signal.SIGTERM, signal.SIGINT} & set(self.signals):
            possible |= {128 + signal.SIGKILL}  # in its grace
        if signal.SIGINT in self.signals and self.kind.argv[0] == sys.executable:
            possible |= {1}  # KeyboardInterrupt while Python itself was starting
        if self.code in possible:
            return []
        said = _read(str(self.directory / "stderr")).decode(errors="replace")
        return [f"exit code {self.code}, possible are {sorted(possible)}; it said: {said[-1500:]}"]

    def _last_words(self) -> list[str]:
        """What stays in the marker file is how it ended."""
        if not (text := _read(str(self.state / "status.json"))):  # the app was never there
            return [] if self.kind.codes == {127} else ["no marker file"]
        app = json.loads(text)["app"]
        if (app["status"], app["exitCode"]) == ("exited", self.code):
            return []
        return [f"exit code {self.code}, but the marker file says {app}"]

    def _leftovers(self, temporary: Path) -> list[str]:
        wrong = []
        # What the kernel takes a moment for, and what left its session where nobody may end it but PID 1.
        give_up_s = time.monotonic() + 5
        while (left := marked(self.mark)) and time.monotonic() < give_up_s:
            if self.as_pid_1 and time.monotonic() > give_up_s - 4:
                break
            time.sleep(0.02)
        if left:
            wrong.append(f"left processes: {_describe(self.mark)}")
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        expected = {"status.json"}
        found = {one.name for one in self.state.iterdir()} if self.state.exists() else set()
        if found - expected:
            wrong.append(f"left in the state directory: {sorted(found - expected)}")
        if files := [str(one) for one in temporary.rglob("*")]:
            wrong.append(f"left temporary files: {files}")
        return wrong


def marked(mark: str) -> list[int]:
    """The living processes of a run, by what stands in their environment."""
    wanted = f"{MARK}={mark}".encode()
    pids = (int(name) for name in os.listdir("/proc") if name.isdecimal())
    return [pid for pid in pids if wanted in _read(f"/proc/{pid}/environ").split(b"\0")]


def children(pid: int) -> list[int]:
    return [int(one) for one in _read(f"/proc/{pid}/task/{pid}/children").split()]


def _state(pid: int) -> str:
    return _read(f"/proc/{pid}/stat").rpartition(b") ")[2][:1].decode()


def _holds_signals(pid: int) -> bool:
    if children(pid):  # while it waits with sigtimedwait(2), the kernel shows them as not blocked
        return True
    for line in _read(f"/proc/{pid}/status").splitlines():
        if line.startswith((b"SigBlk", b"SigCgt")) and int(line.split()[1], 16) >> (signal.SIGUSR1 - 1) & 1:
            return True
    return False


def _describe(mark: str) -> str:
    said = [
        f"{pid} {_read(f'/proc/{pid}/cmdline').replace(bytes(1), b' ').decode()!r} {_state(pid)}"
        for pid in marked(mark)
    ]
    return ", ".join(said) or "nobody of it is alive"


def _read(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except OSError:  # it is gone
        return b""


@contextlib.contextmanager
def bad_databases() -> Iterator[dict[str, int]]:
    """Ports on which there is none: one refuses, one hangs up, one never answers."""
    with (
        socket.create_server(("127.0.0.1", 0)) as closed,
        socket.create_server(("127.0.0.1", 0), backlog=512) as rude,
        socket.create_server(("127.0.0.1", 0), backlog=4096) as silent,
    ):
        ports = {"hangs up": rude.getsockname()[1], "never answers": silent.getsockname()[1]}
        ports["refuses"] = closed.getsockname()[1]
        closed.close()

        def hang_up() -> None:
            with contextlib.suppress(OSError):
                while True:
                    rude.accept()[0].close()

        thread = threading.Thread(target=hang_up, name="hangs up")
        thread.start()
        try:
            yield ports
        finally:
            rude.shutdown(socket.SHUT_RDWR)
            thread.join()


@contextlib.contextmanager
def _adopting() -> Iterator[None]:
    """Have whatever a run leaves come to us, where we can see it, instead of to the machine's init."""
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def soak(
    count: int, seed: int, *, jobs: int = 4, only: int | None = None, say: Callable[[str], None] = print
) -> list[str]:
    """Do so many runs; everything that was wrong, run by run."""
    numbers: Sequence[int] = range(count) if only is None else [only]
    wrong: list[str] = []
    codes: collections.Counter[int | None] = collections.Counter()
    directory = Path(tempfile.mkdtemp(prefix="soak-"))
    descriptors = len(os.listdir("/proc/self/fd"))
    before = set(children(os.getpid()))

    def one(number: int, ports: dict[str, int]) -> tuple[Run, list[str]]:
        own = directory / str(number)
        own.mkdir()
        run = Run(number, seed, own, ports)
        return run, run.go()

    try:
        with _adopting(), bad_databases() as ports, concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            for done, (run, problems) in enumerate(pool.map(lambda number: one(number, ports), numbers), 1):
                codes[run.code] += 1
                wrong += [f"{run}: {problem}" for problem in problems]
                for problem in problems:
                    say(f"WRONG {run}: {problem}")
                shutil.rmtree(run.directory)
                if done % 100 == 0:
                    say(f"{done} runs, {len(wrong)} problems")
        # Those that we adopted: an ordinary entrypoint's orphans, ended by themselves.
        for pid in set(children(os.getpid())) - before:
            if os.waitpid(pid, os.WNOHANG) == (0, 0):
                wrong.append(f"left alive: {pid}")
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    if (now := len(os.listdir("/proc/self/fd"))) != descriptors:
        wrong.append(f"descriptors of our own: {descriptors} before, {now} after")
    say(
        f"{len(numbers)} runs, seed {seed}, {len(wrong)} problems; exit codes: {dict(sorted(codes.items(), key=str))}"
    )
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--jobs", type=int, default=4)
    parser.add_argument("--only", type=int, help="repeat this run only")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}")
    sys.exit(bool(soak(arguments.count, arguments.seed, jobs=arguments.jobs, only=arguments.only)))


if __name__ == "__main__":
    main()
