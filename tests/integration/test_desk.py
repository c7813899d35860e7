"""plan, verify and up --to: what a person asks before anything is done, and how far it goes."""

import json
import re
import subprocess
import sys

import pytest

from tests.support.fingerprint import difference, objects
from tests.support.pooler import running_pooler
from tests.support.postgres import fetch
from tests.support.processes import REPO, log_lines, run_migrator

COMMANDS = ["up", "plan", "down", "verify", "status"]
OURS = "select to_regnamespace('migrator')"


def failure(done):
    (line,) = [
        line for line in log_lines(done.stderr) if line["event"] in ("migration.failed", "command.failed")
    ]
    return line["reason"]


# Help


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_one_screen_of_help_with_an_example_and_exit_codes(command):
    done = subprocess.run(
        [sys.executable, "-m", "migrator", command, "--help"], capture_output=True, text=True, cwd=REPO
    )
    listed = (REPO / "docs" / "reference" / "exit-codes.md").read_text()
    (codes,) = re.findall(r"exit codes:(.*?)^example:", done.stdout, re.DOTALL | re.MULTILINE)

    assert done.returncode == 0
    assert len(done.stdout.splitlines()) <= 30
    assert "--json" in done.stdout
    for code in re.findall(r"(?:^|[,;] *|\n *)(\d+) ", codes):
        assert re.search(rf"^\| {code} \|", listed, re.MULTILINE), code


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_a_command_is_in_the_reference(command):
    shown = subprocess.run(
        [sys.executable, "-m", "migrator", command, "--help"], capture_output=True, text=True, cwd=REPO
    ).stdout.partition("\n\n")[0]
    page = (REPO / "docs" / "reference" / "commands.md").read_text()
    (row,) = re.findall(rf"^\| `migrator {command}\b.*$", page, re.MULTILINE)

    assert [option for option in re.findall(r"--[a-z-]+", shown) if option not in row] == []


# plan


def test_a_plan_on_an_empty_database_shows_what_would_run_and_how_and_changes_nothing(database):
    before = objects(database)

    done = run_migrator(database, "migrations", "plan")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[:-1] == [
        "  1 migrations/20260101090000_create_visits.sql",
        "    in one transaction",
        "  2 migrations/20260101090100_create_greetings.sql",
        "    in one transaction",
        "  3 migrations/20260102100000_index_visits_by_path.sql",
        "    statement by statement, 1 in all",
        "      outside of a transaction: create index concurrently visits_path_idx on visits (path, visited_at)",
        "  4 migrations/20260102110000_count_visits.sql",
        "    in one transaction",
    ]
    assert done.stdout.splitlines()[-1].startswith("4 to apply, 0 applied, on 127.0.0.1:")
    assert difference(before, objects(database)) == []
    assert fetch(database, OURS) == [(None,)]


def test_a_plan_in_json_and_its_exit_code_for_scripts(database, migrations):
    directory = migrations(_1_a="select 1;", _2_b="vacuum;", _3_c="select 1;")

    pending = run_migrator(database, directory, "plan", "--exit-code", "--json", "--to", "2")
    run_migrator(database, directory)
    nothing = run_migrator(database, directory, "plan", "--exit-code", "--json")

    assert pending.returncode == 10
    document = json.loads(pending.stdout)
    assert [(one["version"], one["transaction"]) for one in document["pending"]] == [
        ("1", True),
        ("2", False),
    ]
    assert document["pending"][1] == {
        "version": "2",
        "filename": "2_b.sql",
        "path": str(directory / "2_b.sql"),
        "transaction": False,
        "statements": 1,
        "outsideOfTransaction": ["vacuum"],
        "done": 0,
        "refused": None,
    }
    assert nothing.returncode == 0
    assert json.loads(nothing.stdout)["pending"] == []
    assert json.loads(nothing.stdout)["applied"] == 3


def test_a_plan_says_what_is_odd_and_ends_as_up_would(database, migrations):
    directory = migrations(_1_a="select 1;", _3_c="select 1;")
    run_migrator(database, directory)
    migrations(_1_a="select 2;", _2_b="select 1;")

    refused = run_migrator(database, directory, "plan")
    warned = run_migrator(database, directory, "plan", MIGRATION_CHANGED_FILES="warn")

    assert refused.returncode == 65
    assert "2_b.sql" in refused.stdout
    assert failure(refused) == failure(run_migrator(database, directory))
    assert warned.returncode == 0
    assert "warning: 1_a.sql differs from what was applied on" in warned.stdout
    assert "warning: 2_b.sql comes out of order: 3_c.sql is applied already" in warned.stdout


def test_a_plan_shows_a_half_done_file_and_what_could_not_run_here(postgres, database, migrations):
    directory = migrations(_1_a="vacuum;\nselect 1/0;\nvacuum;")
    assert run_migrator(database, directory).returncode == 1
    migrations(_2_b="\\i other.sql")

    direct = run_migrator(database, directory, "plan")
    with running_pooler(postgres) as pooler:
        pooled = run_migrator(f"{pooler}/{database.rpartition('/')[2]}", directory, "plan")

    assert direct.returncode == pooled.returncode == 65
    assert "statement by statement, 3 in all; the first 1 are done" in direct.stdout
    assert "refused: cannot apply 2_b.sql: line 1, column 1: \\i is a command of psql" in direct.stdout
    assert "refused: cannot apply 1_a.sql through a transaction pooler" in pooled.stdout


def test_a_plan_shows_no_password(database, migrations):
    directory = migrations(
        _1_a="-- migrator: no-transaction\nalter system set primary_conninfo = 'password=hunter2';"
    )

    done = run_migrator(database, directory, "plan")

    assert done.returncode == 0
    assert "alter system" in done.stdout
    assert "hunter2" not in done.stdout + done.stderr


# verify


def test_verify_finds_nothing_in_an_empty_database_and_in_one_that_is_up_to_date(database, migrations):
    directory = migrations(_1_a="select 1;")

    before = run_migrator(database, directory, "verify")
    assert fetch(database, OURS) == [(None,)]
    run_migrator(database, directory)
    after = run_migrator(database, directory, "verify")

    assert before.returncode == after.returncode == 0
    assert after.stdout.startswith("1 file, no findings, on 127.0.0.1:")


def test_verify_finds_all_that_does_not_fit(database, migrations):
    directory = migrations(_1_a="select 1;", _2_b="select 1;", _4_d="select 1;", _5_e="vacuum; select 1/0;")
    run_migrator(database, directory)
    migrations(_1_a="select 2;", _3_c="select 1;")
    (directory / "2_b.sql").unlink()

    done = run_migrator(database, directory, "verify")
    as_json = run_migrator(database, directory, "verify", "--json", MIGRATION_OUT_OF_ORDER="allow")

    assert done.returncode == as_json.returncode == 65
    assert [line[:20] for line in done.stdout.splitlines()[:-1]] == [
        "changed      1_a.sql",
        "half done    5_e.sql",
        "missing      2_b.sql",
        "out of order 3_c.sql",
    ]
    assert [one["kind"] for one in json.loads(as_json.stdout)["findings"]] == [
        "changed",
        "half done",
        "missing",
    ]


# Out of order


def test_files_that_come_out_of_order_can_be_refused_before_anything_runs(database, migrations):
    directory = migrations(_1_a="select 1;", _3_c="select 1;")
    run_migrator(database, directory)
    migrations(_2_b="create table b ();", _4_d="create table d ();")

    refused = run_migrator(database, directory, MIGRATION_OUT_OF_ORDER="refuse")
    assert refused.returncode == 65
    assert "2_b.sql comes out of order: 3_c.sql is applied already; rename" in failure(refused)
    assert fetch(database, "select to_regclass('b'), to_regclass('d')") == [(None, None)]

    allowed = run_migrator(database, directory, MIGRATION_OUT_OF_ORDER="allow")
    assert allowed.returncode == 0
    assert "migration.odd" not in allowed.stderr


# up --to


def test_up_to_a_version_stops_after_it_and_says_what_is_left(database, migrations):
    directory = migrations(_1_a="select 1;", _2_b="select 1;", _3_c="select 1;")

    two = run_migrator(database, directory, "up", "--to", "2")
    again = run_migrator(database, directory, "up", "--to", "2", "--json")
    all_ = run_migrator(database, directory)

    assert (two.returncode, two.stdout) == (0, "2 applied, 2 in all, 1 left pending\n")
    assert json.loads(again.stdout) == {"new": 0, "applied": 2, "pending": 1}
    assert all_.stdout == "1 applied, 3 in all, nothing pending\n"


@pytest.mark.parametrize("command", [["plan"], ["up", "--dry-run"], ["up"], ["down"]], ids=" ".join)
def test_a_version_is_also_a_file_s_name_or_path(database, migrations, command):
    directory = migrations(_1_a="select 1;", _2_b="select 1;", **{"_2_b.down": "select 1;"})
    if command == ["down"]:
        run_migrator(database, directory)

    done = [
        run_migrator(database, directory, *command, "--to", given)
        for given in ("1_a.sql", f"{directory}/1_a.sql")
    ]

    assert [(one.returncode, one.stderr) for one in done if one.returncode] == []
    assert "2_b.sql" in done[0].stdout if command == ["down"] else "2_b.sql" not in done[0].stdout


@pytest.mark.parametrize("wish", [["up", "--to"], ["down", "--to"], ["baseline"], ["repair", "--applied"]])
def test_a_version_that_a_script_left_empty_is_a_mistake_in_the_command_line(database, migrations, wish):
    done = run_migrator(database, migrations(_1_a="select 1;"), *wish, "")

    assert done.returncode == 2
    assert "'' has no version; `migrator status` lists them" in done.stderr
    assert fetch(database, OURS) == [(None,)]


def test_up_to_a_version_that_does_not_exist_is_refused(database, migrations):
    directory = migrations(_1_a="select 1;", _2_b="select 1;")

    done = run_migrator(database, directory, "up", "--to", "3")

    assert done.returncode == 65
    assert (
        failure(done) == "cannot go up to 3: there is no migration of that version; the last one is 2_b.sql"
    )
    assert fetch(database, OURS) == [(None,)]
