"""Applying files: whole or not at all, with errors that say where, why, and what is left."""

import contextlib
import signal

import asyncpg
import pytest

from bench import blockers
from tests.support.postgres import Blocker, fetch, put_in_doubt
from tests.support.processes import log_lines, run_migrator, start_migrator
from tests.support.waiting import wait_until

ROLLED_BACK = "rolled back: nothing of this file was applied"


def up(url, directory, **extra):
    done = run_migrator(url, directory, **extra)
    assert done.returncode == 0, done.stderr
    return done


def refused(url, directory, code=1, **extra):
    """What a run that fails says."""
    done = run_migrator(url, directory, **extra)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    (told,) = [line["reason"] for line in log_lines(done.stderr) if line["event"] == "migration.failed"]
    return told


def versions(url):
    return [row[0] for row in fetch(url, "select version from migrator.migration_history order by 1")]


def exists(url, name):
    return fetch(url, "select to_regclass($1) is not null", name)[0][0]


def waiting_for(url, text):
    return fetch(
        url,
        "select pid from pg_stat_activity where query ilike $1 and state = 'active' and pid <> pg_backend_pid()"
        " and datname = current_database()",
        f"%{text}%",
    )


# Where an error is, and what is left


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param(
            "create table a (id int);\n\n  creat table b ();\n",
            '1_a.sql: line 3, column 3: syntax error at or near "creat" (42601)\n  creat table b ();',
            id="a syntax error",
        ),
        pytest.param(
            "create table a (id int);\n-- größe 🐘\ninsert into a\n  select * from nöpe;\n",
            '1_a.sql: line 4, column 17: relation "nöpe" does not exist (42P01)\n  insert into a',
            id="a missing relation after non-ASCII text",
        ),
        pytest.param(
            "create table a (id int primary key);\ninsert into a values (1);\n-- again\ninsert into a\n  values (1);\n"
            "insert into a values (2);\nselect 1;\n",
            '1_a.sql: line 4, column 1: duplicate key value violates unique constraint "a_pkey" (23505)\n'
            "  insert into a\ndetail: Key (id)=(1) already exists.",
            id="a duplicate key in the third of five statements",
        ),
        pytest.param(
            "select 1;\nselect 1 / 0;",
            "1_a.sql: line 2, column 1: division by zero (22012)\n  select 1 / 0",
            id="a division by zero",
        ),
        pytest.param(
            "begin;\ncreate table a (id int);\nselect 1 / 0;\ncommit;\n",
            "1_a.sql: line 3, column 1: division by zero (22012)\n  select 1 / 0",
            id="within BEGIN and COMMIT",
        ),
        pytest.param(
            "create table a (id int unique deferrable initially deferred);\ninsert into a values (1), (1);\n",
            'cannot apply 1_a.sql: duplicate key value violates unique constraint "a_id_key" (23505)',
            id="a deferred constraint",
        ),
        pytest.param(
            "create function f() returns int language plpgsql as $$\nbegin\n  return 1 / 0;\nend $$;\n\nselect f();\n",
            "1_a.sql: line 6, column 1: division by zero (22012)\n  select f()\n",
            id="inside of a function",
        ),
        pytest.param(
            "select 1;\n\ndo $$ begin\n  raise exception 'no users' using hint = 'invite some', errcode = 'P0042';\nend $$;",
            "1_a.sql: line 3, column 1: no users (P0042)\n  do $$ begin\nhint: invite some",
            id="raised by hand",
        ),
        pytest.param(
            "create type t as enum ('a');\nalter type t add value 'b';\nselect 'b'::t;\n",
            "remedy: a new enum value can't be used in the file that adds it; use it in a later file",
            id="a new enum value used at once",
        ),
        pytest.param(
            "select ';\ncreate table a ();\n",
            "1_a.sql: line 1, column 8: the text in single quotes that begins here has no end: add '",
            id="quotes without an end",
        ),
        pytest.param(
            "select 1;\nselect set_config('role', 'nobody_of_that_name', true);",
            "cannot apply 1_a.sql: line 2, column 1:",
            id="a role that doesn't exist isn't our login",
        ),
    ],
)
def test_an_error_says_where_it_is_and_that_all_is_rolled_back(database, migrations, text, told):
    directory = migrations(_1_a=text)

    message = refused(database, directory)

    assert told in message
    assert message.endswith(f"\n{ROLLED_BACK}")
    assert versions(database) == []
    assert not exists(database, "a")


def test_a_file_before_the_failing_one_stays_applied_and_later_ones_are_not_touched(database, migrations):
    directory = migrations(
        _1_a="create table a ();", _2_b="create table b (); select 1/0;", _3_c="create table c ();"
    )

    assert "2_b.sql" in refused(database, directory)

    assert versions(database) == ["1"]
    assert not exists(database, "b")
    assert not exists(database, "c")


def test_what_the_parser_does_not_know_is_not_called_rolled_back_without_knowing(database, migrations):
    """`system_user` is reserved for the parser, and a name like others for servers before PostgreSQL 16."""
    directory = migrations(_1_a="create table system_user (id int);\ncommit;\nbegin;\nselect 1/0;")

    message = refused(database, directory)

    if exists(database, "system_user"):
        assert message.endswith(
            "whether it was rolled back is not known; the next run reads the history before it decides"
        )
        assert "1_a.sql ended its own transaction" in refused(database, directory, code=65)
    else:
        assert message.endswith(ROLLED_BACK)


def test_a_file_that_slips_a_commit_past_the_parser_is_not_taken_for_applied(database, migrations):
    directory = migrations(_1_a="create table system_user (id int);\ncommit;\nbegin;\ncreate table a ();")

    message = refused(database, directory)

    if exists(database, "system_user"):  # see above
        assert "the file ended the transaction it was given (MG002)" in message
        assert message.endswith(
            "a part of it may have been committed; look what is there, then see `migrator repair`"
        )
        assert fetch(database, "select finished from migrator.migration_history") == [(False,)]
    assert not exists(database, "a")


def test_a_password_in_a_statement_is_not_shown(database, migrations):
    directory = migrations(_1_a="create role postgres login password 'hunter2';")

    done = run_migrator(database, directory)

    assert done.returncode == 1
    assert "create role postgres login password '***'" in done.stderr.replace("\\n", "\n")
    assert "hunter2" not in done.stderr + done.stdout


# What a file leaves behind


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(
            "select pg_catalog.set_config('search_path', '', false);", id="search_path set to nothing"
        ),
        pytest.param("set search_path = '';", id="SET search_path"),
        pytest.param("create role visitor; set role visitor;", id="SET ROLE"),
        pytest.param(
            "create role visitor; set session authorization visitor;", id="SET SESSION AUTHORIZATION"
        ),
        pytest.param("create temp table b (id int);", id="a temporary table"),
        pytest.param("set default_transaction_read_only = on;", id="read only"),
        pytest.param("set statement_timeout = 1; ", id="SET statement_timeout"),
        pytest.param(
            "set session characteristics as transaction isolation level serializable;", id="isolation"
        ),
        pytest.param("set client_encoding = 'LATIN1';", id="SET client_encoding"),
        pytest.param("set standard_conforming_strings = off;", id="standard_conforming_strings"),
        pytest.param("set row_security = off; set check_function_bodies = off;", id="what pg_dump sets"),
        pytest.param("reset all;", id="RESET ALL"),
        pytest.param("set local search_path = ''; set constraints all deferred;", id="SET LOCAL"),
    ],
)
def test_nothing_of_a_files_session_reaches_the_next_one(database, postgres, migrations, first):
    text = (
        "create table b (id int, who text default current_user, path text default current_setting('search_path'),"
        " settings text default current_setting('statement_timeout') || current_setting('transaction_isolation')"
        " || current_setting('client_encoding') || current_setting('row_security'));\n"
        "insert into b (id) values (1); select 'größe \\';\n"
    )
    directory = migrations(_1_a=first, _2_b=text)
    try:
        up(database, directory)
        rows = fetch(database, "select who, path, settings from public.b")
    finally:
        fetch(postgres.url, "drop role if exists visitor; select 1")

    assert rows == [("postgres", '"$user", public', "0read committedUTF8on")]
    assert versions(database) == ["1", "2"]


# Files without statements, and odd ones


@pytest.mark.parametrize(
    "text", ["", "\n\n", "-- only words", "/* begin; commit */", "\ufeff-- mark", ";;", "-- vacuum\n;"]
)
def test_a_file_without_a_statement_counts_as_applied(database, migrations, text):
    directory = migrations(_1_a=text, _2_b="create table b ();")

    assert up(database, directory).stdout == "2 applied, 2 in all, nothing pending\n"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("create table a (id int); insert into a values (1) -- no semicolon", id="no semicolon"),
        pytest.param(
            "create table a (id int); insert into a values (1); /* at the end */", id="a comment last"
        ),
        pytest.param("\ufeffcreate table a (id int);\r\ninsert into a values (1);\r\n", id="Windows"),
        pytest.param(
            "BEGIN;\ncreate table a (id int);\ninsert into a values (1);\nCOMMIT;", id="BEGIN and COMMIT"
        ),
        pytest.param(
            "create table a (id int); copy a to stdout; insert into a values (1); copy a to stdout; select * from a;",
            id="COPY to the client",
        ),
        pytest.param(
            "create table a (id int); do $x$ begin insert into a values (1); end $x$; notify pgrst, 'reload schema';",
            id="DO and NOTIFY",
        ),
        pytest.param(
            "create table a (id int); savepoint s; insert into a values (2); rollback to s; insert into a values (1);",
            id="a savepoint",
        ),
        pytest.param(
            "create table a (id int); insert into a select 1 from generate_series(1, 200000) g(i) where i = 7;"
            " select * from generate_series(1, 200000);",
            id="a large result",
        ),
    ],
)
def test_a_file_means_what_psql_makes_of_it(database, migrations, text):
    directory = migrations(_1_a=text)

    up(database, directory)

    assert fetch(database, "select * from a") == [(1,)]


def test_a_file_of_five_megabytes_fits_into_the_memory_limit(database, migrations):
    row = "('" + "x" * 90 + "'),\n"
    text = "create table a (t text);\nbegin;\ninsert into a values\n" + row * 52_000 + "('last');\ncommit;"
    directory = migrations(_1_a=text)

    up(database, directory, MIGRATION_MAX_MEMORY_MB="128")

    assert fetch(database, "select count(*) from a") == [(52_001,)]


# Others in the way


# Shown


def test_who_looks_at_the_servers_activity_sees_which_file_is_at_work(database, migrations):
    migrator = start_migrator(database, migrations(**{"_1_a '$ {schema} b": "select pg_sleep(60);"}))
    wait_until(lambda: waiting_for(database, "pg_sleep(60)"), what="the slow migration")
    shown = fetch(
        database,
        "select query from pg_stat_activity where query like '%pg_sleep(60)%' and pid <> pg_backend_pid()",
    )
    migrator.terminate()
    migrator.communicate(timeout=10)

    assert shown[0][0].startswith("/* migrator: 1_a '$ {schema} b.sql */")


# Stopped


def test_sigterm_cancels_the_statement_rolls_back_and_releases_the_lease(database, migrations):
    directory = migrations(_1_a="create table a ();", _2_b="create table b (); select pg_sleep(60);")
    migrator = start_migrator(database, directory)
    # The server may be at it before we have heard of the file before it.
    assert any("migration.started" in line and "2_b.sql" in line for line in migrator.stderr)
    wait_until(lambda: waiting_for(database, "pg_sleep(60)"), what="the slow migration")
    migrator.send_signal(signal.SIGTERM)
    _, err = migrator.communicate(timeout=10)

    assert migrator.returncode == 143
    (aborted,) = [line for line in log_lines(err) if line["event"] == "migration.aborted"]
    assert aborted["reason"] == "stopped while applying 2_b.sql: rolled back"
    assert not waiting_for(database, "pg_sleep(60)")
    assert fetch(database, "select holder from migrator.migration_locks") == [(None,)]
    assert versions(database) == ["1"]
    assert not exists(database, "b")


def test_a_session_that_was_ended_is_replaced_within_the_run(database, migrations):
    directory = migrations(_1_a="create table a (); select pg_sleep(60);")
    migrator = start_migrator(database, directory)
    wait_until(lambda: waiting_for(database, "pg_sleep(60)"), what="the slow migration")
    (directory / "1_a.sql").write_text("create table a (); ")
    fetch(
        database,
        "select pg_terminate_backend(pid) from pg_stat_activity where query like '%pg_sleep(60)%'"
        " and pid <> pg_backend_pid() and datname = current_database()",
    )
    _, err = migrator.communicate(timeout=10)

    # It has come as far as to look at the file again.
    assert migrator.returncode == 65, err
    assert "cannot apply 1_a.sql: it was edited while we were reading" in err
    (settled,) = [line for line in log_lines(err) if line["event"] == "migration.settled"]
    assert (settled["filename"], settled["outcome"]) == ("1_a.sql", "not applied")
    assert up(database, directory).stdout == "1 applied, 1 in all, nothing pending\n"


# Files that can't run in a transaction


def test_an_index_is_created_concurrently_among_other_statements(database, migrations):
    directory = migrations(
        _1_a="create table a (id int);\ninsert into a values (1);\n"
        "create index concurrently a_id on a (id);\nset search_path = '';\nvacuum public.a;\ninsert into public.a values (2);",
        _2_b="insert into a values (3);",
    )

    up(database, directory)

    assert fetch(database, "select id from a order by 1") == [(1,), (2,), (3,)]
    assert fetch(database, "select indisvalid from pg_index where indexrelid = 'a_id'::regclass") == [(True,)]
    assert fetch(
        database, "select finished, statements_done from migrator.migration_history order by version"
    ) == [(True, 6), (True, None)]


def test_a_failing_statement_of_such_a_file_says_how_far_it_came(database, migrations):
    directory = migrations(
        _1_a="create table a (id int);\ncreate index concurrently i on a (id);\ninsert into a values (1);\n\nselect 1/0;\n"
    )

    message = refused(database, directory)
    (directory / "1_a.sql").write_text("create table a (id int);\nselect 'edited';")
    edited = refused(database, directory, code=65)

    assert "1_a.sql: line 5, column 1: division by zero (22012)\n  select 1/0" in message
    assert message.endswith(
        "of 4 statements, statements 1 to 3 are done and on record; the next run goes on with statement 4"
    )
    assert fetch(database, "select id from a") == [(1,)]
    assert "applied up to statement 3 and edited since" in edited


def test_a_killed_file_goes_on_where_it_was(database, migrations):
    directory = migrations(
        _1_a="create table log (n int);\ninsert into log values (1);\ncreate index concurrently i on log (n);\n"
        "insert into log select 2 from pg_sleep(60);\ninsert into log values (3);"
    )
    killed = start_migrator(database, directory)
    wait_until(lambda: waiting_for(database, "pg_sleep(60)"), what="the slow statement")
    killed.kill()
    killed.communicate()
    wait_until(
        lambda: not waiting_for(database, "pg_sleep(60)"), what="the end of the dead client's statement"
    )
    assert fetch(database, "select finished, statements_done from migrator.migration_history") == [(False, 3)]
    fetch(database, "create function pg_temp.x() returns int language sql as 'select 1'; select 1")
    fetch(
        database,
        "create schema fast; create function fast.pg_sleep(int) returns int language sql as 'select 1'; select 1",
    )
    name = database.rsplit("/", 1)[1]
    fetch(database, f"alter database {name} set search_path = fast, pg_catalog, public; select 1")

    up(database, directory)

    assert fetch(database, "select n from public.log order by 1") == [(1,), (2,), (3,)]
    assert fetch(database, "select finished, statements_done from migrator.migration_history") == [(True, 5)]


def test_an_invalid_index_is_dropped_and_built_again(database, migrations):
    directory = migrations(
        _1_a="create table a (id int); insert into a values (1), (1);",
        _2_b="create unique index concurrently if not exists a_id on a (id);",
    )

    message = refused(database, directory)
    assert "could not create unique index" in message
    assert not exists(database, "a_id")
    # As a run leaves it that is killed before it can drop it.
    with blockers.Session(database) as killed, contextlib.suppress(asyncpg.UniqueViolationError):
        killed.execute("create unique index concurrently a_id on a (id)")
    fetch(database, "delete from a where ctid = '(0,1)'; select 1")
    done = up(database, directory)

    assert fetch(database, "select indisvalid from pg_index where indexrelid = 'a_id'::regclass") == [(True,)]
    assert "index.dropped" in done.stderr


def test_an_index_broken_by_a_deadlock_is_built_again_and_not_taken_for_done(database, migrations):
    """CREATE INDEX CONCURRENTLY waits for a transaction that then wants what the index build holds."""
    fetch(database, "create table a (id int); select 1")
    blocker = Blocker(database, "begin; set deadlock_timeout = '30s'; insert into a values (1)")
    directory = migrations(_1_b="create index concurrently if not exists a_id on a (id);")
    migrator = start_migrator(database, directory)
    try:
        wait_until(lambda: waiting_for(database, "create index concurrently"), what="the index build")
        wait_until(
            lambda: fetch(
                database,
                "select 1 from pg_stat_activity where wait_event_type = 'Lock' and query ilike '%concurrently%'",
            ),
            what="the index build's waiting",
        )
        blocker.start("lock table a in share row exclusive mode")
        assert any("index.dropped" in line for line in migrator.stderr)
    finally:
        blocker.close()
    _, err = migrator.communicate(timeout=40)

    assert migrator.returncode == 0, err
    assert fetch(database, "select indisvalid from pg_index where indexrelid = 'a_id'::regclass") == [(True,)]


def test_a_statement_that_an_earlier_run_finished_but_could_not_record_is_not_an_error(database, migrations):
    directory = migrations(
        _1_a="create table a (id int); create index i on a (id);",
        _2_b="create index concurrently j on a (id);\ndrop index concurrently i;",
    )
    up(database, directory)
    put_in_doubt(database, "2", done=1)
    up(database, directory)
    put_in_doubt(database, "2", done=0)
    fetch(database, "create index i on a (id)")
    up(database, directory)

    assert exists(database, "j")
    assert not exists(database, "i")
