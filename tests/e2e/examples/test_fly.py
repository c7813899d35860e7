"""Fly: the release command, the checks, the signal and the patience of fly.toml."""

import signal
import time
import tomllib

import pytest

from tests.e2e.examples.apps import EXAMPLES, NODE, Served
from tests.e2e.examples.platforms import probe, wait_for_probe, words
from tests.support.postgres import fetch, free_port

FLY = tomllib.loads((EXAMPLES / "fly" / "fly.toml").read_text())
RELEASE = words(FLY["deploy"]["release_command"])


@pytest.fixture
def machine(shop, tmp_path):
    """Start a machine of the app, for its release command or for its CMD."""

    def start(name, command=None, **extra):
        directory = tmp_path / name
        env = {**FLY["env"], "ENTRYPOINT_HTTP_PORT": str(free_port()), "DATABASE_URL": shop, **extra}
        served = Served(NODE, directory, env, command)
        served.status_port = int(env["ENTRYPOINT_HTTP_PORT"])
        return served

    return start


def test_the_release_command_migrates_by_itself_and_the_machines_find_nothing_to_do(machine, shop):
    with machine("release", RELEASE, RELEASE_COMMAND="1") as release:
        assert release.wait() == 0
        # `unknown` if it was quicker than whoever finds out that there is nothing else to do.
        assert release.marker()["migrations"]["status"] in ("skipped", "unknown")
        assert not release.events("migrator.spawned")
    assert fetch(shop, "select count(*) from migrator.migration_history") == [(2,)]

    check = FLY["http_service"]["checks"][0]
    with machine("first") as first, machine("second") as second:
        for one in (first, second):
            wait_for_probe(one.port, check["path"])
            wait_for_probe(one.status_port, FLY["checks"]["migrations"]["path"])
            assert not one.events("migration.applied")
            one.process.send_signal(signal.Signals[FLY["kill_signal"]])
            begun = time.monotonic()
            assert one.wait() == NODE.codes[1]
            assert time.monotonic() - begun < FLY["kill_timeout"]


def test_a_release_command_that_fails_stops_the_deploy_by_its_exit_code(machine, tmp_path):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "99990101000000_bad.sql").write_text("select nonsense")
    bad = {"MIGRATIONS_DIR": f"migrations:{tmp_path / 'bad'}"}
    with machine("release", RELEASE, RELEASE_COMMAND="1", **bad) as release:
        assert release.wait() == 1

    with machine("machine", **bad) as one:  # as if it were deployed all the same
        one.wait_for_phase("failed")
        one.wait_for_page()
        assert probe(one.port, FLY["http_service"]["checks"][0]["path"]) == 503
        assert probe(one.status_port, FLY["checks"]["migrations"]["path"]) == 503


def test_the_ports_and_the_times_fit_each_other():
    assert str(FLY["http_service"]["internal_port"]) == NODE.image.env["PORT"]
    assert str(FLY["checks"]["migrations"]["port"]) == FLY["env"]["ENTRYPOINT_HTTP_PORT"]
    assert int(FLY["env"]["ENTRYPOINT_STOP_GRACE"]) < FLY["kill_timeout"]
