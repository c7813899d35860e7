"""Files that leave traces, stand in the way, or say what isn't so."""

import os

import pytest

from tests.support.postgres import fetch
from tests.support.processes import log_lines, run_migrator, start_migrator
from tests.support.waiting import wait_until


def reason(done):
    return log_lines(done.stderr)[-1]["reason"]


@pytest.mark.parametrize(
    "statement", ["create index concurrently i on b (id);", "drop index concurrently nothing;"]
)
def test_what_the_server_refused_once_is_refused_again(database, migrations, statement):
    fetch(database, "create table a (id int); create index i on a (id); create table b (id int);")
    directory = migrations(_1_a=statement)

    first = run_migrator(database, directory)
    second = run_migrator(database, directory)

    assert (first.returncode, second.returncode) == (1, 1)
    assert "none of its 1 statements is done" in reason(second)
    assert fetch(database, "select finished, statements_done, in_doubt from migrator.migration_history") == [
        (False, 0, False)
    ]


@pytest.mark.parametrize(
    "text", ["vacuum full a;", "SET lock_timeout = 0;\nalter table a add note text;"], ids=["vacuum", "dump"]
)
def test_a_file_that_must_wait_for_its_lock_lets_the_app_through(database, migrations, text):
    fetch(database, "create table a (id int); select 1")
    directory = migrations(_1_a=text)
    reader = start_migrator(database, migrations_of_a_reader(directory), MIGRATION_SCHEMA="reader")
    wait_until(
        lambda: fetch(
            database,
            "select 1 from pg_stat_activity where query like '%pg_sleep(4)%' and state = 'active'"
            " and pid <> pg_backend_pid()",
        ),
        what="the reader",
    )

    done = run_migrator(database, directory)
    _, err = reader.communicate(timeout=30)

    assert reader.returncode == 0, err
    assert done.returncode == 0, done.stderr
    assert any(line["event"] == "lock.awaited" for line in log_lines(done.stderr))


def migrations_of_a_reader(directory):
    """Somebody who reads the table for a while: a migration of another schema, for want of an app."""
    other = directory.parent / "reader"
    other.mkdir()
    (other / "1_read.sql").write_text("select count(*) from a; select pg_sleep(4);")
    return other


def test_what_a_file_leaves_in_its_session_does_not_meet_the_next_one(database, migrations):
    text = "prepare p as select 1; declare c cursor with hold for select 1; listen x; create temp table t ();"

    done = run_migrator(database, migrations(_1_a=text, _2_b=text))

    assert done.returncode == 0, done.stderr


def test_a_deferred_constraint_on_a_temporary_table_is_checked_before_it_goes(database, migrations):
    text = (
        "create temp table p (id int primary key);"
        "create temp table c (id int references p deferrable initially deferred);"
        "insert into c values (1); insert into p values (1);"
    )

    assert run_migrator(database, migrations(_1_a=text)).returncode == 0


def test_an_error_about_another_connection_is_not_ours(database, migrations):
    text = "do $$ begin raise exception 'peer is down' using errcode = '08006'; end $$;"

    done = run_migrator(database, migrations(_1_a=text))

    assert done.returncode == 1
    assert "peer is down (08006)" in reason(done)
    assert reason(done).endswith("rolled back: nothing of this file was applied")


def test_a_history_row_that_is_deleted_meanwhile_is_not_taken_for_done(database, migrations):
    directory = migrations(_1_a="create table a ();\ndelete from migrator.migration_history;\nvacuum a;")

    done = run_migrator(database, directory)

    assert done.returncode == 1
    assert "deleted while the file was running" in reason(done)


def test_a_pipe_among_the_files_does_not_stop_us(database, migrations):
    directory = migrations(_1_a="select 1;")
    os.mkfifo(directory / "2_pipe.sql")

    assert run_migrator(database, directory).stdout == "1 applied, 1 in all, nothing pending\n"


def test_answers_in_another_encoding_are_told_apart_from_a_bug(database, migrations):
    done = run_migrator(database, migrations(_1_a="set client_encoding = 'LATIN1'; select '\xe4'::int;"))

    assert done.returncode == 1
    assert "the file must not change client_encoding" in reason(done)
    assert "internal error" not in done.stderr


def test_a_schema_with_the_name_of_a_keyword_works(database, migrations):
    done = run_migrator(database, migrations(_1_a="select 1;"), MIGRATION_SCHEMA="order")

    assert done.returncode == 0, done.stderr
    assert fetch(database, 'select version from "order".migration_history') == [("1",)]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "select 1;\ninsert into a values ('it''s, oops);\nselect 2;",
            ["1_a.sql: line 2, column 23: the text in single quotes that begins here has no end: add '"],
        ),
        ("select 1;\ndo $b$ begin;\nend", ["1_a.sql: line 2, column 4: the text that begins with $b$ here"]),
        ("/* a\n /* b */ select 1;", ["1_a.sql: line 1, column 1: the comment that begins here has no end"]),
        (
            "create table a (\n b text;\ncreate table c (d int);",
            [
                "1_a.sql: line 1, column 16: the parenthesis that opens here is never closed",
                "the server noticed at line 2, column 8: syntax error",
            ],
        ),
    ],
)
def test_what_has_no_end_is_told_where_it_begins_and_without_our_own_sql(database, migrations, text, told):
    done = run_migrator(database, migrations(_1_a=text))

    assert done.returncode == 1
    assert [one for one in told if one not in reason(done)] == []
    assert "guard" not in done.stderr
    assert reason(done).endswith("rolled back: nothing of this file was applied")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "select 1 \\gexec",
            r"remedy: \gexec is a command of psql, not SQL; remove it, and write the statements",
        ),
        ("select :'x';", "remedy: :'x' is a variable of psql, which nobody replaces here; write its value"),
        (
            "select 1;\n\ufeffselect 2;",
            "remedy: column 1 holds a byte order mark, which isn't seen; remove it",
        ),
        ("select\u00a01;", "remedy: column 7 holds a no-break space, which isn't seen; remove it"),
    ],
)
def test_what_only_looks_like_sql_is_told_with_a_remedy(database, migrations, text, told):
    done = run_migrator(database, migrations(_1_a=text))

    assert done.returncode == 1
    assert told in reason(done)
