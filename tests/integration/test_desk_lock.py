"""A lock that somebody holds, living or dead, and waiting for the end of it."""

import asyncio
import json
import signal
import subprocess
import sys
import time

import pytest

from tests.integration.test_desk_history import commands, told
from tests.support.postgres import fetch, free_port, private_server
from tests.support.processes import clean_env, log_lines, run_migrator, start_migrator
from tests.support.stores import session, store_on
from tests.support.waiting import wait_until

AT_WORK = "select 1 from pg_stat_activity where wait_event = 'PgSleep' and datname = current_database()"


@pytest.fixture
def at_work(database, migrations):
    """A migrator in the middle of a file; the process and the directory."""
    directory = migrations(_1_a="create table a (); select pg_sleep(60);")
    up = start_migrator(database, directory)
    try:
        wait_until(lambda: fetch(database, AT_WORK), what="the migration at work")
        yield up, directory
    finally:
        if up.poll() is None:
            up.send_signal(signal.SIGCONT)
            up.kill()
        up.communicate()


def test_nobody_holds_it(database, migrations):
    directory = migrations(_1_a="select 1;")
    before = run_migrator(database, directory, "unlock")
    run_migrator(database, directory)
    after = run_migrator(database, directory, "unlock", "--json")

    assert before.returncode == after.returncode == 0
    assert before.stdout.startswith("nobody holds the migration lock on ")
    assert json.loads(after.stdout)["holder"] is None


def test_from_a_living_holder_nothing_is_taken_and_all_is_told(database, at_work):
    up, directory = at_work

    refused = run_migrator(database, directory, "unlock")
    shown = run_migrator(database, directory, "unlock", "--json")

    assert refused.returncode == shown.returncode == 75
    assert f"/{up.pid}/" in told(refused)
    assert ": alive; its session (pid " in told(refused)
    assert ") is at 1_a.sql; " in told(refused)
    assert commands(told(refused)) == [["wait", "--applied"], ["unlock", "--force"]]
    document = json.loads(shown.stdout)
    assert (document["state"], document["released"]) == ("alive", False)
    assert up.poll() is None


def test_repair_says_that_somebody_is_still_at_what_is_half_done(database, migrations):
    directory = migrations(_1_a="-- migrator: no-transaction\nselect pg_sleep(60);")
    up = start_migrator(database, directory)
    try:
        wait_until(lambda: fetch(database, AT_WORK), what="the migration at work")
        beside = run_migrator(database, directory, "repair")
        machines = run_migrator(database, directory, "repair", "--json")
    finally:
        up.kill()
        up.communicate()
    fetch(database, AT_WORK.replace("1", "pg_terminate_backend(pid)", 1))
    wait_until(lambda: not fetch(database, AT_WORK), what="the end of the dead one's session")
    alone = run_migrator(database, directory, "repair")

    assert beside.returncode == machines.returncode == alone.returncode == 65
    assert "\nsomebody is at work just now: " in beside.stdout
    assert f"/{up.pid}/" in beside.stdout
    assert f"/{up.pid}/" in json.loads(machines.stdout)["holder"]
    assert "at work" not in alone.stdout


def test_with_force_a_living_holders_work_is_rolled_back_and_the_lock_is_free(database, at_work):
    up, directory = at_work
    up.send_signal(signal.SIGSTOP)  # what its reconnection does is another story

    done = run_migrator(database, directory, "unlock", "--force")

    assert done.returncode == 0, done.stderr
    assert f"/{up.pid}/" in done.stdout
    assert "the lock is free now" in done.stdout
    assert fetch(database, AT_WORK) == []
    assert fetch(database, "select to_regclass('a')") == [(None,)]
    assert fetch(database, "select holder from migrator.migration_locks") == [(None,)]
    assert fetch(database, "select 1 from migrator.migration_history") == []


def test_the_lock_of_a_killed_holder_is_free_once_the_server_knows(database, at_work):
    up, directory = at_work
    up.kill()
    up.communicate()

    done = wait_until(
        lambda: one if (one := run_migrator(database, directory, "unlock")).returncode == 0 else None,
        what="the dead holder's lock",
    )

    assert done.stdout.startswith("nobody holds") or ": dead" in done.stdout


async def leave_behind(url, *, ttl_s):
    """Take the lock as through a pooler, and go away without a word."""
    async with store_on(url, pooled=True) as store:
        await store.install()
        assert await store.acquire("dead-container/7/abcdef", ttl_s, session=False)


async def test_the_lock_of_a_dead_container_behind_a_pooler_is_taken(database, migrations):
    await leave_behind(database, ttl_s=0.01)
    done = await asyncio.to_thread(run_migrator, database, migrations(_1_a="select 1;"), "unlock")

    assert done.returncode == 0, done.stderr
    assert "dead-container/7/abcdef took it" in done.stdout
    assert ": dead\nthe lock is free now" in done.stdout


async def test_the_lock_of_a_frozen_holder_is_taken_with_its_session(database, migrations):
    """Its session lives, and does nothing."""
    directory = migrations(_1_a="select 1;")
    async with store_on(database) as frozen:
        await frozen.install()
        assert await frozen.lock_session()
        assert await frozen.acquire("frozen/7/abcdef", 0.01, session=True)
        done = await asyncio.to_thread(
            wait_until,
            lambda: one if (one := run_migrator(database, directory, "unlock")).returncode == 0 else None,
            what="the frozen holder's lock",
        )

    assert ": frozen (server pid " in done.stdout
    done = await asyncio.to_thread(run_migrator, database, directory)
    assert done.returncode == 0


async def test_a_lock_whose_holder_was_heard_of_just_now_is_left_until_it_runs_out(database, migrations):
    await leave_behind(database, ttl_s=30)
    directory = migrations(_1_a="select 1;")
    refused = await asyncio.to_thread(run_migrator, database, directory, "unlock")
    forced = await asyncio.to_thread(run_migrator, database, directory, "unlock", "--force")

    assert refused.returncode == 75
    assert "it counts as dead after " in told(refused)
    assert forced.returncode == 0
    assert "may still run: it stops before its next migration" in forced.stdout


async def test_a_transaction_of_the_holder_is_never_waited_for_in_sql(database, migrations):
    """Its row is locked by another role's session, say, which we can't end: it is told, in time."""
    await leave_behind(database, ttl_s=0.01)
    async with session(database) as other:
        await other.execute("begin; select 1 from migrator.migration_locks for key share")
        done = await asyncio.to_thread(run_migrator, database, migrations(_1_a="select 1;"), "unlock")

    assert done.returncode == 75
    assert "cannot take the lock from dead-container/7/abcdef: the server is still at work for it" in told(
        done
    )


def test_up_says_for_whom_it_waits_and_what_tells_more(database, at_work):
    _, directory = at_work
    second = start_migrator(database, directory)
    try:
        line = wait_until(second.stderr.readline, what="a line")
    finally:
        second.kill()
        second.communicate()

    (busy,) = log_lines(line)
    assert busy["event"] == "lease.busy"
    assert commands(busy["reason"]) == [["unlock"]]


def test_what_fails_without_migrating_is_not_called_a_failed_migration(database, migrations):
    done = run_migrator(database, migrations(_1_a="select 1;"), "wait", "--applied", "--timeout", "0")

    events = [line["event"] for line in log_lines(done.stderr)]
    assert [one for one in events if one != "database.awaited"] == ["command.failed"]


# Waiting


def test_what_is_applied_already_is_not_waited_for(database, migrations):
    directory = migrations(_1_a="select 1;")
    run_migrator(database, directory)

    done = run_migrator(database, directory, "wait", "--applied", "--timeout", "0", "--json")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["applied"] is True


def test_who_waits_for_the_migrations_of_another_is_told_of_their_end(database, migrations):
    directory = migrations(_1_a="select 1;")
    waiting = subprocess.Popen(
        [sys.executable, "-m", "migrator", "wait", "--applied", "--timeout", "30"],
        env=clean_env(DATABASE_URL=database, MIGRATIONS_DIR=str(directory)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert any("pending: 1_a.sql; nobody is migrating" in line for line in waiting.stderr)
    run_migrator(database, directory)
    out, _ = waiting.communicate(timeout=30)

    assert waiting.returncode == 0
    assert out.startswith("all 1 migrations are applied, on ")


def test_what_is_pending_at_the_end_of_the_wait_is_75_and_named(database, migrations):
    directory = migrations(**{f"_{number}_a": "select 1;" for number in range(1, 6)})

    done = run_migrator(database, directory, "wait", "--applied", "--timeout", "0.3")

    assert done.returncode == 75
    assert "pending: 1_a.sql, 2_a.sql, 3_a.sql and 2 more; nobody is migrating" in told(done)
    assert commands(told(done)) == [["up"]]
    assert fetch(database, "select to_regnamespace('migrator')") == [(None,)]


def test_an_edited_file_is_not_waited_for(database, migrations):
    run_migrator(database, migrations(_1_a="select 1;"))

    done = run_migrator(database, migrations(_1_a="select 2;"), "wait", "--applied")

    assert done.returncode == 65
    assert commands(told(done)) == [["repair"]]


def test_a_database_that_sleeps_is_waited_for(migrations):
    directory = migrations(_1_a="select 1;")
    with private_server() as server:
        server.stop()
        asleep = run_migrator(server.url, directory)
        assert asleep.returncode == 69
        (way,) = commands(told(asleep))
        waiting = subprocess.Popen(
            [sys.executable, "-m", "migrator", *way],
            env=clean_env(DATABASE_URL=server.url, MIGRATIONS_DIR=str(directory)),
            stdout=subprocess.PIPE,
            text=True,
        )
        server.start()
        out, _ = waiting.communicate(timeout=30)

        assert waiting.returncode == 0
        assert out.startswith("the database answers, on ")


@pytest.mark.parametrize("seconds", ["0", "0.5"])
def test_a_database_that_does_not_wake_is_69_in_time(migrations, seconds):
    began_s = time.monotonic()
    done = run_migrator(
        f"postgresql://127.0.0.1:{free_port()}/d", migrations(_1_a="select 1;"), "wait", "--timeout", seconds
    )

    assert done.returncode == 69
    assert f"cannot wait any longer than {seconds} s: cannot reach the database" in told(done)
    assert time.monotonic() - began_s < 5


def test_a_wrong_password_is_not_waited_for(tmp_path, migrations):
    with private_server() as server:
        fetch(server.url, "create role bob login password 'right'; select 1")
        hba = server.directory / "postgres-data" / "pg_hba.conf"
        hba.write_text("host all bob all scram-sha-256\n" + hba.read_text())
        fetch(server.url, "select pg_reload_conf()")
        url = server.url.replace("postgres@", "bob:wrong@")
        rules = "select 1 from pg_hba_file_rules where user_name = '{bob}'"
        wait_until(lambda: fetch(server.url, rules), what="the new rules")
        done = wait_until(
            lambda: (
                one if (one := run_migrator(url, migrations(_1_a="select 1;"), "wait")).returncode else None
            ),
            what="the refusal",
        )

    assert done.returncode == 78
    assert "check user, password and database name" in told(done)
    assert "wrong" not in done.stderr


@pytest.mark.parametrize("seconds", ["-1", "x", "nan", "1e9"])
def test_a_time_that_makes_no_sense_is_2(seconds):
    done = run_migrator("postgresql://h/d", "nowhere", "wait", f"--timeout={seconds}")

    assert done.returncode == 2
    assert "isn't a number of seconds from 0 to 86400" in done.stderr
