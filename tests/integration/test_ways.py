"""What every way to the database must do: a connection, a pooler, and the REST API."""

import asyncio
import contextlib
import re

import pytest

from migrator import lease as leases
from migrator.errors import Conflict, LeaseLost, MigrationFailed
from tests.support.pooler import running_pooler
from tests.support.postgres import fetch
from tests.support.postgrest import running_project
from tests.support.processes import log_lines, run_migrator_by, start_migrator_by
from tests.support.stores import install_for_rest, migration_of, quiet_log, runner_over, session, store_over
from tests.support.waiting import wait_until

TTL_S = 30.0
HOSTILE = "x'); drop schema migrator cascade; --\\' {schema} :token $1 $fence$ ü"


@pytest.fixture(params=["direct", "pooler", "rest"])
def way(request, postgres, database):
    """The variables that name a way to the test's database; over REST our functions are installed."""
    with contextlib.ExitStack() as stack:
        if request.param == "direct":
            yield {"DATABASE_URL": database}
        elif request.param == "pooler":
            url = stack.enter_context(running_pooler(postgres))
            yield {"DATABASE_URL": f"{url}/{database.rsplit('/', 1)[1]}"}
        else:
            project = stack.enter_context(running_project(postgres, database))
            asyncio.run(install_for_rest(database))
            yield project.env()


def reason(done):
    (line,) = [line for line in log_lines(done.stderr) if line["event"] == "migration.failed"]
    return line["reason"]


async def test_only_one_of_two_gets_the_lease_and_the_other_once_it_is_released(way):
    async with store_over(way) as first, store_over(way) as second:
        await first.install()
        lease = await leases.try_acquire(first, "first", TTL_S)
        assert lease is not None
        assert await leases.try_acquire(second, "second", TTL_S) is None
        holder = await second.holder()
        await first.release(lease)
        assert await second.holder() is None
    async with store_over(way) as third:
        later = await leases.try_acquire(third, "third", TTL_S)

    assert holder is not None
    assert (holder.name, holder.is_alive) == ("first", True)
    assert later is not None
    assert later.token > lease.token


async def test_a_lease_that_has_expired_is_taken_and_the_old_holder_is_fenced_off(way, tmp_path):
    migration = migration_of(tmp_path, "1_a.sql", "create table a (id int);")
    async with store_over(way) as first:
        await first.install()
        lost = await leases.try_acquire(first, "first", TTL_S)
        assert lost is not None
        await first.renew(lost, 0.0)
    async with store_over(way) as old, store_over(way) as second:
        taken = await leases.try_acquire(second, "second", TTL_S)

        assert taken is not None
        assert not await old.renew(lost, TTL_S)
        with pytest.raises(LeaseLost):
            await runner_over(old, way).apply(migration, lost, None)
        assert await old.history() == []
        await old.release(lost)
        assert await second.renew(taken, TTL_S)


async def test_no_takeover_while_a_transaction_of_the_old_holder_lives(way, database):
    async with store_over(way) as first, session(database) as old_transaction:
        await first.install()
        assert await first.acquire("first", 0.0, session=False) is not None
        await old_transaction.execute("begin; select 1 from migrator.migration_locks for key share")
        async with store_over(way) as second:
            for _ in range(3):
                assert await leases.try_acquire(second, "second", TTL_S) is None
        await old_transaction.execute("commit")

        async with store_over(way) as second:
            assert await leases.try_acquire(second, "second", TTL_S) is not None


async def test_heartbeats_pass_while_a_migration_runs(way, database):
    async with store_over(way) as store, session(database) as migration, session(database) as onlooker:
        await store.install()
        lease = await leases.try_acquire(store, "first", 0.9)
        assert lease is not None
        await migration.execute("begin; select 1 from migrator.migration_locks for key share")
        begun = await migration.fetchval("select clock_timestamp()")
        beaten = "select heartbeat_at > $1::timestamptz + interval '0.9 s' from migrator.migration_locks"
        async with (
            leases.keep(store, lease, ttl_s=0.9, open_store=lambda: store_over(way), log=quiet_log()),
            asyncio.timeout(10),
        ):
            while not await onlooker.fetchval(beaten, begun):
                await asyncio.sleep(0.02)


async def test_what_is_applied_is_on_record_as_it_was_written(way, tmp_path):
    async with store_over(way) as store:
        await store.install()
        lease = await store.acquire(HOSTILE, TTL_S, session=False)
        assert lease is not None
        migration = migration_of(tmp_path, f"1_{HOSTILE}.sql", "create table a (id int);")
        await runner_over(store, way).apply(migration, lease, None)
        (row,) = await store.history() or []
        holder = await store.holder()

    assert (row.version, row.filename, row.finished) == ("1", migration.filename, True)
    assert row.checksum.partition(" ")[0] == migration.checksum
    assert row.executed_at.utcoffset().total_seconds() == 0
    assert holder is not None
    assert holder.name == HOSTILE


async def test_others_in_the_way_are_waited_for_outside_of_the_queue(way, database, tmp_path):
    async with store_over(way) as store, session(database) as app:
        await store.install()
        await app.execute("create table a (id int)")
        await app.execute("begin; select 1 from a")
        lease = await leases.try_acquire(store, "first", TTL_S)
        assert lease is not None
        migration = migration_of(
            tmp_path, "1_a.sql", "-- migrator: lock-timeout=50ms\nalter table a add x int;"
        )

        async def let_go():
            await asyncio.sleep(0.3)  # in which it is tried in vain
            await app.execute("commit")

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(let_go())
            tasks.create_task(runner_over(store, way).apply(migration, lease, None))
        assert await app.fetchval("select count(*) from migrator.migration_history where finished") == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("create table t (id int primary key);\ninsert into t values (1), (1);", r"line 2.*\(23505\).*already exists"),
        ("select 1;\nselec 2;", r"line 2, column 1: syntax error.*\(42601\)"),
        ("create table t (id int);\n\n  insert into u values (1);", r"line 3.*\(42P01\)"),
        ("do $$ begin raise exception 'no' using errcode = 'ZZ001', hint = 'ask'; end $$", r"no \(ZZ001\).*hint: ask"),
        ("select 1 / 0;", r"division by zero \(22012\)"),
        ("create table t (id int unique deferrable initially deferred); insert into t values (1), (1);", r"\(23505\)"),
        (
            "create table t (id int primary key, x int references t initially deferred); insert into t values (1, 2);",
            r"\(23503\)",
        ),
    ],
    ids=["duplicate", "syntax", "no table", "raised", "division", "deferred unique", "deferred"],
)  # fmt: skip
async def test_an_error_says_where_and_why_and_that_all_is_rolled_back(way, database, tmp_path, text, told):
    async with store_over(way) as store:
        await store.install()
        lease = await leases.try_acquire(store, "first", TTL_S)
        assert lease is not None
        migration = migration_of(tmp_path, "1_a.sql", text)

        with pytest.raises(MigrationFailed) as caught:
            await runner_over(store, way).apply(migration, lease, None)
        assert await store.history() == []
    said = str(caught.value)
    assert said.startswith("cannot apply 1_a.sql: ")
    assert re.search(told, said, re.DOTALL), said
    assert said.endswith("rolled back: nothing of this file was applied")
    async with session(database) as onlooker:
        assert await onlooker.fetchval("select to_regclass('t')") is None


async def test_a_version_that_somebody_else_has_just_applied_is_worth_a_retry(way, tmp_path):
    async with store_over(way) as store:
        await store.install()
        lease = await leases.try_acquire(store, "first", TTL_S)
        assert lease is not None
        migration = migration_of(tmp_path, "1_a.sql", "select 1;")
        await runner_over(store, way).apply(migration, lease, None)

        with pytest.raises(Conflict, match="somebody else has just done so"):
            await runner_over(store, way).apply(migration, lease, None)


def test_five_at_once_apply_everything_once_and_all_exit_0(way, database, migrations):
    directory = migrations(
        _1_a="create table log (n int);",
        _2_b="insert into log values (2); select pg_sleep(0.3);",
        _3_c="insert into log values (3);",
    )
    started = [start_migrator_by(way, directory) for _ in range(5)]
    ended = [process.communicate(timeout=60) for process in started]

    assert [process.returncode for process in started] == [0] * 5, ended
    assert fetch(database, "select n from log order by n") == [(2,), (3,)]
    assert max(out for out, _ in ended) == "3 applied, 3 in all, nothing pending\n"


def test_a_killed_migrators_lease_is_taken_over_and_nothing_is_applied_twice(way, database, migrations):
    directory = migrations(
        _1_a="create table log (n int);",
        _2_b="insert into log values (2); select pg_sleep(1);",
        _3_c="insert into log values (3);",
    )
    killed = start_migrator_by(way, directory, MIGRATION_LEASE_TTL="1")
    wait_until(
        lambda: fetch(
            database,
            "select 1 from pg_stat_activity where state = 'active' and wait_event = 'PgSleep'"
            " and datname = current_database()",
        ),
        what="the slow migration",
    )
    killed.kill()
    killed.communicate()

    done = run_migrator_by(way, directory, MIGRATION_LEASE_TTL="1")

    assert done.returncode == 0, done.stderr
    assert fetch(database, "select n from log order by n") == [(2,), (3,)]


def test_deleting_a_history_row_makes_that_file_pending_again(way, database, migrations):
    directory = migrations(_1_a="create table if not exists a (id int);", _2_b="insert into a values (2);")
    run_migrator_by(way, directory)
    fetch(database, "delete from migrator.migration_history where version = '2'; select 1")

    again = run_migrator_by(way, directory)

    assert again.stdout == "1 applied, 2 in all, nothing pending\n"
    assert fetch(database, "select id from a") == [(2,), (2,)]


def test_an_edited_file_is_refused_and_status_shows_it(way, migrations):
    directory = migrations(_1_a="create table a (id int);")
    run_migrator_by(way, directory)
    migrations(_1_a="create table a (id bigint);")

    refused = run_migrator_by(way, directory)
    status = run_migrator_by(way, directory, "status")

    assert refused.returncode == 65
    assert "1_a.sql differs from what was applied on" in reason(refused)
    assert status.stdout.startswith("changed ")


@pytest.mark.parametrize("setting", ["statement_timeout = '1s'", "lock_timeout = 1", "search_path = ''"])
def test_what_the_role_has_set_does_not_cut_a_migration_short(way, database, migrations, setting):
    name = database.rsplit("/", 1)[1]
    fetch(database, f"alter role postgres in database {name} set {setting}; select 1")
    # Our own queries, which through a pooler or the API have no limit of their own, take some milliseconds.
    directory = migrations(_1_a="create table public.a (); select pg_sleep(1.5);")

    done = run_migrator_by(way, directory)

    assert done.returncode == 0, done.stderr
