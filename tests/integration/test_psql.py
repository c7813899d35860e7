"""What we make of a file is what psql makes of it."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import needs
from tests.support.postgres import fetch, new_database
from tests.support.processes import run_migrator

CORPUS = Path(__file__).parents[1] / "support" / "corpus"
OURS = "migrator"


@pytest.fixture
def by_psql(postgres):
    """The URL of a second database, for psql."""
    with new_database(postgres) as url:
        yield url


@pytest.fixture
def no_roles_left(postgres):
    """Roles belong to the whole server; goes before the databases, so that it ends after them."""
    listed = "select rolname from pg_roles where rolname in ('anon', 'authenticated', 'service_role')"
    before = fetch(postgres.url, listed)
    yield
    for (role,) in set(fetch(postgres.url, listed)) - set(before):
        fetch(postgres.url, f"drop role {role}")


def psql(url, path):
    done = subprocess.run(
        [needs("psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", url, "-f", str(path)],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "PGCLIENTENCODING": "UTF8"},
    )
    assert done.returncode == 0, done.stderr


def readable_by_psql(path, directory):
    """psql before version 18 doesn't know \\restrict, and takes a byte order mark only in UTF-8 mode."""
    text = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    text = re.sub(rb"(?m)^\\(un)?restrict .*$", b"", text)
    copy = directory / "one.sql"
    copy.write_bytes(text)
    return copy


def schema_of(url):
    """The whole schema as text, without our own and without what differs by name or chance."""
    dumped = subprocess.run(
        [needs("pg_dump"), "--schema-only", f"--exclude-schema={OURS}", "-d", url],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [line for line in dumped.splitlines() if not re.match(r"\\(un)?restrict ", line)]


def rows_of(url):
    """Every table's rows."""
    tables = fetch(
        url,
        "select format('%I.%I', schemaname, tablename) from pg_tables"
        " where schemaname not in ('pg_catalog', 'information_schema', $1) order by 1",
        OURS,
    )
    return {
        name: sorted(fetch(url, f"select to_jsonb(t) - 'updated_at' from {name} t")) for (name,) in tables
    }


def sequences_of(url):
    return fetch(
        url,
        "select schemaname, sequencename, last_value from pg_sequences where schemaname <> $1 order by 1, 2",
        OURS,
    )


def test_a_corpus_in_the_manner_of_public_projects_gives_what_psql_gives(
    no_roles_left, database, by_psql, tmp_path
):
    files = sorted(CORPUS.glob("*.sql"), key=lambda path: path.name.partition("_")[0])
    assert len(files) >= 25

    done = run_migrator(database, CORPUS)
    for path in files:
        psql(by_psql, readable_by_psql(path, tmp_path))

    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{len(files)} applied, {len(files)} in all, nothing pending\n"
    assert schema_of(database) == schema_of(by_psql)
    assert rows_of(database) == rows_of(by_psql)
    assert sequences_of(database) == sequences_of(by_psql)
    assert fetch(database, "select count(*) from pg_index where not indisvalid") == [(0,)]


def test_what_pg_dump_writes_can_be_a_migration(postgres, database, by_psql, tmp_path):
    psql_only = tmp_path / "schema.sql"
    psql_only.write_text(
        "create type mood as enum ('sad', 'it''s ok');\n"
        "create table people (id serial primary key, name text not null, mood mood, note text);\n"
        "insert into people (name, mood, note) values ('Ann', 'sad', E'a\\\\b\\nc'), ('Böb', null, ';--');\n"
        "create function f() returns trigger language plpgsql as $$ begin return new; end $$;\n"
        "create trigger t before insert on people for each row execute function f();\n"
        "create view sad as select * from people where mood = 'sad';\n"
    )
    psql(by_psql, psql_only)
    directory = tmp_path / "migrations"
    directory.mkdir()
    with (directory / "1_baseline.sql").open("w") as baseline:
        subprocess.run([needs("pg_dump"), "--inserts", "-d", by_psql], stdout=baseline, check=True)
    shutil.copy(directory / "1_baseline.sql", tmp_path)
    (directory / "2_more.sql").write_text("insert into people (name) values ('Cid');")
    psql_only.write_text("insert into people (name) values ('Cid');")
    psql(by_psql, psql_only)

    done = run_migrator(database, directory)

    assert done.returncode == 0, done.stderr
    assert schema_of(database) == schema_of(by_psql)
    assert rows_of(database) == rows_of(by_psql)
    assert sequences_of(database) == sequences_of(by_psql)
