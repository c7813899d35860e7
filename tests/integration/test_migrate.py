"""The migrator as people run it, against a real server."""

import subprocess
import sys

import pytest

from tests.support.postgres import fetch
from tests.support.processes import REPO, clean_env, log_lines, run_migrator
from tests.support.proxy import counting_proxy

# After connecting. They are what a slow network makes of us, so they mustn't grow unseen.
NOTHING_TO_DO_ROUND_TRIPS = 2
# Ask for history, find no tables at all, make ours, lock, lease, ask again, and give the lease back at the end.
FIRST_RUN_ROUND_TRIPS = 13


def odd(done):
    return [line["reason"] for line in log_lines(done.stderr) if line["event"] == "migration.odd"]


def failure(done):
    (line,) = [line for line in log_lines(done.stderr) if line["event"] == "migration.failed"]
    return line["reason"]


def test_a_first_run_applies_everything_and_a_second_run_finds_nothing_to_do(database, migrations):
    directory = migrations(_1_a="create table a (id int);", _2_b="insert into a values (1);")

    first = run_migrator(database, directory)
    second = run_migrator(database, directory)

    assert (first.returncode, first.stdout) == (0, "2 applied, 2 in all, nothing pending\n")
    assert (second.returncode, second.stdout) == (0, "0 applied, 2 in all, nothing pending\n")
    assert fetch(database, "select count(*) from a") == [(1,)]


def test_nothing_to_do_costs_one_connection_few_round_trips_no_lease_and_no_write(database, migrations):
    directory = migrations(_1_a="create table a ();", _2_b="create table b ();")
    run_migrator(database, directory)
    before = fetch(database, "select to_jsonb(l) from migrator.migration_locks l")
    written = "select pg_current_wal_lsn(), (select max(token) from migrator.migration_locks)"

    with counting_proxy(database) as proxy:
        lsn = fetch(database, written)
        done = run_migrator(proxy.url, directory)
        assert done.returncode == 0, done.stderr

    assert proxy.connections == 1
    assert proxy.round_trips <= NOTHING_TO_DO_ROUND_TRIPS
    assert fetch(database, "select to_jsonb(l) from migrator.migration_locks l") == before
    assert lsn[0][1] == fetch(database, written)[0][1]
    assert "lease" not in done.stderr


@pytest.mark.parametrize("count", [1, 40])
def test_a_migration_costs_one_round_trip(database, migrations, count):
    directory = migrations(**{f"_{number}_x": "select 1;" for number in range(100, 100 + count)})

    with counting_proxy(database) as proxy:
        assert run_migrator(proxy.url, directory).returncode == 0

    assert proxy.connections == 1
    assert proxy.round_trips <= count + FIRST_RUN_ROUND_TRIPS


def test_a_changed_applied_file_is_refused_with_name_and_date(database, migrations):
    directory = migrations(_1_a="create table a (id int);")
    run_migrator(database, directory)
    ((day,),) = fetch(
        database,
        "select to_char(executed_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI') from migrator.migration_history",
    )
    migrations(_1_a="create table a (id bigint);", _2_b="create table b ();")

    refused = run_migrator(database, directory)

    assert refused.returncode == 65
    assert failure(refused).startswith(
        f"cannot go on: 1_a.sql differs from what was applied on {day} UTC; restore"
    )
    assert fetch(database, "select to_regclass('b')") == [(None,)]


def test_a_changed_applied_file_can_be_a_warning(database, migrations):
    directory = migrations(_1_a="create table a (id int);")
    run_migrator(database, directory)
    migrations(_1_a="create table a (id bigint);", _2_b="create table b ();")

    warned = run_migrator(database, directory, MIGRATION_CHANGED_FILES="warn")

    assert (warned.returncode, warned.stdout) == (0, "1 applied, 2 in all, nothing pending\n")
    assert len(odd(warned)) == 1
    assert odd(warned)[0].startswith("1_a.sql differs from what was applied on 2")


def test_line_ends_and_trailing_white_space_are_no_change(database, migrations):
    directory = migrations(_1_a="create table a (\n  id int\n);\n")
    run_migrator(database, directory)
    (directory / "1_a.sql").write_bytes(b"\xef\xbb\xbfcreate table a (  \r\n  id int\r\n);")

    assert run_migrator(database, directory).returncode == 0


def test_comments_white_space_and_case_are_no_change(database, migrations):
    directory = migrations(_1_a="create table a (id int);\ncopy a from stdin;\n1\n\\.\n")
    run_migrator(database, directory)
    migrations(
        _1_a="-- it's new\nCREATE TABLE a ( id int ) ;\n\n/* data */ copy a from stdin; -- data\n1\n\\.\n;"
    )

    done = run_migrator(database, directory)
    status = run_migrator(database, directory, "status")

    assert (done.returncode, odd(done)) == (0, [])
    assert status.stdout.startswith("applied")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("do $$ begin\n  null; end $$;", "do $$ begin null; end $$;"),
        ("create table a ();\ncopy a from stdin;\n\\.\n", "create table a ();\ncopy a from stdin;\n\n\\.\n"),
    ],
    ids=["white space in a body", "a line of data"],
)
def test_what_is_in_quotes_and_data_is_a_change(database, migrations, before, after):
    directory = migrations(_1_a=before)
    assert run_migrator(database, directory).returncode == 0
    migrations(_1_a=after)

    assert run_migrator(database, directory).returncode == 65


def test_a_row_of_a_version_that_knew_no_meanings_goes_on_working(database, migrations):
    directory = migrations(_1_a="create table a (id int);")
    run_migrator(database, directory)
    fetch(
        database,
        "update migrator.migration_history set checksum = split_part(checksum, ' ', 1) where checksum ~ ' meaning:'",
    )

    assert run_migrator(database, directory).returncode == 0
    migrations(_1_a="create table a (id int); -- new")
    assert run_migrator(database, directory).returncode == 65


def test_a_half_done_file_is_gone_on_with_if_only_comments_were_edited(database, migrations):
    text = "create table a (id int);\nvacuum a;\ninsert into b values (1);\n"
    directory = migrations(_1_a=text)
    assert run_migrator(database, directory).returncode == 1
    fetch(database, "create table b (id int); select 1")
    migrations(_1_a=f"-- b was missing\n{text}")

    assert run_migrator(database, directory).returncode == 0


def test_missing_and_out_of_order_files_are_warnings(database, migrations):
    directory = migrations(_1_a="select 1;", _3_c="select 3;")
    run_migrator(database, directory)
    (directory / "1_a.sql").unlink()
    migrations(_2_b="create table b ();")

    warned = run_migrator(database, directory)

    assert (warned.returncode, warned.stdout) == (0, "1 applied, 2 in all, nothing pending\n")
    assert odd(warned)[0].endswith("but the file is missing; restore it, or see `migrator repair`")
    assert odd(warned)[1] == "2_b.sql comes out of order: 3_c.sql is applied already"


def test_skipped_files_are_named(database, migrations):
    directory = migrations(_1_a="select 1;")
    (directory / "notes.md").write_text("# no")

    assert odd(run_migrator(database, directory)) == [
        "skipped, since the name isn't <version>_<description>.sql: notes.md"
    ]


def test_the_schema_of_our_tables_can_be_chosen(database, migrations):
    directory = migrations(_1_a="create table a ();")

    assert run_migrator(database, directory, MIGRATION_SCHEMA="deploys").returncode == 0

    assert fetch(database, "select count(*) from deploys.migration_history") == [(1,)]
    assert fetch(database, "select to_regnamespace('migrator')") == [(None,)]


def test_prismas_schema_is_where_unqualified_names_go(database, migrations):
    fetch(database, "create schema shop; select 1")
    directory = migrations(_1_a="set search_path = ''; select 1;", _2_b="create table a ();")

    assert run_migrator(f"{database}?schema=shop&connection_limit=1", directory).returncode == 0

    assert fetch(database, "select to_regclass('shop.a') is not null") == [(True,)]


@pytest.mark.parametrize("setting", ["statement_timeout = 1", "lock_timeout = 1", "search_path = ''"])
def test_what_the_role_or_database_has_set_does_not_cut_a_migration_short(database, migrations, setting):
    name = database.rsplit("/", 1)[1]
    fetch(database, f"alter database {name} set {setting}; select 1")
    directory = migrations(_1_a="create table public.a (); select pg_sleep(0.05);")

    done = run_migrator(database, directory)

    assert done.returncode == 0, done.stderr


def test_a_thousand_files_fit_into_forty_mebibytes(database, tmp_path):
    for number in range(1000):
        (tmp_path / f"{20250000000000 + number}_step.sql").write_text(
            f"-- number {number}\n" + f"select {number};\n" * 100
        )

    for _ in ("all of them", "nothing to do"):
        done, peak_bytes = _measured(database, tmp_path)
        assert done == 0
        assert peak_bytes <= 40 * 1024 * 1024


# A process begins with the peak of the one it was spawned from, so that one has to be small.
_MEASURE = """
import os, sys
pid = os.posix_spawn(sys.executable, [sys.executable, "-m", "migrator", "up"], os.environ)
_, status, usage = os.wait4(pid, 0)
print(os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024)
"""


def _measured(url, directory):
    """Exit code and peak memory of one run."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _MEASURE],
        env=clean_env(DATABASE_URL=url, MIGRATIONS_DIR=str(directory), LOG_LEVEL="error"),
        capture_output=True,
        text=True,
        cwd=REPO,
    )
    code, peak_bytes = done.stdout.split()[-2:]
    return int(code), int(peak_bytes)
