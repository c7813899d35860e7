"""Render: the pre-deploy command, the health check and the patience of render.yaml."""

import signal
import subprocess
import time

import pytest

from tests.e2e.examples.apps import EXAMPLES, NODE, Served
from tests.e2e.examples.platforms import probe, read_yaml, wait_for_probe, words
from tests.support.postgres import fetch


@pytest.fixture(scope="module")
def blueprint():
    (document,) = read_yaml(EXAMPLES / "render" / "render.yaml")
    return document


@pytest.fixture
def env(blueprint, shop):
    """What the service's environment says."""
    (database,) = blueprint["databases"]
    found = {}
    for variable in blueprint["services"][0]["envVars"]:
        source = variable.get("fromDatabase")
        assert source in (None, {"name": database["name"], "property": "connectionString"})
        found[variable["key"]] = shop if source else variable["value"]
    return found


@pytest.mark.parametrize("wrapped", [False, True], ids=["as it stands", "by way of the ENTRYPOINT"])
def test_the_pre_deploy_command_migrates_and_the_instance_serves(blueprint, env, shop, tmp_path, wrapped):
    service = blueprint["services"][0]
    command = words(service["preDeployCommand"])
    if wrapped:
        with Served(NODE, tmp_path / "release", env, command) as release:
            assert release.wait() == 0
            assert not release.events("migrator.spawned")
    else:
        app = NODE.lay_out(tmp_path / "app")
        done = subprocess.run(command, cwd=app, env={**NODE.image.env, **env}, capture_output=True)
        assert done.returncode == 0, done.stderr
    assert fetch(shop, "select count(*) from migrator.migration_history") == [(2,)]

    with Served(NODE, tmp_path, env) as served:
        wait_for_probe(served.port, service["healthCheckPath"])
        served.wait_for_phase("completed")
        served.process.send_signal(signal.SIGTERM)
        begun = time.monotonic()

        assert served.wait() == NODE.codes[0]
        assert time.monotonic() - begun < service["maxShutdownDelaySeconds"]
        assert not served.events("migration.applied")
    assert int(env["ENTRYPOINT_STOP_GRACE"]) < service["maxShutdownDelaySeconds"]


def test_a_bad_migration_stops_the_deploy_and_would_not_have_instances_restarted(
    blueprint, env, tmp_path, shop
):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "99990101000000_bad.sql").write_text("select nonsense")
    bad = {**env, "MIGRATIONS_DIR": f"migrations:{tmp_path / 'bad'}"}
    service = blueprint["services"][0]
    app = NODE.lay_out(tmp_path / "app")
    done = subprocess.run(words(service["preDeployCommand"]), cwd=app, env=bad, capture_output=True)

    assert done.returncode == 1
    with Served(NODE, tmp_path, bad) as served:
        served.wait_for_phase("failed")
        served.wait_for_page()
        assert probe(served.port, service["healthCheckPath"]) == 200
        assert probe(served.port, "/api/health") == 503
