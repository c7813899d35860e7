"""Through a real PgBouncer in transaction mode, with two server sessions for everybody."""

import asyncio
from dataclasses import replace

import asyncpg
import pytest

from migrator import direct, dsn
from migrator import lease as leases
from migrator.store import Store
from tests.support.pooler import running_pooler
from tests.support.postgres import fetch
from tests.support.processes import run_migrator, start_migrator
from tests.support.stores import session, store_on

# What people let PgBouncer swallow, since their drivers send it, and all that we send.
IGNORED = (
    "extra_float_digits, search_path, client_connection_check_interval, tcp_keepalives_idle, tcp_keepalives_interval, "
    "tcp_keepalives_count, idle_in_transaction_session_timeout, statement_timeout, lock_timeout"
)


@pytest.fixture
def pooled(postgres, database):
    """The URL of the test's database through the pooler."""
    with running_pooler(postgres) as url:
        yield f"{url}/{database.rsplit('/', 1)[1]}"


async def test_a_pooler_is_detected_by_what_it_refuses(pooled, database):
    async with direct.connect(dsn.parse(pooled, "X"), "migrator/test") as transport:
        assert transport.pooled
        assert (await transport.fetch("select 1 as one"))[0]["one"] == 1
    async with direct.connect(dsn.parse(database, "X"), "migrator/test") as transport:
        assert not transport.pooled


@pytest.fixture
def ignoring(postgres, database):
    """The same through one that doesn't let us notice it by what it refuses."""
    with running_pooler(postgres, ignores=IGNORED) as url:
        yield f"{url}/{database.rsplit('/', 1)[1]}"


async def test_a_pooler_that_ignores_startup_parameters_is_detected_before_a_lock_is_stranded(
    ignoring, database
):
    async with store_on(ignoring) as store, session(database) as onlooker:
        assert not store.transport.pooled  # nothing has told so far
        await store.install()
        lease = await leases.try_acquire(store, "first", 30)

        assert lease is not None
        assert store.transport.pooled
        assert await store.renew(lease, 30)
        assert await onlooker.fetchval("select session from migrator.migration_locks") is False
        assert await onlooker.fetch("select * from pg_locks where locktype = 'advisory'") == []


def test_through_a_pooler_that_ignores_startup_parameters_all_is_as_through_others(
    ignoring, database, migrations
):
    fetch(database, "create schema shop; select 1")
    directory = migrations(_1_a="create table a (id int); set lock_timeout = 7;")
    done = run_migrator(f"{ignoring}?search_path=shop", directory)
    migrations(_2_b="create index concurrently i on a (id);")
    refused = run_migrator(ignoring, directory)

    assert done.returncode == 0, done.stderr
    assert fetch(database, "select to_regclass('shop.a') is not null") == [(True,)]
    assert refused.returncode == 65
    assert "cannot apply 2_b.sql through a transaction pooler" in refused.stderr
    assert fetch(database, "select * from pg_locks where locktype = 'advisory'") == []
    assert {lock_timeout for _, _, _, lock_timeout, *_ in asyncio.run(_sessions(ignoring))} == {"0"}


def test_files_apply_and_nothing_leaks_into_the_pooled_sessions(pooled, database, migrations):
    directory = migrations(
        _1_a="create table a (id int);",
        _2_b="set search_path = ''; set statement_timeout = '1min'; create temp table t (id int); insert into public.a values (1);",
        _3_c="create role pooled_visitor; set role pooled_visitor;",
        _4_d="begin; insert into a values (2); commit;",
        _5_e="insert into a select 3; set lock_timeout = 7; drop role pooled_visitor;",
    )

    done = run_migrator(pooled, directory)
    again = run_migrator(pooled, directory)

    assert done.returncode == 0, done.stderr
    assert again.stdout == "0 applied, 5 in all, nothing pending\n"
    assert fetch(database, "select id from a order by 1") == [(1,), (2,), (3,)]
    assert asyncio.run(_sessions(pooled)) == {
        ("postgres", '"$user", public', "0", "0", 0, 0),
    }


async def _sessions(url):
    """What both sessions of the pool are like; two transactions at once reach both."""

    async def look():
        connection = await asyncpg.connect(url, statement_cache_size=0)
        try:
            await connection.execute("begin")
            row = await connection.fetchrow(
                "select current_user::text, current_setting('search_path'), current_setting('statement_timeout'),"
                " current_setting('lock_timeout'),"
                " (select count(*) from pg_class where relpersistence = 't')::int,"
                " (select count(*) from pg_locks where locktype = 'advisory' and"
                "   database = (select oid from pg_database where datname = current_database()))::int"
            )
            both.append(connection)
            while len(both) < 2:
                await asyncio.sleep(0.01)
            await connection.execute("commit")
            return tuple(row)
        finally:
            await connection.close()

    both = []
    async with asyncio.TaskGroup() as tasks:
        started = [tasks.create_task(look()) for _ in range(2)]
    return {task.result() for task in started}


def test_what_can_not_run_in_a_transaction_is_refused_before_anything_runs(pooled, database, migrations):
    directory = migrations(_1_a="create table a (id int);", _2_b="create index concurrently i on a (id);")

    refused = run_migrator(pooled, directory)

    assert refused.returncode == 65
    assert "cannot apply 2_b.sql through a transaction pooler" in refused.stderr
    assert "set DIRECT_URL to a direct connection" in refused.stderr
    assert fetch(database, "select to_regclass('a')") == [(None,)]

    done = run_migrator(pooled, directory, DIRECT_URL=database)
    assert done.returncode == 0, done.stderr


def test_what_the_role_has_set_does_not_cut_a_migration_short(pooled, database, migrations):
    fetch(database, f"alter database {database.rsplit('/', 1)[1]} set statement_timeout = '1s'; select 1")
    # Our own queries, which through a pooler have no limit of their own, take some milliseconds.
    directory = migrations(_1_a="create table a (); select pg_sleep(1.5);")

    done = run_migrator(pooled, directory)

    assert done.returncode == 0, done.stderr


def test_errors_are_told_as_on_a_direct_connection(pooled, database, migrations):
    directory = migrations(
        _1_a="create table a (id int primary key);\ninsert into a values (1);\ninsert into a values (1);"
    )

    failed = run_migrator(pooled, directory)

    assert failed.returncode == 1
    assert "1_a.sql: line 3, column 1: duplicate key" in failed.stderr
    assert "rolled back: nothing of this file was applied" in failed.stderr
    assert fetch(database, "select holder from migrator.migration_locks") == [(None,)]


def test_several_at_once_through_the_pooler_apply_each_file_once(pooled, database, migrations):
    files = {f"_{100 + number}_x": f"insert into log values ({number});" for number in range(20)}
    directory = migrations(_001_log="create table log (n int);", **files)
    started = [start_migrator(pooled if number % 3 else database, directory) for number in range(6)]
    ended = [(one.communicate(timeout=60), one.returncode) for one in started]

    assert [code for _, code in ended] == [0] * 6, ended
    assert fetch(database, "select n from log order by 1") == [(number,) for number in range(20)]


async def test_many_queries_at_once_do_not_lose_their_statements(pooled):
    async with store_on(pooled) as store:
        await store.install()

    async def ask(number):
        async with store_on(pooled) as store:
            for _ in range(10):
                assert await store.history() == []
                await store.acquire(f"holder {number}", 30, session=False)

    async with asyncio.TaskGroup() as tasks:
        for number in range(8):
            tasks.create_task(ask(number))


@pytest.mark.parametrize("told", ["", "&pgbouncer=true"], ids=["detected", "told by the URL"])
def test_the_schema_and_settings_of_the_url_apply_and_do_not_leak(pooled, database, migrations, told):
    fetch(database, 'create schema "Shop x"; select 1')
    directory = migrations(
        _1_a="create table a (id int);",
        _2_b="insert into a values (1); create table b as select current_setting('timezone') as zone;",
    )
    url = f"{pooled}?schema=Shop%20x&timezone=Asia/Tokyo&statement_timeout=1{told}"

    done = run_migrator(url, directory)

    assert done.returncode == 0, done.stderr
    assert fetch(database, "select to_regclass('public.a')") == [(None,)]
    assert fetch(database, 'select id, zone from "Shop x".a, "Shop x".b') == [(1, "Asia/Tokyo")]
    assert asyncio.run(_sessions(pooled)) == {("postgres", '"$user", public', "0", "0", 0, 0)}


def test_a_role_that_a_pooler_can_not_set_is_not_silently_forgotten(pooled, database, migrations):
    done = run_migrator(f"{pooled}?role=pg_monitor", migrations(_1_a="select 1;"))

    assert done.returncode == 78
    assert "cannot set the role that the URL of" in done.stderr
    assert "set DIRECT_URL to a direct connection" in done.stderr


def test_the_schema_of_the_url_applies_on_a_direct_connection(database, migrations):
    fetch(database, "create schema shop; select 1")
    directory = migrations(
        _1_a="create table a (id int);", _2_b="reset all; create index concurrently on a (id);"
    )

    done = run_migrator(f"{database}?schema=shop", directory)

    assert done.returncode == 0, done.stderr
    assert fetch(database, "select to_regclass('shop.a') is not null, to_regclass('public.a')") == [
        (True, None)
    ]


@pytest.mark.parametrize("wrong", ["database", "user"])
def test_what_no_retry_can_help_is_configuration_also_behind_the_poolers_one_code(pooled, migrations, wrong):
    url = f"{pooled}_nope" if wrong == "database" else pooled.replace("postgres@", "nobody_here:s3cret@")

    done = run_migrator(url, migrations(_1_a="select 1;"))

    assert done.returncode == 78
    assert "(08P01); check user, password and database name" in done.stderr
    assert "s3cret" not in done.stderr


@pytest.fixture
def sessions(postgres, database):
    """The same through a pooler in session mode, as Supavisor's port 5432."""
    with running_pooler(postgres, ignores=IGNORED, mode="session") as url:
        yield dsn.parse(f"{url}/{database.rsplit('/', 1)[1]}", "X")


@pytest.mark.parametrize(("kind", "pooled"), [(dsn.Kind.DIRECT, True), (dsn.Kind.SESSION_POOLER, False)])
async def test_a_session_poolers_session_is_ours_whatever_process_its_log_in_names(sessions, kind, pooled):
    async with direct.connect(replace(sessions, kind=kind), "migrator/test") as transport:
        store = Store(transport, "migrator")
        await store.install()
        lease = await leases.try_acquire(store, "first", 30)

    assert lease is not None
    assert transport.pooled is pooled
