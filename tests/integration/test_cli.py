"""The command line: what it prints, what it exits with, and what it never shows."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest

from migrator import report
from tests.support.postgres import fetch, free_port, private_server
from tests.support.processes import clean_env, log_lines, run_migrator, start_migrator
from tests.support.waiting import wait_until


def migrator(*arguments, cwd=None, **env):
    return subprocess.run(
        [sys.executable, "-m", "migrator", *arguments],
        env=clean_env(**env),
        capture_output=True,
        text=True,
        timeout=60,
        cwd=cwd,
    )


def reasons(done):
    return [line.get("reason", "") for line in log_lines(done.stderr)]


@pytest.fixture
def own_server():
    """A server that the test may stop."""
    with private_server() as server:
        yield server


# Exit codes


def test_done_is_0_and_a_refused_statement_is_1(database, migrations):
    directory = migrations(_1_a="select 1;")
    assert run_migrator(database, directory).returncode == 0
    assert run_migrator(database, directory, "--run").returncode == 0
    migrations(_2_b="select 1/0;")
    assert run_migrator(database, directory).returncode == 1


@pytest.mark.parametrize("arguments", [(), ("sideways",), ("up", "--fast"), ("status", "extra")])
def test_a_command_line_that_makes_no_sense_is_2(arguments):
    done = migrator(*arguments)

    assert done.returncode == 2
    assert done.stdout == ""
    assert "usage: migrator" in done.stderr


def test_files_that_do_not_fit_are_65(database, migrations):
    done = run_migrator(database, migrations(_1_a="select 1;", _1_b="select 2;"))

    assert done.returncode == 65
    assert "both have version 1" in reasons(done)[-1]


def test_nobody_at_the_other_end_is_69(migrations):
    done = run_migrator(f"postgresql://bob:s3cret@127.0.0.1:{free_port()}/d", migrations(_1_a="select 1;"))

    assert done.returncode == 69
    assert "nobody answers there; is it running?" in reasons(done)[-1]
    assert "s3cret" not in done.stderr


def test_a_host_that_does_not_exist_is_69(migrations):
    done = run_migrator(
        "postgresql://bob:s3cret@db.invalid/d?connect_timeout=5", migrations(_1_a="select 1;")
    )

    assert done.returncode == 69
    assert "cannot reach the database at db.invalid/d" in reasons(done)[-1]


def test_no_host_that_fits_target_session_attrs_is_69(database, migrations):
    done = run_migrator(f"{database}?target_session_attrs=standby", migrations(_1_a="select 1;"))

    assert done.returncode == 69
    assert "cannot reach the database" in reasons(done)[-1]


def test_somebody_else_in_the_way_for_too_long_is_75(database, migrations):
    """Through the lock: its row is deleted while the file runs, so that the next one fails its fence."""
    directory = migrations(_1_a="delete from migrator.migration_locks;", _2_b="select 1;")

    assert run_migrator(database, directory).returncode == 75


def test_settings_that_are_wrong_are_78_all_in_one_message(migrations):
    done = run_migrator(
        "mysql://bob:s3cret@h/d", migrations(_1_a="select 1;"), MIGRATION_LEASE_TTL="x", MIGRATION_TIMEOUT="y"
    )

    assert done.returncode == 78
    (told,) = reasons(done)
    assert "DATABASE_URL" in told
    assert "MIGRATION_LEASE_TTL='x'" in told
    assert "MIGRATION_TIMEOUT='y'" in told
    assert "s3cret" not in done.stderr


def test_a_log_level_that_is_meant_for_the_apps_logger_is_said_and_doesnt_matter(database, migrations):
    done = run_migrator(database, migrations(_1_a="select 1;"), LOG_LEVEL="trace")

    assert done.returncode == 0
    assert "cannot use LOG_LEVEL='trace': must be one of" in done.stderr


@pytest.mark.parametrize(
    "setting",
    [
        {"MIGRATION_MAX_MEMORY_MB": "1"},
        {"MIGRATION_MAX_MEMORY_MB": "9" * 30},
        {"MIGRATION_NICE": "9" * 30},
        {"MIGRATION_NICE": "٣" * 5000},
    ],
    ids=lambda setting: "=".join(next(iter(setting.items())))[:40],
)
def test_a_limit_that_makes_no_sense_is_told_and_not_obeyed(migrations, setting):
    done = run_migrator("postgresql://h/d", migrations(_1_a="select 1;"), **setting)

    assert done.returncode == 78, done.stderr
    assert f"cannot use {next(iter(setting))}" in reasons(done)[-1]


def test_no_database_is_78(migrations):
    done = migrator("up", MIGRATIONS_DIR=str(migrations(_1_a="select 1;")))

    assert done.returncode == 78
    assert "set SUPABASE_DB_URL, DIRECT_URL or DATABASE_URL" in reasons(done)[-1]


def test_an_unknown_database_or_user_is_78(database, migrations):
    directory = migrations(_1_a="select 1;")
    for url in (database + "_nope", database.replace("postgres@", "nobody_here:s3cret@")):
        done = run_migrator(url, directory)

        assert done.returncode == 78, done.stderr
        assert "check user, password and database name" in reasons(done)[-1]
        assert "s3cret" not in done.stderr


def test_a_wrong_password_is_78_and_not_shown(own_server, migrations):
    fetch(own_server.url, "create role bob login password 'right'; select 1")
    hba = own_server.directory / "postgres-data" / "pg_hba.conf"
    hba.write_text("host all bob all scram-sha-256\n" + hba.read_text())
    fetch(own_server.url, "select pg_reload_conf()")
    wait_until(
        lambda: fetch(own_server.url, "select 1 from pg_hba_file_rules where user_name = '{bob}'"),
        what="the reload",
    )
    directory = migrations(_1_a="select 1;")
    wrong = own_server.url.replace("postgres@", "bob:s3cret%21@")

    refused = run_migrator(wrong, directory, LOG_LEVEL="debug")
    status = run_migrator(wrong, directory, "status", "--json", LOG_LEVEL="debug")

    for done in (refused, status):
        assert done.returncode == 78
        assert 'password authentication failed for user "bob"' in done.stderr.replace("\\", "")
        assert "s3cret" not in done.stdout + done.stderr
    assert (
        run_migrator(own_server.url.replace("postgres@", "bob:right@"), directory).returncode == 78
    )  # no rights


def test_a_server_that_stops_in_the_middle_is_69_and_the_next_run_is_right(own_server, migrations):
    directory = migrations(_1_a="create table a ();", _2_b="create table b (); select pg_sleep(60);")
    process = start_migrator(own_server.url, directory)
    wait_until(
        lambda: fetch(
            own_server.url,
            "select 1 from pg_stat_activity where query like '%pg_sleep(60)%' and state = 'active' and pid <> pg_backend_pid()",
        ),
        what="the slow migration",
    )
    own_server.stop(signal.SIGQUIT)  # as after a crash
    _, err = process.communicate(timeout=20)
    own_server.start()
    (directory / "2_b.sql").write_text("create table b ();")
    again = run_migrator(own_server.url, directory)

    assert process.returncode == 69, err
    assert "Traceback" not in err
    assert "whether it was rolled back is not known" in err
    # The first may have been lost with the crash, history row and all: it didn't wait for the disk.
    assert re.fullmatch("[12] applied, 2 in all, nothing pending\n", again.stdout), again.stderr
    assert fetch(own_server.url, "select to_regclass('a') is not null, to_regclass('b') is not null") == [
        (True, True)
    ]


# Status


def test_status_tells_what_is_applied_pending_changed_and_missing(database, migrations):
    directory = migrations(_1_a="select 1;", _2_b="select 2;", _3_c="select 3;")
    run_migrator(database, directory)
    (directory / "2_b.sql").unlink()
    migrations(_3_c="select 'edited';", _4_d="select 4;")

    shown = run_migrator(database, directory, "status")
    told = run_migrator(database, directory, "status", "--json")
    document = json.loads(told.stdout)

    assert shown.returncode == told.returncode == 0
    assert [(row["filename"], row["state"]) for row in document["migrations"]] == [
        ("1_a.sql", "applied"),
        ("2_b.sql", "missing"),
        ("3_c.sql", "changed"),
        ("4_d.sql", "pending"),
    ]
    assert (document["pending"], document["holder"]) == (1, None)
    assert document["database"] == database.partition("@")[2]
    lines = shown.stdout.splitlines()
    assert [line.split()[0] for line in lines[:-2]] == ["applied", "missing", "changed", "pending"]
    assert lines[-2] == f"4 migrations, 1 pending, on {database.partition('@')[2]}"
    assert lines[-1] == "2 to look at: `migrator repair` shows what can be done"


def test_status_on_an_untouched_database_changes_nothing(database, migrations):
    done = run_migrator(database, migrations(_1_a="select 1;"), "status", "--json")

    assert json.loads(done.stdout)["pending"] == 1
    assert fetch(database, "select to_regnamespace('migrator')") == [(None,)]


def test_status_names_who_migrates_also_during_the_very_first_file(database, migrations):
    directory = migrations(_1_a="select pg_sleep(60);")
    process = start_migrator(database, directory)
    wait_until(
        lambda: fetch(
            database,
            "select 1 from pg_stat_activity where query like '%pg_sleep(60)%' and state = 'active' and pid <> pg_backend_pid()",
        ),
        what="the slow migration",
    )
    shown = run_migrator(database, directory, "status")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)

    assert f"/{process.pid}/" in shown.stdout
    assert "has been migrating for" in shown.stdout
    assert process.returncode == 130


# Under a supervisor


def test_reports_tell_the_whole_story_line_by_line(database, migrations):
    directory = migrations(_1_a="select 1;", _2_b="select 1/0;")
    read, write = os.pipe()
    with os.fdopen(read, "rb") as pipe:
        done = subprocess.run(
            [sys.executable, "-m", "migrator", "up"],
            env=clean_env(
                DATABASE_URL=database, MIGRATIONS_DIR=str(directory), MIGRATOR_REPORT_FD=str(write)
            ),
            capture_output=True,
            text=True,
            pass_fds=[write],
        )
        os.close(write)
        told = [report.decode(line) for line in pipe]

    assert [(one.phase, one.current, one.applied, one.pending) for one in told] == [
        ("connecting", None, None, None),
        ("applying", "1_a.sql", 0, 2),
        ("applying", "2_b.sql", 1, 1),
        ("failed", "2_b.sql", 1, 1),
    ]
    assert "division by zero" in (told[-1].error or "")
    assert done.stdout == ""  # it belongs to the app


def test_a_migrator_whose_supervisor_is_gone_stops(database, migrations):
    read, write = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "migrator", "up"],
        env=clean_env(
            DATABASE_URL=database,
            MIGRATIONS_DIR=str(migrations(_1_a="create table a (); select pg_sleep(60);")),
            MIGRATOR_REPORT_FD=str(write),
        ),
        pass_fds=[write],
        stderr=subprocess.PIPE,
    )
    os.close(write)
    wait_until(
        lambda: fetch(
            database,
            "select 1 from pg_stat_activity where query like '%pg_sleep(60)%' and state = 'active' and pid <> pg_backend_pid()",
        ),
        what="the slow migration",
    )
    os.close(read)
    process.communicate(timeout=10)

    assert process.returncode == 143
    assert fetch(database, "select to_regclass('a')") == [(None,)]


def test_no_directory_is_nothing_to_do(tmp_path):
    done = migrator("up", cwd=tmp_path, DATABASE_URL="postgresql://h/d")

    assert done.returncode == 0
    assert done.stdout.startswith("nothing to do: there is no migrations directory")


def test_a_url_parameter_without_meaning_is_a_warning(database, migrations):
    done = run_migrator(f"{database}?colour=blue", migrations(_1_a="select 1;"))

    assert done.returncode == 0
    (warning,) = [line for line in log_lines(done.stderr) if line["event"] == "settings.ignored"]
    assert "colour" in warning["reason"]


def test_a_misspelt_variable_is_a_warning(database, migrations):
    done = run_migrator(database, migrations(_1_a="select 1;"), MIGRATION_TIMOUT="5")

    assert done.returncode == 0
    (warning,) = [line for line in log_lines(done.stderr) if line["event"] == "settings.ignored"]
    assert "MIGRATION_TIMEOUT" in warning["reason"]


# What nobody reads, and what has no room


def shell(script, database, directory, **env):
    """What a shell makes of it; $PYTHON is ours."""
    return subprocess.run(
        ["sh", "-c", script],
        env=clean_env(DATABASE_URL=database, MIGRATIONS_DIR=str(directory), PYTHON=sys.executable, **env),
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("arguments", ["up", "status", "status --json", "--help", "--version"])
@pytest.mark.parametrize(
    "where", ["| true", ">&-", "2>&-", "<&- >&- 2>&-", "2>/dev/full"], ids=lambda where: where
)
def test_whoever_does_not_read_us_gets_no_traceback_and_the_same_exit_code(
    database, migrations, arguments, where
):
    directory = migrations(_1_a="select 1;")
    # The one code that a pipeline hides goes by the error output's way.
    done = shell(f"{{ $PYTHON -m migrator {arguments}; echo '{{'$? >&3; }} 3>&2 {where}", database, directory)

    lines = done.stderr.splitlines()
    assert lines.pop() == "{0"
    assert [line for line in lines if not line.startswith("{")] == []
    if arguments == "up":
        assert fetch(database, "select finished from migrator.migration_history") == [(True,)]


def test_a_log_line_never_gets_into_the_connection_where_a_standard_stream_is_closed(database, migrations):
    directory = migrations(**{f"_{number}_a": "select 1;" for number in range(1, 20)})

    done = shell("exec $PYTHON -m migrator up <&- >&- 2>&-", database, directory, LOG_LEVEL="debug")

    assert done.returncode == 0
    assert fetch(database, "select count(*) from migrator.migration_history where finished") == [(19,)]


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["as Python does", "PYTHONUNBUFFERED=1"])
def test_on_a_full_disk_the_answer_is_missed_aloud_and_a_migration_is_done_all_the_same(
    database, migrations, unbuffered
):
    directory = migrations(_1_a="select 1;")

    up, status = (
        shell(f"exec $PYTHON -m migrator {one} >/dev/full", database, directory, PYTHONUNBUFFERED=unbuffered)
        for one in ("up", "status")
    )

    assert (up.returncode, [line for line in up.stderr.splitlines() if not line.startswith("{")]) == (0, [])
    assert status.returncode == 1
    assert status.stderr == "migrator: cannot write all of the output: No space left on device\n"


def test_a_name_that_the_locale_cannot_show_does_not_fail(database, migrations):
    done = run_migrator(database, migrations(_1_größe="select 1;"), "status", PYTHONIOENCODING="ascii")

    assert done.returncode == 0, done.stderr
    assert r"1_gr\xf6\xdfe.sql" in done.stdout


# Without memory


# With 14 to 20 it is chance at what a library fails, and how.
@pytest.mark.parametrize("mib", [4, 9, 10, 11, 12, 13])
def test_too_little_memory_even_to_load_is_one_message(migrations, mib):
    read, write = os.pipe()
    with os.fdopen(read, "rb") as pipe:
        done = subprocess.run(
            [sys.executable, "-m", "migrator", "up"],
            env=clean_env(
                DATABASE_URL="postgresql://h/d",
                MIGRATIONS_DIR=str(migrations(_1_a="select 1;")),
                MIGRATOR_MEMORY_LIMIT=str(mib * 2**20),
                MIGRATOR_REPORT_FD=str(write),
            ),
            capture_output=True,
            text=True,
            pass_fds=[write],
        )
        os.close(write)
        (told,) = [report.decode(line) for line in pipe]

    assert done.returncode == 1
    assert done.stderr == f"migrator: {told.error}\n"
    assert f"out of memory at {mib} MiB; raise MIGRATION_MAX_MEMORY_MB" in done.stderr


@pytest.mark.parametrize(
    ("text", "where"),
    [
        pytest.param("select '" + "x" * 60_000_000 + "';", " while applying 1_a.sql", id="a huge file"),
        pytest.param("select repeat('x', 100000000);", " while applying 1_a.sql", id="a huge answer"),
        pytest.param(
            "do $$ begin raise exception '%', repeat('x', 100000000); end $$;",
            " while applying 1_a.sql",
            id="a huge error",
        ),
    ],
)
def test_out_of_memory_is_one_message_with_a_remedy_and_not_worth_a_retry(database, migrations, text, where):
    done = run_migrator(database, migrations(_1_a=text), MIGRATION_MAX_MEMORY_MB="64")

    assert done.returncode == 1
    assert reasons(done)[-1].startswith(f"out of memory at 64 MiB{where}; raise MIGRATION_MAX_MEMORY_MB")
    assert all(line.startswith("{") for line in done.stderr.splitlines())


# What the server says, in one line with a remedy


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "set statement_timeout = '50ms'; select pg_sleep(5);",
            "remedy: a statement_timeout that the file sets, or somebody with pg_cancel_backend, stopped it",
        ),
        (
            "set transaction read only; create table a ();",
            "remedy: the file made its transaction read-only; remove that",
        ),
        (
            "set temp_file_limit = '100kB'; select count(*) from (select generate_series(1, 900000) x order by 1) y;",
            "remedy: raise that limit of the server, or make the migration smaller",
        ),
        (
            "do $$ begin raise 'no space left' using errcode = '53100'; end $$;",
            "remedy: the server's disk is full; free or add space",
        ),
        (
            "do $$ begin raise 'out of shared memory' using errcode = '53200'; end $$;",
            "remedy: the server is out of memory; give it more, or make the migration smaller",
        ),
    ],
)
def test_what_a_migration_can_not_do_twice_either_is_1_with_a_remedy(database, migrations, text, told):
    done = run_migrator(database, migrations(_1_a=text))

    assert done.returncode == 1
    assert told in reasons(done)[-1].splitlines()
    assert reasons(done)[-1].endswith("rolled back: nothing of this file was applied")


def test_a_database_that_is_read_only_is_69_with_a_remedy(database, migrations):
    directory = migrations(_1_a="create table a ();")
    name = database.rsplit("/", 1)[1]
    fetch(database, f"alter database {name} set default_transaction_read_only = on; select 1")
    first = run_migrator(database, directory)
    fetch(f"{database}?options=-cdefault_transaction_read_only%3Doff",
          f"alter database {name} reset default_transaction_read_only; select 1")  # fmt: skip
    run_migrator(database, directory)
    fetch(database, f"alter database {name} set default_transaction_read_only = on; select 1")
    migrations(_2_b="create table b ();")
    later = run_migrator(database, directory)

    for done in (first, later):
        assert done.returncode == 69
        assert "(25006); the database is read-only" in reasons(done)[-1]
        assert "target_session_attrs=read-write" in reasons(done)[-1]


def test_too_many_connections_are_69_with_a_remedy(postgres, database, migrations):
    directory = migrations(_1_a="select 1;")
    name = f"limited_{database.rsplit('_', 1)[1]}"
    fetch(postgres.url, f"create role {name} login connection limit 0; select 1")
    try:
        done = run_migrator(database.replace("postgres@", f"{name}@"), directory)
    finally:
        fetch(postgres.url, f"drop role {name}; select 1")

    assert done.returncode == 69
    assert "(53300); close connections that nobody uses, or raise the limit" in reasons(done)[-1]


def test_a_database_that_lets_nobody_in_is_78_with_a_remedy(postgres, database, migrations):
    name = database.rsplit("/", 1)[1]
    fetch(postgres.url, f"alter database {name} allow_connections false; select 1")

    done = run_migrator(database, migrations(_1_a="select 1;"))

    assert done.returncode == 78
    assert "ALLOW_CONNECTIONS true" in reasons(done)[-1]
