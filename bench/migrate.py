"""How fast is `migrator up`? Beside psql, dbmate, alembic and yoyo, from start to end.

    python bench/migrate.py [--only local,network,idle,memory] [--among dbmate,yoyo] [--rounds 5]

    local     200 small migrations on an empty database     wanted: at most 0.8 times dbmate
    network   the same, every packet delayed each way       wanted: at most 0.4 times dbmate
    idle      nothing to do, 1,000 files applied: CPU       wanted: at most 0.3 times alembic, 0.7 times yoyo
              and round trips after connecting              wanted: at most 3
    memory    peak RSS with 1,000 files                     wanted: at most 40 MiB
              and with one of 50 MB                         wanted: at most 64 MiB

A private Postgres with its default settings: each commit waits for the disk. `--disk-ms 2` makes of this
machine's disk one across a network, as databases in a cloud mostly have, and `--delay-ms` says how late
packets are (2). What isn't installed is named and left out: `apt-get install gcc libc6-dev postgresql`,
`pip install -e '.[bench]'`, and for dbmate `npm install --no-save dbmate` here, or its program in PATH.
"""

import argparse
import contextlib
import dataclasses
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import rig
import rivals
from rivals import OURS, PSQL_ALL, PSQL_EACH, Candidate

WARM_UP_ROUNDS = 1  # a round takes long enough
# As initdb leaves them; the embedded one is careless of power cuts.
SETTINGS = {"fsync": "on", "full_page_writes": "on", "shared_buffers": "128MB", "autovacuum": "on"}
# A process begins with the peak of the one that it was spawned from, so that one has to be small.
SPAWN = """
import os, sys, time
log = (os.POSIX_SPAWN_OPEN, 1, sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
began_s = time.monotonic()
pid = os.posix_spawn(sys.argv[2], sys.argv[2:], os.environ, file_actions=[log, (os.POSIX_SPAWN_DUP2, 1, 2)])
_, status, usage = os.wait4(pid, 0)
used_s = usage.ru_utime + usage.ru_stime
print(os.waitstatus_to_exitcode(status), time.monotonic() - began_s, used_s, usage.ru_maxrss * 1024)
"""


@dataclasses.dataclass(frozen=True)
class Used:
    wall_s: float
    cpu_s: float
    peak_bytes: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="local,network,idle,memory", help="which of them, by commas")
    parser.add_argument("--among", default="psql,dbmate,alembic,yoyo", help="beside which, by commas")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--files", type=int, default=200, help="how many are pending in local and network")
    parser.add_argument("--many", type=int, default=1000, help="how many are applied in idle and memory")
    parser.add_argument("--delay-ms", type=float, default=2, help="of each packet, each way")
    parser.add_argument(
        "--disk-ms", type=float, default=0, help="by how much a commit waits longer for the disk"
    )
    options = parser.parse_args()
    wanted = options.only.split(",")
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        directory = Path(name)
        port = rivals.free_port()
        # PostgreSQL's own way to wait at a commit.
        delay = {"commit_delay": str(int(options.disk_ms * 1000)), "commit_siblings": "0"}
        slow = delay if options.disk_ms else {}
        settings = {**SETTINGS, **slow, "listen_addresses": "127.0.0.1", "port": str(port)}
        with rig.postgres(directory, rivals.binaries(), **settings) as database:
            candidates = rivals.candidates(options.among.split(","))
            bench = Bench(directory, database, candidates, options.rounds, options.disk_ms)
            if "local" in wanted:
                bench.pending(options.files, 0)
            if "network" in wanted:
                bench.pending(options.files, options.delay_ms)
            if "idle" in wanted or "memory" in wanted:
                bench.idle(options.many)
            if "memory" in wanted:
                bench.one_large_file(50_000_000)


class Bench:
    def __init__(
        self,
        directory: Path,
        database: rig.Postgres,
        candidates: dict[str, Candidate],
        rounds: int,
        disk_ms: float,
    ) -> None:
        self._directory = directory
        self._database = database
        self._rounds = rounds
        self._delay = rig.build("delay", directory)
        self._candidates = candidates
        self._disk_ms = disk_ms

    def pending(self, files: int, delay_ms: float) -> None:
        """Apply `files` small migrations to an empty database."""
        where = {name: self._written(name, files) for name in self._candidates}

        def measure(name: str) -> Used:
            with self._empty() as database, self._proxy(delay_ms) as proxy:
                return self._run(name, where[name], proxy.port, database)

        taken = rig.take_turns(list(where), measure, self._rounds, WARM_UP_ROUNDS)
        title = f"{files} migrations, " + (f"{delay_ms:g} ms later each way" if delay_ms else "local")
        title += f", {self._disk_ms:g} ms more for the disk" if self._disk_ms else ""
        _show(title, taken, ("wall_s", "cpu_s"), {})

    def idle(self, files: int) -> None:
        """Nothing to do; before that, the peak of the run that had everything to do."""
        names = [name for name in self._candidates if name not in (PSQL_EACH, PSQL_ALL)]
        where = {name: self._written(name, files) for name in names}
        with contextlib.ExitStack() as stack:
            databases = {name: stack.enter_context(self._empty()) for name in names}
            port = self._database.port
            first = {name: self._run(name, where[name], port, databases[name]) for name in names}
            trips = {}
            for name in names:
                with self._proxy(0, always=True) as proxy:
                    self._run(name, where[name], proxy.port, databases[name])
                trips[name] = proxy.round_trips

            def measure(name: str) -> Used:
                return self._run(name, where[name], port, databases[name])

            taken = rig.take_turns(names, measure, self._rounds, WARM_UP_ROUNDS)
        _show(f"Nothing to do, {files} files applied", taken, ("wall_s", "cpu_s"), {"round trips": trips})
        peaks = {
            "MiB, all to do": {name: one.peak_bytes / rig.MIB for name, one in first.items()},
            "nothing to do": {name: max(one.peak_bytes for one in taken[name]) / rig.MIB for name in names},
        }
        _show(f"Peak RSS, {files} files", {name: [one] for name, one in first.items()}, (), peaks)

    def one_large_file(self, size_bytes: int) -> None:
        """One file of INSERTs that fill `size_bytes`."""
        peaks: dict[str, object] = {}
        where = self._directory / "large"
        where.mkdir()
        with (where / "1_large.sql").open("w") as file:
            file.write("create table large (id int, note text);\n")
            number = 0
            while file.tell() < size_bytes:
                rows = ",\n".join(f"({number + one}, '{'x' * 80}')" for one in range(500))
                file.write(f"insert into large values {rows};\n")
                number += 500
        for name in (OURS, PSQL_ALL, "yoyo"):
            if name in self._candidates:
                with self._empty() as database:
                    used = self._run(name, where, self._database.port, database, may_fail=True)
                peaks[name] = used.peak_bytes / rig.MIB if used else "failed"
        rig.show(
            f"Peak RSS, one file of {size_bytes / 1e6:g} MB", ["MiB"], {k: [v] for k, v in peaks.items()}
        )

    def _written(self, name: str, files: int) -> Path:
        directory = self._directory / f"{name.replace(' ', '-')}-{files}"
        if not directory.exists():
            directory.mkdir()
            for number in range(files):
                self._candidates[name].write(directory, number, _small(number))
        return directory

    @contextlib.contextmanager
    def _empty(self) -> Iterator[str]:
        name = self._database.new_name()
        yield name
        self._database.execute(f"drop database {name} with (force)")

    def _run(
        self, name: str, where: Path, port: int, database: str, *, may_fail: bool = False
    ) -> Used | None:
        log = self._directory / "log"
        command = self._candidates[name].command(where, port, database)
        url = f"postgresql://postgres@127.0.0.1:{port}/{database}"
        env = rig.environment(DATABASE_URL=url, MIGRATIONS_DIR=str(where), LOG_LEVEL="info", HOME=str(where))
        spawn = [sys.executable, "-I", "-S", "-c", SPAWN, str(log), *command]
        said = subprocess.run(
            spawn, env=env, cwd=where, stdout=subprocess.PIPE, text=True, check=True, timeout=300
        ).stdout
        code, *used = said.split()
        if int(code):
            if may_fail:
                return None
            sys.exit(f"bench: {name} ended with {code}: {log.read_text()[-2000:]}")
        return Used(*map(float, used))

    @contextlib.contextmanager
    def _proxy(self, delay_ms: float, *, always: bool = False) -> Iterator["Proxy"]:
        """Between the tools and the server; without a delay there is none, unless it is to count."""
        if not delay_ms and not always:
            yield Proxy(self._database.port)
            return
        command = [self._delay, str(self._database.port), str(int(delay_ms * 1000))]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            proxy = Proxy(int(process.stdout.readline()))
            yield proxy
        finally:
            process.terminate()
            said = process.communicate()[0]
        _, proxy.round_trips, _ = map(int, said.split())


@dataclasses.dataclass
class Proxy:
    port: int
    round_trips: int = 0


def _show(title: str, taken: dict, fields: Sequence[str], more: dict) -> None:
    """The medians, and how ours compares with each in the pairs of the rounds."""
    heads = [word for field in fields for word in (field.replace("_", " "), "ours is x")]
    rows: dict[str, list[object]] = {name: [] for name in taken}
    for field in fields:
        values = {name: [getattr(one, field) for one in used] for name, used in taken.items()}
        for name, row in rows.items():
            row += [statistics.median(values[name]), rig.ratio(values, OURS, name)]
    for name, row in rows.items():
        row += [column[name] for column in more.values()]
    rig.show(title, [*heads, *more], rows)


def _small(number: int) -> str:
    """A small migration: one in five makes a table, the others do something with it."""
    table = f"t{number // 5}"
    return (
        f"create table {table} (id bigint primary key, note text);\n",
        f"alter table {table} add column email text not null default '';\n",
        f"insert into {table} (id, note) values (1, 'one'), (2, 'two');\n",
        f"create index {table}_email on {table} (email);\n",
        f"comment on table {table} is 'number {number}';\n",
    )[number % 5]


if __name__ == "__main__":
    main()
