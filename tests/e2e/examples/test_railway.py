"""Railway: its own SDK reads the file; start command, health check and draining are taken from what it makes of it."""

import json
import signal
import subprocess
import time

import pytest

from tests.conftest import needs
from tests.e2e.examples.apps import EXAMPLES, NEXTJS, Served
from tests.e2e.examples.platforms import after_entrypoint, probe, wait_for_probe, words
from tests.support.processes import clean_env, log_lines

DIRECTORY = EXAMPLES / "railway"
# What Railway's CLI does with the file, as far as it is the SDK's part.
EVALUATE = """const { createRailwayContext, project } = require("railway/iac");
const { default: program } = require("./.railway/railway.ts");
Promise.resolve(program(createRailwayContext(), project)).then((found) => console.log(JSON.stringify(found)));"""
# What Railway adds, as far as it means something to us.
GIVEN = {
    "RAILWAY_ENVIRONMENT_NAME": "production",
    "RAILWAY_SERVICE_NAME": "web",
    "RAILWAY_DEPLOYMENT_ID": "5b0ac3c5",
    "RAILWAY_REPLICA_ID": "a7d2",
}


def _run(*command):
    needs("node")
    if not (DIRECTORY / "node_modules" / "railway").exists():
        pytest.skip("needs npm's railway; make examples installs it")
    return subprocess.run(command, cwd=DIRECTORY, env=clean_env(), capture_output=True, text=True)


@pytest.fixture(scope="module")
def web():
    """The service, as the SDK has it."""
    done = _run("node_modules/.bin/tsx", "--eval", EVALUATE)
    assert done.returncode == 0, done.stderr
    by_name = {resource["name"]: resource for resource in json.loads(done.stdout)["resources"]}
    return by_name["web"]


@pytest.fixture
def deploy(web, shop, tmp_path):
    """Start the service as Railway does; its environment can be added to."""

    def start(**extra):
        values = {name: value.get("value", shop) for name, value in web["variables"].items()}
        command = after_entrypoint(web["deploy"]["startCommand"].split(), NEXTJS)
        return Served(NEXTJS, tmp_path, {**GIVEN, **values, **extra}, command)

    return start


def test_the_file_is_right_to_railways_own_types():
    done = _run(
        *("node_modules/.bin/tsc", "--noEmit", "--strict", "--module", "nodenext", "--target", "es2022"),
        ".railway/railway.ts",
    )

    assert (done.stdout, done.returncode) == ("", 0)


def test_the_database_is_the_one_beside_it(web):
    assert web["variables"]["DATABASE_URL"] == {
        "type": "reference",
        "resource": "database.database",
        "output": "DATABASE_URL",
    }
    assert words(web["deploy"]["startCommand"]) != web["deploy"]["startCommand"].split()
    assert "$" not in web["deploy"]["startCommand"]  # no shell would put anything in its place


def test_it_turns_healthy_is_drained_in_time_and_its_log_is_not_all_red(web, deploy):
    settings = web["deploy"]
    with deploy() as served:
        wait_for_probe(served.port, settings["healthcheckPath"], Host="healthcheck.railway.app")
        served.wait_for_phase("completed")
        served.process.send_signal(signal.SIGTERM)
        begun = time.monotonic()

        assert served.wait() == 0  # anything else would be shown as a crash
        assert time.monotonic() - begun < settings["drainingSeconds"]
    assert served.stderr == ""
    lines = log_lines(served.stdout)
    assert {"app.spawned", "migration.applied", "stop.finished"} <= {line["event"] for line in lines}
    assert all(line["message"] and line["level"] in ("info", "warning", "error") for line in lines)


def test_our_grace_ends_before_railways_patience(web):
    grace_s = int(web["variables"]["ENTRYPOINT_STOP_GRACE"]["value"])

    assert grace_s < web["deploy"]["drainingSeconds"]


def test_after_a_bad_migration_it_never_turns_healthy_and_doesnt_end(web, deploy, tmp_path):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "99990101000000_bad.sql").write_text("select nonsense")
    with deploy(MIGRATIONS_DIR=f"supabase/migrations:{tmp_path / 'bad'}") as served:
        served.wait_for_phase("failed")
        served.wait_for_page()

        assert probe(served.port, web["deploy"]["healthcheckPath"]) == 503
        assert served.process.poll() is None
