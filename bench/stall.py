"""What does an app feel of a migration that somebody is in the way of? Beside psql, dbmate, alembic, yoyo.

    python bench/stall.py [--cases long-reader,two-tables] [--tools migrator,psql] [--seconds 3] [--json]

150 requests a second through a pool of 10 connections, on two tables; with one of them most migrations have
nothing to do. Somebody gets in the way, then the migration starts; `--seconds` after that they are gone.
Wanted of ours where locks are the matter: no request above 100 ms, done at most 0.3 s later, never an invalid
index. A rewrite or an UPDATE of a whole table freezes the app by itself; there, `refuse` (ours with
MIGRATION_HAZARDS=refuse) is wanted to end at once, with nothing changed.

In the table: the slowest request, and what 99 of 100 stayed within, from the migration's start until it was
over; requests that failed; when the migration was done, from the blocker's end ("+", or "-" if before it), or
from its own start ("in") where the blocker doesn't end by itself or there is none; indexes left invalid. The
rows `nothing` are what machine and blocker do to the app without any migration: read the others beside them.
Each is one run, on a private Postgres that doesn't wait for the disk. What isn't installed is left out: see
bench/rivals.py.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import blockers
import load
import rig
import rivals
from stall_cases import CASES, Case

CONTROL, REFUSE = "nothing", "refuse"
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "shared_buffers": "128MB",
    "max_wal_size": "4GB",  # a checkpoint would be in everybody's way
    "max_prepared_transactions": "5",
    "autovacuum": "on",
    "autovacuum_naptime": "1s",
    "log_min_messages": "panic",  # we end sessions, and autovacuums
}
SMALL_ROWS = 50_000
# In which the load runs alone before, and in which what was held up becomes visible after.
SETTLE_S = 0.5


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a run was like.

    `code` is what the tool ended with, None if it had to be ended; `is_done` what the database says; `done_s`
    is None unless both are content.
    """

    case: str
    tool: str
    worst_ms: float
    p99_ms: float
    requests: int
    errors: int
    code: int | None
    is_done: bool
    done_s: float | None
    invalid_indexes: int


@dataclasses.dataclass(frozen=True)
class Tool:
    """How a tool is called for a file in a transaction, and for one that can't have any."""

    usual: rivals.Candidate
    alone: rivals.Candidate
    environment: dict[str, str] = dataclasses.field(default_factory=dict)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="cases:\n" + "\n".join(f"  {name:14} {case.told}" for name, case in CASES.items()),
    )
    parser.add_argument("--cases", type=_named(CASES), default=list(CASES), help="which, by commas")
    names = [CONTROL, rivals.OURS, REFUSE, *rivals.PROGRAMS]
    parser.add_argument(
        "--tools", type=_named(names), default=names, help=f"which, by commas, of: {', '.join(names)}"
    )
    parser.add_argument("--seconds", type=_positive, default=3, help="how long somebody is in the way")
    parser.add_argument(
        "--patience", type=_positive, default=15, help="seconds until a migration counts as never done"
    )
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the large table")
    parser.add_argument("--json", action="store_true", help="print the outcomes as JSON, not as a table")
    options = parser.parse_args()
    tools = _tools(options.tools)
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        port = rivals.free_port()
        with rig.postgres(Path(name), rivals.binaries(), port=str(port), **SETTINGS) as server:
            bench = Bench(Path(name), server, options.seconds, options.patience)
            for case_name in options.cases:
                case = CASES[case_name]
                template = bench.template(case, options.rows if case.heavy else SMALL_ROWS)
                for tool_name, tool in tools.items():
                    if tool_name != REFUSE or case.heavy:
                        outcome = bench.measure(case_name, tool_name, tool, template)
                        done = _done(outcome, options.patience)
                        _tell(f"{case_name}, {tool_name}: worst {outcome.worst_ms:.0f} ms, {done}")
                        outcomes.append(outcome)
    if options.json:
        print(json.dumps([dataclasses.asdict(one) for one in outcomes], indent=1))
    else:
        _show(outcomes, options.patience)


class Bench:
    def __init__(self, directory: Path, server: rig.Postgres, blocked_s: float, patience_s: float) -> None:
        self._directory = directory
        self._server = server
        self._blocked_s = blocked_s
        self._patience_s = patience_s

    def template(self, case: Case, rows: int) -> str:
        """The name of a database that has the case's tables."""
        name = self._server.new_name()
        with blockers.Session(self._server.url(name)) as session:
            session.execute(f"{load.tables(rows)} {case.setup}")
            session.execute("checkpoint")
        return name

    def measure(self, case_name: str, tool_name: str, tool: Tool | None, template: str) -> Outcome:
        """One run, in a database of its own; without a tool nothing is migrated."""
        database = self._server.new_name(template)
        try:
            return self._measure(case_name, tool_name, tool, database)
        finally:
            self._server.execute(f"drop database {database} with (force)")

    def _measure(self, case_name: str, tool_name: str, tool: Tool | None, database: str) -> Outcome:
        case = CASES[case_name]
        url = rivals.url(self._server.port, database)
        with contextlib.ExitStack() as stack:
            app = stack.enter_context(load.Load(url))
            way = stack.enter_context(contextlib.ExitStack())
            time.sleep(SETTLE_S)
            way.enter_context(case.blocker(url))
            began_s = time.monotonic()
            from_s = began_s + self._blocked_s if case.ends else began_s
            process = stack.enter_context(self._running(case, tool, database)) if tool else None
            code = _wait(process, self._blocked_s if case.ends or not process else self._patience_s)
            if code is None and case.ends:
                way.close()
                from_s = time.monotonic()
                code = _wait(process, self._patience_s) if process else None
            ended_s = time.monotonic()
            way.close()
            if process and code is None:
                self._give_up(process, url)
            time.sleep(SETTLE_S)
            felt = app.stop().between(began_s, ended_s + SETTLE_S)
        with blockers.Session(url) as session:
            invalid = session.value("select count(*) from pg_index where not indisvalid")
            is_done = session.value(f"select {case.proof}") is True
        for error in sorted(set(felt.errors)):
            _tell(f"{case_name}, {tool_name}: a request failed: {error}")
        return Outcome(
            case=case_name,
            tool=tool_name,
            worst_ms=felt.worst_ms,
            p99_ms=felt.p99_ms,
            requests=len(felt.all),
            errors=len(felt.errors),
            code=code,
            is_done=is_done,
            done_s=ended_s - from_s if code == 0 and is_done else None,
            invalid_indexes=int(str(invalid)),
        )

    @contextlib.contextmanager
    def _running(self, case: Case, tool: Tool, database: str) -> Iterator[subprocess.Popen[bytes]]:
        """The tool, while it applies the case's migration."""
        candidate = tool.alone if case.alone else tool.usual
        port = self._server.port
        with tempfile.TemporaryDirectory(dir=self._directory) as name, tempfile.TemporaryFile() as log:
            where = Path(name)
            candidate.write(where, 0, case.text, alone=case.alone)
            given = {"DATABASE_URL": rivals.url(port, database), "MIGRATIONS_DIR": name, "HOME": name}
            process = subprocess.Popen(
                candidate.command(where, port, database),
                env=rig.environment(**given, **tool.environment),
                cwd=where,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            try:
                yield process
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                if process.wait() > 0:
                    log.seek(0)
                    _tell(log.read()[-1000:].decode(errors="replace"))

    def _give_up(self, process: subprocess.Popen[bytes], url: str) -> None:
        """End it, and its session, which else would go on waiting."""
        os.killpg(process.pid, signal.SIGKILL)
        with blockers.Session(url) as session:
            session.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                f"where datname = current_database() and application_name <> '{load.APPLICATION}' "
                "and pid <> pg_backend_pid()"
            )


def _wait(process: subprocess.Popen[bytes] | None, timeout_s: float) -> int | None:
    """What it ended with, or None if it didn't in time.

    To the millisecond, which `Popen.wait(timeout)` isn't: that looks every 50 ms.
    """
    if process is None:
        time.sleep(timeout_s)
        return None
    if process.poll() is not None:
        return process.returncode
    handle = os.pidfd_open(process.pid)
    try:
        is_over, _, _ = select.select([handle], [], [], timeout_s)
    finally:
        os.close(handle)
    return process.wait() if is_over else None


def _tools(wanted: Sequence[str]) -> dict[str, Tool | None]:
    """Those of these that are installed; None stands for no tool at all."""
    found = rivals.candidates([name for name in wanted if name in rivals.PROGRAMS], tell=_tell)
    ours = found[rivals.OURS]
    tools = {
        CONTROL: None,
        rivals.OURS: Tool(ours, ours),
        REFUSE: Tool(ours, ours, {"MIGRATION_HAZARDS": "refuse"}),
    }
    if rivals.PSQL_EACH in found:
        tools["psql"] = Tool(found[rivals.PSQL_EACH], found[rivals.PSQL_ALL])
    tools |= {name: Tool(one, one) for name, one in found.items() if name in rivals.PROGRAMS}
    return {name: tools[name] for name in wanted if name in tools}


def _named(known: Collection[str]) -> Callable[[str], list[str]]:
    """An argument that is a list of these."""

    def parse(text: str) -> list[str]:
        names = [name.strip() for name in text.split(",")]
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} isn't one of: {', '.join(known)}")
        return names

    return parse


def _positive(text: str) -> float:
    """An argument that is a time in seconds."""
    with contextlib.suppress(ValueError):
        if 0 < (value := float(text)) < 3600:
            return value
    raise argparse.ArgumentTypeError(f"{text!r} isn't a number of seconds above 0")


def _show(outcomes: Sequence[Outcome], patience_s: float) -> None:
    heads = ["worst ms", "p99 ms", "failed", "done", "invalid index"]
    rows = {
        f"{one.case}, {one.tool}": [
            round(one.worst_ms),
            round(one.p99_ms),
            f"{one.errors} of {one.requests}",
            _done(one, patience_s),
            one.invalid_indexes or "",
        ]
        for one in outcomes
    }
    rig.show("What the app feels, and when the migration is done", heads, rows)


def _done(one: Outcome, patience_s: float) -> str:
    if one.tool == CONTROL:
        return ""
    if one.code is None:
        return f"never in {patience_s:g} s"
    if one.done_s is None:
        return f"ended with {one.code}" + ", yet done" * one.is_done
    return f"{one.done_s:+.2f} s" if CASES[one.case].ends else f"in {one.done_s:.2f} s"


def _tell(text: str) -> None:
    """Beside what is asked for."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
