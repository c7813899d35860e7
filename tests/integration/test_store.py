"""Our tables in a real database."""

import asyncio

import asyncpg
import pytest

from migrator.errors import ConfigError, LeaseLost, Unavailable
from tests.support.postgres import fetch
from tests.support.stores import migration_of, runner_on, session, store_on

ROLES = ("anon", "authenticated")


@pytest.fixture
def supabase_roles(postgres):
    """Supabase's roles, which belong to the whole server, for as long as the test runs."""
    made = []
    for role in ROLES:
        if not fetch(postgres.url, "select 1 from pg_roles where rolname = $1", role):
            fetch(postgres.url, f"create role {role} nologin")
            made.append(role)
    yield ROLES
    for role in made:
        fetch(postgres.url, f"drop role {role}")


@pytest.fixture
def deployer(postgres, database):
    """The URL of somebody who isn't superuser, and may do nothing yet."""
    fetch(postgres.url, "create role deployer login")
    yield database.replace("postgres@", "deployer@")
    fetch(database, "reassign owned by deployer to postgres; drop owned by deployer; select 1")
    fetch(postgres.url, "drop owned by deployer; drop role deployer")


async def test_ten_at_once_install_on_an_empty_database(database):
    together = asyncio.Barrier(10)

    async def install():
        async with store_on(database) as store:
            assert await store.history() is None
            await together.wait()
            await store.install()
            return await store.history()

    async with asyncio.TaskGroup() as tasks:
        started = [tasks.create_task(install()) for _ in range(10)]

    assert [task.result() for task in started] == [[]] * 10


async def test_installing_twice_changes_nothing(database):
    async with store_on(database) as store:
        await store.install()
        lease = await store.acquire("somebody", 30, session=False)
        await store.install()

        assert lease is not None
        assert await store.renew(lease, 30)


async def test_installing_does_not_wait_for_somebody_who_migrates_already(database):
    async with store_on(database) as first, store_on(database) as second:
        await first.install()
        assert await first.lock_session()
        async with asyncio.timeout(2):
            await second.install()


async def test_the_tables_are_closed_to_the_roles_of_the_web(database, supabase_roles):
    async with session(database) as app:
        await app.execute(
            "alter default privileges grant all on tables to anon, authenticated, public;"
            "alter default privileges grant all on sequences to anon, authenticated;"
            "alter default privileges grant usage on schemas to anon, authenticated, public"
        )
        async with store_on(database) as store:
            await store.install()
        secured = await app.fetch(
            "select relname, relrowsecurity from pg_class"
            " where relnamespace = 'migrator'::regnamespace and relkind = 'r'"
        )
        open_doors = await app.fetch(
            "select r, o from unnest(array['anon', 'authenticated']) r,"
            " unnest(array['migrator.migration_locks', 'migrator.migration_history', 'migrator.migration_undone']) o"
            " where has_table_privilege(r, o, 'select,insert,update,delete,truncate,references,trigger')"
            " or has_any_column_privilege(r, o, 'select,insert,update,references')"
            " or has_schema_privilege(r, 'migrator', 'usage,create')"
        )
        sequences = await app.fetch(
            "select r, c.oid::regclass from unnest(array['anon', 'authenticated']) r, pg_class c"
            " where relnamespace = 'migrator'::regnamespace and relkind = 'S'"
            " and has_sequence_privilege(r, c.oid, 'usage,select,update')"
        )
        await app.execute("drop owned by anon, authenticated")

    assert {tuple(row) for row in secured} == {
        ("migration_locks", True),
        ("migration_history", True),
        ("migration_undone", True),
    }
    assert open_doors == []
    assert sequences == []


async def test_a_schema_that_was_there_before_keeps_its_grants(database, supabase_roles):
    async with session(database) as app:
        await app.execute(
            "create table shop (id int); grant usage on schema public to anon; grant select on shop to anon"
        )
        async with store_on(database, schema="public") as store:
            await store.install()
            assert await store.history() == []
        kept = await app.fetchval(
            "select has_schema_privilege('anon', 'public', 'usage') and has_table_privilege('anon', 'shop', 'select')"
            " and has_schema_privilege('public', 'public', 'usage')"
        )
        closed = await app.fetchval("select has_table_privilege('anon', 'migration_history', 'select')")
        await app.execute("drop owned by anon")

    assert (kept, closed) == (True, False)


async def test_a_role_that_may_not_create_anything_is_told_so(deployer):
    async with store_on(deployer) as store:
        with pytest.raises(
            ConfigError, match=r"cannot create our tables in schema migrator: permission denied"
        ):
            await store.install()


async def test_a_schema_made_for_us_is_enough(database, deployer):
    async with session(database) as dba:
        await dba.execute("create schema migrator authorization deployer")

    async with store_on(deployer) as store:
        await store.install()
        assert await store.history() == []


async def test_history_tells_what_was_applied(database, tmp_path):
    async with store_on(database) as store:
        await store.install()
        lease = await store.acquire("web-1", 30, session=False)
        assert lease is not None
        migration = migration_of(tmp_path, "1_größe; 'x'.sql", "create table a (id int);")
        await runner_on(store, database).apply(migration, lease, None)

        (row,) = await store.history() or []
    (recorded,) = await asyncio.to_thread(
        fetch, database, "select name, duration_ms >= 0, executed_by, token from migrator.migration_history"
    )
    assert (row.version, row.filename, row.checksum.partition(" ")[0], row.finished) == (
        "1",
        "1_größe; 'x'.sql",
        migration.checksum,
        True,
    )
    assert row.executed_at.utcoffset().total_seconds() == 0
    assert recorded == ("größe; 'x'", True, "web-1", lease.token)


async def test_a_history_that_row_level_security_hides_is_not_taken_for_an_empty_one(
    database, deployer, tmp_path
):
    async with store_on(database) as store, session(database) as dba:
        await store.install()
        await dba.execute(
            "grant usage on schema migrator to deployer; grant all on all tables in schema migrator to deployer"
        )
        assert await store.history() == []

        async with store_on(deployer) as theirs:
            with pytest.raises(ConfigError, match="cannot read the history: row-level security hides it"):
                await theirs.history()
            await dba.execute("create policy all_of_it on migrator.migration_history using (true)")
            assert await theirs.history() == []


HOSTILE = "x'); drop schema migrator cascade; --\\' {schema} :token $1 $fence$ ü"


async def test_hostile_names_stay_names(database, tmp_path):
    async with store_on(database) as store:
        await store.install()
        lease = await store.acquire(HOSTILE, 30, session=False)
        assert lease is not None
        migration = migration_of(tmp_path, f"1_{HOSTILE}.sql", "select 1;")
        await runner_on(store, database).apply(migration, lease, None)

        (row,) = await store.history() or []
        holder = await store.holder()
    assert row.filename == migration.filename
    assert holder is not None
    assert holder.name == HOSTILE


async def test_one_token_comes_after_the_other_even_if_the_row_is_deleted(database):
    async with store_on(database) as store, session(database) as operator:
        await store.install()
        tokens = []
        for number in range(4):
            lease = await store.acquire(f"holder {number}", 30, session=False)
            assert lease is not None
            tokens.append(lease.token)
            if number % 2:
                await store.release(lease)
            else:
                await operator.execute("delete from migrator.migration_locks")

    assert tokens == sorted(set(tokens))


async def test_an_old_holder_can_neither_renew_nor_release(database):
    async with store_on(database) as store:
        await store.install()
        old = await store.acquire("same name", 30, session=False)
        assert old is not None
        await store.release(old)
        new = await store.acquire("same name", 30, session=False)
        assert new is not None

        assert not await store.renew(old, 30)
        await store.release(old)
        assert await store.renew(new, 30)


async def test_a_fence_stops_whoever_lost_the_row_and_nothing_stays(database, tmp_path):
    async with store_on(database) as store, session(database) as operator:
        await store.install()
        lease = await store.acquire("web-1", 30, session=False)
        assert lease is not None
        await operator.execute("delete from migrator.migration_locks")
        migration = migration_of(tmp_path, "1_a.sql", "create table a (id int);")

        with pytest.raises(LeaseLost, match="taken over or removed"):
            await runner_on(store, database).apply(migration, lease, None)
        assert await store.history() == []
        assert await operator.fetchval("select to_regclass('a')") is None


async def test_nobody_of_ours_waits_for_a_lock_of_a_running_migration(database):
    async with store_on(database) as store, session(database) as migration:
        await store.install()
        lease = await store.acquire("web-1", 0.0, session=False)
        assert lease is not None
        transaction = migration.transaction()
        await transaction.start()
        await migration.execute("select 1 from migrator.migration_locks for key share")

        async with asyncio.timeout(2):
            assert await store.acquire("web-2", 30, session=False) is None
            assert await store.renew(lease, 0.0)
            assert await store.history() == []
            await store.install()
        await transaction.rollback()
        assert await store.acquire("web-2", 30, session=False) is not None


async def test_the_session_lock_ends_with_its_session(database):
    async with store_on(database) as first:
        await first.install()
        async with store_on(database) as second:
            assert await second.lock_session()
            assert not await first.lock_session()

        async def free():
            async with asyncio.timeout(5):
                while not await first.lock_session():
                    await asyncio.sleep(0.01)

        await free()


async def test_two_schemas_do_not_lock_each_other_out(database):
    async with store_on(database) as first, store_on(database, schema="other") as second:
        assert await first.lock_session()
        assert await second.lock_session()


async def test_a_lost_connection_is_told_as_such(database):
    async with store_on(database) as store, session(database) as operator:
        await store.install()
        with pytest.raises(asyncpg.PostgresError):
            await operator.execute("select * from migrator.nothing")
        await operator.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where application_name = 'migrator/test' and datname = current_database()"
        )
        with pytest.raises(Unavailable, match="lost the connection"):
            await _until_it_fails(store)


async def _until_it_fails(store):
    while True:
        await store.history()
