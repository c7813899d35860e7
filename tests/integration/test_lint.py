"""`migrator lint`, and the look before anything is applied."""

import json
import subprocess
import sys

import pytest

from tests.support.pooler import running_pooler
from tests.support.postgres import Blocker, fetch, free_port, private_server
from tests.support.processes import clean_env, log_lines, run_migrator
from tests.unit.test_reference import REFERENCE

LARGE = """
create table orders (id bigint primary key, note text, total int not null, shop_id int);
insert into orders select n, repeat('x', 80), n, 1 from generate_series(1, 30000) n;
create table shops (id int primary key);
insert into shops values (1);
analyze;
"""
WHOLE = "update orders set note = 'y';\n"
REWRITE = "alter table orders alter column total type bigint;\n"


@pytest.fixture(scope="module")
def postgres():
    """One of our own: roles belong to a whole server, tests of Supabase leave some, and rules look for them."""
    with private_server() as server:
        yield server


@pytest.fixture
def filled(database):
    fetch(database, LARGE)
    return database


def lint(*arguments, cwd=None, **env):
    return subprocess.run(
        [sys.executable, "-m", "migrator", "lint", *map(str, arguments)],
        env=clean_env(**env),
        capture_output=True,
        text=True,
        timeout=60,
        cwd=cwd,
    )


def found(done):
    return [line for line in log_lines(done.stderr) if line["event"] == "hazard.found"]


def notes(url):
    return fetch(url, "select distinct left(note, 1) from orders")


# Before anything is applied


def test_a_whole_update_and_a_rewrite_of_a_large_table_are_named_and_applied_by_default(filled, migrations):
    done = run_migrator(filled, migrations(_1_a=f"-- why\n{WHOLE}", _2_b=REWRITE))

    assert done.returncode == 0
    whole, rewrite = found(done)
    assert (whole["level"], whole["rule"], whole["filename"], whole["line"]) == (
        "warning",
        "update-whole-table",
        "1_a.sql",
        2,
    )
    assert "30,000 rows" in whole["reason"]
    assert "LIMIT 1000" in whole["safe"]
    assert whole["page"] == "docs/reference/hazards.md#update-whole-table"
    assert rewrite["rule"] == "change-column-type"
    assert notes(filled) == [("y",)]


@pytest.mark.parametrize("text", [WHOLE, REWRITE])
def test_refuse_changes_nothing_and_says_what_to_do(filled, migrations, text):
    directory = migrations(_1_a="create table other (id int);", _2_b=text)

    done = run_migrator(filled, directory, MIGRATION_HAZARDS="refuse")

    assert done.returncode == 65
    reason = log_lines(done.stderr)[-1]["reason"]
    assert reason.startswith("cannot apply what is pending without harm to the running app")
    assert "2_b.sql, line 1: " in reason
    assert "-- migrator: allow=" in reason
    assert notes(filled) == [("x",)]
    assert fetch(filled, "select to_regclass('other')") == [(None,)]


def test_refuse_lets_harmless_files_pass(filled, migrations):
    directory = migrations(
        _1_a="create table other (id int); create index on other (id); update other set id = 1;",
        _2_b="alter table orders add column extra text; alter table shops alter id type bigint;",
    )

    assert run_migrator(filled, directory, MIGRATION_HAZARDS="refuse").returncode == 0


def test_off_does_not_look(filled, migrations):
    done = run_migrator(filled, migrations(_1_a=WHOLE), MIGRATION_HAZARDS="off")

    assert done.returncode == 0
    assert found(done) == []


def test_what_a_file_allows_with_a_reason_is_not_refused(filled, migrations):
    allowed = "-- migrator: allow=update-whole-table because nobody writes at night\n"

    done = run_migrator(filled, migrations(_1_a=allowed + WHOLE), MIGRATION_HAZARDS="refuse")

    assert done.returncode == 0
    assert notes(filled) == [("y",)]


def test_what_a_file_allows_without_a_reason_keeps_it_from_running(filled, migrations):
    done = run_migrator(filled, migrations(_1_a=f"-- migrator: allow=update-whole-table\n{WHOLE}"))

    assert done.returncode == 65
    assert "write: allow=update-whole-table because ..." in log_lines(done.stderr)[-1]["reason"]
    assert notes(filled) == [("x",)]


def test_only_so_many_hazards_are_told_one_by_one(filled, migrations):
    done = run_migrator(filled, migrations(_1_a=WHOLE * 30))

    assert done.returncode == 0
    assert len(found(done)) == 20
    (more,) = [line for line in log_lines(done.stderr) if line["event"] == "hazard.unshown"]
    assert "and 10 more" in more["reason"]


def test_a_table_that_somebody_holds_is_not_waited_for(filled, migrations):
    blocker = Blocker(filled, "begin; lock table shops in access exclusive mode")
    try:
        done = lint(
            "--json",
            DATABASE_URL=filled,
            MIGRATIONS_DIR=str(
                migrations(
                    _1_a="alter table shops alter id type bigint; update orders set note = ''; select from shops;"
                )
            ),
        )
    finally:
        blocker.close()

    assert {one["rule"] for one in json.loads(done.stdout)["findings"]} == {"update-whole-table"}


def test_it_works_through_a_transaction_pooler(postgres, filled, migrations):
    with running_pooler(postgres) as url:
        pooled = f"{url}/{filled.rsplit('/', 1)[1]}?pgbouncer=true"
        done = run_migrator(pooled, migrations(_1_a=WHOLE), MIGRATION_HAZARDS="refuse")

    assert done.returncode == 65
    assert "30,000 rows" in log_lines(done.stderr)[-1]["reason"]
    assert notes(filled) == [("x",)]


def test_files_that_only_make_new_things_are_not_asked_about(database, migrations):
    """No query: the rules aren't even loaded."""
    directory = migrations(
        _1_a="create table t (id int primary key, note text default 'a;b');",
        _2_b="alter table t add column email text not null default ''; create index t_email on t (email);",
        _3_c="insert into t (id) values (1); comment on table t is 'it; drop';",
    )
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "migrator", "up"],
        env=clean_env(DATABASE_URL=database, MIGRATIONS_DIR=str(directory)),
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0
    assert "migrator.hazards.quick" in done.stderr
    assert "migrator.hazards.warn" not in done.stderr


# The command


def test_with_a_database_only_what_is_pending_is_looked_at(filled, migrations):
    directory = migrations(_1_a=WHOLE)
    assert run_migrator(filled, directory).returncode == 0
    migrations(_2_b=REWRITE)

    done = lint("--json", DATABASE_URL=filled, MIGRATIONS_DIR=str(directory))

    assert done.returncode == 65
    told = json.loads(done.stdout)
    assert (told["database"], told["files"], told["hazards"]) == (True, 1, 1)
    (one,) = told["findings"]
    assert (one["rule"], one["line"], one["column"], one["certain"]) == ("change-column-type", 1, 1, True)
    assert notes(filled) == [("y",)]


def test_without_a_database_all_files_are_told_with_a_may(migrations):
    directory = migrations(_1_a=WHOLE, _2_b="create table t (id int);\ncreate index on t (id);")

    done = lint(MIGRATIONS_DIR=str(directory))

    assert done.returncode == 65
    assert f"{directory}/1_a.sql:1:1: blocking: update-whole-table\n" in done.stdout
    assert "Unless the table is new or small" in done.stdout.replace("\n  ", " ")
    assert done.stdout.endswith("2 files, by the files alone: 1 hazard\n")


def test_nothing_found_is_0(migrations):
    done = lint(MIGRATIONS_DIR=str(migrations(_1_a="create table t (id int);")))

    assert (done.returncode, done.stdout) == (0, "1 file, by the files alone: 0 hazards\n")


def test_a_database_that_does_not_answer_is_done_without(migrations):
    directory = migrations(_1_a=WHOLE)

    done = lint(
        DATABASE_URL=f"postgresql://bob:s3cret@127.0.0.1:{free_port()}/d", MIGRATIONS_DIR=str(directory)
    )

    assert done.returncode == 65
    assert "by the files alone" in done.stdout
    assert "nobody answers there" in log_lines(done.stderr)[0]["reason"]
    assert "s3cret" not in done.stderr


def test_named_files_are_looked_at_with_the_catalogs_or_offline(filled, migrations):
    directory = migrations(_1_a="alter table shops alter id type bigint;")

    known = lint(directory / "1_a.sql", DATABASE_URL=filled)
    offline = lint(directory / "1_a.sql", "--offline", DATABASE_URL=filled)

    assert (known.returncode, offline.returncode) == (0, 65)


def test_notices_are_shown_where_somebody_asks_for_all(filled, migrations):
    directory = migrations(_1_a="alter table orders add foreign key (shop_id) references shops not valid;")

    assert lint(DATABASE_URL=filled, MIGRATIONS_DIR=str(directory)).returncode == 0
    done = lint("--all", DATABASE_URL=filled, MIGRATIONS_DIR=str(directory))
    assert done.returncode == 0
    assert "notice: foreign-key-without-index" in done.stdout


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("-- migrator: allow=nonsense because x\nselect 1;", "there is no such rule"),
        ("-- migrator: allow=drop-table\ndrop table t;", "doesn't say why"),
    ],
)
def test_headers_that_are_wrong_are_65(migrations, text, reason):
    done = lint(MIGRATIONS_DIR=str(migrations(_1_a=text)))

    assert done.returncode == 65
    assert reason in log_lines(done.stderr)[-1]["reason"]


def test_a_file_that_is_not_there_is_one_clear_message(tmp_path):
    done = lint(tmp_path / "1_none.sql", cwd=tmp_path)

    assert done.returncode == 65
    assert "cannot read 1_none.sql: No such file or directory" in log_lines(done.stderr)[-1]["reason"]


def test_sarif_holds_what_code_scanning_asks_for(migrations):
    directory = migrations(_1_a=f"-- é\n{WHOLE}", _2_b=REWRITE)

    done = lint("--sarif", MIGRATIONS_DIR="migrations", cwd=directory.parent)

    log = json.loads(done.stdout)
    assert done.returncode == 65
    assert log["version"] == "2.1.0"
    (run,) = log["runs"]
    rules = run["tool"]["driver"]["rules"]
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        (location,) = result["locations"]
        assert location["physicalLocation"]["artifactLocation"]["uri"].startswith("migrations/")
        assert result["message"]["text"]
    assert [one["locations"][0]["physicalLocation"]["region"]["startLine"] for one in run["results"]] == [
        2,
        1,
    ]
    assert all(rule["shortDescription"]["text"] and rule["help"]["text"] for rule in rules)


# Copy data, large files, psql's lines, syntax of tomorrow


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("copy shops from stdin;\n7;\n;update orders set note = 'z';\n\\.\n" + WHOLE, 5),
        ("\\restrict abc\n" + WHOLE + "\\unrestrict abc\n", 2),
        ("/* " + "x\n" * 600_000 + "*/\n" + WHOLE, 600_002),
        ("select 1 from frobnicate everything;\n" + WHOLE, 2),
        ("\ufeff" + WHOLE, 1),
        ("select 'é'; " + WHOLE, 1),
    ],
    ids=["copy data", "psql", "large", "not understood", "byte order mark", "not ascii"],
)
def test_hazards_are_found_in_all_kinds_of_files(filled, migrations, text, line):
    done = lint("--json", DATABASE_URL=filled, MIGRATIONS_DIR=str(migrations(_1_a=text)))

    (one,) = json.loads(done.stdout)["findings"]
    assert (one["rule"], one["line"]) == ("update-whole-table", line)


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        (
            "do $$\nbegin\n  if true then\n    update orders set note = 'y';\n  end if;\nend $$;",
            [("update-whole-table", 4)],
        ),
        (
            "\n\ndo language plpgsql\n$x$ begin alter table orders add check (total > 0); end $x$;",
            [("add-check", 4)],
        ),
        (
            "do $$ begin execute 'alter table orders alter id set not null, alter total type bigint'; end $$;",
            [("change-column-type", 1)],
        ),
        (
            "do $$ declare r record; begin for r in select * from shops loop update orders set note = 'y' where id = r.id; end loop; end $$;",
            [],
        ),
        (
            "do $$ begin create table t (id int); create index on t (id); exception when others then null; end $$;",
            [],
        ),
        ("do $$ begin execute format('drop table %I', 'orders'); end $$;", []),
        (
            "do $$ begin create table orders (id int); end $$; create index on orders (id);",
            [("create-index", 1)],
        ),
        ("do 'nonsense';", []),
        ("do language sql 'drop table orders';", []),
    ],
)
def test_hazards_are_found_in_do_blocks(filled, migrations, text, rules):
    done = lint("--json", DATABASE_URL=filled, MIGRATIONS_DIR=str(migrations(_1_a=text)))

    assert [(one["rule"], one["line"]) for one in json.loads(done.stdout)["findings"]] == rules


# Supabase


def test_a_new_table_without_row_security_is_told_where_the_api_roles_are(filled, migrations, postgres):
    directory = migrations(
        _1_a="create table t (id int);\ncreate table u (id int);\nalter table u enable row level security;"
    )
    assert lint(DATABASE_URL=filled, MIGRATIONS_DIR=str(directory)).returncode == 0
    fetch(postgres.url, "create role anon; create role authenticated;")
    try:
        done = lint("--json", DATABASE_URL=filled, MIGRATIONS_DIR=str(directory))
    finally:
        fetch(postgres.url, "drop role anon; drop role authenticated;")

    assert [(one["rule"], one["line"]) for one in json.loads(done.stdout)["findings"]] == [
        ("table-without-rls", 1)
    ]


def test_a_new_table_without_row_security_is_told_in_a_supabase_project(tmp_path):
    directory = tmp_path / "supabase" / "migrations"
    directory.mkdir(parents=True)
    (directory / "1_a.sql").write_text("create table t (id int);\ncreate table private.t (id int);\n")

    done = lint("--json", cwd=tmp_path)

    assert [one["rule"] for one in json.loads(done.stdout)["findings"]] == ["table-without-rls"]
    assert REFERENCE.exists()


def test_what_the_parser_does_not_know_is_told_and_the_rest_is_looked_at(tmp_path):
    """Not what only the parser takes for unknown: COPY data and psql's commands."""
    file = tmp_path / "1_a.sql"
    file.write_text(f"{REWRITE}selec nonsense;\ndrop tabel shops;\ncopy shops from stdin;\n7\n\\.\n")
    other = tmp_path / "2_b.sql"
    other.write_text("copy shops from stdin;\n7\n\\.\n\\echo done\nselect 1;\n")
    done = lint("--offline", file, other)

    (said,) = log_lines(done.stderr)
    assert (said["event"], said["level"], said["line"]) == ("hazard.unknown", "warning", 2)
    assert said["reason"].endswith("the parser doesn't know: 1_a.sql:2: 'selec nonsense', and 1 more")
    assert "change-column-type" in done.stdout
