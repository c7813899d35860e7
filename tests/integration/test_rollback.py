"""MIGRATION_ROLLBACK_ON_FAILURE: a run that fails half-way takes back what it had applied."""

import subprocess
import sys

import pytest

from migrator import rollback
from migrator.errors import Conflict, LeaseLost, Unavailable
from migrator.gate import Restraint
from migrator.passage import Care
from migrator.teller import Teller
from tests.support.fingerprint import difference, objects
from tests.support.postgres import fetch
from tests.support.processes import Entrypoint, app, clean_env, log_lines, run_migrator
from tests.support.stores import migration_of, quiet_log, runner_on, store_on
from tests.support.waiting import wait_until

HISTORY = "select version, finished from migrator.migration_history order by version"


def failure(done):
    (line,) = [
        line for line in log_lines(done.stderr) if line["event"] in ("migration.failed", "command.failed")
    ]
    return line["reason"]


def logged(done, event):
    return [line for line in log_lines(done.stderr) if line["event"] == event]


@pytest.fixture
def batch(database, migrations):
    """One applied release, and a second one of three files of which the last fails, all with a way back."""
    directory = migrations(_1_a="create table a (id int);", **{"_1_a.down": "drop table a;"})
    assert run_migrator(database, directory).returncode == 0
    migrations(
        _2_b="alter table a add b int;",
        _3_c="create table c (id int primary key);\ncreate index concurrently c_id on c (id);",
        _4_d="create table d ();\nselect 1/0;",
        **{
            "_2_b.down": "alter table a drop b;",
            "_3_c.down": "drop table if exists c;",
            "_4_d.down": "drop table d;",
        },
    )
    return directory


def up(database, directory, **env):
    return run_migrator(database, directory, "up", MIGRATION_ROLLBACK_ON_FAILURE="true", **env)


def test_a_batch_that_fails_half_way_leaves_the_schema_as_it_was(database, batch):
    before = objects(database)

    done = up(database, batch)

    assert done.returncode == 1
    assert difference(before, objects(database)) == []
    assert fetch(database, HISTORY) == [("1", True)]
    assert failure(done).startswith("cannot apply 4_d.sql: line 2, column 1: division by zero")
    assert failure(done).endswith(
        "rolled back: nothing of this file was applied\n"
        "undone again (MIGRATION_ROLLBACK_ON_FAILURE): 2_b.sql, 3_c.sql; the next run begins with 2_b.sql"
    )
    assert [line["filename"] for line in logged(done, "migration.undone")] == ["3_c.sql", "2_b.sql"]
    assert len(logged(done, "undo.started")) == 1


def test_without_the_setting_nothing_is_undone(database, batch):
    done = run_migrator(database, batch)

    assert done.returncode == 1
    assert "undone" not in done.stderr
    assert fetch(database, HISTORY) == [("1", True), ("2", True), ("3", True)]


def test_a_mended_file_goes_through_with_all_that_was_undone(database, batch):
    up(database, batch)
    (batch / "4_d.sql").write_text("create table d ();")

    done = up(database, batch)

    assert (done.returncode, done.stdout) == (0, "3 applied, 4 in all, nothing pending\n")


def test_it_stops_at_the_first_file_without_a_way_back(database, batch):
    (batch / "3_c.down.sql").unlink()

    done = up(database, batch)

    assert done.returncode == 1
    assert failure(done).endswith("\nnot undone: 2_b.sql, 3_c.sql, as there is no 3_c.down.sql")
    assert fetch(database, HISTORY) == [("1", True), ("2", True), ("3", True)]
    assert logged(done, "undo.stopped")[0]["kept"] == ["3_c.sql", "2_b.sql"]


def test_it_says_what_was_undone_before_it_stopped(database, batch):
    (batch / "2_b.down.sql").write_text("alter table a drop nothing;")

    done = up(database, batch)

    assert failure(done).endswith(
        "undone again (MIGRATION_ROLLBACK_ON_FAILURE): 3_c.sql; the next run begins with 3_c.sql\n"
        'not undone: 2_b.sql, as cannot apply 2_b.down.sql: line 1, column 1: column "nothing" of relation "a" '
        "does not exist (42703)"
    )
    assert fetch(database, HISTORY) == [("1", True), ("2", True)]


def test_a_file_that_is_half_done_is_undone_first(database, batch):
    (batch / "4_d.sql").write_text(
        "create table d (id int);\ninsert into d values (1), (1);\ncreate unique index concurrently d_id on d (id);"
    )
    before = objects(database)

    done = up(database, batch)

    assert done.returncode == 1
    assert failure(done).endswith(
        "\nof 3 statements, statements 1 to 2 are done and on record\n"
        "undone again (MIGRATION_ROLLBACK_ON_FAILURE): 2_b.sql, 3_c.sql, 4_d.sql (half done); "
        "the next run begins with 2_b.sql"
    )
    assert difference(before, objects(database)) == []
    assert fetch(database, HISTORY) == [("1", True)]


def test_beneath_a_half_done_file_without_a_way_back_nothing_is_undone(database, batch):
    (batch / "4_d.sql").write_text("vacuum;\nselect 1/0;")
    (batch / "4_d.down.sql").unlink()

    done = up(database, batch)

    assert failure(done).endswith(
        "not undone: 2_b.sql, 3_c.sql, 4_d.sql (half done), as there is no 4_d.down.sql"
    )
    assert fetch(database, HISTORY) == [("1", True), ("2", True), ("3", True), ("4", False)]


def test_a_file_that_the_engine_refuses_half_way_counts_as_well(database, batch):
    (batch / "4_d.sql").write_text("\\i other.sql")
    before = objects(database)

    done = up(database, batch)

    assert done.returncode == 65
    assert difference(before, objects(database)) == []


def test_a_run_that_applied_nothing_undoes_nothing(database, batch):
    (batch / "2_b.sql").write_text("select 1/0;")

    done = up(database, batch)

    assert "undo" not in done.stderr
    assert fetch(database, HISTORY) == [("1", True)]


@pytest.mark.parametrize("end", ["select 1/0;", "create table e ();"], ids=["fails later", "runs through"])
def test_after_a_file_that_may_have_committed_a_part_of_itself_nothing_is_undone(database, batch, end):
    """`system_user` is reserved for the parser, and a name like others for servers before PostgreSQL 16."""
    (batch / "4_d.sql").write_text(f"create table system_user (id int);\ncommit;\nbegin;\n{end}")

    done = up(database, batch)

    assert done.returncode == 1
    if fetch(database, "select to_regclass('system_user')") != [(None,)]:
        assert "undo" not in done.stderr
        assert fetch(database, HISTORY) == [("1", True), ("2", True), ("3", True), ("4", False)]


def test_after_a_lost_connection_nothing_is_undone(database, batch):
    (batch / "4_d.sql").write_text("select pg_terminate_backend(pg_backend_pid());")

    done = up(database, batch)

    assert done.returncode == 69
    assert "undo" not in done.stderr
    assert fetch(database, HISTORY) == [("1", True), ("2", True), ("3", True)]


def test_a_request_to_stop_undoes_nothing(database, batch):
    (batch / "4_d.sql").write_text("select pg_sleep(60);")
    running = subprocess.Popen(
        [sys.executable, "-m", "migrator", "up"],
        env=clean_env(DATABASE_URL=database, MIGRATIONS_DIR=str(batch), MIGRATION_ROLLBACK_ON_FAILURE="true"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: fetch(database, "select 1 from pg_stat_activity where wait_event = 'PgSleep'"))

    running.terminate()

    assert running.wait(20) == 143
    assert fetch(database, HISTORY) == [("1", True), ("2", True), ("3", True)]


def test_what_others_applied_on_top_of_ours_stays_and_ours_with_it(database, batch):
    # As a replica would that has taken the lease over.
    (batch / "3_c.sql").write_text(
        "vacuum;\ninsert into migrator.migration_history (filename, version, name, checksum, executed_by, finished)"
        " values ('5_e.sql', '5', 'e', 'x', 'somebody', true);"
    )

    done = up(database, batch)

    assert "undone" not in failure(done)
    assert fetch(database, HISTORY) == [("1", True), ("2", True), ("3", True), ("5", True)]


def test_the_status_says_what_was_undone_and_counts_it(database, batch, tmp_path):
    (batch / "2_b.down.sql").unlink()
    env = {
        "DATABASE_URL": database,
        "MIGRATIONS_DIR": str(batch),
        "MIGRATION_ROLLBACK_ON_FAILURE": "true",
        "NODE_ENV": "production",
    }
    with Entrypoint(["--", *app("wait")], tmp_path / "state", env) as container:
        marker = container.wait_for_phase("failed")

    migrations = marker["migrations"]
    assert (migrations["applied"], migrations["pending"], migrations["current"]) == (2, 2, "4_d.sql")
    assert "undone again (MIGRATION_ROLLBACK_ON_FAILURE): 3_c.sql" in migrations["error"]
    assert "not undone: 2_b.sql, as there is no 2_b.down.sql" in migrations["error"]


@pytest.mark.parametrize(("kind", "left"), [(Conflict, []), (LeaseLost, ["1"]), (Unavailable, ["1"])])
async def test_what_is_known_to_have_failed_is_undone_though_a_retry_may_follow(
    database, tmp_path, kind, left
):
    migration = migration_of(tmp_path, "1_a.sql", "create table a ();")
    (tmp_path / "1_a.down.sql").write_text("drop table a;")
    log = quiet_log()
    care = Care(restraint=Restraint(), open_store=lambda: store_on(database), tell=lambda _: None)
    async with store_on(database) as store:
        await store.install()
        lease = await store.acquire("me", 30, session=False)
        await runner_on(store, database).apply(migration, lease, None)
        with pytest.raises(kind, match="no luck") as caught:
            async with rollback.on_failure(
                store,
                lease,
                care,
                down_paths=[tmp_path / "1_a.down.sql"],
                tell=Teller(lambda _: None),
                log=log,
            ):
                raise kind("no luck")

        assert [row.version for row in await store.history()] == left
        assert ("undone again" in str(caught.value)) == (left == [])
