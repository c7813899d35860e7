"""The migrations beside the app: whatever becomes of them, the app goes on and the status is true."""

import json
import signal
from urllib.parse import unquote

import asyncpg
import psutil
import pytest

from tests.support.faults import faulty_proxy
from tests.support.postgres import (
    UNTIL_GATE_OPENS,
    Blocker,
    fetch,
    free_port,
    new_database,
    open_gate,
    running_server,
    shut_gate,
)
from tests.support.processes import app
from tests.support.waiting import wait_until

SLOW = "create table before_the_sleep (id int); select pg_sleep(60);"


def _env(url, directory, **extra):
    return {
        "NODE_ENV": "production",
        "DATABASE_URL": url,
        "MIGRATIONS_DIR": str(directory),
        "MIGRATION_RETRY_DELAY": "0.1",
        **extra,
    }


def _is_applying(url):
    """Whether the server runs the sleep, seen from the server."""
    query = "select count(*) from pg_stat_activity where query like '%pg_sleep%' and pid <> pg_backend_pid()"
    return fetch(url, query) != [(0,)]


def _history(url):
    try:
        return [row[0] for row in fetch(url, "select filename from migrator.migration_history order by 1")]
    except asyncpg.UndefinedTableError:
        return []


def _tables(url):
    return {row[0] for row in fetch(url, "select tablename from pg_tables where schemaname = 'public'")}


def test_migrations_are_applied_beside_the_running_app(start, pid1, database, migrations):
    directory = migrations(_1_a="create table a (id int);", _2_b="insert into a values (1);")
    running = start(app("wait", "4"), pid1=pid1, env=_env(database, directory, SERVICE_NAME="shop"))
    running.wait_for_output("ready")
    marker = running.wait_for_phase("completed")

    assert marker["status"] == "ok"
    assert marker["service"] == "shop"
    assert marker["migrations"]["status"] == "completed"
    assert (marker["migrations"]["applied"], marker["migrations"]["pending"]) == (2, 0)
    assert marker["migrations"]["attempt"] == 1
    assert fetch(database, "select count(*) from a") == [(1,)]
    assert running.request("/ready")[0] == 200
    running.send(signal.SIGTERM)
    assert running.wait() == 4
    assert running.stdout == "ready\n"
    assert running.stderr.count("\n") == len(running.log)


def test_the_child_is_niced_limited_and_first_to_be_killed_and_the_app_is_not(start, database, migrations):
    running = start(
        app("wait"),
        env=_env(database, migrations(_1_a=SLOW), MIGRATION_NICE="7", MIGRATION_MAX_MEMORY_MB="200"),
    )
    running.wait_for_phase("applying")
    child = running.migrator()
    application = psutil.Process(running.marker()["app"]["pid"])

    assert child.nice() == 7 + application.nice()
    assert child.rlimit(psutil.RLIMIT_DATA) == (200 * 1024 * 1024,) * 2
    assert _oom_score_adj(child) == 1000
    assert _oom_score_adj(application) != 1000
    assert application.rlimit(psutil.RLIMIT_DATA)[0] == psutil.RLIM_INFINITY
    wait_until(lambda: child.ionice().ioclass == psutil.IOPRIO_CLASS_IDLE, what="the idle class")


def test_a_migration_that_fails_leaves_the_app_alone_and_is_told(start, pid1, database, migrations):
    directory = migrations(_1_a="create table a (id int);", _2_b="select 1;\nselect nonsense;")
    running = start(app("wait", "5"), pid1=pid1, env=_env(database, directory))
    running.wait_for_output("ready")
    marker = running.wait_for_phase("failed")

    error = marker["migrations"]["error"]
    assert (marker["status"], marker["migrations"]["status"]) == ("error", "failed")
    assert marker["app"]["status"] == "running"
    assert "2_b.sql" in error
    assert "line 2" in error
    assert "rolled back" in error
    assert [running.request(path)[0] for path in ("/api/health", "/ready", "/live")] == [503, 503, 200]
    assert marker["migrations"]["attempt"] == 1  # worth no retry
    running.send(signal.SIGTERM)
    assert running.wait() == 5
    assert _history(database) == ["1_a.sql"]


def test_a_killed_migrator_is_started_again_and_the_app_lives_on(start, pid1, database, migrations):
    shut_gate(database)
    directory = migrations(_1_a=f"{UNTIL_GATE_OPENS} create table a (id int);")
    running = start(app("wait", "6"), pid1=pid1, env=_env(database, directory))
    running.wait_for_phase("applying")
    running.migrator().kill()
    retrying = running.wait_for_event("migration.retrying")
    open_gate(database)
    marker = running.wait_for_phase("completed")

    assert retrying["attempt"] == 1
    assert marker["migrations"]["attempt"] == 2
    assert marker["migrations"]["error"] is None
    assert _history(database) == ["1_a.sql"]
    running.send(signal.SIGTERM)
    assert running.wait() == 6


def test_an_unreachable_database_is_tried_again_and_then_failed_for_good(start, migrations):
    url = f"postgresql://me:s3cret@127.0.0.1:{free_port()}/none"
    # The time limit cuts the child's own knocking short; waiting for a database is worth a retry. The child must
    # have knocked by then, on a busy machine too, and the pause be long enough for a look at it.
    settings = {"MIGRATION_RETRY_COUNT": "2", "MIGRATION_RETRY_DELAY": "1", "MIGRATION_TIMEOUT": "2.5"}
    running = start(app("wait", "9"), env=_env(url, migrations(_1_a="select 1;"), **settings))
    running.wait_for_output("ready")
    retrying = running.wait_for_phase("retrying")
    assert retrying["migrations"]["status"] == "running"
    assert retrying["status"] == "ok"

    marker = running.wait_for_phase("timed_out", "failed")
    assert marker["migrations"]["status"] == "failed"
    assert marker["migrations"]["attempt"] == 3
    assert "timed out after 2.5 s" in marker["migrations"]["error"]
    assert running.request("/api/health")[0] == 503
    running.send(signal.SIGTERM)
    assert running.wait() == 9
    assert "s3cret" not in running.stderr + json.dumps(marker)
    # At once, and not only when the attempt is given up; once for each, however often it knocks.
    assert [line["level"] for line in running.events("database.awaited")] == ["warning"] * 3


def test_a_database_that_goes_and_comes_back_is_migrated_in_the_end(start, migrations):
    directory = migrations(
        _1_a="create table a (id int);", _2_b="select pg_sleep(1); create table b (id int);"
    )
    with running_server() as server:
        if server.process is None:
            pytest.skip("the server was given to us; we may not stop it")
        with new_database(server) as url:
            running = start(app("wait"), env=_env(url, directory))
            wait_until(
                lambda: running.marker().get("migrations", {}).get("current") == "2_b.sql",
                what="the second file",
            )
            server.stop(signal.SIGQUIT)
            wait_until(
                lambda: "next attempt in" in (running.marker()["migrations"]["reason"] or ""),
                timeout_s=40,
                what="the end of the first attempt",
            )
            server.start()
            marker = running.wait_for_phase("completed")

            assert marker["migrations"]["attempt"] >= 2
            assert _history(url) == ["1_a.sql", "2_b.sql"]
            running.send(signal.SIGTERM)
            assert running.wait() == 0


def test_a_timeout_is_told_as_such_with_what_the_server_said_of_the_rollback(start, database, migrations):
    running = start(app("wait"), env=_env(database, migrations(_1_a=SLOW), MIGRATION_TIMEOUT="3"))
    marker = running.wait_for_phase("timed_out")

    error = marker["migrations"]["error"]
    assert marker["migrations"]["status"] == "failed"
    assert "timed out after 3 s" in error
    assert "1_a.sql" in error
    assert "rolled back" in error
    assert "MIGRATION_TIMEOUT" in error
    assert marker["migrations"]["attempt"] == 1  # it would take as long again
    assert _history(database) == []
    assert "before_the_sleep" not in _tables(database)
    assert not _is_applying(database)
    assert running.request("/api/health")[0] == 503


def test_waiting_for_another_replica_too_long_is_tried_again(start, database, migrations):
    shut_gate(database)
    directory = migrations(_1_a=UNTIL_GATE_OPENS)
    first = start(app("wait"), env=_env(database, directory))
    first.wait_for_phase("applying")
    second = start(
        app("wait"), env=_env(database, directory, MIGRATION_TIMEOUT="1.2", MIGRATION_RETRY_COUNT="99")
    )
    second.wait_for_phase("waiting_for_lock")
    second.wait_for_event("migration.retrying")
    open_gate(database)

    assert second.wait_for_phase("completed")["migrations"]["attempt"] > 1
    assert _history(database) == ["1_a.sql"]


def test_whoever_holds_a_table_is_named_in_the_status_and_waited_for_again_after_the_deadline(
    start, database, migrations
):
    fetch(database, "create table orders (id int)")
    blocker = Blocker(database, "begin; select * from orders")
    try:
        running = start(
            app("wait"),
            env=_env(
                database,
                migrations(_1_a="alter table orders add column note text;"),
                MIGRATION_TIMEOUT="1.5",
                MIGRATION_RETRY_COUNT="99",
                MIGRATION_RETRY_DELAY="0.1",
            ),
        )
        waiting = running.wait_for_phase("waiting_for_lock")["migrations"]
        running.wait_for_event("migration.retrying")
    finally:
        blocker.close()

    assert waiting["current"] == "1_a.sql"
    assert waiting["status"] == "running"
    assert "holds access share on public.orders" in waiting["reason"]
    assert "idle in transaction" in waiting["reason"]
    assert running.wait_for_phase("completed")["migrations"]["attempt"] > 1


def test_a_child_that_outgrows_its_memory_ends_with_a_status_that_says_so(start, database, migrations):
    directory = migrations()
    values = "insert into big values ('" + "x" * 50_000_000 + "');\n"
    (directory / "1_big.sql").write_text("create table big (t text);\n" + values)
    running = start(app("wait", "3"), env=_env(database, directory, MIGRATION_MAX_MEMORY_MB="64"))
    marker = running.wait_for_phase("failed", timeout_s=60)

    assert "MIGRATION_MAX_MEMORY_MB" in marker["migrations"]["error"]
    assert marker["app"]["status"] == "running"
    assert _history(database) == []
    running.send(signal.SIGTERM)
    assert running.wait() == 3


def test_sigterm_stops_app_and_migration_together_and_says_what_became_of_it(
    start, pid1, database, migrations
):
    running = start(app("wait", "2"), pid1=pid1, env=_env(database, migrations(_1_a=SLOW)))
    running.wait_for_phase("applying")
    child = running.migrator()
    wait_until(lambda: _is_applying(database), what="the sleep in the server")
    running.send(signal.SIGTERM)

    # The app is gone within a millisecond; the migrator's rollback is waited for nevertheless.
    assert running.wait(5) == 2
    marker = running.marker()
    assert marker["migrations"]["phase"] == "aborted"
    assert marker["migrations"]["status"] == "unknown"
    assert "rolled back" in marker["migrations"]["error"]
    assert marker["app"]["status"] == "exited"
    assert _history(database) == []
    assert not _is_applying(database)
    assert "before_the_sleep" not in _tables(database)
    assert not psutil.pid_exists(child.pid)


def test_an_app_that_ends_by_itself_takes_the_migration_with_it(start, database, migrations):
    running = start(app("print_signals", str(int(signal.SIGUSR1))), env=_env(database, migrations(_1_a=SLOW)))
    running.wait_for_phase("applying")
    wait_until(lambda: _is_applying(database), what="the sleep in the server")
    running.send(signal.SIGUSR1)

    assert running.wait(5) == 0
    assert running.marker()["migrations"]["phase"] == "aborted"
    assert "rolled back" in running.marker()["migrations"]["error"]
    assert not _is_applying(database)


def test_a_suspended_migrator_is_woken_to_roll_back_with_the_container(start, database, migrations):
    running = start(app("wait"), env=_env(database, migrations(_1_a=SLOW)))
    running.wait_for_phase("applying")
    child = running.migrator()
    child.suspend()
    running.send(signal.SIGTERM)

    assert running.wait(12) == 0
    assert not psutil.pid_exists(child.pid)
    marker = running.marker()
    assert marker["migrations"]["phase"] == "aborted"
    assert "rolled back" in marker["migrations"]["error"]


def test_without_its_entrypoint_the_migrator_ends_by_itself(start, database, migrations):
    running = start(app("wait"), env=_env(database, migrations(_1_a=SLOW)))
    running.wait_for_phase("applying")
    child = running.migrator()
    application = psutil.Process(running.marker()["app"]["pid"])
    wait_until(lambda: _is_applying(database), what="the sleep in the server")
    running.send(signal.SIGKILL)

    assert running.wait() == -signal.SIGKILL
    wait_until(lambda: _gone(child), what="the migrator's end")
    wait_until(lambda: not _is_applying(database), what="the rollback")
    assert _history(database) == []
    application.terminate()


@pytest.mark.parametrize(
    ("env", "reason"),
    [
        (
            {"NODE_ENV": "development"},
            "NODE_ENV=development; migrations run where it is production or staging",
        ),
        ({"NODE_ENV": ""}, "NODE_ENV is not set"),
        ({"SKIP_MIGRATIONS": "true"}, "SKIP_MIGRATIONS=true"),
        ({"MIGRATION_ENABLED": "false"}, "MIGRATION_ENABLED=false"),
        ({"RELEASE_COMMAND": "1"}, "RELEASE_COMMAND=1: a release command runs"),
    ],
)
def test_switched_off_migrations_are_skipped_with_the_reason(start, migrations, env, reason):
    url = f"postgresql://me@127.0.0.1:{free_port()}/none"
    running = start(app("wait"), env=_env(url, migrations(_1_a="select 1;"), **env))
    marker = running.wait_for_phase("skipped")

    assert marker["migrations"]["status"] == "skipped"
    assert marker["migrations"]["reason"].startswith(reason)
    assert [running.request(path)[0] for path in ("/api/health", "/ready", "/live")] == [200, 200, 200]
    assert not running.events("migrator.spawned")


def test_no_migrations_directory_is_skipped_with_the_reason(start, database, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    running = start(app("wait"), cwd=empty, env={"NODE_ENV": "production", "DATABASE_URL": database})

    assert "no migrations directory" in running.wait_for_phase("skipped")["migrations"]["reason"]


def test_wrong_values_are_all_named_in_one_line_and_the_app_starts(start, database, migrations):
    wrong = {
        "MIGRATION_TIMEOUT": "soon",
        "MIGRATION_RETRY_COUNT": "-1",
        "ENTRYPOINT_STOP_GRACE": "long",
        "ENTRYPOINT_HTTP_PORT": "99999",
    }
    running = start(app("wait", "3"), env=_env(database, migrations(_1_a="create table a ();"), **wrong))
    marker = running.wait_for_phase("failed")
    variables_of_migrations = {"MIGRATION_TIMEOUT", "MIGRATION_RETRY_COUNT"}

    (line,) = running.events("settings.refused")
    for name in wrong:
        assert name in line["reason"]
        assert (name in marker["migrations"]["error"]) == (name in variables_of_migrations)
    assert "must be a whole number from 0 to 1000" in line["reason"]
    running.send(signal.SIGTERM)
    assert running.wait() == 3
    assert "a" not in _tables(database)


def test_a_wrong_value_that_doesnt_decide_about_migrations_doesnt_keep_them(start, database, migrations):
    wrong = {"LOG_LEVEL": "trace", "ENTRYPOINT_STOP_GRACE": "long"}
    running = start(app("wait"), env=_env(database, migrations(_1_a="create table a ();"), **wrong))

    running.wait_for_phase("completed")
    (line,) = running.events("settings.refused")
    assert all(name in line["reason"] for name in wrong)


def test_a_misspelt_name_is_a_warning(start, database, migrations):
    env = _env(database, migrations(_1_a="create table a ();"), MIGRATION_TIMOUT="5")
    running = start(app("wait"), env=env)

    running.wait_for_phase("completed")
    (line,) = running.events("settings.ignored")
    assert (line["level"], "MIGRATION_TIMEOUT" in line["reason"]) == ("warning", True)


@pytest.mark.parametrize("name", ["MIGRATION_ENABLED", "SKIP_MIGRATIONS"])
def test_a_misspelt_switch_doesnt_migrate(start, database, migrations, name):
    running = start(app("wait"), env=_env(database, migrations(_1_a="create table a ();"), **{name: "flase"}))
    marker = running.wait_for_phase("failed")

    assert f"cannot use {name}='flase': must be true or false" in marker["migrations"]["error"]
    assert "a" not in _tables(database)


def test_no_database_is_a_configuration_error_that_says_what_to_set(start, migrations):
    running = start(
        app("wait"), env={"NODE_ENV": "production", "MIGRATIONS_DIR": str(migrations(_1_a="select 1;"))}
    )

    assert "DATABASE_URL" in running.wait_for_phase("failed")["migrations"]["error"]


@pytest.mark.parametrize("written", ["p%40ss%2Fw0rd-s3cret", "plain-s3cret"])
def test_no_secret_leaves(start, migrations, written):
    secret = unquote(written)
    url = f"postgresql://me:{written}@127.0.0.1:{free_port()}/none"
    running = start(
        app("wait"),
        env=_env(
            url,
            migrations(_1_a="select 1;"),
            SUPABASE_SERVICE_ROLE_KEY="service-k3y",
            MIGRATION_TIMEOUT="1",
            MIGRATION_RETRY_COUNT="0",
            LOG_LEVEL="debug",
        ),
    )
    running.wait_for_phase("timed_out", "failed")
    answers = b"".join(running.request(path)[2] for path in ("/api/health", "/live", "/nothing"))
    running.send(signal.SIGTERM)
    running.wait()

    said = (
        running.stderr + running.stdout + (running.state_dir / "status.json").read_text() + answers.decode()
    )
    for word in (secret, written, "service-k3y"):
        assert word not in said


def _oom_score_adj(process):
    with open(f"/proc/{process.pid}/oom_score_adj") as file:
        return int(file.read())


def _gone(process):
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # between the two
        return True


def test_a_connection_that_is_cut_is_replaced_within_the_attempt(start, database, migrations):
    directory = migrations(_1_a="create table a (id int); select pg_sleep(1.5);")
    with faulty_proxy(database) as proxy:
        running = start(app("wait", "0"), env=_env(proxy.url, directory, MIGRATION_RETRY_COUNT="0"))
        wait_until(lambda: _is_applying(database), what="the slow migration")
        proxy.cut()
        marker = running.wait_for_phase("completed")

    assert marker["migrations"]["attempt"] == 1
    changes = [(line["phase"], line.get("reason", "")) for line in running.events("status.changed")]
    assert changes[-1][0] == "completed"
    assert [reason for phase, reason in changes if phase == "retrying" and "lost the connection" in reason]
    assert not running.events("status.refused")
    assert _history(database) == ["1_a.sql"]
