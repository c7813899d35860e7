"""The measuring tools of bench/stall.py measure what they say: the load, those in the way, and the whole."""

import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from bench import blockers, load
from tests.support.postgres import Blocker, fetch, new_database, private_server
from tests.support.processes import REPO
from tests.support.waiting import wait_until

POOL = 2
WAITING = "select pid from pg_stat_activity where application_name = 'app' and wait_event_type = 'Lock'"
LOCKS = (
    "select mode from pg_locks where relation = 'busy'::regclass and pid is distinct from pg_backend_pid()"
)


@pytest.fixture
def tables(database: str) -> str:
    """The URL of a database with the load's tables."""
    fetch(database, load.tables())
    return database


def frozen(url: str) -> Blocker:
    """`busy` locked, and all connections of the app waiting for it."""
    lock = Blocker(url, "begin; lock table busy in access exclusive mode")
    wait_until(lambda: len(fetch(url, WAITING)) == POOL, what="the whole pool's wait")
    return lock


def test_the_load_comes_by_its_timetable_whether_or_not_it_is_answered(tables: str):
    with load.Load(tables, rate_per_s=100, pool=POOL) as app:
        frozen(tables).close()
        felt = app.stop()

    times = sorted(one.scheduled_s for one in felt.all)
    assert {round(later - sooner, 3) for sooner, later in itertools.pairwise(times)} == {0.01}
    assert felt.errors == []


def test_a_table_that_nobody_locks_is_frozen_too_once_the_pool_is_empty(tables: str):
    with load.Load(tables, rate_per_s=100, pool=POOL) as app:
        lock = frozen(tables)
        frozen_s = time.monotonic()
        wait_until(lambda: time.monotonic() > frozen_s + 0.2)
        free_s = time.monotonic()
        lock.close()
        felt = app.stop().between(frozen_s, free_s)

    assert {one.kind for one in felt.all} == {"read busy", "write busy", "read other", "write other"}
    assert [one for one in felt.all if one.latency_ms < (free_s - one.scheduled_s) * 1000] == []
    assert felt.of("read other").worst_ms >= 150


def test_a_request_that_fails_is_told(tables: str):
    with load.Load(tables, rate_per_s=100, pool=POOL) as app:
        lock = frozen(tables)
        fetch(tables, f"select pg_terminate_backend(pid) from ({WAITING}) waiting")
        lock.close()
        errors = app.stop().errors

    assert len(errors) == POOL
    assert {error.split(":")[0] for error in errors} <= {"AdminShutdownError", "ConnectionDoesNotExistError"}


def test_a_request_without_an_answer_counts_as_failed(tables: str):
    with load.Load(tables, rate_per_s=100, pool=POOL, drain_s=0.2) as app:
        lock = frozen(tables)
        felt = app.stop()
        lock.close()

    assert set(felt.errors) == {"unfinished"}
    assert len(felt.errors) >= POOL
    assert felt.worst_ms >= 200


@pytest.mark.parametrize(
    ("blocker", "modes"),
    [
        (blockers.nobody, set()),
        (blockers.long_reader, {"AccessShareLock"}),
        (blockers.long_writer, {"RowExclusiveLock"}),
        (blockers.short_readers, {"AccessShareLock"}),
        (blockers.old_snapshot, set()),
        (blockers.dump, {"AccessShareLock"}),
    ],
)
def test_a_blocker_holds_its_lock_as_long_as_it_is_there(
    tables: str, blocker: Callable[[str], AbstractContextManager[None]], modes: set[str]
):
    with blocker(tables):
        # Short readers need the processor between two reads, and may all of them wait for it.
        wait_until(lambda: {mode for (mode,) in fetch(tables, LOCKS)} == modes, what="its locks")

    assert fetch(tables, LOCKS) == []


def test_an_old_snapshot_is_one(tables: str):
    snapshots = "select 1 from pg_stat_activity where backend_xmin is not null and pid <> pg_backend_pid() and datname = current_database()"
    with blockers.old_snapshot(tables):
        assert fetch(tables, snapshots) == [(1,)]


def test_a_prepared_transaction_holds_its_lock_without_a_session():
    with private_server(max_prepared_transactions="1") as server, new_database(server) as url:
        fetch(url, load.tables())
        with blockers.prepared_transaction(url):
            held = fetch(url, LOCKS.replace("mode", "mode, pid", 1))
        left = fetch(url, LOCKS)

    assert held == [("RowExclusiveLock", None)]
    assert left == []


def test_an_autovacuum_is_a_real_one():
    with private_server(autovacuum="on", autovacuum_naptime="1s") as server, new_database(server) as url:
        fetch(url, load.tables(5000))
        with blockers.autovacuum(url):
            workers = (
                "select backend_type from pg_stat_activity where query like 'autovacuum: VACUUM%public.busy%'"
            )
            said, held = fetch(url, workers), fetch(url, LOCKS)
        left = fetch(url, LOCKS)

    assert said == [("autovacuum worker",)]
    assert ("ShareUpdateExclusiveLock",) in held
    assert left == []


def test_the_bench_tells_what_the_app_felt_and_when_the_migration_was_done():
    bench = [sys.executable, REPO / "bench" / "stall.py", "--json", "--seconds", "0.5"]
    done = subprocess.run(
        [*bench, "--cases", "long-reader", "--tools", "nothing,migrator"], stdout=subprocess.PIPE, check=True
    )

    nothing, ours = json.loads(done.stdout)
    assert (nothing["tool"], nothing["is_done"], nothing["done_s"]) == ("nothing", False, None)
    assert (ours["tool"], ours["is_done"], ours["code"], ours["invalid_indexes"]) == ("migrator", True, 0, 0)
    assert ours["done_s"] >= 0
    assert min(nothing["requests"], ours["requests"]) >= 75
