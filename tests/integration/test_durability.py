"""The server crashes at random moments: each migration once, never one without those before it, and no claim broken."""

import asyncio
import os
import random
import re
import shutil
import signal
import tempfile
from pathlib import Path

import asyncpg
import pytest

from tests.support.postgres import Server, fetch, free_port
from tests.support.processes import run_migrator, start_migrator
from tests.support.waiting import wait_until

COUNT = 150
CRASHES = 6
RETRYABLE = 69


@pytest.fixture
def server():
    """A cluster of our own whose WAL writer sleeps as long as it can: what isn't waited for is lost."""
    directory = Path(tempfile.mkdtemp(prefix="entrypoint-test-"))  # pytest's is closed to other users
    port = free_port()
    server = Server(
        url=f"postgresql://postgres@127.0.0.1:{port}/postgres",
        directory=directory,
        port=port,
        options={"fsync": "on", "full_page_writes": "on", "wal_writer_delay": "10s"},
    )
    server.start()
    yield server
    server.stop()
    shutil.rmtree(directory)


def crash(server):
    """Kill the server and start it again; its lock makes the new one wait until the last backend is gone."""
    server.stop(signal.SIGKILL)
    server.start()


def files(count):
    text = "insert into log values ({}); select pg_sleep(0.005);"  # or it's all over before the crash
    texts = {f"_{number:03}_step": text.format(number) for number in range(1, count)}
    return {"_000_step": "create table log (n int); insert into log values (0);", **texts}


def applied(server):
    """The numbers in history and those that the files left, which must be the same."""
    if fetch(server.url, "select to_regclass('migrator.migration_history')") == [(None,)]:
        return []
    history = fetch(
        server.url, "select version::int from migrator.migration_history where finished order by 1"
    )
    if history:
        assert fetch(server.url, "select n from log order by ctid") == history
    return [number for (number,) in history]


def test_a_crash_of_the_server_loses_a_tail_at_most_and_nothing_twice(server, migrations):
    seed = int(os.environ.get("CRASH_SEED") or random.SystemRandom().randrange(10**6))
    print(f"CRASH_SEED={seed}")  # shown if the test fails
    chance = random.Random(seed)
    directory = migrations(**files(COUNT))
    there, lost = 0, 0
    for remaining in range(CRASHES, 0, -1):
        migrator = start_migrator(server.url, directory)
        seen = 0
        wanted = chance.randrange(1, (COUNT - there) // (remaining + 1))
        while seen < wanted:
            seen += '"migration.applied"' in migrator.stderr.readline()
        server.stop(signal.SIGKILL)
        _, said = migrator.communicate(timeout=30)
        server.start()

        seen += said.count('"migration.applied"')
        assert migrator.returncode in (0, 1, RETRYABLE), said
        assert applied(server) == list(range(len(applied(server)))), "a gap"
        lost += there + seen - len(applied(server))
        there = len(applied(server))
    done = run_migrator(server.url, directory)
    assert done.stdout == f"{COUNT - there} applied, {COUNT} in all, nothing pending\n", done.stderr
    crash(server)

    assert applied(server) == list(range(COUNT))
    assert lost > 0  # or nothing was shown


async def test_the_last_migration_is_durable_as_soon_as_others_can_see_it(server, migrations):
    slow = "create table log (n int); insert into log values (0); select pg_sleep(1);"
    directory = migrations(**{**files(11), "_000_step": slow})

    migrator = start_migrator(server.url, directory)
    while '"migration.started"' not in migrator.stderr.readline():
        pass
    other = await asyncpg.connect(server.url)
    await other.execute("begin; select from migrator.migration_locks for no key update")
    for _ in range(11):  # what gives the lease back waits for us, and so can't be what makes it durable
        while '"migration.applied"' not in migrator.stderr.readline():
            pass
    server.stop(signal.SIGKILL)
    migrator.communicate(timeout=30)
    other.terminate()
    await asyncio.to_thread(server.start)

    assert await asyncio.to_thread(applied, server) == list(range(11))


def test_what_a_run_that_fails_has_applied_survives_a_crash_right_after_it(server, migrations):
    directory = migrations(**files(30), _030_wrong="select 1/0;", _031_never="select 1;")

    failed = run_migrator(server.url, directory)
    crash(server)

    assert failed.returncode == 1
    assert applied(server) == list(range(30))


def test_a_file_before_one_that_runs_outside_of_a_transaction_is_durable_before_it_begins(server, migrations):
    alone = "create index concurrently log_n on log (n);\nselect pg_sleep(60);"
    directory = migrations(**files(10), _010_alone=alone)

    migrator = start_migrator(server.url, directory)
    while not re.search('"migration.started".*"010_alone.sql"', migrator.stderr.readline()):
        pass
    sleeping = "select from pg_stat_activity where wait_event = 'PgSleep'"
    wait_until(lambda: fetch(server.url, sleeping), what="the second statement")
    server.stop(signal.SIGKILL)
    migrator.communicate(timeout=30)
    server.start()

    assert applied(server) == list(range(10))
    progress = "select statements_done from migrator.migration_history where not finished"
    assert fetch(server.url, progress) == [(1,)]
