"""PostgreSQL 12 knows less than later ones: what we send must be understood there as well."""

import uuid

import pytest

from tests.support.oldest import oldest_server
from tests.support.postgres import fetch
from tests.support.processes import run_migrator


@pytest.fixture(scope="module")
def oldest():
    with oldest_server() as server:
        yield server


@pytest.fixture
def database(oldest):
    # Not by new_database: this one can't drop a database `with (force)`, and ends with all of them.
    name = f"test_{uuid.uuid4().hex[:12]}"
    fetch(oldest.url, f"create database {name}")
    return oldest.database_url(name)


KINDS = {
    "a table": ("create table a (id int);", "drop table a;"),
    # Something that might end its transaction.
    "code": ("do $$ begin create table a (); end $$;", "do $$ begin drop table a; end $$;"),
    "an index": (
        "create table a (id int); create index concurrently on a (id);",
        "drop index concurrently a_id_idx; drop table a;",
    ),
    "data": ("create table a (id int);\ncopy a from stdin;\n1\n\\.\n", "drop table a;"),
    "data and what runs alone": (
        "create table a (id int);\ncopy a from stdin;\n1\n\\.\nvacuum a;",
        "drop table a;",
    ),
    "a role": ("-- migrator: role=postgres\ncreate table a ();", "-- migrator: role=postgres\ndrop table a;"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_file_is_applied_put_on_record_and_undone(database, migrations, kind):
    up, down = KINDS[kind]
    directory = migrations(
        **{"_1_a": up, "_1_a.down": down, "_2_b": "create table b ();", "_2_b.down": "drop table b;"}
    )

    first = run_migrator(database, directory)
    second = run_migrator(database, directory)
    verified = run_migrator(database, directory, "verify")
    undone = run_migrator(database, directory, "down", "--steps", "2")
    tables = "select tablename::text from pg_tables where schemaname = 'public'"

    assert first.stdout == "2 applied, 2 in all, nothing pending\n", first.stderr
    assert second.stdout == "0 applied, 2 in all, nothing pending\n", second.stderr
    assert verified.returncode == 0, verified.stderr
    assert undone.returncode == 0, undone.stderr
    assert fetch(database, tables) == []


def test_limits_of_the_database_do_not_cut_a_migration_short(database, migrations):
    name = database.rsplit("/", 1)[1]
    fetch(database, f"alter database {name} set statement_timeout = '1ms'; select 1")

    done = run_migrator(database, migrations(_1_a="select pg_sleep(0.05);"))

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", ["plan", "status", "up --dry-run", "lint", "unlock", "install", "up"])
def test_every_question_is_understood(database, migrations, command):
    directory = migrations(
        _1_a="create table a (id int primary key); alter table a add column b text not null default '';"
    )

    done = run_migrator(database, directory, *command.split())

    assert done.returncode == 0, done.stderr
