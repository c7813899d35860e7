"""Files with COPY data, or of many megabytes, that hold what can't run in a transaction: as psql runs them."""

import json
import os
import re
import subprocess

import pytest

from tests.conftest import needs
from tests.integration.test_large_files import LIMIT_BYTES, MIB, inserts, peak_rss_bytes
from tests.integration.test_psql import psql, rows_of, schema_of
from tests.support.pooler import running_pooler
from tests.support.postgres import fetch, new_database, put_in_doubt
from tests.support.processes import log_lines, run_migrator, start_migrator
from tests.support.stores import held
from tests.support.waiting import wait_until

TABLE = "create table t (a int, b text);\n"
INDEX = "create index concurrently i on t (a);\n"
ROW = "copy t from stdin;\n1\tone\n\\.\n"
PROGRESS = "select finished, statements_done from migrator.migration_history"


@pytest.fixture
def by_psql(postgres):
    """The URL of a second database, for psql."""
    with new_database(postgres) as url:
        yield url


def up(url, directory, **extra):
    done = run_migrator(url, directory, **extra)
    assert done.returncode == 0, done.stderr
    return done


def refused(url, directory, code=1, **extra):
    """What a run that fails says."""
    done = run_migrator(url, directory, **extra)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return log_lines(done.stderr)[-1]["reason"]


def indexes(url):
    return fetch(
        url, "select relname, indisvalid from pg_index join pg_class on oid = indexrelid where relname = 'i'"
    )


# As psql does it


@pytest.mark.parametrize(
    ("text", "statements"),
    [
        pytest.param(TABLE + ROW + INDEX, 3, id="an index after the data"),
        pytest.param(TABLE + INDEX + ROW + "vacuum t;\n" + ROW + "insert into t values (2);\n", 6, id="among data"),
        pytest.param(
            f"-- migrator: no-transaction\n{TABLE}{ROW}do $$ begin insert into t values (7); commit; end $$;\n",
            3,
            id="a header for a block that commits",
        ),
        pytest.param(
            "\ufeff\\restrict x\nset lock_timeout = 0;\nselect pg_catalog.set_config('search_path', '', false);\n"
            "create table public.t (a int, b text);\ncopy public.t (b, a) from stdin with (format csv, header);\nb,a\n"
            '"it\'s; ""one""\nnot two",1\n\\.\nalter table public.t add primary key (a);\n'
            "create index concurrently i on public.t (b);\n\\unrestrict x\n",
            5,
            id="a dump",
        ),
        pytest.param(
            (TABLE + ROW + INDEX + ROW).replace("\n", "\r\n"), 4, id="line ends of Windows"
        ),
        pytest.param(
            f"{TABLE}{INDEX}set escape_string_warning = off;\nset standard_conforming_strings = off;\n"
            "insert into t values (1, 'it\\'s; a\\\\b');\ninsert into t values (2, '\\'');\nvacuum t;\n"
            "insert into t values (3, '\\';');\nset standard_conforming_strings = on;\ninsert into t values (4, 'a\\b');\n",
            10,
            id="quotes that change their meaning",
        ),
        pytest.param(
            TABLE + "create function f() returns int begin atomic select 1; select case when true then 2 end; end;\n"
            + ROW + "insert into t values (f(), $$it's; \\ $$) /* ; /* ' */ */;;\n" + INDEX + "copy t (a) from stdin;\n9",
            6,
            id="everything that hides a semicolon",
        ),
        pytest.param(
            TABLE + "create type e as enum ('a');\nalter type e add value 'b';\ncreate table u as select 'b'::e;\n" + ROW + INDEX,
            6,
            id="a new enum value, used at once",
        ),
        pytest.param(
            f"{TABLE}grant all on t to pg_monitor;{INDEX}set session authorization pg_monitor;"
            "insert into t values (1, current_user); set role pg_read_all_stats; set role none;\n" + ROW
            + "reset session authorization; vacuum t; insert into t values (2, session_user);",
            11,
            id="as somebody else",
        ),
        pytest.param(
            "create function never(text, text) returns bool language sql as 'select false';\n"
            "create operator public.= (leftarg = text, rightarg = text, function = never);\n"
            f"set search_path = public, pg_catalog;\n{TABLE}{INDEX}{ROW}",
            6,
            id="an operator of its own before ours",
        ),
        pytest.param(TABLE + inserts(20_000) + INDEX + inserts(20_010, 20_000), 20_012, id="a megabyte"),
        pytest.param(
            TABLE
            + "".join(f"insert into t values ({n}, '{'ä' * (n * 37 % 5000)}');\n" for n in range(1000))
            + INDEX
            + "".join(f"update t set b = '{'é' * n}' where a = {n};\n" for n in range(100)),
            1102,
            id="statements of every size",
        ),
        pytest.param(
            "-- migrator: no-transaction\n" + TABLE + "/* nothing */;\n" * 100_000 + "insert into t values (1);",
            2,
            id="a megabyte with a header and hardly a statement",
        ),
    ],
)  # fmt: skip
def test_it_is_what_psql_makes_of_it(database, by_psql, migrations, text, statements):
    directory = migrations(_1_a=text, _2_b="insert into t values (100);")
    plain = directory.parent / "plain.sql"
    plain.write_text(re.sub(r"(?m)^\\(un)?restrict .*$|^\ufeff", "", text) + "\n")
    plain.write_bytes(plain.read_bytes().removeprefix(b"\xef\xbb\xbf"))

    up(database, directory)
    psql(by_psql, plain)
    fetch(by_psql, "insert into t values (100); select 1")

    assert rows_of(database) == rows_of(by_psql)
    assert schema_of(database) == schema_of(by_psql)
    assert fetch(database, f"{PROGRESS} order by version") == [(True, statements), (True, None)]
    assert up(database, directory).stdout == "0 applied, 2 in all, nothing pending\n"


@pytest.mark.parametrize("how", [[], ["--inserts"]], ids=["copy", "inserts"])
def test_a_dump_with_an_index_made_concurrently_gives_what_psql_gives(database, by_psql, tmp_path, how):
    origin = tmp_path / "origin.sql"
    origin.write_text(
        "create table notes (id int primary key, at timestamptz, raw bytea, tags text[], note text);\n"
        "insert into notes select n, '2026-01-01Z', '\\x0001ff', array['a;b', null, E'c\\td'], E'it''s\\\\.\\n'"
        " from generate_series(1, 10000) n;\n"
    )
    psql(by_psql, origin)
    directory = tmp_path / "migrations"
    directory.mkdir()
    with (directory / "1_dump.sql").open("w") as dump:
        subprocess.run([needs("pg_dump"), *how, "-d", by_psql], stdout=dump, check=True)
        dump.write("create index concurrently i on public.notes (at);\n")
    fetch(by_psql, "create index i on notes (at); select 1")

    up(database, directory)

    assert rows_of(database) == rows_of(by_psql)
    assert schema_of(database) == schema_of(by_psql)


def test_inserts_that_follow_each_other_share_a_transaction_and_nothing_else_does(database, migrations):
    directory = migrations(
        _1_a=TABLE
        + "insert into t values (1);\n-- and\nINSERT INTO public.t (a, b) VALUES (2, ';');\nupdate t set b = 'x' where a = 9;\n"
        "insert into t values (3);\ninsert into t select 4;\ninsert into t select 5;\n" + ROW + INDEX
    )  # fmt: skip

    up(database, directory)
    together = fetch(
        database, "select array_agg(distinct a order by a) from t group by xmin::text order by 1"
    )

    assert together == [([1],), ([1, 2],), ([3],), ([4],), ([5],)]


@pytest.mark.parametrize("made_before", [True, False], ids=["it was made", "it wasn't"])
def test_an_index_without_a_name_in_doubt_is_not_there_twice(database, migrations, made_before):
    nameless = "create index concurrently on t (a) where b <> ' INDEX t_a_idx ON ';\n"
    directory = migrations(_1_a=f"{TABLE}{ROW}create index concurrently on t (b);\n{nameless}{ROW}")
    up(database, directory)
    # In doubt after its end; or before its beginning.
    put_in_doubt(database, "1", done=3)
    if not made_before:
        fetch(database, "drop index t_a_idx")

    up(database, directory)

    names = fetch(
        database, "select indexrelid::regclass::text from pg_index where indrelid = 't'::regclass order by 1"
    )
    assert names == [("t_a_idx",), ("t_b_idx",)]


@pytest.fixture
def tablespace(postgres):
    """One without a directory of its own, which PostgreSQL 15 can have."""
    name = f"space_{os.getpid()}"
    with new_database(postgres) as url:
        allowed = f"alter database {url.rsplit('/', 1)[1]} set allow_in_place_tablespaces = on; select 1"
        fetch(url, allowed)
        fetch(url, f"create tablespace {name} location ''")
        yield name, url
    fetch(postgres.url, f"drop tablespace {name}")


def test_an_index_in_doubt_that_is_like_another_but_elsewhere_is_made(tablespace, migrations):
    name, url = tablespace
    nameless = f"create index concurrently on t (a) tablespace {name};"
    directory = migrations(_1_a=TABLE + "create index here on t (a);", _2_b=nameless)
    up(url, directory)
    put_in_doubt(url, "2", done=0)
    fetch(url, "drop index t_a_idx")

    up(url, directory)

    names = fetch(
        url, "select indexrelid::regclass::text from pg_index where indrelid = 't'::regclass order by 1"
    )
    assert names == [("here",), ("t_a_idx",)]


PARTITIONED = (
    "create table p (a int) partition by range (a);create table q partition of p for values from (0) to (9);"
)
DETACH = "alter table p detach partition q concurrently;"
IS_PENDING = "select 1 from pg_inherits where inhdetachpending"


@pytest.mark.parametrize("statement", ["{0}", "create database {1}", "drop database {2}"])
def test_what_an_earlier_run_did_but_could_not_record_is_taken_for_done(
    postgres, database, migrations, statement
):
    with new_database(postgres) as gone:
        made, dropped = (f"made_{database.rsplit('/', 1)[1]}", gone.rsplit("/", 1)[1])
        text = statement.format(DETACH, made, dropped)
        directory = migrations(_1_a=TABLE + PARTITIONED, _2_b=f"{text};insert into t values (1);")
        up(database, directory)
        put_in_doubt(database, "2", done=0)

        up(database, directory)

        fetch(postgres.url, f"drop database if exists {made}")
        if dropped in text:
            fetch(postgres.url, f"create database {dropped}")
    assert fetch(database, "select count(*) from t") == [(2,)]


def test_a_detachment_of_a_partition_that_was_broken_off_is_finished(database, migrations):
    fetch(database, f"{PARTITIONED}select 1")
    directory = migrations(_1_a=DETACH)
    with held(database, "select * from p"):
        running = start_migrator(database, directory)
        wait_until(lambda: fetch(database, IS_PENDING), what="its first half")
        kill(database, running)

    up(database, directory)

    assert fetch(database, "select count(*) from pg_inherits") == [(0,)]


def test_it_takes_no_round_trip_for_each_of_many_inserts(database, migrations):
    directory = migrations(_1_a=TABLE + inserts(20_000) + INDEX)

    up(database, directory)
    ((transactions,),) = fetch(database, "select count(distinct xmin::text) from t")

    assert transactions < 20


# Crashes

GATED = (
    "create table t (a int, b text);\n"
    "create function gate() returns trigger language plpgsql as"
    " $$ begin perform pg_advisory_xact_lock_shared(new.a); return new; end $$;\n"
    "create trigger gate before insert on t for each row execute function gate();\n"
    "insert into t values (1);\ninsert into t values (2);\n"
    "copy t from stdin;\n3\tx\n4\tx\n\\.\n"
    "create index concurrently i on t (a);\n"
    "insert into t values (5);\n"
    "copy t from stdin;\n6\tx\n7\tx\n"
)
SNAPSHOT = "set transaction isolation level repeatable read; select 1"
AT_WORK = "datname = current_database() and pid <> pg_backend_pid() and application_name like 'migrator%'"
WAITING = "select 1 from pg_locks where not granted and locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())"
INDEXING = f"select 1 from pg_stat_activity where {AT_WORK} and wait_event_type = 'Lock' and query like '%concurrently%'"


def kill(url, running):
    running.kill()
    running.communicate()
    wait_until(
        lambda: not fetch(url, f"select 1 from pg_stat_activity where {AT_WORK}"), what="the end of its sessions"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("in_the_way", "done"),
    [
        *((f"select pg_advisory_xact_lock({n})", 3) for n in (1, 2)),
        *((f"select pg_advisory_xact_lock({n})", 5) for n in (3, 4)),
        (SNAPSHOT, 6),
        ("select pg_advisory_xact_lock(5)", 7),
        *((f"select pg_advisory_xact_lock({n})", 8) for n in (6, 7)),
    ],
)
def test_killed_anywhere_it_goes_on_with_the_statement_that_was_not_finished(
    database, by_psql, migrations, in_the_way, done
):
    directory = migrations(_1_a=GATED)
    psql(by_psql, directory / "1_a.sql")
    with held(database, in_the_way):
        running = start_migrator(database, directory)
        waiting = INDEXING if in_the_way == SNAPSHOT else WAITING
        wait_until(lambda: fetch(database, waiting), what="its wait for who is in the way")
        kill(database, running)
        assert fetch(database, PROGRESS) == [(False, done)]

    up(database, directory)

    assert rows_of(database) == rows_of(by_psql)
    assert indexes(database) == [("i", True)]
    assert fetch(database, PROGRESS) == [(True, 9)]


def test_told_to_stop_in_the_midst_of_data_it_rolls_that_back_and_says_so(database, migrations):
    directory = migrations(_1_a=GATED)
    with held(database, "select pg_advisory_xact_lock(4)"):
        running = start_migrator(database, directory)
        wait_until(lambda: fetch(database, WAITING), what="its wait")
        running.terminate()
        _, err = running.communicate(timeout=30)

    assert running.returncode == 143
    assert "stopped while applying 1_a.sql: some of its statements may be done, which is on record" in err
    assert fetch(database, PROGRESS) == [(False, 5)]
    assert fetch(database, "select a from t order by a") == [(1,), (2,)]
    up(database, directory)
    assert fetch(database, "select a from t order by a") == [(n,) for n in range(1, 8)]


def test_a_session_that_is_ended_in_the_midst_of_data_is_replaced_within_the_run(database, migrations):
    directory = migrations(_1_a=GATED)
    with held(database, "select pg_advisory_xact_lock(4)") as let_go:
        running = start_migrator(database, directory)
        wait_until(lambda: fetch(database, WAITING), what="its wait")
        fetch(
            database,
            f"select pg_terminate_backend(pid) from pg_stat_activity where {AT_WORK} and query like '%copy t%'",
        )
        let_go()
        _, err = running.communicate(timeout=30)

    assert running.returncode == 0, err
    assert "lost the connection" in err
    assert fetch(database, "select a from t order by a") == [(n,) for n in range(1, 8)]
    assert fetch(database, PROGRESS) == [(True, 9)]


def test_killed_among_many_inserts_it_does_none_of_them_twice(database, migrations):
    slow = "insert into t select 15000, '' from pg_advisory_xact_lock_shared(7);\n"
    directory = migrations(_1_a=TABLE + inserts(15_000) + slow + inserts(20_000, 15_001) + INDEX)
    with held(database, "select pg_advisory_xact_lock(7)"):
        running = start_migrator(database, directory)
        wait_until(lambda: fetch(database, WAITING), what="its wait")
        kill(database, running)
        assert fetch(database, PROGRESS) == [(False, 15_001)]

    up(database, directory)

    assert fetch(database, "select count(*), count(distinct a) from t") == [(20_000, 20_000)]
    assert fetch(database, PROGRESS) == [(True, 20_002)]


@pytest.mark.parametrize("data", ["", ROW.replace(" t ", " s.t ")], ids=["held whole", "in parts"])
def test_what_the_done_statements_had_set_is_set_again(database, migrations, data):
    """The session is another one: names, and quotes, would mean something else."""
    directory = migrations(
        _1_a="create schema s; create table s.t (a int, b text);\nset search_path to s;\n"
        "create role passing; set role passing; reset role; drop role passing;\n"
        f"{data}set escape_string_warning = off; set standard_conforming_strings = off;\n"
        "select pg_catalog.set_config('work_mem', '7MB', false);\n"
        "insert into t select 2, 'it\\'s' || current_setting('work_mem') || ';' from pg_advisory_xact_lock_shared(7);\n"
        "create index concurrently i on t (a);\n"
    )
    with held(database, "select pg_advisory_xact_lock(7)"):
        running = start_migrator(database, directory)
        wait_until(lambda: fetch(database, WAITING), what="its wait")
        kill(database, running)

    done = up(database, directory)

    assert fetch(database, "select b from s.t where a = 2") == [("it's7MB;",)]
    (told,) = [line["reason"] for line in log_lines(done.stderr) if line["event"] == "session.changed"]
    assert told.startswith("cannot repeat 'set role passing': role ")


# What fails


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            f"{TABLE}{INDEX}copy t from stdin;\n1\tone\n2\ttwo\nthree\tx\n\\.\n",
            ('line 6: invalid input syntax for type integer: "three" (22P02)\n  three\tx\n'
            'context: COPY t, line 3, column a: "three"\nof 3 statements, statements 1 to 2 are done and on record; '
            "the next run goes on with statement 3"),
        ),
        (
            f"{TABLE}vacuum t;\n  copy tt from stdin;\n1\n\\.\n",
            'line 3, column 3: relation "tt" does not exist (42P01)\n  copy tt from stdin\nof 3 statements, statements 1 to 2 are',
        ),
        (
            f"{TABLE}{INDEX}{ROW}select 'ö'; create index concurrently j on t (ö);\n",
            'line 6, column 13: column "ö" does not exist (42703)\n',
        ),
        (
            (f"{TABLE}{INDEX}{ROW}insert into t values (2);\ninsert into t values (3);\n\n  insert into t values (1 / 0);\n"
            "insert into t values (4);\n"),
            "line 9, column 3: division by zero (22012)\n  insert into t values (1 / 0)\nof 7 statements, statements 1 to 3 are",
        ),
        (
            f"{TABLE}{INDEX}{ROW}insert into t values (2);\ninsert into t (c) values (3);\n",
            'line 7, column 16: column "c" of relation "t" does not exist (42703)\n  insert into t (c) values (3)\n',
        ),
        (
            f"{TABLE}{INDEX}{ROW}insert into t values (2); insert inta t values (3);\n",
            'line 6, column 34: syntax error at or near "inta" (42601)\n',
        ),
        (
            f"{TABLE}{INDEX}{ROW}insert into t values (2, 'x);\n",
            "line 6, column 26: the text in single quotes that begins here has no end",
        ),
        (
            f"create table t (a int unique deferrable initially deferred, b text);\n{INDEX}{ROW}{ROW}",
            'line 6, column 1: duplicate key value violates unique constraint "t_a_key" (23505)\n  copy t from stdin\n',
        ),
        (
            (f"create table t (a int unique deferrable initially deferred, b text);\n{INDEX}{ROW}"
            "insert into t values (2);\ninsert into t values (2);\n"),
            'cannot apply 1_a.sql: duplicate key value violates unique constraint "t_a_key" (23505)\n',
        ),
        (f"{TABLE}{ROW}vacuum nowhere;\n", 'line 5, column 1: relation "nowhere" does not exist (42P01)\n  vacuum nowhere\n'),
    ],
    ids=["a line of data", "a COPY", "concurrently", "one of several", "with a position", "a syntax error",
         "no end", "at the end of a COPY", "at the end of several", "outside of a transaction"],
)  # fmt: skip
def test_an_error_says_where_it_is_and_how_far_it_came(database, migrations, text, told):
    message = refused(database, migrations(_1_a=text))

    assert told in message
    assert re.search(
        r"of \d statements, statements 1 to \d are done and on record; the next run goes on with", message
    )


def test_a_wrong_line_of_data_can_be_corrected_and_gone_on_from(database, migrations):
    text = f"{TABLE}{ROW}vacuum t;\ncopy t from stdin;\n2\ttwo\nthree\tthree\n\\.\n{INDEX}"
    directory = migrations(_1_a=text)
    refused(database, directory)
    assert fetch(database, "select a from t") == [(1,)]
    migrations(_1_a=text.replace("three\tthree", "3\tthree"))
    assert "was applied up to statement 3 and edited since" in refused(database, directory, code=65)

    accepted = run_migrator(database, directory, "repair", "--accept", "1")
    up(database, directory)

    assert "`migrator up` goes on with statement 4" in accepted.stdout
    assert fetch(database, "select a from t order by a") == [(1,), (2,), (3,)]


def test_a_failed_index_leaves_nothing_invalid_behind(database, migrations):
    directory = migrations(_1_a=f"{TABLE}{ROW}{ROW}create unique index concurrently i on t (a);\n")

    message = refused(database, directory)
    nothing = indexes(database)
    fetch(database, "delete from t where ctid = '(0,1)'; select 1")
    up(database, directory)

    assert "could not create unique index" in message
    assert nothing == []
    assert indexes(database) == [("i", True)]
    assert fetch(database, "select a from t") == [(1,)]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"begin;\n{TABLE}{ROW}commit;\n{INDEX}", "line 1, column 1: 'begin' in a file with statements that can't run"),
        (f"{TABLE}{ROW}{INDEX}\\i x\n", "line 6, column 1: \\i is a command of psql"),
        (f"{TABLE}{INDEX}copy t from stdin; select 1;\n1\n\\.\n", "line 3, column 1: the data of this COPY begins on"),
    ],
)  # fmt: skip
def test_what_psql_alone_could_do_is_refused_before_anything_runs(database, migrations, text, told):
    assert told in refused(database, migrations(_1_a=text), code=65)
    assert fetch(database, "select to_regclass('t')") == [(None,)]


def test_a_header_asks_for_one_transaction_all_the_same(database, migrations):
    message = refused(database, migrations(_1_a=f"-- migrator: transaction\n{TABLE}{ROW}vacuum t;\n"))

    assert "VACUUM cannot run inside a transaction block" in message
    assert fetch(database, "select to_regclass('t')") == [(None,)]


# Edited meanwhile


@pytest.mark.parametrize(
    ("edit", "done"),
    [
        (lambda text: text.replace("\tlast", "\tedited"), 2),
        (lambda text: text.replace("insert into t values (8)", "insert into t values (9)"), 3),
        (lambda text: text[: text.index("4999\tx")], 2),
        (lambda text: text[: text.index("create index")], 4),
        (lambda text: text.replace("copy t from", "copy t  from"), 2),
        (lambda text: text.replace("\n40000\tx\n", "\nforty\tx\n"), 2),
    ],
    ids=[
        "the data",
        "a statement after it",
        "cut short",
        "after it, cut short",
        "the COPY",
        "data that fails",
    ],
)
def test_a_file_that_is_edited_while_it_is_sent_goes_no_further(database, migrations, edit, done):
    rows = "".join(f"{n}\tx\n" for n in range(10, 50_000))
    text = (
        f"{TABLE}insert into t select 1 from pg_advisory_xact_lock_shared(7);\ncopy t from stdin;\n{rows}2\tlast\n\\.\n"
        f"insert into t values (8);\n{INDEX}"
    )
    directory = migrations(_1_a=text)
    path = directory / "1_a.sql"
    with held(database, "select pg_advisory_xact_lock(7)") as let_go:
        running = start_migrator(database, directory)
        wait_until(lambda: fetch(database, WAITING), what="its wait")
        path.write_text(edit(text))
        let_go()
        _, err = running.communicate(timeout=30)

    assert running.returncode == 65, err
    assert (
        "cannot apply 1_a.sql: it was edited while we were sending it; restore it and start again\\n"
        f"of 5 statements, statements 1 to {done} are done and on record" in err
    )
    assert fetch(database, PROGRESS) == [(False, done)]
    assert fetch(database, "select count(*) from t") == [({2: 1, 3: 49_992, 4: 49_993}[done],)]
    assert fetch(database, "select holder from migrator.migration_locks") == [(None,)]
    path.write_text(text)
    up(database, directory)
    assert fetch(database, "select count(*), count(distinct a) from t") == [(49_993, 49_993)]


# What it asks for, and where


def test_roles_and_limits_of_the_header_hold_for_each_statement(database, migrations, postgres):
    fetch(postgres.url, "create role owner_of_t; select 1")
    try:
        fetch(database, "grant create on schema public to owner_of_t; select 1")
        directory = migrations(
            _1_a=f"-- migrator: role=owner_of_t timeout=400ms\n{TABLE}create table u as select current_user as who;\n"
            "create function slow() returns trigger language plpgsql as $$ begin perform pg_sleep(60); return new; end $$;\n"
            f"{INDEX}{ROW}create trigger slow before insert on t for each row execute function slow();\n{ROW}"
        )

        message = refused(database, directory)

        assert "line 11: canceling statement due to statement timeout (57014)\n  1\tone\n" in message
        assert "statements 1 to 6 are done" in message
        assert (
            fetch(database, "select relowner::regrole::text from pg_class where relname in ('t', 'u', 'i')")
            == [("owner_of_t",)] * 3
        )
        assert fetch(database, "select who from u") == [("owner_of_t",)]
        assert fetch(database, "select count(*) from t") == [(1,)]
    finally:
        fetch(database, "drop owned by owner_of_t; drop role owner_of_t; select 1")  # fmt: skip


def test_it_is_not_begun_through_a_pooler(postgres, database, migrations):
    directory = migrations(_1_a=TABLE, _2_b=f"{ROW}{INDEX}", _3_c=f"-- migrator: no-transaction\n{ROW}")
    with running_pooler(postgres) as url:
        pooled = f"{url}/{database.rsplit('/', 1)[1]}"
        message = refused(pooled, directory, code=65)
        assert (
            "cannot apply 2_b.sql through a transaction pooler: 'create index concurrently i on t (a)' can't run in "
            "a transaction; set DIRECT_URL to a direct connection" in message
        )
        assert fetch(database, "select to_regclass('t')") == [(None,)]
        (directory / "2_b.sql").unlink()
        assert "3_c.sql through a transaction pooler: it isn't to run" in refused(pooled, directory, code=65)

        up(pooled, directory, DIRECT_URL=database)

    assert fetch(database, "select a from t") == [(1,)]


def test_what_others_hold_is_waited_for_in_nobodys_way_and_the_copy_is_sent_again(database, migrations):
    fetch(database, "create table t (a int, b text); select 1")
    directory = migrations(_1_a=f"{ROW}{INDEX}")
    with held(database, "lock table t in share row exclusive mode") as let_go:
        running = start_migrator(database, directory)
        assert running.stderr is not None
        assert any("migration.retrying" in line for line in running.stderr)
        assert any("lock.awaited" in line and '"public.t"' in line for line in running.stderr)
        let_go()
        _, err = running.communicate(timeout=30)

    assert running.returncode == 0, err
    assert fetch(database, "select a from t") == [(1,)]
    assert fetch(database, PROGRESS) == [(True, 2)]


LONG = (
    "select 1 from pg_stat_activity where datname = current_database() and state = 'idle in transaction'"
    " and xact_start < clock_timestamp() - interval '1 second'"
)


def test_it_looks_who_is_in_the_way_of_each_statement_before_it_is_sent(database, migrations):
    fetch(database, "create table u (a int); select 1")
    directory = migrations(_1_a=f"{TABLE}{ROW}{INDEX}alter table u add b int;\n")
    seen = []
    with held(database, "lock table u") as let_go:
        wait_until(lambda: fetch(database, LONG), what="its having been there for long")
        running = start_migrator(database, directory)
        assert running.stderr is not None
        for line in running.stderr:
            seen.append(line)
            if "lock.awaited" in line:
                break
        let_go()
        _, err = running.communicate(timeout=30)

    assert running.returncode == 0, err
    assert "migration.retrying" not in "".join(seen) + err


def test_a_lease_that_was_taken_away_keeps_the_next_data_from_being_sent(database, migrations):
    directory = migrations(
        _1_a=f"-- migrator: no-transaction, lock-timeout=1h\n{TABLE}do $$ begin perform pg_advisory_xact_lock(7); end $$;\n{ROW}vacuum t;\n"
    )
    with held(database, "select pg_advisory_xact_lock(7)") as let_go:
        # No heartbeat is to notice it first.
        running = start_migrator(database, directory, MIGRATION_LEASE_TTL="600")
        wait_until(lambda: fetch(database, WAITING), what="its wait")
        fetch(database, "update migrator.migration_locks set holder = 'somebody else'; select 1")
        let_go()
        _, err = running.communicate(timeout=30)

    assert running.returncode == 75, err
    assert "the migration lock was taken over or removed" in err
    assert fetch(database, PROGRESS) == [(False, 2)]
    assert fetch(database, "select count(*) from t") == [(0,)]


def test_plan_and_a_dry_run_know_how_it_would_run(database, migrations):
    directory = migrations(_1_a=TABLE + ROW + INDEX + "vacuum t;\n")

    (entry,) = json.loads(run_migrator(database, directory, "plan", "--json").stdout)["pending"]
    dry = run_migrator(database, directory, "up", "--dry-run")

    assert (entry["transaction"], entry["statements"]) == (False, 4)
    assert entry["outsideOfTransaction"] == [INDEX.strip().rstrip(";"), "vacuum t"]
    assert f"{INDEX.strip().rstrip(';')!r} can't run in a transaction" in dry.stdout
    assert fetch(database, "select to_regclass('t')") == [(None,)]


def test_the_way_back_may_be_such_a_file(database, migrations):
    directory = migrations(
        **{
            "_1_a": TABLE + INDEX,
            "_1_a.down": f"{ROW}drop index concurrently i;\ncreate table u as table t;\ndrop table t;\n",
        }
    )
    up(database, directory)

    done = run_migrator(database, directory, "down")

    assert done.returncode == 0, done.stderr
    assert fetch(database, "select a, b from u") == [(1, "one")]
    assert fetch(database, "select finished, statements_done from migrator.migration_undone") == [(True, 4)]
    assert fetch(database, "select count(*) from migrator.migration_history") == [(0,)]


def test_nothing_of_its_session_reaches_the_next_file(database, migrations):
    directory = migrations(
        _1_a=f"{TABLE}{ROW}vacuum t;\nset search_path = '';\nset standard_conforming_strings = off;\n",
        _2_b="create table u as select 'a\\b' as b from t;",
    )

    up(database, directory)

    assert fetch(database, "select b from u") == [("a\\b",)]


# Memory


def test_50_mb_of_copy_data_and_an_index_fit_into_64_mib(database, tmp_path):
    row = "1\t" + "it's; " * 16 + "\n"
    count = 50 * 10**6 // len(row)
    with (tmp_path / "1_a.sql").open("w") as file:
        file.write(f"{TABLE}copy t from stdin;\n")
        file.writelines(row for _ in range(count))
        file.write(f"\\.\n{INDEX}")

    assert peak_rss_bytes(database, tmp_path) < LIMIT_BYTES
    assert fetch(database, "select count(*) from t") == [(count,)]
    assert indexes(database) == [("i", True)]


def test_many_megabytes_of_statements_and_an_index_fit_into_64_mib(database, tmp_path):
    text = TABLE + inserts(100_000) + INDEX
    (tmp_path / "1_a.sql").write_text(text)
    assert len(text.encode()) > 10 * MIB

    assert peak_rss_bytes(database, tmp_path) < LIMIT_BYTES
    assert fetch(database, "select count(*), count(distinct a) from t") == [(100_000, 100_000)]
    assert indexes(database) == [("i", True)]
