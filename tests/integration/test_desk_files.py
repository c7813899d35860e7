"""New files, and our tables for those who want to see them first."""

import json
import os
import re
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conftest import needs
from tests.integration.test_desk_history import told
from tests.support.postgres import fetch
from tests.support.processes import REPO, clean_env, log_lines, run_migrator


def new(directory, *arguments, **env):
    return subprocess.run(
        [sys.executable, "-m", "migrator", "new", *arguments],
        env=clean_env(PYTHONPATH=str(REPO), **env),
        capture_output=True,
        text=True,
        cwd=directory,
    )


def test_a_new_file_needs_neither_database_nor_directory(tmp_path):
    done = new(tmp_path, "Create users")

    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"migrations/\d{14}_create_users\.sql\n", done.stdout)
    assert (tmp_path / done.stdout.strip()).read_text().startswith("-- create users")


def test_a_down_file_has_the_same_version_and_is_never_applied(tmp_path, database):
    done = json.loads(new(tmp_path, "a", "--down", "--json").stdout)

    up, down = done["files"]
    assert up == f"migrations/{done['version']}_a.sql"
    assert down == f"migrations/{done['version']}_a.down.sql"
    (tmp_path / down).write_text("select 1/0;")
    assert run_migrator(database, tmp_path / "migrations").stdout == "1 applied, 1 in all, nothing pending\n"


def test_many_at_once_get_a_version_each(tmp_path):
    (tmp_path / "migrations").mkdir()
    with ThreadPoolExecutor(12) as pool:
        done = list(pool.map(lambda number: new(tmp_path, f"file {number}"), range(12)))

    assert [one.returncode for one in done] == [0] * 12
    assert len({name.partition("_")[0] for name in os.listdir(tmp_path / "migrations")}) == 12


def test_the_first_of_several_directories_gets_it_and_all_are_looked_at(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b" / "production").mkdir(parents=True)
    (tmp_path / "b" / "production" / "20990101000000_x.sql").touch()
    done = new(tmp_path, "y", MIGRATIONS_DIR="a:b", APP_ENV="production")

    assert done.stdout == "a/20990101000001_y.sql\n"


def test_a_file_that_would_not_come_last_is_told(tmp_path):
    (tmp_path / "migrations").mkdir()
    (tmp_path / "migrations" / "3_x.sql").touch()
    done = new(tmp_path, "y")

    assert done.returncode == 0
    assert "comes before version 3, as versions are compared as text" in log_lines(done.stderr)[-1]["reason"]


def test_a_name_that_makes_no_file_name_is_2(tmp_path):
    done = new(tmp_path, "!!")

    assert done.returncode == 2
    assert "'!!' has neither letters nor digits" in done.stderr
    assert os.listdir(tmp_path) == []


def test_a_directory_that_somebody_named_is_not_made_up(tmp_path):
    done = new(tmp_path, "a", MIGRATIONS_DIR="migratoins")

    assert done.returncode == 78
    assert "cannot make a file in 'migratoins'" in log_lines(done.stderr)[-1]["reason"]


def test_our_tables_are_created_once(database, migrations):
    directory = migrations(_1_a="select 1;")
    first = run_migrator(database, directory, "install")
    second = run_migrator(database, directory, "install", "--json")

    assert first.stdout.startswith("created our tables, in schema migrator on ")
    assert json.loads(second.stdout)["created"] is False
    assert fetch(database, "select count(*) from migrator.migration_history") == [(0,)]


@pytest.mark.parametrize("dropped", ["locks", "history", "undone", "locks, migrator.migration_history"])
def test_a_table_of_ours_that_somebody_dropped_comes_back_by_what_the_messages_name(
    database, migrations, dropped
):
    directory = migrations(_1_a="select 1;")
    run_migrator(database, directory)
    (token,) = fetch(database, "select max(token) from migrator.migration_history")[0]
    fetch(database, f"drop table migrator.migration_{dropped}; select 1")
    migrations(_2_b="select 1;")

    refused = run_migrator(database, directory)
    if refused.returncode:
        assert refused.returncode == 78
        assert told(refused).endswith("; `migrator install` creates what is missing of our tables")
        assert run_migrator(database, directory, "install").returncode == 0
    done = run_migrator(database, directory)

    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(", 2 in all, nothing pending\n")
    assert fetch(
        database, "select min(token) > $1 from migrator.migration_history where version = '2'", token
    ) == [(True,)]
    unsafe = "select 1 from pg_class where relnamespace = 'migrator'::regnamespace and relkind = 'r'"
    assert fetch(database, f"{unsafe} and not relrowsecurity") == []


def test_who_may_not_look_at_the_lock_is_told_so_as_a_matter_of_settings(database, migrations):
    directory = migrations(_1_a="select 1;")
    run_migrator(database, directory)
    role = f"stranger_{uuid.uuid4().hex[:8]}"
    fetch(database, f"create role {role} login; select 1")
    try:
        done = run_migrator(database.replace("postgres@", f"{role}@"), directory, "unlock")
    finally:
        fetch(database, f"drop role {role}; select 1")

    assert done.returncode == 78
    assert told(done).endswith("permission denied for schema migrator (42501); give the role the right to")


@pytest.mark.parametrize("schema", ["migrator", "other"])
def test_the_printed_sql_is_what_psql_can_run(database, migrations, schema):
    printed = run_migrator("", migrations(_1_a="select 1;"), "install", "--print", MIGRATION_SCHEMA=schema)
    assert printed.returncode == 0, printed.stderr
    psql = [needs("psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", database]
    subprocess.run(psql, input=printed.stdout, text=True, check=True)

    done = run_migrator(database, migrations(), "install", MIGRATION_SCHEMA=schema)

    assert done.stdout.startswith("our tables are there, in schema ")


@pytest.mark.parametrize("command", ["new", "wait", "repair", "unlock", "baseline", "adopt", "install"])
def test_help_fits_a_screen_and_has_an_example_and_exit_codes(command):
    done = subprocess.run(
        [sys.executable, "-m", "migrator", command, "--help"],
        capture_output=True,
        text=True,
        env=clean_env(COLUMNS="100"),
    )

    assert done.returncode == 0
    assert f"example:    migrator {command}" in done.stdout
    assert "exit codes: 0 " in done.stdout
    assert "--json" in done.stdout
    assert len(done.stdout.splitlines()) <= 40
    assert max(map(len, done.stdout.splitlines())) <= 100
