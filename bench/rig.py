"""What the benches share: the candidates, turns, databases, what the kernel counts, and the table.

A bench is a program of its own and prints ratios. All candidates take turns in each round, so that a
noisy machine is noisy for all; read the ratios of pairs, not the milliseconds. Nothing here passes or fails.

    python bench/startup.py   the app's first instruction; a real app's first answer on one CPU
    python bench/bundle.py    the bundle's size, start and memory beside the venv's
    python bench/container.py the same under Docker, and `docker stop`; needs the image
    python bench/stop.py      from SIGTERM to the end
    python bench/idle.py      how often PID 1 wakes up when there is nothing to do
    python bench/memory.py    PID 1, everything of ours while it migrates, the migrator at its peak
    python bench/stress.py    100,000 signals; 10,000 health requests a second
    python bench/stall.py     the app's requests while somebody is in a migration's way, beside the same four
    python bench/migrate.py   200 migrations and 1,000 applied ones, beside psql, dbmate, alembic and yoyo

A candidate that isn't installed is left out: `apt-get install gcc libc6-dev tini dumb-init supervisor nodejs
postgresql`; uvicorn, honcho, alembic and yoyo come with the extra `bench`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from migrator import embedded

T = TypeVar("T")
APPS = Path(__file__).resolve().parent / "apps"
MIB = 1024 * 1024
OURS = "entrypoint"
FLOOR = "python -I -S, exec"
WARM_UP_ROUNDS = 2  # they fill the caches


def environment(**extra: str) -> dict[str, str]:
    """An environment in which nothing of this machine decides."""
    return {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "LOG_LEVEL": "warning", **extra}


def installed(program: str) -> str | None:
    """Where a program is: beside our Python or in PATH."""
    beside = Path(sys.executable).parent / program
    return str(beside) if beside.exists() else shutil.which(program)


def build(name: str, directory: Path) -> str:
    """One of apps/*.c as a program: what it costs itself is next to nothing."""
    compiler = shutil.which("cc") or sys.exit("bench: needs a C compiler (apt-get install gcc libc6-dev)")
    program = directory / name
    subprocess.run([compiler, "-O2", "-static", "-o", program, APPS / f"{name}.c"], check=True)
    return str(program)


def ours(*app: str) -> list[str]:
    """The command that runs an app under the entrypoint."""
    return [sys.executable, "-m", "entrypoint", "--", *app]


def floor(*app: str) -> list[str]:
    """The least that a program written in Python takes to start another one: it does nothing else."""
    replace = f"import posix; posix.execv({app[0]!r}, {list(app)!r})"
    return [sys.executable, "-I", "-S", "-c", replace]


def others(*app: str, directory: Path) -> dict[str, list[str]]:
    """The same app under every other init that is installed."""
    commands: dict[str, list[str]] = {}
    if tini := installed("tini"):
        commands["tini"] = [tini, "-s", "--", *app]
    if dumb_init := installed("dumb-init"):
        commands["dumb-init"] = [dumb_init, *app]
    if supervisord := installed("supervisord"):
        config = directory / "supervisord.conf"
        config.write_text(
            f"[supervisord]\nnodaemon=true\nlogfile=/dev/null\nlogfile_maxbytes=0\npidfile={directory}/pid\n"
            f"[program:app]\ncommand={' '.join(app)}\nautorestart=false\nstartsecs=0\n"
            "stdout_logfile=/dev/fd/1\nstdout_logfile_maxbytes=0\n"
        )
        commands["supervisord"] = [supervisord, "-n", "-c", str(config)]
    if honcho := installed("honcho"):
        procfile = directory / "Procfile"
        procfile.write_text(f"app: exec {' '.join(app)}\n")
        commands["honcho"] = [honcho, "-f", str(procfile), "--no-prefix", "start"]
    return commands


def take_turns(
    names: Sequence[str], measure: Callable[[str], T], rounds: int, warm_up_rounds: int = WARM_UP_ROUNDS
) -> dict[str, list[T]]:
    """What `measure(name)` says, each name once a round; every round begins with another one."""
    taken: dict[str, list[T]] = {name: [] for name in names}
    for number in range(rounds + warm_up_rounds):
        first = number % len(names)
        for name in (*names[first:], *names[:first]):
            value = measure(name)
            if number >= warm_up_rounds:
                taken[name].append(value)
    return taken


def ratio(taken: Mapping[str, Sequence[float]], one: str, other: str) -> float:
    """The median of the pairs' ratios: noise hits both of a pair."""
    return statistics.median(a / b for a, b in zip(taken[one], taken[other], strict=True))


def difference(taken: Mapping[str, Sequence[float]], one: str, other: str) -> float:
    """The median of the pairs' differences."""
    return statistics.median(a - b for a, b in zip(taken[one], taken[other], strict=True))


def show(title: str, heads: Sequence[str], rows: Mapping[str, Sequence[object]]) -> None:
    """A table: a row for each candidate, numbers to the right."""
    width = max(28, *(len(name) + 2 for name in rows))
    print(f"\n{title}\n{'':{width}}" + "".join(f"{head:>16}" for head in heads))
    for name, values in rows.items():
        print(f"{name:{width}}" + "".join(f"{_said(value):>16}" for value in values), flush=True)


def _said(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def start(command: Sequence[str], **options) -> subprocess.Popen[bytes]:
    """A candidate, silent but for its standard output."""
    given = {"env": environment(), "stdin": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **options}
    return subprocess.Popen(command, stdout=subprocess.PIPE, **given)


def wait_for_line(process: subprocess.Popen[bytes], wanted: Callable[[bytes], bool]) -> bytes:
    """The first such line that the app writes; supervisord and honcho write others, too."""
    assert process.stdout is not None
    for line in process.stdout:
        if wanted(line.strip()):
            return line.strip()
    sys.exit(f"bench: {process.args} did not start the app")


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = 60) -> None:
    give_up_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > give_up_s:
            sys.exit(f"bench: {what} did not come true within {timeout_s} s")
        time.sleep(0.005)


def end(process: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> None:
    """Ask it to end and wait until it has."""
    process.send_signal(number)
    process.communicate()


def phase(state_dir: Path) -> str | None:
    """Where the migrations are, as published."""
    with contextlib.suppress(OSError, ValueError):
        return str(json.loads((state_dir / "status.json").read_bytes())["migrations"]["phase"])
    return None


def wait_until_settled(process: subprocess.Popen[bytes], state_dir: Path) -> None:
    """Wait until the migrations are over and nobody is left of us but PID 1."""

    def is_settled() -> bool:
        is_over = phase(state_dir) in ("completed", "skipped", "failed", "aborted")
        return is_over and not family(process.pid)

    wait_until(is_settled, "the end of the migrations")


def family(pid: int) -> list[int]:
    """Everything of ours below PID 1: the overseer, the migrator, and whatever that started."""
    found, parents = [], {pid}
    commands = {child: _read(f"/proc/{child}/cmdline") for child in children(pid)}
    parents = {child for child, command in commands.items() if b"entrypoint.oversee" in command}
    while parents:
        found += sorted(parents)
        parents = {child for parent in parents for child in children(parent)}
    return found


def children(pid: int) -> list[int]:
    return [int(one) for one in _read(f"/proc/{pid}/task/{pid}/children").split()]


def pss_bytes(pid: int) -> int:
    """A process's own memory and its share of what it shares; 0 if it is gone."""
    for line in _read(f"/proc/{pid}/smaps_rollup").splitlines():
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def rss_bytes(pid: int) -> int:
    """What it has in memory, shared or not: where other Pythons run on this machine, PSS flatters."""
    return int(_read(f"/proc/{pid}/statm").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def switches(pid: int) -> int:
    """How often a process has been switched to, over all of its threads."""
    total = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        for line in _read(f"/proc/{pid}/task/{thread}/status").splitlines():
            if b"ctxt_switches" in line:
                total += int(line.split()[1])
    return total


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:  # it is gone
        return b""


@contextlib.contextmanager
def on_cpus(cpus: set[int]) -> Iterator[None]:
    """Whatever is started here runs on these CPUs only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def write_migrations(directory: Path, count: int) -> Path:
    """So many small files that each make a table."""
    directory.mkdir()
    for number in range(count):
        text = f"create table t{number} (id bigint primary key, note text);\n"
        (directory / f"{20260101000000 + number}_table_{number}.sql").write_text(text)
    return directory


def write_large_migration(directory: Path, lines: Iterator[str], size_bytes: int) -> Path:
    """One file, of so many of the lines."""
    directory.mkdir()
    with (directory / "1_large.sql").open("w") as file:
        while file.tell() < size_bytes:
            file.writelines(itertools.islice(lines, 1000))
    return directory


def inserts() -> Iterator[str]:
    """A table, and rows for it, one statement each."""
    yield "create table large (id int primary key, name text, note text);\n"
    for number in itertools.count():
        yield f"insert into large (id, name, note) values ({number}, 'name {number}', 'it''s; a note');\n"


def copied() -> Iterator[str]:
    """A table, and data for it."""
    yield "create table large (id int primary key, name text, note text);\ncopy large from stdin;\n"
    for number in itertools.count():
        yield f"{number}\tname {number}\tit's; a note\n"


class Postgres:
    """A private server; each run may have a database of its own."""

    def __init__(self, directory: Path, port: int) -> None:
        self._directory = directory
        self.port = port

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@/{database}?host={self._directory}/postgres&port={self.port}"

    def new_database(self) -> str:
        """The URL of an empty one."""
        return self.url(self.new_name())

    def new_name(self, template: str = "template1") -> str:
        """The name of an empty database, or of a copy of another one."""
        name = f"bench_{uuid.uuid4().hex[:8]}"
        self.execute(f"create database {name} template {template}")
        return name

    def execute(self, query: str) -> None:
        import asyncpg  # late: some benches have no database

        async def run() -> None:
            connection = await asyncpg.connect(self.url())
            try:
                await connection.execute(query)
            finally:
                await connection.close()

        asyncio.run(run())

    @property
    def is_up(self) -> bool:
        """Whether it takes connections: its socket is there before that."""
        if not (self._directory / "postgres" / f".s.PGSQL.{self.port}").exists():
            return False
        import asyncpg  # late, as above

        with contextlib.suppress(OSError, asyncpg.PostgresError):
            self.execute("select 1")
            return True
        return False


@contextlib.contextmanager
def postgres(directory: Path, binaries: Path | None = None, **options: str) -> Iterator[Postgres]:
    """A private Postgres for as long as the body runs: the wheel's, or that of `binaries`."""
    given = [str(binaries or embedded.find_binaries()), *(f"{name}={one}" for name, one in options.items())]
    server = subprocess.Popen([sys.executable, "-m", "migrator.embedded", str(directory), *given])
    try:
        database = Postgres(directory, int(options.get("port", "5432")))
        wait_until(lambda: database.is_up, "the database's start")
        yield database
    finally:
        server.send_signal(signal.SIGINT)
        server.wait()
