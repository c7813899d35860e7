"""`migrator down`: back to where the database was, whole or not at all, and on record."""

import json
import re
import signal
import subprocess
import sys

import pytest

from tests.support.faults import faulty_proxy
from tests.support.fingerprint import difference, objects
from tests.support.pooler import running_pooler
from tests.support.postgres import fetch
from tests.support.processes import REPO, clean_env, log_lines, run_migrator
from tests.support.stores import held
from tests.support.waiting import wait_until

HISTORY = "select version from migrator.migration_history order by version"
UNDONE = "select version, down_filename, finished from migrator.migration_undone order by undone_at"


def failure(done):
    (line,) = [
        line for line in log_lines(done.stderr) if line["event"] in ("migration.failed", "command.failed")
    ]
    return line["reason"]


@pytest.fixture
def pairs(migrations):
    """Write migrations, each with the file that undoes it: `_1_a=("up", "down")`."""

    def write(**files):
        directory = migrations(**{name: up for name, (up, _) in files.items()})
        return migrations(**{f"{name}.down": down for name, (_, down) in files.items() if down}) or directory

    return write


# There and back


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_every_file_of_the_demo_can_be_undone_without_a_trace_in_the_schema(database, tmp_path, count):
    files = sorted(path for path in (REPO / "migrations").glob("*.sql") if ".down." not in path.name)
    assert len(files) == 4
    states = [objects(database)]
    for path in files[:count]:
        for one in (path, path.with_suffix(".down.sql")):
            (tmp_path / one.name).write_bytes(one.read_bytes())
        assert run_migrator(database, tmp_path).returncode == 0
        states.append(objects(database))

    while states[1:]:
        after = states.pop()
        assert difference(states[-1], after) != []
        done = run_migrator(database, tmp_path, "down")
        assert done.returncode == 0, done.stderr
        assert difference(states[-1], objects(database)) == []

    assert run_migrator(database, tmp_path).stdout.startswith(f"{count} applied")


# Each in the schema that those before it leave.
_THERE_AND_BACK = {
    "a table with data": (
        "create table a (id int primary key, n int); insert into a values (1, 1);",
        "drop table a;",
    ),
    "a column": ("alter table a add t text not null default 'x';", "alter table a drop t;"),
    "a type of a column": ("alter table a alter n type bigint;", "alter table a alter n type int;"),
    "a constraint": (
        "alter table a add constraint c check (n > 0) not valid;",
        "alter table a drop constraint c;",
    ),
    "an index": ("create index concurrently a_n on a (n);", "drop index concurrently a_n;"),
    "an enum": ("create type mood as enum ('sad', 'glad');", "drop type mood;"),
    "a domain, a sequence": ("create domain d as int; create sequence s;", "drop domain d; drop sequence s;"),
    "a view": ("create view v as select id from a;", "drop view v;"),
    "another view": (
        "create or replace view v as select id from a where id > 1;",
        "create or replace view v as select id from a;",
    ),
    "a function": ("create function f() returns int language sql as 'select 1';", "drop function f();"),
    "another body": (
        "create or replace function f() returns int language sql as $$ select 2; $$;",
        "create or replace function f() returns int language sql as 'select 1';",
    ),
    "a trigger": (
        """create function g() returns trigger language plpgsql as $$ begin return new; end $$;
        create trigger tr before insert on a for each row execute function g();""",
        "drop trigger tr on a; drop function g();",
    ),
    "row-level security": (
        "alter table a enable row level security; create policy p on a using (true);",
        "drop policy p on a; alter table a disable row level security;",
    ),
    "a grant": ("grant select on v to public;", "revoke select on v from public;"),
    "a comment": ("comment on table a is 'x';", "comment on table a is null;"),
    "a name": ("alter table a rename to b;", "alter table b rename to a;"),
    "a schema": (
        "create schema shop; alter table b set schema shop;",
        "alter table shop.b set schema public; drop schema shop;",
    ),
    "data from a COPY": ("copy shop.b (id, n) from stdin;\n7\t7\n\\.\n", "delete from shop.b where id = 7;"),
}


def test_whatever_a_file_did_its_way_back_leads_to_the_schema_from_before(database, migrations):
    states = [objects(database)]
    for number, (up, down) in enumerate(_THERE_AND_BACK.values(), 10):
        directory = migrations(**{f"_{number}_x": up, f"_{number}_x.down": down})
        assert run_migrator(database, directory).returncode == 0
        states.append(objects(database))

    for what in reversed(_THERE_AND_BACK):
        after = states.pop()
        assert what.startswith("data") or difference(states[-1], after) != [], what
        assert run_migrator(database, directory, "down").returncode == 0
        assert difference(states[-1], objects(database)) == [], what


def test_the_last_one_is_undone_and_can_be_applied_again(database, pairs):
    directory = pairs(
        _1_a=("create table a ();", "drop table a;"), _2_b=("create table b ();", "drop table b;")
    )
    run_migrator(database, directory)

    done = run_migrator(database, directory, "down")

    assert (done.returncode, done.stdout) == (0, "undone    2_b.sql (by 2_b.down.sql)\n")
    assert fetch(database, "select to_regclass('a')::text, to_regclass('b')::text") == [("a", None)]
    assert fetch(database, HISTORY) == [("1",)]
    assert fetch(database, UNDONE) == [("2", "2_b.down.sql", True)]
    assert re.search(
        r"^pending +2_b\.sql \(undone 20\S+Z\)$",
        run_migrator(database, directory, "status").stdout,
        re.MULTILINE,
    )
    again = run_migrator(database, directory)
    assert (again.returncode, again.stdout) == (0, "1 applied, 2 in all, nothing pending\n")
    assert "undone" not in run_migrator(database, directory, "status").stdout


def test_steps_and_to_say_how_far_and_json_says_what_was_done(database, pairs):
    directory = pairs(**{f"_{n}_x": (f"create table t{n} ();", f"drop table t{n};") for n in range(1, 6)})
    run_migrator(database, directory)

    two = run_migrator(database, directory, "down", "--steps", "2", "--json")
    back_to_2 = run_migrator(database, directory, "down", "--to", "2")
    everything = run_migrator(database, directory, "down", "--to", "0")
    nothing = run_migrator(database, directory, "down")

    assert json.loads(two.stdout) == {"undone": ["5_x.sql", "4_x.sql"]}
    assert back_to_2.stdout == "undone    3_x.sql (by 3_x.down.sql)\n"
    assert everything.stdout.splitlines() == [
        "undone    2_x.sql (by 2_x.down.sql)",
        "undone    1_x.sql (by 1_x.down.sql)",
    ]
    assert (nothing.returncode, nothing.stdout) == (
        0,
        "nothing undone: nothing is applied that it was asked for\n",
    )


def test_what_was_applied_later_goes_first_whatever_its_version(database, pairs):
    directory = pairs(
        _1_a=("create table a ();", "drop table a;"), _3_c=("create table c ();", "drop table c;")
    )
    run_migrator(database, directory)
    pairs(_2_b=("alter table c add b int;", "alter table c drop b;"))
    run_migrator(database, directory)

    done = run_migrator(database, directory, "down", "--steps", "2")

    assert done.stdout.splitlines() == [
        "undone    2_b.sql (by 2_b.down.sql)",
        "undone    3_c.sql (by 3_c.down.sql)",
    ]


def test_what_stays_though_it_came_later_is_said(database, pairs):
    directory = pairs(_3_c=("create table c ();", "drop table c;"))
    run_migrator(database, directory)
    pairs(_2_b=("create table b ();", "drop table b;"))
    run_migrator(database, directory)

    done = run_migrator(database, directory, "down", "--to", "2")

    assert done.stdout == "undone    3_c.sql (by 3_c.down.sql)\n"
    assert "2_b.sql stays, and was applied after some of what is undone" in done.stderr


# What is refused


def test_a_missing_down_file_is_named_before_anything_is_undone(database, pairs):
    directory = pairs(
        _1_a=("create table a ();", None),
        _2_b=("create table b ();", None),
        _3_c=("create table c ();", "drop table c;"),
    )
    run_migrator(database, directory)

    done = run_migrator(database, directory, "down", "--to", "0")

    assert (done.returncode, done.stdout) == (65, "")
    assert failure(done) == (
        "cannot undo, and nothing was undone: 2_b.sql has no 2_b.down.sql; 1_a.sql has no 1_a.down.sql; "
        "write it beside the migration"
    )
    assert fetch(database, HISTORY) == [("1",), ("2",), ("3",)]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--to", "7"), 65, "no migration of that version is applied"),
        (("--steps", "0"), 2, "must be a whole number of at least 1"),
        (("--steps", "x"), 2, "must be a whole number of at least 1"),
        (("--steps", "1", "--to", "1"), 2, "not allowed with"),
    ],
)
def test_a_way_back_that_makes_no_sense_is_refused(database, pairs, arguments, code, said):
    directory = pairs(_1_a=("create table a ();", "drop table a;"))
    run_migrator(database, directory)

    done = run_migrator(database, directory, "down", *arguments)

    assert done.returncode == code
    assert said in done.stderr
    assert fetch(database, HISTORY) == [("1",)]


def test_two_files_that_undo_one_version_are_refused(database, pairs):
    directory = pairs(_1_a=("create table a ();", "drop table a;"))
    (directory / "1_old_name.down.sql").write_text("drop table a;")
    run_migrator(database, directory)

    done = run_migrator(database, directory, "down")

    assert done.returncode == 65
    assert "both undo version 1; remove one of them" in failure(done)


def test_a_down_file_that_psql_alone_could_run_is_refused_before_anything_is_undone(database, pairs):
    directory = pairs(_1_a=("create table a ();", "\\i other.sql"), _2_b=("select 1;", "select 1;"))
    run_migrator(database, directory)

    done = run_migrator(database, directory, "down", "--steps", "2")

    assert done.returncode == 65
    assert "cannot apply 1_a.down.sql: line 1, column 1: \\i is a command of psql" in failure(done)
    assert fetch(database, HISTORY) == [("1",), ("2",)]


def test_an_empty_database_and_a_missing_file_of_the_migration_are_no_problem(database, pairs):
    directory = pairs(_1_a=("create table a ();", "drop table a;"))
    nothing = run_migrator(database, directory, "down")
    assert nothing.returncode == 0
    assert fetch(database, "select to_regnamespace('migrator')") == [(None,)]
    run_migrator(database, directory)
    (directory / "1_a.sql").unlink()

    assert run_migrator(database, directory, "down").stdout == "undone    1_a.sql (by 1_a.down.sql)\n"


# Whole or not at all


def test_a_down_file_that_fails_leaves_the_migration_applied_and_says_where_it_is_wrong(database, pairs):
    directory = pairs(
        _1_a=("create table a ();", "drop table a;"),
        _2_b=("create table b ();", "drop table b;\nselect 1/0;"),
        _3_c=("create table c ();", "drop table c;"),
    )
    run_migrator(database, directory)

    done = run_migrator(database, directory, "down", "--to", "0")

    assert (done.returncode, done.stdout) == (1, "undone    3_c.sql (by 3_c.down.sql)\n")
    assert failure(done).startswith("cannot apply 2_b.down.sql: line 2, column 1: division by zero (22012)")
    assert "rolled back: nothing of this file was applied" in failure(done)
    assert fetch(database, "select to_regclass('b')::text") == [("b",)]
    assert fetch(database, HISTORY) == [("1",), ("2",)]
    assert fetch(database, UNDONE) == [("3", "3_c.down.sql", True)]


def test_a_down_file_that_ends_its_transaction_is_not_taken_for_done(database, pairs):
    """`system_user` is reserved for the parser, and a name like others for servers before PostgreSQL 16."""
    directory = pairs(
        _1_a=("create table a ();", "drop table a;\ncreate table system_user (id int);\ncommit;\nbegin;")
    )
    run_migrator(database, directory)

    done = run_migrator(database, directory, "down")

    assert (done.returncode, done.stdout) == (1, "")
    if fetch(database, "select to_regclass('a')") == [(None,)]:
        assert "the file ended the transaction it was given" in failure(done)
        assert "undoing 1_a.sql broke off" in failure(run_migrator(database, directory))
        (directory / "1_a.down.sql").write_text("drop table if exists a;\ndrop table system_user;")
        assert run_migrator(database, directory, "down").returncode == 0
        assert fetch(database, UNDONE) == [("1", "1_a.down.sql", True)]


def test_it_runs_under_the_lease_and_says_who_has_it(database, pairs):
    directory = pairs(
        _1_a=("create table a ();", "drop table a;"), _2_b=("create table b ();", "drop table b;")
    )
    run_migrator(database, directory)
    pairs(_3_c=("select pg_sleep(60);", "select 1;"))
    with subprocess.Popen(
        [sys.executable, "-m", "migrator", "up"],
        env=clean_env(DATABASE_URL=database, MIGRATIONS_DIR=str(directory)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as running:
        wait_until(
            lambda: fetch(
                database,
                "select 1 from pg_stat_activity where query ~ 'pg_sleep' and state = 'active' and pid <> pg_backend_pid()",
            )
        )

        done = run_migrator(database, directory, "down")
        running.terminate()

    assert done.returncode == 75
    assert "cannot undo anything just now: " in failure(done)
    assert "has been migrating for" in failure(done)
    assert fetch(database, HISTORY) == [("1",), ("2",)]


def test_a_lease_that_is_taken_away_meanwhile_undoes_nothing_more(database, pairs):
    directory = pairs(
        _1_a=("create table a ();", "drop table a;"),
        _2_b=("create table b ();", "delete from migrator.migration_locks;"),
    )
    run_migrator(database, directory)

    done = run_migrator(database, directory, "down", "--to", "0")

    assert done.returncode == 75
    assert done.stdout == "undone    2_b.sql (by 2_b.down.sql)\n"
    assert fetch(database, HISTORY) == [("1",)]


def test_a_signal_in_the_middle_rolls_it_back(database, pairs):
    directory = pairs(_1_a=("create table a ();", "drop table a; select pg_sleep(60);"))
    run_migrator(database, directory)
    running = subprocess.Popen(
        [sys.executable, "-m", "migrator", "down"],
        env=clean_env(DATABASE_URL=database, MIGRATIONS_DIR=str(directory)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: fetch(database, "select 1 from pg_stat_activity where wait_event = 'PgSleep'"))

    running.send_signal(signal.SIGTERM)
    _, stderr = running.communicate(timeout=20)

    assert running.returncode == 143
    assert "stopped while running 1_a.down.sql: rolled back" in stderr
    assert fetch(database, HISTORY) == [("1",)]


def test_a_connection_that_is_lost_after_the_commit_is_read_back_the_next_time(database, pairs):
    directory = pairs(_1_a=("create table a ();", "/* here */ drop table a;"))
    run_migrator(database, directory)
    with faulty_proxy(database) as proxy:
        proxy.deafen_after(b"/* here */")
        lost = run_migrator(proxy.url, directory, "down")
    wait_until(lambda: fetch(database, HISTORY) == [], what="the server's commit")

    again = run_migrator(database, directory, "down")

    assert (lost.returncode, lost.stdout) == (69, "")
    assert "whether it was rolled back is not known" in failure(lost)
    assert again.stdout.startswith("nothing undone")
    assert fetch(database, UNDONE) == [("1", "1_a.down.sql", True)]


@pytest.mark.parametrize("moment", ["1_a.down.sql", "2_b.down.sql"])
def test_one_that_is_killed_has_undone_whole_files_only(database, pairs, moment):
    fetch(database, "create table gate (file text); select 1;")
    sleep = "drop table {}; select pg_sleep(60) from gate where file = '{}';"
    directory = pairs(
        _1_a=("create table a ();", sleep.format("a", "1_a.down.sql")),
        _2_b=("create table b ();", sleep.format("b", "2_b.down.sql")),
    )
    run_migrator(database, directory)
    fetch(database, f"insert into gate values ('{moment}'); select 1;")
    running = subprocess.Popen(
        [sys.executable, "-m", "migrator", "down", "--to", "0"],
        env=clean_env(DATABASE_URL=database, MIGRATIONS_DIR=str(directory)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: fetch(database, "select 1 from pg_stat_activity where wait_event = 'PgSleep'"))

    running.kill()
    running.wait(20)
    wait_until(lambda: not fetch(database, "select 1 from pg_stat_activity where wait_event = 'PgSleep'"))

    left = [("1",)] if moment.startswith("1") else [("1",), ("2",)]
    assert fetch(database, HISTORY) == left
    fetch(database, "delete from gate; select 1;")
    assert run_migrator(database, directory, "down", "--to", "0").returncode == 0
    assert fetch(database, "select version from migrator.migration_undone order by 1") == [("1",), ("2",)]


# Files that can't run in a transaction


def test_a_down_file_that_can_not_run_in_a_transaction_goes_on_where_it_broke_off(database, pairs):
    directory = pairs(
        _1_a=(
            "create table a (n int);\ncreate index concurrently a_n on a (n);",
            "drop index concurrently a_n;\ninsert into log values (1);\nvacuum a;\ndrop table a;",
        )
    )
    assert run_migrator(database, directory).returncode == 0

    broken = run_migrator(database, directory, "down")
    up = run_migrator(database, directory)
    repair = run_migrator(database, directory, "repair")
    fetch(database, "create table log (n int);")
    done = run_migrator(database, directory, "down")

    assert broken.returncode == 1
    assert "of 4 statements, statement 1 is done and on record" in failure(broken)
    assert up.returncode == 65
    assert "undoing 1_a.sql broke off; `migrator down` finishes that" in failure(up)
    assert "undoing it broke off" in repair.stdout
    assert "migrator down" in repair.stdout
    assert (done.returncode, done.stdout) == (0, "undone    1_a.sql (by 1_a.down.sql)\n")
    assert fetch(database, "select count(*), to_regclass('a') from log") == [(1, None)]
    assert fetch(database, HISTORY) == []
    assert fetch(database, UNDONE) == [("1", "1_a.down.sql", True)]
    assert run_migrator(database, directory).returncode == 0


@pytest.mark.parametrize(
    "before",
    [
        "set session authorization pg_monitor;",
        (
            "create function never(text, text) returns bool language sql as 'select false';"
            "create operator public.= (leftarg = text, rightarg = text, function = never);"
            "set search_path = public, pg_catalog;"
        ),
    ],
    ids=["somebody else", "operators of its own"],
)
def test_what_a_down_file_in_steps_sets_does_not_keep_it_from_being_put_on_record(database, pairs, before):
    down = f"create index concurrently i on a (id);\n{before}select 1; reset all; reset session authorization; drop table a;"
    directory = pairs(_1_a=("create table a (id int);", down))
    assert run_migrator(database, directory).returncode == 0

    done = run_migrator(database, directory, "down")

    assert done.returncode == 0, done.stderr
    assert fetch(database, HISTORY) == []


def test_an_edited_down_file_is_not_gone_on_with(database, pairs):
    down = "drop index concurrently a_n;\nselect 1/0;"
    directory = pairs(_1_a=("create table a (n int);\ncreate index concurrently a_n on a (n);", down))
    run_migrator(database, directory)
    run_migrator(database, directory, "down")
    (directory / "1_a.down.sql").write_text("drop table a;")

    done = run_migrator(database, directory, "down")

    assert done.returncode == 65
    assert "1_a.down.sql was run up to statement 1 and edited since; restore it" in failure(done)


def test_a_row_that_was_deleted_by_hand_leaves_nothing_to_go_on_with(database, pairs):
    directory = pairs(
        _1_a=(
            "create table if not exists a (n int);\ncreate index concurrently a_n on a (n);",
            "drop index concurrently a_n;\ninsert into log values (1);",
        )
    )
    run_migrator(database, directory)
    run_migrator(database, directory, "down")
    fetch(database, "create table log (n int); delete from migrator.migration_history;")
    assert run_migrator(database, directory).returncode == 0

    done = run_migrator(database, directory, "down")

    assert done.returncode == 0, done.stderr
    assert fetch(database, "select to_regclass('a_n')") == [(None,)]
    assert fetch(database, UNDONE) == [("1", "1_a.down.sql", True)]


# Where it runs


def test_a_half_done_file_can_be_undone(database, pairs):
    up = "create table a as select 1 as n from generate_series(1, 2);\ncreate unique index concurrently on a (n);"
    directory = pairs(_1_a=(up, "drop table if exists a;"))
    before = objects(database)
    assert run_migrator(database, directory).returncode == 1

    assert run_migrator(database, directory, "down").returncode == 0

    assert difference(before, objects(database)) == []
    assert fetch(database, HISTORY) == []


def test_through_a_transaction_pooler(postgres, database, pairs):
    directory = pairs(
        _1_a=("create table a ();", "drop table a;"),
        _2_b=("create index concurrently on a ((1));", "drop index concurrently if exists nothing;"),
    )
    run_migrator(database, directory)
    name = database.rpartition("/")[2]
    with running_pooler(postgres) as pooler:
        refused = run_migrator(f"{pooler}/{name}", directory, "down", "--steps", "2")
        (directory / "2_b.down.sql").write_text("select 1;")
        done = run_migrator(f"{pooler}/{name}", directory, "down", "--steps", "2")

    assert refused.returncode == 65
    assert "cannot apply 2_b.down.sql through a transaction pooler" in failure(refused)
    assert done.returncode == 0, done.stderr
    assert fetch(database, HISTORY) == []


def test_an_installation_of_an_older_version_gets_the_table_for_what_was_undone(database, pairs):
    directory = pairs(_1_a=("create table a ();", "drop table a;"))
    run_migrator(database, directory)
    fetch(database, "drop table migrator.migration_undone; select 1;")
    fetch(database, "alter default privileges in schema migrator grant all on tables to public; select 1;")

    # Somebody reads the history all the while: nothing of ours waits for that.
    with held(
        database, "lock table migrator.migration_history, migrator.migration_locks in access share mode"
    ):
        done = run_migrator(database, directory, "down")

    assert done.returncode == 0, done.stderr
    assert fetch(database, UNDONE) == [("1", "1_a.down.sql", True)]
    assert fetch(
        database,
        "select relrowsecurity, relacl::text ~ '[{,]=' from pg_class"
        " where oid = 'migrator.migration_undone'::regclass",
    ) == [(True, False)]
