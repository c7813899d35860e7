"""Files larger than a message: whole or not at all, within the memory limit, with errors by line."""

import subprocess
import sys

import pytest

from migrator.errors import PlanError
from tests.support.postgres import fetch
from tests.support.processes import clean_env, log_lines, run_migrator, start_migrator
from tests.support.stores import held, migration_of, runner_on, store_on
from tests.support.waiting import wait_until

MIB = 2**20
LIMIT_BYTES = 64 * MIB
TABLE = "create table t (a int, b text);\n"


def inserts(count, begin=0):
    return "".join(
        f"insert into t (a, b) values ({n}, 'größe {n}; it''s 🐘 -- ({'x' * 60}');\n"
        for n in range(begin, count)
    )


# Somebody small in between: what a process has when it starts another counts as the other's peak.
MEASURE = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def peak_rss_bytes(url, directory):
    """Of a run that works."""
    measured = subprocess.run(
        [sys.executable, "-I", "-S", "-c", MEASURE, sys.executable, "-m", "migrator", "up"],
        env=clean_env(DATABASE_URL=url, MIGRATIONS_DIR=str(directory)),
        capture_output=True,
        text=True,
        check=True,
    )
    code, peak_kib = measured.stdout.split()
    assert code == "0", measured.stderr
    return int(peak_kib) * 1024


def test_50_mb_of_copy_data_fit_into_64_mib(database, tmp_path):
    row = "1\t" + "it's; " * 16 + "\n"
    count = 50 * 10**6 // len(row)
    with (tmp_path / "1_a.sql").open("w") as file:
        file.write(f"{TABLE}copy t from stdin;\n")
        file.writelines(row for _ in range(count))

    assert peak_rss_bytes(database, tmp_path) < LIMIT_BYTES
    assert fetch(database, "select count(*) from t") == [(count,)]


def test_many_megabytes_of_statements_fit_into_64_mib(database, tmp_path):
    text = TABLE + "begin;\n" + inserts(100_000) + "commit;\n"
    (tmp_path / "1_a.sql").write_text(text)
    assert len(text.encode()) > 10 * MIB

    assert peak_rss_bytes(database, tmp_path) < LIMIT_BYTES
    assert fetch(database, "select count(*), count(distinct a) from t") == [(100_000, 100_000)]


@pytest.mark.parametrize(
    ("last", "told"),
    [
        (
            "select 1; insert into t values (1 / 0);",
            "column 11: division by zero (22012)\n  insert into t values (1 / 0)\n",
        ),
        ("select 1 from\n  nöpe;", 'column 3: relation "nöpe" does not exist (42P01)\n  select 1 from\n'),
        ("select 'ö' x x;", "column 14: syntax error at or near \"x\" (42601)\n  select 'ö' x x;\n"),
        (
            "select ('ö;\n",
            "column 9: the text in single quotes that begins here has no end: add ', or double the one within (42601)\n  select ('ö;\n",
        ),
    ],
    ids=["no position", "a position", "a syntax error", "no end"],
)
def test_an_error_far_down_is_told_by_line_and_column_and_all_is_rolled_back(
    database, migrations, last, told
):
    text = TABLE + inserts(20_000) + last
    directory = migrations(_1_a=text)
    line = text.count("\n") + (0 if last.endswith("\n") else 1)

    done = run_migrator(database, directory)
    reason = log_lines(done.stderr)[-1]["reason"]

    assert done.returncode == 1
    assert f"cannot apply 1_a.sql: line {line}, {told}" in reason
    assert reason.endswith("rolled back: nothing of this file was applied")
    assert fetch(database, "select to_regclass('t')") == [(None,)]


def test_one_message_more_or_less_makes_no_difference(database, migrations):
    """Statements of every size, so that parts end everywhere."""
    rows = "".join(f"insert into t values ({n}, '{'ä' * (n * 37 % 5000)}');\n" for n in range(1000))
    directory = migrations(_1_a=TABLE + rows)

    assert run_migrator(database, directory).returncode == 0
    assert fetch(database, "select a, length(b) from t order by a") == [
        (n, n * 37 % 5000) for n in range(1000)
    ]


def test_a_large_file_may_hold_no_statement_at_all(database, migrations):
    directory = migrations(_1_a="-- nothing\n" * 200_000)

    assert run_migrator(database, directory).returncode == 0
    assert fetch(database, "select finished from migrator.migration_history") == [(True,)]


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text.replace("one", "two"),
        lambda text: text[:9999],
        lambda text: text.replace("1\tx", "one\tx"),
        lambda text: text.replace("create table t ", "create table longer "),
    ],
    ids=["elsewhere", "cut short", "to something that the server refuses", "before the data"],
)
def test_a_file_that_is_edited_while_it_is_sent_is_rolled_back(database, migrations, edit):
    rows = "1\tx\n" * 100_000
    directory = migrations(
        _1_a=f"{TABLE}select pg_advisory_xact_lock(7);\ncopy t from stdin;\n{rows}1\tone\n\\.\nselect 1;\n"
    )
    with held(database, "select pg_advisory_xact_lock(7)") as let_go:
        running = start_migrator(database, directory)
        wait_until(
            lambda: fetch(database, "select 1 from pg_locks where not granted and locktype = 'advisory'"),
            what="the file's wait for the gate",
        )
        path = directory / "1_a.sql"
        path.write_text(edit(path.read_text()))
        let_go()
        _, err = running.communicate(timeout=30)

    assert running.returncode == 65
    assert "cannot apply 1_a.sql: it was edited while we were sending it; start again" in err
    assert fetch(database, "select to_regclass('t')") == [(None,)]
    assert fetch(database, "select holder from migrator.migration_locks") == [(None,)]


def test_a_conflict_has_the_whole_file_tried_again(database, migrations):
    directory = migrations(
        _1_a="create table u (a int);\ncopy u from stdin;\n1\n\\.\nselect pg_advisory_xact_lock(7);\ncopy u from stdin;\n2\n\\.\n"
    )
    with held(database, "select pg_advisory_xact_lock(7)") as let_go:
        running = start_migrator(database, directory)
        assert running.stderr is not None
        for line in running.stderr:
            if "migration.retrying" in line:
                break
        let_go()
        running.communicate(timeout=30)

    assert running.returncode == 0
    assert fetch(database, "select a from u order by a") == [(1,), (2,)]


@pytest.mark.parametrize(
    "text", [TABLE, TABLE + "copy t from stdin;\n\\.\n"], ids=["one message", "in parts"]
)
async def test_a_file_that_is_gone_when_its_turn_comes_is_told_as_such(database, tmp_path, text):
    migration = migration_of(tmp_path, "1_a.sql", text)
    async with store_on(database) as store:
        runner = runner_on(store, database)
        assert (await runner.check(migration)).meaning
        migration.path.unlink()

        with pytest.raises(PlanError, match=r"cannot read 1_a\.sql: No such file or directory"):
            await runner.check(migration)
