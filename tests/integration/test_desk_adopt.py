"""Databases that the real tools of others have migrated go on with ours, and nothing is applied twice."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.test_desk_history import commands, told
from tests.support import othertools
from tests.support.postgres import fetch
from tests.support.processes import log_lines, run_migrator

FIRST = "create table applied (name text);\ninsert into applied values ('first');\n"
SECOND = "insert into applied values ('second');\n"
THIRD = "insert into applied values ('third');\n"


@dataclass(frozen=True)
class Case:
    """One tool: how its files are called and written, and how they are called here."""

    tool: str
    apply: Callable[[str, Path, Path], None]
    table: str
    theirs: tuple[str, str]
    ours: tuple[str, str]
    third: str
    written: Callable[[str], str] = lambda text: text
    directory: str = "theirs"


def javascript(text):
    return f"exports.up = (knex) => knex.raw({json.dumps(text)});\nexports.down = () => {{}};\n"


STAMPED = ("20240101120000_first.sql", "20240102120000_second.sql")


def scripts(url, directory, _):
    """As a script does that its owner has written: each file, and a row with its name."""
    fetch(
        url,
        "create table migration_history (id serial primary key, filename text unique, checksum text,"
        " executed_at timestamptz default now(), success boolean); select 1",
    )
    for path in sorted(directory.glob("*.sql")):
        fetch(url, f"{path.read_text()} select 1")
        fetch(
            url,
            f"insert into migration_history (filename, checksum, success) values ('{path.name}', 'x', true); select 1",
        )
    fetch(
        url,
        "insert into migration_history (filename, success) values ('20240103120000_third.sql', false); select 1",
    )


CASES = [
    Case(
        tool="scripts of your own",
        apply=scripts,
        table="public.migration_history",
        theirs=STAMPED,
        ours=STAMPED,
        third="20240103120000_third.sql",
    ),
    Case(
        tool="dbmate",
        apply=othertools.dbmate,
        table="public.schema_migrations",
        theirs=STAMPED,
        ours=STAMPED,
        third="20240103120000_third.sql",
        written=lambda text: f"-- migrate:up\n{text}\n-- migrate:down\ndelete from applied;\n",
    ),
    Case(
        tool="node-pg-migrate",
        apply=othertools.node_pg_migrate,
        table="public.pgmigrations",
        theirs=("1704106800000_first-one.sql", "1704193200000_second.sql"),
        ours=("1704106800000_first-one.sql", "1704193200000_second.sql"),
        third="1704279600000_third.sql",
        written=lambda text: f"-- Up Migration\n{text}\n-- Down Migration\ndelete from applied;\n",
    ),
    Case(
        tool="Knex",
        apply=othertools.knex,
        table="public.knex_migrations",
        theirs=("20240101120000_first.js", "20240102120000_second.js"),
        ours=STAMPED,
        third="20240103120000_third.sql",
        written=javascript,
    ),
    Case(
        tool="Prisma",
        apply=othertools.prisma_deploy,
        table="public._prisma_migrations",
        theirs=("20240101120000_first/migration.sql", "20240102120000_second/migration.sql"),
        ours=STAMPED,
        third="20240103120000_third.sql",
    ),
    Case(
        tool="Drizzle",
        apply=othertools.drizzle,
        table="drizzle.__drizzle_migrations",
        theirs=("0000_first.sql", "0001_second.sql"),
        ours=("0000_first.sql", "0001_second.sql"),
        third="0002_third.sql",
    ),
    Case(
        tool="Drizzle",  # with files that were renamed, and without the journal: by their content
        apply=othertools.drizzle,
        table="drizzle.__drizzle_migrations",
        theirs=("0000_first.sql", "0001_second.sql"),
        ours=("20240101120000_one.sql", "20240102120000_two.sql"),
        third="20240103120000_third.sql",
    ),
    Case(
        tool="Supabase CLI",
        apply=othertools.supabase,
        table="supabase_migrations.schema_migrations",
        theirs=STAMPED,
        ours=STAMPED,
        third="20240103120000_third.sql",
        directory="project/supabase/migrations",
    ),
]


def write(directory, files):
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture(params=CASES, ids=lambda case: f"{case.tool} {case.ours[0]}")
def migrated(request, database, tmp_path):
    """A database that a tool has migrated, the case, and a directory with the same files in our way."""
    case = request.param
    theirs = tmp_path / case.directory
    write(theirs, dict(zip(case.theirs, map(case.written, (FIRST, SECOND)), strict=True)))
    case.apply(database, theirs, tmp_path)
    ours = tmp_path / "ours"
    write(ours, dict(zip(case.ours, (FIRST, SECOND), strict=True)))
    if (theirs / "meta").exists() and case.theirs == case.ours:
        shutil.copytree(theirs / "meta", ours / "meta")
    return database, case, ours


def applied(url):
    return sorted(name for (name,) in fetch(url, "select name from applied"))


def test_our_own_table_in_another_schema_is_nobodys_script(database, migrations):
    first = run_migrator(database, migrations(_1_a="create table a (id int);"), MIGRATION_SCHEMA="public")
    assert first.returncode == 0, first.stderr
    (migrations() / "1_a.sql").unlink()

    second = run_migrator(database, migrations(_1_b="create table b (id int);"))

    assert second.returncode == 0, second.stderr


@pytest.mark.parametrize("schema", ["migrator", "public"])
def test_tables_of_another_tool_are_seen_in_whatever_schema_ours_are(database, migrations, schema):
    fetch(database, "create table schema_migrations (version varchar(128) primary key); select 1")
    fetch(database, "insert into schema_migrations values ('1')")

    done = run_migrator(database, migrations(_1_a="create table a ();"), MIGRATION_SCHEMA=schema)

    assert done.returncode == 65
    assert "this database was migrated by dbmate (table public.schema_migrations)" in told(done)


def test_a_database_of_another_tool_goes_on_with_ours_by_what_the_messages_name(migrated):
    url, case, ours = migrated
    theirs = fetch(url, f"select t::text from {case.table} as t")

    # What the Supabase CLI has applied counts as applied, unless that is switched off.
    refused = run_migrator(url, ours, MIGRATION_SUPABASE_HISTORY="off")
    assert refused.returncode == 65
    assert f"this database was migrated by {case.tool} (table {case.table})" in told(refused)
    shown = run_migrator(url, ours, *commands(told(refused))[0])
    assert shown.returncode == 0, shown.stderr
    assert "edited" not in shown.stdout
    assert fetch(url, "select to_regnamespace('migrator')") == [(None,)]  # shown only
    recorded = run_migrator(url, ours, *commands(shown.stdout)[-1])
    assert recorded.returncode == 0, recorded.stderr
    write(ours, {case.third: THIRD})
    done = run_migrator(url, ours)

    assert done.returncode == 0, done.stderr
    assert done.stdout == "1 applied, 3 in all, nothing pending\n"
    assert [line for line in log_lines(done.stderr) if line["level"] == "warning"] == []
    assert applied(url) == ["first", "second", "third"]
    assert fetch(url, f"select t::text from {case.table} as t") == theirs
    assert run_migrator(url, ours, "repair").returncode == 0


def test_what_is_adopted_once_is_not_adopted_twice(migrated):
    url, _, ours = migrated
    first = json.loads(run_migrator(url, ours, "adopt", "--yes", "--json").stdout)
    second = run_migrator(url, ours, "adopt", "--yes")

    assert (len(first["record"]), first["recorded"]) == (2, True)
    assert second.stdout.endswith("nothing to record, 2 were on record before; nothing pending\n")


def test_what_that_tool_applies_after_it_was_adopted_is_not_applied_twice(database, migrations):
    """As `dbmate up` records it."""
    directory = migrations(
        _20240101000000_a="create table a (id int);", _20240102000000_b="insert into a values (1);"
    )
    fetch(database, "create table schema_migrations (version varchar primary key)")
    fetch(database, "create table a (id int)")
    fetch(database, "insert into schema_migrations values ('20240101000000')")
    assert run_migrator(database, directory, "adopt", "--yes").returncode == 0
    fetch(database, "insert into a values (1)")
    fetch(database, "insert into schema_migrations values ('20240102000000')")

    refused = run_migrator(database, directory)
    (way,) = commands(told(refused))
    adopted = run_migrator(database, directory, *way)
    done = run_migrator(database, directory)

    assert refused.returncode == 65
    assert "has applied 20240102000000_b.sql since its history was adopted" in told(refused)
    assert adopted.returncode == 0
    assert done.stdout == "0 applied, 2 in all, nothing pending\n"
    assert fetch(database, "select count(*) from a") == [(1,)]


# A file of Drizzle's that was renamed has nothing but its content.
@pytest.mark.parametrize(
    "migrated",
    [case for case in CASES if "_one.sql" not in case.ours[0]],
    indirect=True,
    ids=lambda case: case.tool,
)
def test_a_migration_of_theirs_without_a_file_here_is_never_applied_later(migrated):
    url, case, ours = migrated
    text = (ours / case.ours[1]).read_text()
    (ours / case.ours[1]).unlink()
    shown = run_migrator(url, ours, "adopt", "--yes")
    quiet = run_migrator(url, ours)
    write(ours, {case.ours[1]: text})
    done = run_migrator(url, ours)

    assert ": no file here; on record so that none of that version is ever applied\n" in shown.stdout
    assert [line for line in log_lines(quiet.stderr) if line["level"] == "warning"] == []
    assert done.stdout == "0 applied, 2 in all, nothing pending\n"
    assert applied(url) == ["first", "second"]


def test_a_file_that_still_holds_their_way_back_is_not_applied(database, migrations):
    directory = migrations(_1_a="-- migrate:up\ncreate table a ();\n-- migrate:down\ndrop table a;\n")

    done = run_migrator(database, directory)

    assert done.returncode == 65
    assert "cannot apply 1_a.sql: from line 3 on ('-- migrate:down') it holds what undoes it" in told(done)
    assert told(done).endswith("move that into 1_a.down.sql")


def test_a_migration_that_failed_with_prisma_is_settled_there_first(database, tmp_path):
    theirs = tmp_path / "theirs"
    write(
        theirs,
        {"20240101120000_first/migration.sql": FIRST, "20240102120000_second/migration.sql": "select 1/0;"},
    )
    failed = othertools.prisma(database, "migrate", "deploy", directory=theirs, home=tmp_path)
    assert failed.returncode != 0
    ours = tmp_path / "ours"
    write(ours, {STAMPED[0]: FIRST, STAMPED[1]: SECOND})

    refused = run_migrator(database, ours, "adopt", "--yes")
    settled = othertools.prisma(
        database,
        "migrate",
        "resolve",
        "--rolled-back",
        "20240102120000_second",
        directory=theirs,
        home=tmp_path,
    )
    assert settled.returncode == 0, settled.stderr
    done = run_migrator(database, ours, "adopt", "--yes")

    assert refused.returncode == 65
    assert "20240102120000_second failed there; settle it with `prisma migrate resolve" in told(refused)
    assert "ignored   20240102120000_second: not applied there\n" in done.stdout
    assert run_migrator(database, ours).stdout == "1 applied, 2 in all, nothing pending\n"
    assert applied(database) == ["first", "second"]
