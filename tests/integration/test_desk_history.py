"""When the history is wrong: what a person is told, and that it is the way out."""

import json
import re
import threading

import pytest

from tests.support.pooler import running_pooler
from tests.support.postgres import Blocker, fetch
from tests.support.processes import log_lines, run_migrator, start_migrator
from tests.support.waiting import wait_until

COMMAND = re.compile(r"`migrator ([^`]+)`|^    migrator (.+)$", re.MULTILINE)


def told(done):
    """The last thing that was said on standard error."""
    return log_lines(done.stderr)[-1]["reason"]


def commands(text):
    """The commands of ours that a text names."""
    return [(quoted or listed).split() for quoted, listed in COMMAND.findall(text)]


def history(url):
    return dict(fetch(url, "select filename, finished from migrator.migration_history"))


def snapshot(url):
    return fetch(url, "select * from migrator.migration_history order by version")


# A file was edited


@pytest.fixture
def edited(database, migrations):
    directory = migrations(_1_a="create table a ();", _2_b="create table b ();")
    assert run_migrator(database, directory).returncode == 0
    migrations(_1_a="create table a (id int);")
    return directory


def test_an_edited_file_is_settled_by_what_the_messages_name(database, edited):
    refused = run_migrator(database, edited)
    assert refused.returncode == 65
    (look,) = commands(told(refused))
    shown = run_migrator(database, edited, *look)
    assert shown.returncode == 65
    assert shown.stdout.startswith("1_a.sql: changed: edited since it was applied on ")
    (settle,) = [words for words in commands(shown.stdout) if "--accept" in words]
    settled = run_migrator(database, edited, *settle)

    assert settled.returncode == 0, settled.stderr
    assert "1_a.sql: accepted as it is now (" in settled.stdout
    assert run_migrator(database, edited).stdout == "0 applied, 2 in all, nothing pending\n"
    assert run_migrator(database, edited, "repair").stdout.startswith("nothing to repair on ")


def test_status_names_the_command_that_settles_what_is_wrong(database, edited):
    shown = run_migrator(database, edited, "status")

    assert shown.stdout.endswith("\n1 to look at: `migrator repair` shows what can be done\n")


def test_an_accepted_file_counts_as_unchanged_also_when_only_its_comments_change(
    database, edited, migrations
):
    run_migrator(database, edited, "repair", "--accept", "1")
    migrations(_1_a="-- now with a comment\nCREATE TABLE a (id int);")

    assert run_migrator(database, edited).returncode == 0


def test_repair_without_a_wish_changes_nothing(database, edited):
    before = snapshot(database)

    run_migrator(database, edited, "repair")

    assert snapshot(database) == before


def test_repair_tells_machines_the_same(database, edited):
    shown = json.loads(run_migrator(database, edited, "repair", "--json").stdout)
    done = json.loads(run_migrator(database, edited, "repair", "--accept", "1_a.sql", "2", "--json").stdout)

    (finding,) = shown["findings"]
    assert (finding["version"], finding["state"]) == ("1", "changed")
    assert {way["way"] for way in finding["ways"]} == {"restore the file", "migrator repair --accept 1"}
    assert [(one["filename"], one["changed"]) for one in done["repairs"]] == [
        ("1_a.sql", True),
        ("2_b.sql", False),
    ]


# A file is missing


def test_a_missing_file_is_forgotten_by_what_the_messages_name(database, migrations):
    directory = migrations(_1_a="select 1;", _2_b="select 2;")
    run_migrator(database, directory)
    (directory / "1_a.sql").unlink()
    warned = run_migrator(database, directory)
    assert warned.returncode == 0
    (odd,) = [line["reason"] for line in log_lines(warned.stderr) if line["event"] == "migration.odd"]
    (look,) = commands(odd)
    (settle,) = commands(run_migrator(database, directory, *look).stdout)
    settled = run_migrator(database, directory, *settle)

    assert settled.stdout.startswith("1_a.sql: forgotten: there is no file of it (was applied on ")
    assert history(database) == {"2_b.sql": True}


def test_an_older_release_is_told_to_leave_what_a_newer_one_has_applied(database, migrations):
    directory = migrations(_1_a="select 1;", _2_b="select 2;", _3_c="select 3;")
    run_migrator(database, directory)
    (directory / "1_a.sql").unlink()
    (directory / "3_c.sql").unlink()
    shown = run_migrator(database, directory, "repair", "--json")

    ways = {
        one["version"]: [way["way"] for way in one["ways"]] for one in json.loads(shown.stdout)["findings"]
    }
    assert ways == {
        "1": ["restore the file", "migrator repair --not-applied 1"],
        "3": ["leave it", "restore the file", "migrator repair --not-applied 3"],
    }
    assert run_migrator(database, directory, "repair").stdout.splitlines()[-1].startswith("2 files to settle")


# A file is half done


@pytest.fixture
def half_done(database, migrations):
    """Statement 2 of 3 is refused; the first is done."""
    directory = migrations(
        _1_a="create table a (x int); insert into a values (1), (1);",
        _2_b="create index concurrently one on a (x); create unique index concurrently two on a (x);"
        " create index concurrently three on a (x);",
    )
    assert run_migrator(database, directory).returncode == 1
    return directory


def indexes(url):
    return fetch(
        url,
        "select relname, indisvalid from pg_index join pg_class on pg_class.oid = indexrelid"
        " where relname in ('one', 'two', 'three') order by 1",
    )


def test_a_half_done_file_goes_on_after_it_was_corrected_and_accepted(database, migrations, half_done):
    migrations(
        _2_b="create index concurrently one on a (x); create index concurrently two on a (x);"
        " create index concurrently three on a (x);"
    )
    refused = run_migrator(database, half_done)
    assert refused.returncode == 65
    (look,) = commands(told(refused))
    shown = run_migrator(database, half_done, *look).stdout
    assert "2_b.sql: half done: begun on " in shown
    assert "1 of its statements are done; edited since" in shown
    settled = run_migrator(
        database, half_done, *next(words for words in commands(shown) if "--accept" in words)
    )
    assert "`migrator up` goes on with statement 2" in settled.stdout

    done = run_migrator(database, half_done)

    assert done.returncode == 0, done.stderr
    assert indexes(database) == [("one", True), ("three", True), ("two", True)]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("create index concurrently one on a (x);", "1 statements are done, and it has only 1 now"),
        ("create index one on a (x);", "as it is now, it runs whole, in one transaction"),
    ],
)
def test_a_half_done_file_that_cannot_go_on_is_not_accepted(database, migrations, half_done, text, why):
    migrations(_2_b=text)
    before = snapshot(database)

    refused = run_migrator(database, half_done, "repair", "--accept", "2")

    assert refused.returncode == 65
    assert why in told(refused)
    assert "migrator repair --not-applied 2" in told(refused)
    assert snapshot(database) == before


def test_a_half_done_file_is_taken_for_done(database, half_done):
    settled = run_migrator(database, half_done, "repair", "--applied", "2")

    assert "2_b.sql: applied: it isn't run again (was half done since " in settled.stdout
    assert run_migrator(database, half_done).stdout == "0 applied, 2 in all, nothing pending\n"


def test_a_half_done_file_runs_from_the_start(database, migrations, half_done):
    fetch(database, "drop index one; drop index if exists two")
    migrations(_2_b="create index one on a (x);")
    settled = run_migrator(database, half_done, "repair", "--not-applied", "2_b.sql")

    assert "2_b.sql: pending: `migrator up` runs it from the start (was half done since " in settled.stdout
    assert run_migrator(database, half_done).returncode == 0
    assert indexes(database) == [("one", True)]


def test_a_file_that_ended_its_own_transaction_is_settled_by_what_the_messages_name(database, migrations):
    directory = migrations(_1_a="create table a ();")
    run_migrator(database, directory, "repair", "--applied", "1")
    fetch(database, "update migrator.migration_history set finished = false; select 1")
    again = run_migrator(database, directory)
    assert again.returncode == 65
    (look,) = commands(told(again))
    shown = run_migrator(database, directory, *look).stdout
    settled = run_migrator(
        database, directory, *next(words for words in commands(shown) if "--applied" in words)
    )

    assert settled.returncode == 0, settled.stderr
    assert run_migrator(database, directory).stdout == "0 applied, 1 in all, nothing pending\n"


def test_killed_in_the_middle_of_create_index_concurrently_the_next_up_goes_on(database, migrations):
    directory = migrations(_1_a="create table a (x int);", _2_b="create index concurrently one on a (x);")
    run_migrator(database, migrations(_2_b="select 1;"))
    run_migrator(database, directory, "repair", "--not-applied", "2")
    migrations(_2_b="create index concurrently one on a (x);")
    blocker = Blocker(database, "begin; insert into a values (1)")
    try:
        up = start_migrator(database, directory)
        wait_until(lambda: indexes(database) == [("one", False)], what="the index begun")
        up.kill()
        up.communicate()
        wait_until(
            lambda: run_migrator(database, directory, "unlock").returncode == 0, what="the dead holder's lock"
        )
        shown = run_migrator(database, directory, "repair")
    finally:
        blocker.close()

    assert shown.returncode == 65
    assert "0 of its statements are done, and one more may be" in shown.stdout
    assert commands(shown.stdout)[0] == ["up"]
    assert run_migrator(database, directory, "up").returncode == 0
    assert indexes(database) == [("one", True)]


# Applied by other means, or not at all


def test_a_file_that_was_applied_by_hand_is_recorded_without_being_run(database, migrations):
    directory = migrations(_1_a="create table a ();", _2_b="create table b ();")
    fetch(database, "create table a (); select 1")

    done = run_migrator(database, directory, "repair", "--applied", "1")

    assert done.stdout.startswith(
        "1_a.sql: applied: it isn't run (was pending)\n1 of 1 changed in the history of "
    )
    assert run_migrator(database, directory).stdout == "1 applied, 2 in all, nothing pending\n"


def test_a_file_runs_again_after_it_was_taken_off_the_record(database, migrations):
    directory = migrations(_1_a="create table if not exists a (); insert into b values (1);")
    fetch(database, "create table b (x int); select 1")
    run_migrator(database, directory)
    run_migrator(database, directory, "repair", "--not-applied", "1")
    run_migrator(database, directory)

    assert fetch(database, "select count(*) from b") == [(2,)]


@pytest.mark.parametrize(
    ("wish", "why"),
    [
        (["--accept", "3"], "cannot accept 3_c.sql: it isn't on record, and so pending; `migrator up` applies it"),
        (["--accept", "7"], "cannot find a file of version 7: the files are 1_a.sql to 3_c.sql"),
        (["--not-applied", "7"], "cannot find a file of version 7"),
        (["--applied", "2"], "cannot record version 2 as applied: there is no file of it; to forget 2_b.sql: migrator"),
        (["--applied", "1", "--not-applied", "1_a.sql"], "cannot do two things with version 1 at once"),
    ],
)  # fmt: skip
def test_a_wish_that_makes_no_sense_changes_nothing(database, migrations, wish, why):
    directory = migrations(_1_a="select 1;", _2_b="select 2;")
    run_migrator(database, directory)
    migrations(_3_c="select 3;")
    (directory / "2_b.sql").unlink()
    before = snapshot(database)

    refused = run_migrator(database, directory, "repair", *wish)

    assert refused.returncode == 65
    assert told(refused).startswith(why)
    assert snapshot(database) == before


def test_of_several_repairs_all_or_none_are_made(database, migrations):
    directory = migrations(_1_a="select 1;", _2_b="select 2;")
    run_migrator(database, directory)
    before = snapshot(database)

    refused = run_migrator(database, directory, "repair", "--not-applied", "1", "--accept", "7")

    assert refused.returncode == 65
    assert snapshot(database) == before


def test_a_database_as_old_as_its_files_is_baselined(database, migrations):
    directory = migrations(_1_a="create table a ();", _2_b="create table b ();", _3_c="create table c ();")
    fetch(database, "create table a (); create table b ()")

    done = run_migrator(database, directory, "baseline", "2_b.sql")
    again = run_migrator(database, directory, "baseline", "2", "--json")

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(
        "applied   1_a.sql\napplied   2_b.sql\n2 recorded as applied without being run, on "
    )
    assert {key: json.loads(again.stdout)[key] for key in ("recorded", "alreadyApplied", "pending")} == {
        "recorded": [], "alreadyApplied": 2, "pending": 1,
    }  # fmt: skip
    assert run_migrator(database, directory).stdout == "1 applied, 3 in all, nothing pending\n"


def test_a_baseline_of_no_file_says_which_there_are(database, migrations):
    done = run_migrator(database, migrations(_0001_a="select 1;"), "baseline", "1")

    assert done.returncode == 65
    assert told(done) == "cannot find a file of version 1: did you mean 0001_a.sql?"


def test_a_baseline_over_a_half_done_file_names_the_remedy(database, half_done):
    done = run_migrator(database, half_done, "baseline", "2")

    assert done.returncode == 65
    assert commands(told(done)) == [["repair"]]


# Beside a running fleet


def test_while_somebody_migrates_the_history_cannot_be_changed(database, migrations):
    directory = migrations(_1_a="select 1;")
    run_migrator(database, directory)
    migrations(_2_b="select pg_sleep(60);")
    up = start_migrator(database, directory)
    sleeping = "select 1 from pg_stat_activity where wait_event = 'PgSleep' and datname = current_database()"
    wait_until(lambda: fetch(database, sleeping), what="the migration at work")
    refused = run_migrator(database, directory, "repair", "--not-applied", "1")
    up.terminate()
    up.communicate(timeout=30)

    assert refused.returncode == 75
    assert f"/{up.pid}/" in told(refused)
    assert "alive" in told(refused)
    assert ["wait", "--applied"] in commands(told(refused))
    assert history(database) == {"1_a.sql": True}


def test_of_two_who_baseline_at_once_both_are_done(database, migrations):
    directory = migrations(**{f"_{number}_a": "select 1;" for number in range(10, 30)})
    codes = []
    threads = [
        threading.Thread(
            target=lambda: codes.append(run_migrator(database, directory, "baseline", "29").returncode)
        )
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert codes == [0, 0, 0]
    assert len(history(database)) == 20


# Through a pooler


def test_through_a_transaction_pooler_all_of_it_works_too(postgres, database, migrations):
    directory = migrations(_1_a="create table a ();", _2_b="create table b ();", _3_c="create table c ();")
    fetch(database, "create table a (); create table schema_migrations (version varchar primary key);"
          "insert into schema_migrations values ('2')")  # fmt: skip
    with running_pooler(postgres) as pooler:
        url = f"{pooler}/{database.rsplit('/', 1)[1]}"
        codes = [
            run_migrator(url, directory, *words.split()).returncode
            for words in (
                "up",
                "adopt",
                "adopt --yes",
                "baseline 1",
                "up",
                "repair",
                "unlock",
                "wait --applied",
            )
        ]
        migrations(_1_a="create table a (x int);")
        codes += [
            run_migrator(url, directory, *words.split()).returncode
            for words in (
                "up",
                "repair",
                "repair --accept 1",
                "up",
                "repair --not-applied 3 --applied 1",
                "unlock",
            )
        ]

    assert codes == [65, 0, 0, 0, 0, 0, 0, 0, 65, 65, 0, 0, 0, 0]
    assert history(database) == {"1_a.sql": True, "2_b.sql": True}
