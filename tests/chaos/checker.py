"""Compares a database with its files after a run, in plain SQL through psql: no code of the migrator."""

import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tests.chaos.scripts import Script
from tests.support.postgres import binaries
from tests.support.waiting import wait_until

SESSIONS_GONE_S = 15


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What an undisturbed run of the same files leaves."""

    history: list[list[str]]
    schema: str


def psql(url: str, query: str, *, check: bool = True) -> list[list[str]]:
    """The rows of a query, each value as text."""
    done = subprocess.run(
        [str(binaries() / "psql"), "-X", "-At", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-d", url, "-c", query],
        capture_output=True,
        text=True,
        timeout=30,
    )
    if check and done.returncode:
        raise AssertionError(f"psql: {done.stderr}")
    return [line.split("\t") for line in done.stdout.splitlines()]


def truth(url: str) -> Truth:
    """What there is in the database that doesn't depend on who made it when."""
    dump = subprocess.run(
        [str(binaries() / "pg_dump"), "--schema-only", "--no-owner", "-d", url],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    lines = [line for line in dump.stdout.splitlines() if not line.startswith(("\\", "--"))]
    history = psql(
        url,
        "select version, filename, name, checksum, finished, in_doubt, statements_done"
        " from migrator.migration_history order by version",
    )
    return Truth(history=history, schema="\n".join(lines))


def marks_of(url: str, number: int, pid: int) -> int:
    """How many marks of a file the process `pid` has left."""
    query = f"select count(*) from public.marks where n = {number} and holder like '%/{pid}/%'"
    rows = psql(url, query, check=False)
    return int(rows[0][0]) if rows else 0


def unfinished(url: str, scripts: Sequence[Script]) -> list[str]:
    """The files that aren't on record as finished, or haven't all their marks."""
    finished = {row[0] for row in psql(url, "select filename from migrator.migration_history where finished")}
    made = {int(row[0]) for row in psql(url, "select n from marks group by n having count(*) = 2")}
    return [one.filename for one in scripts if one.filename not in finished or one.number not in made]


def violations(
    url: str, scripts: Sequence[Script], expected: Truth, *, ttl_s: float, pooled: bool
) -> list[str]:
    """Everything that is not as it must be; `scripts` are those that must have been applied."""
    found = []
    marks = psql(url, "select n, place, token, xact from marks order by at")
    counts = Counter((int(n), place) for n, place, *_ in marks)
    wanted = {(one.number, place): 1 for one in scripts for place in "ab"}
    if counts != wanted:
        odd = {key: counts[key] for key in counts.keys() | wanted.keys() if counts[key] != wanted.get(key, 0)}
        found.append(f"marks that aren't there exactly once: {odd}")
    numbers = [int(n) for n, *_ in marks]
    if numbers != sorted(numbers):
        found.append(f"files were applied out of order or at once: {numbers}")
    tokens = [int(token) for _, _, token, _ in marks]
    if tokens != sorted(tokens):
        found.append(f"an older holder worked after a newer one: {tokens}")
    for script in scripts:
        transactions = {xact for n, _, _, xact in marks if int(n) == script.number}
        if not script.in_steps and len(transactions) != 1:
            found.append(f"{script.filename} was made in the transactions {sorted(transactions)}")
    there = truth(url)
    if there.history != expected.history:
        odd_rows = [row for row in there.history if row not in expected.history]
        missing = [row for row in expected.history if row not in there.history]
        found.append(f"history differs: {odd_rows} instead of {missing}")
    if there.schema != expected.schema:
        odd_lines = set(there.schema.splitlines()) ^ set(expected.schema.splitlines())
        found.append(f"the schema differs: {sorted(odd_lines)}")
    if rows := psql(url, "select indexrelid::regclass from pg_index where not indisvalid"):
        found.append(f"INVALID indexes: {rows}")
    held = (
        "select holder, expires_at from migrator.migration_locks where holder is not null"
        f" and expires_at > clock_timestamp() + interval '{ttl_s} s'"
    )
    if rows := psql(url, held):
        found.append(f"a dead holder has the lock for longer than its lease: {rows}")
    if left := _left_behind(url, pooled=pooled):
        found.append(f"sessions left behind: {left}")
    return found


def _left_behind(url: str, *, pooled: bool) -> list[list[str]]:
    """Sessions of migrators that don't end. A pooler keeps its own, with nothing in them."""
    idle = " and state <> 'idle'" if pooled else ""
    sessions = (
        "select pid, application_name, state, wait_event, query from pg_stat_activity"
        f" where datname = current_database() and application_name like 'migrator/%'{idle}"
    )
    locks = (
        "select pid, locktype, mode from pg_locks where locktype = 'advisory'"
        " and database = (select oid from pg_database where datname = current_database())"
    )
    try:
        wait_until(
            lambda: not psql(url, sessions) and not psql(url, locks),
            timeout_s=SESSIONS_GONE_S,
            what="the end of all sessions",
        )
    except AssertionError:
        return psql(url, sessions) + psql(url, locks)
    return []
