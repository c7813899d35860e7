"""`migrator up --dry-run`: tries what is pending, leaves no trace, and is in nobody's way."""

import json
import subprocess
import sys
import time

import pytest

from tests.support.fingerprint import difference, objects
from tests.support.pooler import running_pooler
from tests.support.postgres import fetch
from tests.support.processes import clean_env, log_lines, run_migrator
from tests.support.stores import held
from tests.support.waiting import wait_until

SLEEPS = "select pid from pg_stat_activity where wait_event = 'PgSleep' and query ~ '_[a-z]+[.]sql'"
SHOP = """
create table a (id int primary key, n int);
create table b (a_id int references a);
create sequence s start 5000;
insert into a select i, i from generate_series(1, 1000) i;
"""


def failure(done):
    (line,) = [
        line for line in log_lines(done.stderr) if line["event"] in ("migration.failed", "command.failed")
    ]
    return line["reason"]


def dry_run(database, directory, *arguments, **env):
    return run_migrator(database, directory, "up", "--dry-run", *arguments, **env)


def outcomes(done):
    return {one["filename"]: one["outcome"] for one in json.loads(done.stdout)["files"]}


@pytest.fixture
def started(database):
    """Start a dry run and wait until its file sleeps; ended at the end."""
    running = []

    def start(directory, *arguments):
        process = subprocess.Popen(
            [sys.executable, "-m", "migrator", "up", "--dry-run", "--json", *arguments],
            env=clean_env(DATABASE_URL=database, MIGRATIONS_DIR=str(directory)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        wait_until(lambda: fetch(database, SLEEPS), what="the file's sleep")
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


# What it says


@pytest.mark.parametrize("first", [False, True], ids=["an installation", "the first run"])
def test_it_tries_all_and_leaves_no_trace(database, migrations, first):
    fetch(database, SHOP)
    directory = migrations(_1_a="select 1;")
    if not first:
        run_migrator(database, directory)
    migrations(
        _2_b="alter table a add c text; create index on a (n); drop table b; insert into a select nextval('s');",
        _3_c="set search_path = ''; set role postgres; create temp table a (id int); select pg_advisory_lock(1);",
        _4_d="begin; update a set c = n; commit; create table e (); insert into a values (-1);",
        _5_e="create table f (id int, t text);\ncopy f from stdin;\n1\tx\n\\.\nselect 1/(select count(*) from f);",
        _6_f="-- " + "x" * 2**20 + "\nalter table f add g int;",
        _7_g="-- migrator: timeout=5s role=postgres\ndrop table e;",
    )
    ours = "select to_regnamespace('migrator'), pg_size_pretty(count(*)) from pg_class"
    before, tables = objects(database), fetch(database, ours)

    done = dry_run(database, directory)

    assert (done.returncode, done.stderr) == (0, "")
    count = 7 if first else 6
    assert done.stdout.splitlines()[-1] == (
        f"dry run: {count} of {count} pending passed. All is rolled back; numbers that sequences gave out are "
        "used up"
    )
    assert difference(before, objects(database)) == []
    assert fetch(database, ours) == tables
    assert fetch(database, "select count(*), sum(id), min(id) from a") == [(1000, 500500, 1)]
    assert fetch(database, "select 1 from pg_locks where locktype = 'advisory'") == []


def test_what_fails_is_told_as_up_would_tell_it_and_the_rest_is_not_tried(database, migrations):
    directory = migrations(
        _1_a="create table a ();", _2_b="create table b ();\nselect 1/0;", _3_c="select 1;"
    )

    done = dry_run(database, directory, "--json")
    shown = dry_run(database, directory)

    assert done.returncode == shown.returncode == 1
    assert outcomes(done) == {"1_a.sql": "passed", "2_b.sql": "failed", "3_c.sql": "not tried"}
    assert json.loads(done.stdout)["complete"] is False
    assert failure(done).startswith("cannot apply 2_b.sql: line 2, column 1: division by zero (22012)")
    assert shown.stdout.splitlines()[-1].startswith(
        "dry run: 1 of 3 pending passed; the others are not known to work."
    )
    assert fetch(database, "select to_regclass('a'), to_regnamespace('migrator')") == [(None, None)]


def test_nothing_pending_is_nothing_to_try(database, migrations):
    directory = migrations(_1_a="select 1;")
    run_migrator(database, directory)

    done = dry_run(database, directory)

    assert (done.returncode, done.stdout[:29]) == (0, "dry run: 0 of 0 pending passe")


def test_it_goes_up_to_a_version(database, migrations):
    directory = migrations(_1_a="select 1;", _2_b="select 1/0;")

    assert outcomes(dry_run(database, directory, "--json", "--to", "1")) == {"1_a.sql": "passed"}


def test_what_can_not_run_in_a_transaction_is_left_out_and_what_may_need_it_is_not_judged(
    database, migrations
):
    fetch(database, SHOP)
    directory = migrations(
        _1_a="create index concurrently a_n on a (n);",
        _2_b="create table c ();",
        _3_c="drop index a_n;",
        _4_d="select 1;",
    )

    done = dry_run(database, directory, "--json")

    assert done.returncode == 0
    assert outcomes(done) == {
        "1_a.sql": "left out",
        "2_b.sql": "passed",
        "3_c.sql": "uncertain",
        "4_d.sql": "not tried",
    }
    reasons = [one["reason"] for one in json.loads(done.stdout)["files"]]
    assert reasons[0] == "'create index concurrently a_n on a (n)' can't run in a transaction"
    assert reasons[2].startswith("it may need a file that was left out: cannot apply 3_c.sql: line 1")


def test_a_new_enum_value_that_a_later_file_uses_is_not_judged(database, migrations):
    fetch(database, "create type mood as enum ('sad'); create table a (m mood);")
    directory = migrations(_1_a="alter type mood add value 'glad';", _2_b="insert into a values ('glad');")

    done = dry_run(database, directory, "--json")

    assert (done.returncode, outcomes(done)) == (0, {"1_a.sql": "passed", "2_b.sql": "uncertain"})
    assert run_migrator(database, directory).returncode == 0


def test_a_new_enum_value_that_the_same_file_uses_fails_as_it_would(database, migrations):
    fetch(database, "create type mood as enum ('sad'); create table a (m mood);")
    directory = migrations(_1_a="alter type mood add value 'glad'; insert into a values ('glad');")

    assert dry_run(database, directory).returncode == 1


def test_a_constraint_that_is_checked_at_the_end_of_a_file_counts(database, migrations):
    fetch(database, "create table a (id int primary key, up int references a deferrable initially deferred);")
    directory = migrations(_1_a="insert into a values (1, 7);", _2_b="select 1;")

    done = dry_run(database, directory, "--json")

    assert (done.returncode, outcomes(done)) == (1, {"1_a.sql": "failed", "2_b.sql": "not tried"})


@pytest.mark.parametrize(
    "text",
    [
        # `system_user` is reserved for the parser, and a name like others for servers before PostgreSQL 16.
        "create table system_user (id int);\ncommit;\nbegin;",
        "do $$ begin create table b (); commit; end $$;",
        "create table b ();\ncommit;",
        "create table b ();\nrollback;\nbegin;",
    ],
)
def test_nothing_that_a_file_tries_ends_the_transaction(database, migrations, text):
    before = objects(database)

    dry_run(database, migrations(_1_a="create table a ();", _2_b=text, _3_c="create table c ();"))

    assert difference(before, objects(database)) == []


def test_through_a_transaction_pooler(postgres, database, migrations):
    fetch(database, SHOP)
    before = objects(database)
    directory = migrations(
        _1_a="alter table a add b int; select pg_advisory_lock(1);", _2_b="set lock_timeout = 7;"
    )
    with running_pooler(postgres) as pooler:
        done = dry_run(f"{pooler}/{database.rpartition('/')[2]}", directory)
        locks = fetch(database, "select 1 from pg_locks where locktype = 'advisory'")

    assert done.returncode == 0, done.stderr
    assert locks == []
    assert difference(before, objects(database)) == []


@pytest.mark.parametrize("seconds", ["0", "x", "-1", "nan", "1e9"])
def test_a_time_that_makes_no_sense_is_refused(database, migrations, seconds):
    done = run_migrator(database, migrations(_1_a="select 1;"), "up", f"--dry-run={seconds}")

    assert done.returncode == 2
    assert "must be a number of seconds above 0" in done.stderr


# In nobody's way


@pytest.mark.parametrize(
    "theirs",
    ["select count(*) from a", "update a set n = 0 where id = 1", "create index concurrently on a (n)"],
)
def test_it_ends_at_once_when_somebody_waits_for_what_it_has_locked(database, migrations, started, theirs):
    fetch(database, SHOP)
    running = started(
        migrations(_1_a="create table c ();", _2_b="alter table a add b int; select pg_sleep(60);")
    )

    began_s = time.monotonic()
    fetch(database, theirs)
    waited_s = time.monotonic() - began_s
    stdout, stderr = running.communicate(timeout=20)

    # Nominally a hundredth of a second, and the connection's own time; here, others need the processors, too.
    assert waited_s < 1
    assert running.returncode == 75
    assert json.loads(stdout)["files"][1]["outcome"] == "cut short"
    assert "2_b.sql was cut short, as somebody waited for a lock that it held; try again" in stderr
    assert fetch(database, "select to_regclass('c')") == [(None,)]


def test_a_lock_that_is_taken_is_not_waited_for(database, migrations):
    fetch(database, SHOP)
    directory = migrations(_1_a="-- migrator: lock-timeout=1min\nalter table a add b int;")
    with held(database, "select count(*) from a"):
        began_s = time.monotonic()
        done = dry_run(database, directory)
        took_s = time.monotonic() - began_s

    assert done.returncode == 75
    assert "as it needed a lock that somebody else holds" in failure(done)
    assert took_s < 5


def test_it_takes_no_longer_than_it_is_given(database, migrations):
    done = run_migrator(
        database, migrations(_1_a="select 1;", _2_b="select pg_sleep(60);"), "up", "--dry-run=0.3", "--json"
    )

    assert done.returncode == 75
    assert outcomes(done) == {"1_a.sql": "passed", "2_b.sql": "cut short"}
    assert "2_b.sql was cut short, as it took longer than 0.3 s" in failure(done)


def test_a_fleet_that_migrates_meanwhile_is_not_held_up(database, migrations, started):
    fetch(database, "create table gate (s float); insert into gate values (60);")
    directory = migrations(_1_a="create table a (); select pg_sleep(s) from gate;")
    running = started(directory)
    fetch(database, "update gate set s = 0;")

    done = run_migrator(database, directory)

    assert (done.returncode, running.wait(20)) == (0, 75)
    assert fetch(database, "select version from migrator.migration_history") == [("1",)]


def test_it_does_not_begin_beside_a_run(database, migrations):
    directory = migrations(_1_a="select pg_sleep(60);")
    with subprocess.Popen(
        [sys.executable, "-m", "migrator", "up"],
        env=clean_env(DATABASE_URL=database, MIGRATIONS_DIR=str(directory)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as running:
        wait_until(lambda: fetch(database, SLEEPS))
        done = dry_run(database, directory)
        running.terminate()

    assert done.returncode == 75
    assert "cannot try anything just now: " in failure(done)


def test_a_session_that_is_ended_by_others_is_a_lost_connection(database, migrations, started):
    running = started(migrations(_1_a="select pg_sleep(60);"))

    fetch(database, SLEEPS.replace("pid", "pg_terminate_backend(pid)", 1))
    _, stderr = running.communicate(timeout=20)

    assert running.returncode == 69
    assert "cut short" not in stderr
