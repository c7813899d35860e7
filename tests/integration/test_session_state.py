"""What a file leaves in its session reaches nobody: not the next file, not our own queries, not the pool."""

import asyncpg
import pytest

from tests.support.pooler import running_pooler
from tests.support.postgres import fetch, new_database, newest, private_server
from tests.support.processes import run_migrator, start_migrator
from tests.support.stores import held
from tests.support.waiting import wait_until

COPIED = "copy public.t from stdin;\n1\n\\.\n"
LEFT = """
set search_path = '';
set statement_timeout = '1h';
set idle_in_transaction_session_timeout = '2h';
set session_replication_role = replica;
set row_security = off;
set default_transaction_read_only = on;
set timezone = 'Asia/Tokyo';
select pg_catalog.set_config('my.own', 'x', false);
create temp table left_behind (id int) on commit preserve rows;
prepare p as select 1;
declare c cursor with hold for select 1;
listen channel;
set standard_conforming_strings = on;
"""
SEEN = """
create table seen as
  select current_user::text as who, session_user::text as session, current_setting('search_path') as path,
    current_setting('statement_timeout') as timeout, current_setting('session_replication_role') as replica,
    current_setting('row_security') as security, current_setting('timezone') <> 'Asia/Tokyo' as zone,
    coalesce(current_setting('my.own', true), '') as own, current_setting('standard_conforming_strings') as strings,
    (select count(*) from pg_class where relname = 'left_behind')::int as tables,
    (select count(*) from pg_prepared_statements)::int as prepared,
    (select count(*) from pg_cursors where name = 'c')::int as cursors,
    (select count(*) from pg_listening_channels())::int as channels;
"""
CLEAN = ("postgres", "postgres", '"$user", public', "0", "origin", "on", True, "", "on", 0, 0, 0, 0)


@pytest.fixture(params=["direct", "pooled"])
def reached(request, postgres, database):
    """The URL of the test's database, in both ways."""
    if request.param == "direct":
        yield database
        return
    with running_pooler(postgres) as url:
        yield f"{url}/{database.rsplit('/', 1)[1]}"


@pytest.mark.parametrize(
    "ending",
    [
        "set role pg_monitor;",
        f"{COPIED}set role pg_monitor;",
        f"{COPIED}set session authorization pg_monitor;",
        "set standard_conforming_strings = off; set role pg_monitor;",
    ],
    ids=["one message", "in parts", "as somebody else", "with other strings"],
)
def test_the_next_file_begins_anew(reached, database, migrations, ending):
    directory = migrations(_1_a="create table t (id int);", _2_b=LEFT + ending, _3_c=SEEN)

    done = run_migrator(reached, directory)

    assert done.returncode == 0, done.stderr
    assert fetch(database, "select * from seen") == [CLEAN]


def test_the_next_file_begins_anew_after_one_that_runs_in_steps(database, migrations):
    directory = migrations(
        _1_a="create table t (id int);", _2_b=f"{LEFT}\nset role pg_read_all_stats;", _3_c=SEEN
    )
    path = directory / "2_b.sql"
    path.write_text(
        "-- migrator: no-transaction\n"
        + path.read_text().replace("set default_transaction_read_only = on;", "")
    )

    done = run_migrator(database, directory)

    assert done.returncode == 0, done.stderr
    assert fetch(database, "select * from seen") == [CLEAN]


LOCKS = (
    "select pg_advisory_lock(7), pg_advisory_lock(7), pg_advisory_lock(-7), pg_advisory_lock_shared(8),"
    " pg_advisory_lock(-1, 2), pg_advisory_lock_shared(3, -4), pg_advisory_xact_lock(9);\n"
)


@pytest.mark.parametrize(
    "text",
    [LOCKS, f"{LOCKS}{COPIED}", f"-- migrator: no-transaction\n{LOCKS}vacuum public.t;"],
    ids=["one message", "in parts", "in steps"],
)
def test_advisory_locks_end_with_their_file_and_our_own_stays(database, migrations, text):
    seen = (
        "create table seen as select count(*)::int as locks from pg_locks where locktype = 'advisory'"
        " and database = (select oid from pg_database where datname = current_database());"
    )
    directory = migrations(_1_a="create table t (id int);", _2_b=text, _3_c=seen)

    done = run_migrator(database, directory)

    assert done.returncode == 0, done.stderr
    assert fetch(database, "select locks from seen") == [(1,)]


@pytest.mark.parametrize("ending", ["", COPIED], ids=["one message", "in parts"])
@pytest.mark.parametrize("whose", ["role", "database"])
def test_a_timeout_that_role_or_database_have_does_not_cut_a_migration_short(
    postgres, database, migrations, whose, ending
):
    name = "postgres" if whose == "role" else database.rsplit("/", 1)[1]
    directory = migrations(_1_a=f"create table public.t (id int);\nselect pg_sleep(0.5);\n{ending}")
    fetch(postgres.url, f"alter {whose} {name} set statement_timeout = '200ms'; select 1")
    try:
        done = run_migrator(database, directory)
    finally:
        fetch(postgres.url, f"alter {whose} {name} reset statement_timeout; select 1")

    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def newest_postgres():
    with private_server(programs=newest()) as server:
        yield server


@pytest.mark.parametrize("command", ["up", "up --dry-run"])
@pytest.mark.parametrize(
    "text",
    [
        "create table t (); select pg_sleep(0.5);",
        "create table t (id int);\nselect pg_sleep(0.5);\ncopy t from stdin;\n1\n\\.\n",
        "create table t (id int); vacuum t; select pg_sleep(0.5);",
        "-- migrator: no-transaction\ncreate table t ();\ndo $$ begin perform pg_sleep(0.5); end $$;",
    ],
    ids=["one message", "in parts", "in steps", "alone"],
)
def test_a_limit_of_the_role_to_its_transactions_does_not_end_a_migration(
    newest_postgres, migrations, text, command
):
    with new_database(newest_postgres) as url:
        limited = f"alter database {url.rsplit('/', 1)[1]} set transaction_timeout = '200ms'; select 1"
        fetch(url, limited)
        done = run_migrator(url, migrations(_1_a=text), *command.split())

    assert done.returncode == 0, done.stderr


def test_nor_one_through_a_pooler(newest_postgres, migrations):
    with new_database(newest_postgres) as url, running_pooler(newest_postgres) as pooler:
        name = url.rsplit("/", 1)[1]
        fetch(url, f"alter database {name} set transaction_timeout = '200ms'; select 1")
        done = run_migrator(f"{pooler}/{name}", migrations(_1_a="select pg_sleep(0.5);"))

    assert done.returncode == 0, done.stderr


def test_nor_what_has_to_be_removed_before_an_index_is_made(newest_postgres, migrations):
    late = "select 1 from pg_stat_activity where query ilike '%drop index concurrently%' and now() - query_start > '0.5 s'"
    with new_database(newest_postgres) as url:
        fetch(url, "create table t (a int); insert into t values (1), (1); select 1")
        with pytest.raises(asyncpg.UniqueViolationError):
            fetch(url, "create unique index concurrently i on t (a)")
        with held(url, "select * from t"):
            name = url.rsplit("/", 1)[1]
            fetch(url, f"alter database {name} set transaction_timeout = '200ms'; select 1")
            running = start_migrator(url, migrations(_1_a="create index concurrently i on t (a);"))
            wait_until(lambda: fetch(url, late), what="an old snapshot to be waited for")
        _, said = running.communicate(timeout=30)

        assert running.returncode == 0, said


@pytest.mark.parametrize(
    "more",
    ["", "do $$ begin execute 'select 1'; end $$;"],
    ids=["which ends nothing", "which may end something"],
)
def test_an_operator_of_the_file_does_not_keep_it_from_being_put_on_record(
    reached, database, migrations, more
):
    text = (
        "create function never(text, text) returns bool language sql as 'select false';"
        "create operator public.= (leftarg = text, rightarg = text, function = never);"
        "set search_path = public, pg_catalog;"
    )
    done = run_migrator(reached, migrations(_1_a=text + more))

    assert done.returncode == 0, done.stderr
    assert fetch(database, "select finished from migrator.migration_history") == [(True,)]


@pytest.mark.parametrize("ending", ["", COPIED], ids=["one message", "in parts"])
def test_a_temporary_table_that_a_pools_client_left_behind_is_not_taken_for_the_files(
    postgres, database, migrations, ending
):
    fetch(database, "create table t (id int)")
    with running_pooler(postgres) as url:
        reached = f"{url}/{database.rsplit('/', 1)[1]}"
        fetch(reached, "create temp table t (id int)")
        done = run_migrator(reached, migrations(_1_a=f"insert into t values (1);{ending}"))

    assert done.returncode == 0, done.stderr
    assert fetch(database, "select count(*) from t") == [(2 if ending else 1,)]


@pytest.mark.parametrize("ending", ["", COPIED], ids=["one message", "in parts"])
def test_a_search_path_that_a_pools_client_left_behind_is_not_the_files(
    postgres, database, migrations, ending
):
    name = database.rsplit("/", 1)[1]
    fetch(database, "create schema shop; create schema other; create table public.t (id int)")
    fetch(database, f"alter role postgres in database {name} set search_path = shop")
    with running_pooler(postgres) as url:
        fetch(f"{url}/{name}", "set search_path = other")
        done = run_migrator(f"{url}/{name}", migrations(_1_a=f"create table made ();{ending}"))

    assert done.returncode == 0, done.stderr
    assert fetch(
        database, "select relnamespace::regnamespace::text from pg_class where relname = 'made'"
    ) == [("shop",)]


FORGETS = "create function forgets() returns void language plpgsql as $$ begin execute 'dealloc' || 'ate all'; end $$;"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("deallocate all;", id="by a statement"),
        pytest.param("select forgets();", id="by a function, which we can't see"),
        pytest.param(
            "prepare migrator_record as select 1; execute migrator_record;", id="under our own name"
        ),
        pytest.param("-- migrator: no-transaction\ndeallocate all;", id="in steps"),
    ],
)
def test_what_we_prepare_ourselves_is_in_no_files_way(database, migrations, text):
    around = {f"_{number}_x": f"insert into t values ({number});" for number in range(3, 13) if number != 6}
    directory = migrations(_1_a="create table t (id int);", _2_b=FORGETS, _6_c=text, **around)

    done = run_migrator(database, directory)

    assert done.returncode == 0, done.stderr
    assert fetch(database, "select count(*), sum(id) from t") == [(9, sum(range(3, 13)) - 6)]


@pytest.mark.parametrize(
    "file", ["select leaves();", f"select leaves();\n{COPIED}"], ids=["whole", "in parts"]
)
def test_what_a_function_leaves_prepared_is_in_no_files_way(database, migrations, file):
    leaves = "create function leaves() returns void language plpgsql as $$ begin execute 'pre' || 'pare p as select 1'; end $$;"
    around = {f"_{number}_x": "insert into t values (1);" for number in (2, 4, 6, 8)}
    directory = migrations(
        _1_a=f"create table t (id int);{leaves}", _3_b=file, _5_c=file, _7_d=file, **around
    )

    done = run_migrator(database, directory)

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("ending", ["", COPIED], ids=["one message", "in parts"])
def test_what_a_sequence_gave_last_is_for_its_file_alone(reached, database, migrations, ending):
    last = (
        "create function last() returns bigint language plpgsql as $$ begin return lastval();"
        " exception when object_not_in_prerequisite_state then return null; end $$;"
    )
    directory = migrations(
        _1_a=f"create table public.t (id int); create sequence s; {last}",
        _2_b=f"select nextval('s');\ncreate table own as select lastval() as n;\n{ending}",
        _3_c="create table seen as select last() as n;",
    )

    done = run_migrator(reached, directory)

    assert done.returncode == 0, done.stderr
    assert fetch(database, "select own.n, seen.n from own, seen") == [(1, None)]


def test_a_statement_that_is_prepared_twice_is_refused_in_postgres_own_words(database, migrations):
    directory = migrations(_1_a="create table t ();", _2_b="prepare p as select 1; prepare p as select 2;")

    done = run_migrator(database, directory)

    assert done.returncode == 1
    assert 'prepared statement \\"p\\" already exists (42P05)' in done.stderr
    assert "pgbouncer" not in done.stderr


def test_a_file_that_looks_finds_nothing_of_ours_prepared(database, migrations):
    looks = "create table seen as select count(*)::int as n from pg_prepared_statements;"
    directory = migrations(_1_a="create table a ();", _2_b="create table b ();", _3_c=looks)

    assert run_migrator(database, directory).returncode == 0

    assert fetch(database, "select n from seen") == [(0,)]
