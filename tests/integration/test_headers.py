"""What a file asks for itself: `-- migrator: ...`."""

import pytest

from tests.support.pooler import running_pooler
from tests.support.postgres import fetch
from tests.support.processes import log_lines, run_migrator, start_migrator
from tests.support.waiting import wait_until

COPIED = "create table if not exists w (a int);\ncopy w from stdin;\n1\n\\.\n"


@pytest.fixture(params=["one message", "in parts"])
def ending(request):
    """What makes a file one message or several."""
    return "" if request.param == "one message" else COPIED


@pytest.fixture
def role(postgres):
    """A role that may create tables in public, gone afterwards; goes before the database, which ends first."""
    fetch(postgres.url, 'create role "Header owner"; select 1')
    yield "Header owner"
    fetch(postgres.url, 'drop role "Header owner"; select 1')


def reason(done):
    return log_lines(done.stderr)[-1]["reason"]


def test_a_timeout_ends_a_statement_that_takes_longer(database, migrations, ending):
    directory = migrations(
        _1_a=f"-- migrator: timeout=100ms\ncreate table t ();\nselect pg_sleep(60);\n{ending}"
    )

    done = run_migrator(database, directory)

    assert done.returncode == 1
    assert "line 3, column 1: canceling statement due to statement timeout (57014)" in reason(done)
    assert reason(done).endswith("rolled back: nothing of this file was applied")
    assert fetch(database, "select to_regclass('t')") == [(None,)]


def test_a_timeout_counts_for_its_own_file_and_each_statement_only(database, migrations, ending):
    shown = "create table {} as select current_setting('statement_timeout') as s, current_setting('lock_timeout') as l;\n"
    directory = migrations(
        _1_a="-- migrator: timeout=2s lock-timeout=1min\n" + shown.format("a") + ending,
        _2_b=shown.format("b"),
        _3_c="-- migrator: timeout=2s lock-timeout=1min no-transaction\n" + shown.format("c"),
        _4_d=shown.format("d"),
    )

    assert run_migrator(database, directory).returncode == 0
    for table, expected in (
        ("a", ("2s", "1min")),
        ("b", ("0", "1s")),
        ("c", ("2s", "1min")),
        ("d", ("0", "1s")),
    ):
        assert fetch(database, f"select s, l from {table}") == [expected]


def test_a_statement_that_runs_alone_has_its_timeout_too(database, migrations):
    directory = migrations(
        _1_a="-- migrator: timeout=100ms, no-transaction\ndo $$ begin perform pg_sleep(60); end $$;"
    )

    done = run_migrator(database, directory)

    assert done.returncode == 1
    assert "line 2, column 1: canceling statement due to statement timeout" in reason(done)


def test_a_lock_timeout_lets_a_file_wait_longer(database, migrations):
    fetch(database, "create table t (); select 1")
    directory = migrations(_1_a="-- migrator: lock-timeout=50s\nalter table t add a int;")
    other = directory.parent / "other"
    other.mkdir()
    (other / "1_hold.sql").write_text("lock table t; select pg_sleep(3);")
    holder = start_migrator(database, other, MIGRATION_SCHEMA="other")
    wait_until(
        lambda: fetch(database, "select 1 from pg_locks where relation = 't'::regclass"), what="the lock"
    )

    done = run_migrator(database, directory)
    holder.communicate(timeout=30)

    assert done.returncode == 0, done.stderr
    assert not [line for line in log_lines(done.stderr) if line["event"] == "migration.retrying"]


@pytest.fixture(params=["direct", "pooled"])
def reached(request, postgres, database):
    """The URL of the test's database, in both ways."""
    if request.param == "direct":
        yield database
        return
    with running_pooler(postgres) as url:
        yield f"{url}/{database.rsplit('/', 1)[1]}"


def test_a_role_runs_the_file_and_nothing_else(role, reached, database, migrations, ending):
    fetch(database, f'grant create, usage on schema public to "{role}"; select 1')
    directory = migrations(
        _1_a=f'-- migrator: role="{role}"\ncreate table t (a int);\n{ending}',
        _2_b="create table u as select current_user::text as name;",
    )

    done = run_migrator(reached, directory)

    assert done.returncode == 0, done.stderr
    assert fetch(database, "select tableowner::text from pg_tables where tablename = 't'") == [(role,)]
    assert fetch(database, "select name from u") == [("postgres",)]
    assert fetch(database, "select count(*) from migrator.migration_history where finished") == [(2,)]
    fetch(database, f'drop owned by "{role}"; select 1')


def test_a_role_runs_each_statement_of_a_file_that_is_no_transaction(role, database, migrations):
    fetch(database, f'grant create, usage on schema public to "{role}"; select 1')
    directory = migrations(
        _1_a=f'-- migrator: role="{role}"\ncreate table t (a int);\ncreate index concurrently i on t (a);\ninsert into t values (1);',
        _2_b="create table u as select current_user::text as name;",
    )

    done = run_migrator(database, directory)

    assert done.returncode == 0, done.stderr
    assert fetch(database, "select tableowner::text from pg_tables where tablename = 't'") == [(role,)]
    assert fetch(database, "select name from u") == [("postgres",)]
    fetch(database, f'drop owned by "{role}"; select 1')


@pytest.mark.parametrize(
    "text", ["create table t ();", COPIED, "vacuum;"], ids=["one message", "in parts", "steps"]
)
def test_a_role_that_is_not_there_is_told_by_its_line(database, migrations, text):
    done = run_migrator(database, migrations(_1_a=f"-- a\n-- migrator: role=nobody_here\n{text}"))

    assert done.returncode == 1
    assert (
        'cannot apply 1_a.sql: line 2: role "nobody_here" does not exist (22023)\n  -- migrator: role=nobody_here'
        in reason(done)
    )


def test_what_only_the_server_sees_can_run_without_a_transaction_if_the_file_says_so(database, migrations):
    text = (
        "create table t (a int);\n"
        "create procedure p() language plpgsql as $$ begin insert into t values (1); commit; insert into t values (2); end $$;\n"
        "call p();\ninsert into t values (3);\n"
    )
    refused = run_migrator(database, migrations(_1_a=text))
    done = run_migrator(database, migrations(_1_a="-- migrator: no-transaction\n" + text))

    assert "invalid transaction termination (2D000)" in reason(refused)
    assert "-- migrator: no-transaction" in reason(refused)
    assert done.returncode == 0, done.stderr
    assert fetch(database, "select a from t order by a") == [(1,), (2,), (3,)]
    assert fetch(database, "select finished, statements_done from migrator.migration_history") == [(True, 4)]


def test_a_file_without_a_transaction_goes_on_after_the_statements_that_are_done(database, migrations):
    text = "-- migrator: no-transaction\ncreate table t (a int);\ninsert into t values (1);\ninsert into nowhere values (1);\ninsert into t values (2);"
    directory = migrations(_1_a=text)

    failed = run_migrator(database, directory)
    fetch(database, "create table nowhere (a int); select 1")
    done = run_migrator(database, directory)

    assert "statements 1 to 2 are done and on record; the next run goes on with statement 3" in reason(failed)
    assert done.returncode == 0, done.stderr
    assert fetch(database, "select a from t order by a") == [(1,), (2,)]


def test_a_transaction_that_is_asked_for_is_not_given_up_for_a_statement(database, migrations):
    text = "-- migrator: transaction\ncreate table t (a int);\ncreate index concurrently i on t (a);"

    done = run_migrator(database, migrations(_1_a=text))

    assert done.returncode == 1
    assert (
        "line 3, column 1: CREATE INDEX CONCURRENTLY cannot run inside a transaction block (25001)"
        in reason(done)
    )
    assert fetch(database, "select to_regclass('t')") == [(None,)]


@pytest.mark.parametrize("header", ["no-transactions", "timeout=10 minutes"])
def test_a_header_that_is_not_right_keeps_the_file_from_running(database, migrations, header):
    done = run_migrator(database, migrations(_1_a=f"-- migrator: {header}\ncreate table t ();"))

    assert done.returncode == 65
    assert "cannot apply 1_a.sql: line 1: in '-- migrator:'" in reason(done)
    assert fetch(database, "select to_regclass('t')") == [(None,)]
