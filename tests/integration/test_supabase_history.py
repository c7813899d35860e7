"""Beside the Supabase CLI, a real one: what it applied, and what it sees of ours."""

import asyncio
import json
import subprocess

import pytest

from tests.support.postgres import fetch
from tests.support.postgrest import npm_program, running_project
from tests.support.processes import clean_env, log_lines, run_migrator, run_migrator_by
from tests.support.stores import install_for_rest

A, B, C = "20250101000000_a.sql", "20250102000000_b.sql", "20250103000000_c.sql"


@pytest.fixture
def files(tmp_path):
    """A directory as the CLI has it, with two files."""
    directory = tmp_path / "supabase" / "migrations"
    directory.mkdir(parents=True)
    (directory / A).write_text("create table a (id int);")
    (directory / B).write_text("create table b (id int);")
    return directory


@pytest.fixture
def supabase(database, files):
    """Run the CLI there; what it says as JSON."""
    program = npm_program("@supabase/cli-linux-x64/bin/supabase")

    def run(*arguments: str):
        done = subprocess.run(
            [program, *arguments, "--db-url", f"{database}?sslmode=disable", "--output-format", "json"],
            env=clean_env(HOME=str(files.parent.parent), SUPABASE_TELEMETRY_DISABLED="1", DO_NOT_TRACK="1"),
            cwd=files.parent.parent,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def listed(supabase):
    """Which versions the CLI finds here, and there."""
    found = supabase("migration", "list")["migrations"]
    return [(one["local"], one["remote"]) for one in found]


def theirs(database):
    return [
        row[0]
        for row in fetch(database, "select version from supabase_migrations.schema_migrations order by 1")
    ]


def made_by_the_cli(database, *versions):
    """Its table, as it makes it."""
    fetch(
        database,
        "create schema supabase_migrations; create table supabase_migrations.schema_migrations"
        " (version text not null primary key, statements text[], name text);"
        + "".join(f"insert into supabase_migrations.schema_migrations values ('{one}');" for one in versions),
    )


def test_what_the_cli_applied_counts_as_applied(database, files, supabase):
    supabase("db", "push", "--yes")
    (files / C).write_text("create table c (id int);")

    status = run_migrator(database, files, "status")
    done = run_migrator(database, files)
    again = run_migrator(database, files)

    assert [line.split()[0] for line in status.stdout.splitlines()[:3]] == ["applied", "applied", "pending"]
    assert (done.returncode, done.stdout) == (0, "1 applied, 3 in all, nothing pending\n"), done.stderr
    assert again.stdout == "0 applied, 3 in all, nothing pending\n"
    assert fetch(database, "select filename from migrator.migration_history") == [(C,)]
    assert theirs(database) == [one.partition("_")[0] for one in (A, B)]


def test_with_sync_list_and_push_agree_with_us(database, files, supabase):
    done = run_migrator(database, files, MIGRATION_SUPABASE_HISTORY="sync")
    both = [(one.partition("_")[0],) * 2 for one in (A, B)]

    assert done.returncode == 0, done.stderr
    assert listed(supabase) == both
    pushed = supabase("db", "push", "--yes")
    assert pushed["migrations"] == []
    (files / C).write_text("create table c (id int);")
    assert len(supabase("db", "push", "--yes")["migrations"]) == 1
    assert run_migrator(database, files).stdout == "0 applied, 3 in all, nothing pending\n"


def test_what_was_applied_before_sync_was_wanted_comes_along(database, files):
    run_migrator(database, files)
    assert fetch(database, "select to_regclass('supabase_migrations.schema_migrations')") == [(None,)]

    done = run_migrator(database, files, MIGRATION_SUPABASE_HISTORY="sync")

    assert done.stdout == "0 applied, 2 in all, nothing pending\n"
    assert fetch(database, "select version, name from supabase_migrations.schema_migrations order by 1") == [
        ("20250101000000", "a"),
        ("20250102000000", "b"),
    ]


def test_with_sync_what_came_before_a_failure_is_on_both_records(database, files):
    (files / B).write_text("select 1 / 0;")

    done = run_migrator(database, files, MIGRATION_SUPABASE_HISTORY="sync")

    assert done.returncode == 1
    assert theirs(database) == ["20250101000000"]


def test_off_does_not_look_and_a_history_that_begins_beside_it_is_refused_as_beside_any_other(
    database, files
):
    made_by_the_cli(database, "20250101000000")

    refused = run_migrator(database, files, MIGRATION_SUPABASE_HISTORY="off")
    run_migrator(database, files, "install")
    done = run_migrator(database, files, MIGRATION_SUPABASE_HISTORY="off")

    assert refused.returncode == 65
    assert "this database was migrated by Supabase CLI" in refused.stderr
    assert done.stdout == "2 applied, 2 in all, nothing pending\n"


def test_if_the_cli_has_applied_all_nothing_of_ours_is_made(database, files):
    made_by_the_cli(database, "20250101000000", "20250102000000")

    done = run_migrator(database, files)

    assert (done.returncode, done.stdout) == (0, "0 applied, 2 in all, nothing pending\n")
    assert fetch(database, "select to_regnamespace('migrator')") == [(None,)]


@pytest.mark.parametrize("setting", ["read", "sync"])
def test_a_history_that_we_may_not_use_is_told_before_anything_is_applied(postgres, database, files, setting):
    made_by_the_cli(database)
    fetch(postgres.url, "create role deployer login; select 1")
    fetch(
        database,
        f"grant create on database {database.rsplit('/', 1)[1]} to deployer; grant all on schema public to deployer; select 1",
    )
    if setting == "sync":
        fetch(
            database,
            "grant usage on schema supabase_migrations to deployer;"
            "grant select on supabase_migrations.schema_migrations to deployer",
        )
    try:
        done = run_migrator(
            database.replace("postgres@", "deployer@"), files, MIGRATION_SUPABASE_HISTORY=setting
        )
        (line,) = [line for line in log_lines(done.stderr) if line["event"] == "migration.failed"]
        made = fetch(database, "select to_regclass('a')")
    finally:
        fetch(database, "drop owned by deployer; select 1")
        fetch(postgres.url, "drop role deployer; select 1")

    assert done.returncode == 78
    assert "MIGRATION_SUPABASE_HISTORY=off" in line["reason"]
    assert made == [(None,)]


def test_over_the_rest_api_it_is_the_same(postgres, database, files):
    made_by_the_cli(database, "20250101000000")
    with running_project(postgres, database) as project:
        asyncio.run(install_for_rest(database))
        done = run_migrator_by(project.env(), files, MIGRATION_SUPABASE_HISTORY="sync")

    assert (done.returncode, done.stdout) == (0, "1 applied, 2 in all, nothing pending\n"), done.stderr
    assert theirs(database) == ["20250101000000", "20250102000000"]
