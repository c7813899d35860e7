"""COPY ... FROM stdin with its data in the file, as psql does it."""

import signal
import subprocess

import pytest

from migrator.transport import DatabaseError, Ended
from tests.conftest import needs
from tests.integration.test_psql import psql, rows_of, schema_of, sequences_of
from tests.support.pooler import running_pooler
from tests.support.postgres import fetch, new_database, open_gate, shut_gate
from tests.support.processes import log_lines, run_migrator, start_migrator
from tests.support.stores import held, store_on
from tests.support.waiting import wait_until

ROLLED_BACK = "rolled back: nothing of this file was applied"


@pytest.fixture
def by_psql(postgres):
    """The URL of a second database, for psql."""
    with new_database(postgres) as url:
        yield url


@pytest.fixture(params=["direct", "pooled"])
def reached(request, database):
    """The URL of the test's database, in both ways."""
    return database if request.param == "direct" else request.getfixturevalue("pooled")


@pytest.fixture
def pooled(postgres, database):
    """The URL of the test's database through a pooler."""
    with running_pooler(postgres) as url:
        yield f"{url}/{database.rsplit('/', 1)[1]}"


def write(tmp_path, content):
    directory = tmp_path / "migrations"
    directory.mkdir()
    (directory / "1_a.sql").write_bytes(content)
    return directory


def refused(url, directory, code=1):
    done = run_migrator(url, directory)
    assert done.returncode == code, done.stderr
    assert fetch(url, "select to_regclass('t')") == [(None,)]
    return log_lines(done.stderr)[-1]["reason"]


TABLE = b"create table t (a int, b text);\n"


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"copy t from stdin;\n1\tone\n2\t\\N\n3\tta\\tb\\\\\n\\.\n", id="text"),
        pytest.param(
            b'COPY public.t (b, a) FROM STDIN WITH (FORMAT csv, HEADER, NULL \'x\');\nb,a\n"it\'s; -- ""1""",1\nx,2\n"two\nlines",3\n\\.\n',
            id="CSV",
        ),
        pytest.param(
            b"copy t from stdin delimiter '|' null '' csv quote '''';\n1|'a|b'\n2|\n\\.\n",
            id="options of old",
        ),
        pytest.param(
            b"copy t from stdin; -- data;\r\n1\tone\r\n2\ttwo\r\n\\.\r\ninsert into t values (3, 'x');\r\n",
            id="CRLF",
        ),
        pytest.param(b"copy t from stdin;\n1\tone\n2\ttwo", id="up to the end of the file"),
        pytest.param(b"copy t from stdin;\n\\.\ninsert into t values (1);", id="no data"),
        pytest.param(b"copy t from stdin;", id="nothing at all"),
        pytest.param(
            b"copy t from stdin;\n1\tselect 1; commit; drop table t;\n2\t$$ ' \" /* \\\\i x\n\\.\nselect 'x';",
            id="data like SQL",
        ),
        pytest.param("copy t from stdin;\n1\tgröße 🐘\n\\.\n".encode(), id="not ASCII"),
        pytest.param(
            b"copy t from stdin;\n1\ta\n\\.\ncopy t from stdin;\n2\tb\n\\.\n\nupdate t set b = b || a;\ncopy t (a) from stdin;\n9\n\\.\n",
            id="several",
        ),
        pytest.param(
            b"begin;\ncopy t from stdin;\n1\ta\n\\.\ncommit;\ninsert into t values (2);",
            id="within BEGIN and COMMIT",
        ),
        pytest.param(
            b"create function f() returns int begin atomic select 1; select case when true then 2 end; end;\n"
            b"copy t from stdin;\n1\ta\n\\.\ninsert into t values (f(), $$it's; \\ $$) /* ; /* ' */ */;",
            id="beside everything that hides a semicolon",
        ),
        pytest.param(b"copy t from stdin where a > 1;\n1\ta\n2\tb\n\\.\n", id="WHERE"),
        pytest.param(b"copy\n  t (a,\n b) from\nstdin\n;\n1\ta\n\\.\n", id="a statement of several lines"),
    ],
)
def test_the_data_gets_where_psql_brings_it(database, by_psql, tmp_path, content):
    directory = write(tmp_path, TABLE + content)

    done = run_migrator(database, directory)
    psql(by_psql, directory / "1_a.sql")

    assert done.returncode == 0, done.stderr
    assert rows_of(database) == rows_of(by_psql)
    assert fetch(database, "select finished from migrator.migration_history") == [(True,)]
    assert run_migrator(database, directory).stdout == "0 applied, 1 in all, nothing pending\n"


def test_a_byte_order_mark_and_restrict_do_not_count(database, tmp_path):
    directory = write(
        tmp_path, b"\xef\xbb\xbf\\restrict a1\n" + TABLE + b"copy t from stdin;\n1\ta\n\\.\n\\unrestrict a1\n"
    )

    assert run_migrator(database, directory).returncode == 0
    assert fetch(database, "select a, b from t") == [(1, "a")]


def test_an_end_of_the_data_without_a_line_end_is_one(database, tmp_path):
    """psql takes it since version 18; before, the server takes offence."""
    directory = write(tmp_path, TABLE + b"copy t from stdin;\n1\tone\n\\.")

    assert run_migrator(database, directory).returncode == 0
    assert fetch(database, "select a, b from t") == [(1, "one")]


@pytest.mark.parametrize("how", [[], ["--inserts"], ["--column-inserts"]], ids=["copy", "inserts", "columns"])
def test_a_dump_with_data_gives_what_psql_gives(reached, database, by_psql, tmp_path, how):
    origin = tmp_path / "origin.sql"
    origin.write_text(
        "create type mood as enum ('sad', 'it''s ok');\n"
        "create table people (id serial primary key, name text not null, mood mood, note text);\n"
        "insert into people (name, mood, note) values ('Ann', 'sad', E'a\\\\b\\nc\\t'), ('Böb', null, ';--'),"
        " (E'\\\\.', null, E'\\\\.\\n\\\\.'), ('', null, 'commit; \\i x');\n"
        "create table notes (id int primary key, of int references people, at timestamptz, raw bytea, tags text[]);\n"
        "insert into notes select n, 1 + n % 4, '2026-01-01Z', '\\x0001ff', array['a;b', null, E'c\\td'] from generate_series(1, 5000) n;\n"
        "create view sad as select * from people where mood = 'sad';\n"
        'create table "odd, line 3" ("x;y" int); insert into "odd, line 3" values (1);\n'
    )
    psql(by_psql, origin)
    directory = tmp_path / "migrations"
    directory.mkdir()
    with (directory / "1_dump.sql").open("w") as dump:
        subprocess.run([needs("pg_dump"), *how, "-d", by_psql], stdout=dump, check=True)
    (directory / "2_more.sql").write_text("insert into people (name) values ('Cid');")
    fetch(by_psql, "insert into people (name) values ('Cid')")

    done = run_migrator(reached, directory)

    assert done.returncode == 0, done.stderr
    assert schema_of(database) == schema_of(by_psql)
    assert rows_of(database) == rows_of(by_psql)
    assert sequences_of(database) == sequences_of(by_psql)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        pytest.param(
            b"copy t from stdin;\n1\tone\n2\ttwo\nthree\tx\n4\tfour\n\\.\n",
            'line 5: invalid input syntax for type integer: "three" (22P02)\n  three\tx\n'
            'context: COPY t, line 3, column a: "three"',
            id="a wrong value",
        ),
        pytest.param(
            b'copy t from stdin csv header;\na,b\n1,"x\ny"\n2,3,4\n\\.\n',
            "line 6: extra data after last expected column (22P04)\n  2,3,4\n",
            id="a value too many, after one of two lines",
        ),
        pytest.param(
            b"alter table t add primary key (a);\ncopy t from stdin;\n1\t\n1\t\n\\.\n",
            'line 5: duplicate key value violates unique constraint "t_pkey" (23505)\n',
            id="a duplicate key",
        ),
        pytest.param(
            b"select 1;\n  copy tt from stdin;\n1\t\n\\.\n",
            'line 3, column 3: relation "tt" does not exist (42P01)\n  copy tt from stdin',
            id="a table that isn't there",
        ),
        pytest.param(
            b"copy t from stdin;\n1\t\n\\.\n\nselect 1; selec 2;\n",
            'line 6, column 11: syntax error at or near "selec" (42601)\n  select 1; selec 2;',
            id="a syntax error after the data",
        ),
        pytest.param(
            b"copy t from stdin;\n1\t\n\\.\nselect 2;\nselect 1 / (a - 1) from t;\n",
            "line 6, column 1: division by zero (22012)\n  select 1 / (a - 1) from t",
            id="a statement after the data",
        ),
        pytest.param(
            b"create table u (a int unique deferrable initially deferred);\ncopy u from stdin;\n1\n1\n\\.\n",
            'cannot apply 1_a.sql: duplicate key value violates unique constraint "u_a_key" (23505)\n',
            id="a deferred constraint",
        ),
    ],
)
def test_an_error_is_told_by_line_also_in_the_data(database, tmp_path, content, told):
    message = refused(database, write(tmp_path, TABLE + content))

    assert told in message
    assert message.endswith(ROLLED_BACK)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            b"copy t from stdin; select 1;\n1\n\\.\n",
            "line 2, column 1: the data of this COPY begins on the next line",
        ),
        (
            b"copy t from stdin;\n\\.\n\\i x\n",
            "line 4, column 1: \\i is a command of psql, not SQL; remove it",
        ),
        (b"begin;\ncopy t from stdin;\n\\.\n", "its last BEGIN has no COMMIT"),
        (b"copy t from stdin;\n\\.\nrollback;\n", "line 4, column 1: 'rollback' would end the transaction"),
    ],
)
def test_what_cannot_be_kept_whole_is_refused_before_anything_runs(database, tmp_path, content, told):
    message = refused(database, write(tmp_path, TABLE + content), code=65)

    assert told in message


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (b"copy t from stdin;\nx\t1\n\\.\n", "line 3: invalid input syntax"),
        (b"copy nowhere from stdin;\nx\t1\n\\.\n", 'line 2, column 1: relation "nowhere" does not exist'),
        (b"copy t from stdin;\n1\t1\n\\.\nselect 1/0;", "line 5, column 1: division by zero"),
    ],
    ids=["in the data", "before it", "after it"],
)
def test_a_failure_leaves_a_pooled_session_clean(pooled, database, tmp_path, wrong, told):
    directory = write(tmp_path, TABLE + wrong)

    message = refused(pooled, directory)
    (directory / "1_a.sql").write_bytes(
        TABLE + b"set search_path = '';\ncopy public.t from stdin;\n1\t1\n\\.\n"
    )
    (directory / "2_b.sql").write_bytes(b"copy t from stdin;\n2\t2\n\\.\n")
    done = run_migrator(pooled, directory)

    assert told in message
    assert message.endswith(ROLLED_BACK)
    assert done.returncode == 0, done.stderr
    assert fetch(database, "select a, b from t order by a") == [(1, "1"), (2, "2")]


def test_a_stop_while_a_copy_waits_for_its_lock_rolls_back(database, tmp_path):
    fetch(database, "create table gate (); select 1")
    directory = write(tmp_path, b"-- migrator: lock-timeout=1h\n" + TABLE + b"copy gate from stdin;\n\\.\n")
    with held(database, "lock table gate"):
        running = start_migrator(database, directory)
        wait_until(
            lambda: fetch(
                database, "select 1 from pg_locks where not granted and relation = 'gate'::regclass"
            ),
            what="the wait for the gate",
        )
        running.send_signal(signal.SIGTERM)
        _, err = running.communicate(timeout=30)

    assert running.returncode == 128 + signal.SIGTERM
    assert "stopped while applying 1_a.sql: rolled back" in err
    assert fetch(database, "select to_regclass('t')") == [(None,)]


async def test_data_that_is_refused_at_its_begin_is_not_sent_to_its_end(database):
    sent = 0

    def chunks():
        nonlocal sent
        yield b"bad\n"
        for _ in range(2000):
            sent += 1
            yield b"1\n" * 2**15

    async with store_on(database) as store:
        await store.transport.execute("begin; create table t (a int)")
        with pytest.raises(DatabaseError) as caught:
            await store.transport.copy("copy t from stdin", chunks())

    assert caught.value.sqlstate == "22P02"
    assert caught.value.ended is Ended.ROLLED_BACK
    assert sent < 1000


@pytest.fixture
def copying(database, tmp_path):
    """A migrator in the middle of a COPY that would take hours."""
    slow = (
        b"create function slow() returns trigger language plpgsql as $$ begin perform pg_sleep(0.01); return new; end $$;\n"
        b"create trigger slow before insert on t for each row execute function slow();\n"
    )
    directory = write(tmp_path, TABLE + slow + b"copy t from stdin;\n" + b"1\tx\n" * 2_000_000)
    running = start_migrator(database, directory)
    wait_until(lambda: fetch(database, COPYING), what="the COPY")
    yield running
    running.kill()
    running.communicate()


COPYING = (
    "select pid from pg_stat_activity where query like '%copy t from%' and pid <> pg_backend_pid() and state = 'active'"
    " and datname = current_database()"
)


def test_a_stop_in_the_middle_of_the_data_rolls_back(database, copying):
    copying.send_signal(signal.SIGTERM)
    _, err = copying.communicate(timeout=30)

    assert copying.returncode == 128 + signal.SIGTERM
    assert "stopped while applying 1_a.sql: rolled back" in err
    assert fetch(database, "select to_regclass('t')") == [(None,)]
    assert fetch(database, "select holder from migrator.migration_locks") == [(None,)]


def test_a_connection_that_ends_in_the_middle_of_the_data_is_told_and_the_file_begun_again(database, copying):
    before = fetch(database, COPYING)
    fetch(database, f"select pg_terminate_backend(pid) from ({COPYING}) as c")
    wait_until(lambda: fetch(database, COPYING) not in ([], before), what="the COPY, begun again")
    copying.send_signal(signal.SIGTERM)
    _, err = copying.communicate(timeout=30)

    assert copying.returncode == 143, err
    assert "loop.failed" not in err
    assert "cannot apply 1_a.sql: lost the connection to the database" in err
    assert "not applied" in next(line for line in err.splitlines() if "migration.settled" in line)
    assert fetch(database, "select to_regclass('t')") == [(None,)]


def test_a_killed_migrator_leaves_nothing_of_the_data(database, copying):
    copying.kill()
    wait_until(lambda: not fetch(database, COPYING), what="the end of its session")

    assert fetch(database, "select to_regclass('t')") == [(None,)]
    assert fetch(database, "select count(*) from migrator.migration_history") == [(0,)]


def test_a_migrator_that_freezes_in_the_middle_of_the_data_is_evicted(database, tmp_path):
    # The server takes no row before we say so, and all buffers on the way hold less than half of them. Once the
    # migrator is frozen, it soon waits for more.
    shut_gate(database)
    slow = TABLE + (
        b"create function slow() returns trigger language plpgsql as\n"
        b"  $$ begin while not exists (select from gate) loop perform pg_sleep(0.05); end loop; return new; end $$;\n"
        b"create trigger slow before insert on t for each row execute function slow();\n"
        b"set idle_in_transaction_session_timeout = 0;\n"
    )
    directory = write(tmp_path, slow + b"copy t from stdin;\n" + (b"1\t" + b"x" * 2**16 + b"\n") * 400)
    frozen = start_migrator(database, directory, MIGRATION_LEASE_TTL="1")
    wait_until(lambda: fetch(database, COPYING), what="the COPY")
    frozen.send_signal(signal.SIGSTOP)
    open_gate(database)
    try:
        other = run_migrator(database, directory, MIGRATION_LEASE_TTL="1")
    finally:
        frozen.send_signal(signal.SIGCONT)
    _, err = frozen.communicate(timeout=30)

    assert other.returncode == 0, other.stderr
    # It wakes to two things at once: its time is over, which is worth another attempt, and its connection is
    # gone, after which it reads what became of the file.
    if frozen.returncode == 75:
        assert "lease.lost" in err
    else:
        assert frozen.returncode == 0, err
        assert '"outcome": "applied"' in next(
            line for line in err.splitlines() if "migration.settled" in line
        )
    assert fetch(database, "select count(*) from t") == [(400,)]


def test_a_file_without_data_stays_one_message(database, tmp_path):
    """Its parts would be seen by others as statements of their own."""
    directory = write(
        tmp_path,
        TABLE
        + b"select pg_sleep(0); create table seen as select query from pg_stat_activity where pid = pg_backend_pid();",
    )

    assert run_migrator(database, directory).returncode == 0
    ((query,),) = fetch(database, "select query from seen")
    assert query.startswith("/* migrator: 1_a.sql */ begin;")
    assert "for key share" in query


def test_strings_mean_what_the_file_says_that_they_mean(database, by_psql, tmp_path):
    content = (
        b"set escape_string_warning = off;\nset standard_conforming_strings = off;\n"
        b"insert into t values (1, 'it\\'s; a\\\\b');\nset standard_conforming_strings = on;\ninsert into t values (2, 'a\\b');\n"
    )
    directory = write(tmp_path, TABLE + content)

    done = run_migrator(database, directory)
    psql(by_psql, directory / "1_a.sql")

    assert done.returncode == 0, done.stderr
    assert fetch(database, "select b from t order by a") == [("it's; a\\b",), ("a\\b",)]
    assert rows_of(database) == rows_of(by_psql)
