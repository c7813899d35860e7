"""MIGRATION_RUNNER=shell: scripts, numbered steps on record, psql and the Supabase CLI."""

import os
import shutil

import pytest

from tests.support.postgres import fetch
from tests.support.processes import Entrypoint, app
from tests.support.programs import environment, is_gone, migrate, output, reason, script, start, written
from tests.support.stores import held
from tests.support.waiting import wait_until


def shell(url, cwd, *arguments, **extra):
    return migrate(url, cwd, *arguments, MIGRATION_RUNNER="shell", **extra)


def history(url):
    return fetch(url, "select filename, finished, in_doubt from migrator.migration_history order by version")


@pytest.fixture
def steps(tmp_path):
    """Writes files into the migrations directory; the project's directory."""

    def write(**files):
        (tmp_path / "migrations").mkdir(exist_ok=True)
        for name, text in files.items():
            stem, _, suffix = name.removeprefix("_").rpartition("_")
            (tmp_path / "migrations" / f"{stem}.{suffix}").write_text(text)
        return tmp_path

    return write


# One script for all


@pytest.mark.parametrize(
    "extra",
    [{"MIGRATION_RUNNER": "shell"}, {"USE_NODE_MIGRATIONS": "false"}],
    ids=lambda extra: next(iter(extra)),
)
def test_a_script_beside_the_migrations_runs_them(database, tmp_path, extra):
    script(tmp_path / "scripts/run-migrations.sh", "psql -Xqc 'create table found()' && echo done")
    done = migrate(database, tmp_path, **extra)

    assert done.returncode == 0, done.stderr
    assert output(done) == ["done"]
    assert done.stdout == "scripts/run-migrations.sh: done\n"
    assert fetch(database, "select 1 from pg_class where relname = 'found'")


def test_no_script_and_no_directory_is_nothing_to_do(database, tmp_path):
    done = shell(database, tmp_path)

    assert done.returncode == 0, done.stderr
    assert "nothing to do: there is no migrate.sh and no migrations directory" in done.stdout


# Steps


def test_steps_run_once_in_order_with_sql_files_between_them(database, steps):
    project = steps(
        _1_a_sh="psql -Xqc 'create table one()'; echo first",
        _2_b_sql="alter table one add column x int; insert into one values (1);",
        _3_c_sh="psql -XAtc 'select x from one' | sed 's/^/x=/'",
    )
    done = shell(database, project)
    again = shell(database, project)

    assert done.returncode == 0, done.stderr
    assert done.stdout == "3 applied, 3 in all, nothing pending\n"
    assert output(done) == ["first", "x=1"]
    assert history(database) == [("1_a.sh", True, False), ("2_b.sql", True, False), ("3_c.sh", True, False)]
    assert again.stdout == "0 applied, 3 in all, nothing pending\n"
    assert "lease.acquired" not in again.stderr


def test_twenty_steps_and_three_replicas_run_each_once(database, steps):
    project = steps(**{f"_{number:02}_x_sh": f"echo {number} >> ran; sleep 0.05" for number in range(1, 21)})
    all_of_them = [start(database, project, MIGRATION_RUNNER="shell") for _ in range(3)]
    told = [one.communicate(timeout=60) for one in all_of_them]

    assert [one.returncode for one in all_of_them] == [0, 0, 0], told
    assert (project / "ran").read_text().split() == [str(number) for number in range(1, 21)]


def test_status_knows_the_steps(database, steps):
    project = steps(_1_a_sh="true", _2_b_sh="exit 5")
    shell(database, project)
    done = shell(database, project, "status")

    assert [line.split()[0] for line in done.stdout.splitlines()[:1]] == ["applied"]
    assert "half done" in done.stdout
    assert "2 migrations, 1 pending" in done.stdout


def test_a_failed_step_is_not_run_again_by_itself(database, steps):
    project = steps(_1_a_sh="echo x >> ran; echo because >&2; exit 5")
    first = shell(database, project)
    second = shell(database, project)

    assert first.returncode == 1
    assert "cannot migrate with 1_a.sh: it ended with exit code 5\nbecause\nwhat it had done" in reason(first)
    assert second.returncode == 65
    assert "1_a.sh failed on" in reason(second)
    assert "`migrator repair --not-applied 1` has it run again" in reason(second)
    assert (project / "ran").read_text() == "x\n"
    assert history(database) == [("1_a.sh", False, False)]


@pytest.mark.parametrize(("way", "ran"), [("--not-applied", "x\nx\n"), ("--applied", "x\n")])
def test_what_the_message_says_helps(database, steps, way, ran):
    project = steps(_1_a_sh="echo x >> ran; test -e fixed")
    shell(database, project)
    (project / "fixed").touch()
    shown = shell(database, project, "repair")
    repaired = shell(database, project, "repair", way, "1")
    done = shell(database, project)

    assert "1_a.sh: half done: begun on" in shown.stdout
    assert repaired.returncode == 0, repaired.stderr
    assert done.returncode == 0, done.stderr
    assert (project / "ran").read_text() == ran
    assert history(database) == [("1_a.sh", True, False)]


@pytest.mark.parametrize(
    "text", ["# migrator: rerunnable\nexit 5", "exit 75"], ids=["it says that it may", "by its exit code"]
)
def test_a_step_that_may_be_run_again_is(database, steps, text):
    project = steps(_1_a_sh=f"#!/bin/sh\n{text.replace('exit', 'echo x >> ran; test -e fixed || exit')}\n")
    first = shell(database, project)
    left = history(database)
    (project / "fixed").touch()
    second = shell(database, project)

    assert first.returncode in (1, 75)
    assert left == []
    assert second.returncode == 0, second.stderr
    assert (project / "ran").read_text() == "x\nx\n"


@pytest.mark.parametrize("how", ["kill", "terminate"])
def test_an_interrupted_step_is_in_doubt(database, steps, how):
    project = steps(_1_a_sh="echo $$ > pid; sleep 60", _2_b_sh="touch second")
    one = start(database, project, MIGRATION_RUNNER="shell")
    pid = int(wait_until(lambda: written(project / "pid")))
    getattr(one, how)()
    one.communicate(timeout=20)
    wait_until(lambda: is_gone(pid))
    done = shell(database, project)

    assert history(database) == [("1_a.sh", False, True)]
    assert done.returncode == 65
    assert "1_a.sh was begun on" in reason(done)
    assert "how it ended isn't known, so that it may be half done" in reason(done)
    assert not (project / "second").exists()


def test_an_interrupted_step_that_may_be_run_again_is(database, steps):
    project = steps(
        _1_a_sh="#!/bin/sh\n# migrator: rerunnable\ntest -e pid && exit 0\necho $$ > pid\nsleep 60"
    )
    one = start(database, project, MIGRATION_RUNNER="shell")
    wait_until(lambda: written(project / "pid"))
    one.kill()
    one.communicate(timeout=20)
    done = shell(database, project)

    assert done.returncode == 0, done.stderr
    assert history(database) == [("1_a.sh", True, False)]


def test_under_the_entrypoint_the_count_is_known(database, steps):
    project = steps(_1_a_sh="true", _2_b_sh="while ! test -e go; do sleep 0.02; done")
    env = environment(database, None, NODE_ENV="production", MIGRATION_RUNNER="shell")
    with Entrypoint(["--", *app("wait")], project / "state", env, cwd=project) as one:
        wait_until(lambda: one.marker() and one.marker()["migrations"]["current"] == "2_b.sh")
        running = one.marker()["migrations"]
        (project / "go").touch()
        done = one.wait_for_phase("completed")["migrations"]

    assert (running["applied"], running["pending"]) == (1, 1)
    assert (done["applied"], done["pending"]) == (2, 0)


# psql


def test_a_sql_file_and_its_row_are_one_transaction(database, steps):
    project = steps(_1_a_sql="create table one();\n\\echo told\nselect 1/0;")
    done = shell(database, project)

    assert done.returncode == 1
    assert "cannot apply 1_a.sql: psql ended with exit code 3; it was rolled back" in reason(done)
    assert "division by zero" in reason(done)
    assert output(done)[0] == "told"
    assert history(database) == []
    assert not fetch(database, "select 1 from pg_class where relname = 'one'")


def test_psql_means_what_psql_means(database, steps):
    project = steps(
        _1_a_sql="\\set n 5\ncreate table one(x int);\ninsert into one select generate_series(1, :n);\n"
        "\\copy one from 'more.csv'\n"
    )
    (project / "more.csv").write_text("6\n7\n")
    done = shell(database, project)

    assert done.returncode == 0, done.stderr
    assert fetch(database, "select count(*) from one") == [(7,)]


def test_a_file_that_ends_the_transaction_is_noticed(database, steps):
    project = steps(_1_a_sql="create table one(); commit; create table two();")
    first = shell(database, project)
    second = shell(database, project)

    assert first.returncode == 1
    assert "ended the transaction it was given" in reason(first)
    assert second.returncode == 65
    assert history(database) == [("1_a.sql", False, False)]


@pytest.mark.parametrize(
    "data",
    ["", "copy one from stdin;\n1\n\\.\n", "discard all;\n"],
    ids=["nothing else", "COPY data", "what our own session refuses"],
)
def test_a_statement_that_needs_to_be_alone_is_put_on_record_around_it(database, steps, data):
    project = steps(
        _1_a_sql="create table one(x int);", _2_b_sql=f"{data}create index concurrently i on one(x);"
    )
    done = shell(database, project)

    assert done.returncode == 0, done.stderr
    assert history(database) == [("1_a.sql", True, False), ("2_b.sql", True, False)]


def test_psql_does_not_stand_in_a_lock_queue(database, steps):
    project = steps(_1_a_sql="create table one();", _2_b_sql="alter table one add column x int;")
    (project / "migrations/2_b.sql").rename(project / "later")
    shell(database, project)
    (project / "later").rename(project / "migrations/2_b.sql")
    with held(database, "select from one") as let_go:
        one = start(database, project, MIGRATION_RUNNER="shell")
        assert any("migration.retrying" in line for line in iter(one.stderr.readline, ""))
        let_go()
        _, told = one.communicate(timeout=30)

    assert one.returncode == 0, told
    assert history(database)[-1] == ("2_b.sql", True, False)


def test_without_psql_it_is_said_before_anything_runs(database, steps, tmp_path):
    project = steps(_1_a_sh="true", _2_b_sql="select 1;")
    bare = tmp_path / "bin"
    bare.mkdir()
    (bare / "sh").symlink_to(shutil.which("sh"))
    done = shell(database, project, PATH=str(bare))

    assert done.returncode == 78
    assert "neither supabase nor psql is in PATH; install one" in reason(done)
    assert "MIGRATION_RUNNER=direct, which needs neither" in reason(done)


def test_what_is_no_supabase_cli_is_told(database, tmp_path):
    (tmp_path / "supabase/migrations").mkdir(parents=True)
    script(tmp_path / "bin/supabase", "echo nonsense")
    done = shell(database, tmp_path, PATH=f"{tmp_path}/bin:{os.environ['PATH']}")

    assert done.returncode == 78
    assert "/bin/supabase: it says 'nonsense'; put the Supabase CLI into PATH" in reason(done)


def test_psql_goes_where_we_go(database, steps):
    project = steps(_1_a_sql="create table here();")
    done = shell(database, project, PGHOST="nowhere.invalid", PGDATABASE="other", PGUSER="nobody")

    assert done.returncode == 0, done.stderr
    assert fetch(database, "select 1 from pg_class where relname = 'here'")
