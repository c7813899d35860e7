"""Docker Compose: compose.yaml as it stands, by Compose itself, with home-made images."""

import json
import os
import shutil
import subprocess
import urllib.request
import uuid

import pytest

from tests.e2e.examples import images
from tests.e2e.examples.apps import EXAMPLES
from tests.e2e.examples.platforms import read_yaml, schema_tool, wait_for_probe
from tests.support import docker
from tests.support.docker import POSTGRES
from tests.support.processes import clean_env, log_lines
from tests.support.waiting import wait_until

# Builds wait for each other, and a slow machine for npm.
pytestmark = pytest.mark.timeout(600)
FILE = EXAMPLES / "compose" / "compose.yaml"
PASSWORD = "s3cret-of-compose"
# What the official image does with these variables: it listens once the database and the password are there.
_POSTGRES = f"""FROM {POSTGRES}
COPY start /start
CMD ["sh", "/start"]
"""
_START = """set -e
bin=$(echo /usr/lib/postgresql/*/bin) data=/var/lib/postgresql/data
"$bin/pg_ctl" -D "$data" -o "-c listen_addresses=''" -w start >/dev/null
createdb "$POSTGRES_DB"
psql -Xqc "alter role postgres password '$(cat "$POSTGRES_PASSWORD_FILE")'"
"$bin/pg_ctl" -D "$data" -w stop >/dev/null
sed -i 's/^host all all all trust/host all all all scram-sha-256/' "$data/pg_hba.conf"
exec "$bin/postgres" -D "$data" -c listen_addresses='*' -c fsync=off
"""


def test_the_file_is_right_to_composes_own_schema():
    command = [schema_tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", FILE]
    done = subprocess.run(command, capture_output=True, text=True, env=clean_env())

    assert done.returncode == 0, done.stdout


def test_our_grace_ends_before_composes_patience():
    (document,) = read_yaml(FILE)
    shop = document["services"]["shop"]

    assert int(shop["environment"]["ENTRYPOINT_STOP_GRACE"]) < int(
        shop["stop_grace_period"].removesuffix("s")
    )


class Project:
    """A project of Compose's, 2 or 1, whichever is there."""

    def __init__(self, directory, env) -> None:
        plugin = docker.docker("compose", "version", check=False).returncode == 0
        if not plugin and shutil.which("docker-compose") is None:
            pytest.skip("needs docker-compose; .ci/run installs it")
        self._command = ["docker", "compose"] if plugin else ["docker-compose"]
        self._command += ["--project-name", f"entrypoint-test-{uuid.uuid4().hex[:10]}"]
        self._options = {"cwd": directory, "env": {**os.environ, **env}, "capture_output": True, "text": True}

    def __call__(self, *arguments: str) -> str:
        done = subprocess.run([*self._command, *arguments], timeout=300, **self._options)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    def containers(self, service: str) -> list[str]:
        return self("ps", "-q", service).split()


@pytest.fixture
def project(image, postgres_image, tmp_path):
    """As in the README, up to `up`; it is taken away with all that it made."""
    for name in ("compose", "node"):
        shutil.copytree(EXAMPLES / name, tmp_path / name, ignore=shutil.ignore_patterns("secrets"))
    secrets = tmp_path / "compose" / "secrets"
    secrets.mkdir()
    (secrets / "database_password").write_text(PASSWORD)
    (secrets / "database_url").write_text(f"postgresql://postgres:{PASSWORD}@db/shop")
    tmp_path.chmod(0o755)
    env = {
        "ENTRYPOINT_IMAGE": image,
        "NODE_IMAGE": images.node_base(),
        "POSTGRES_IMAGE": docker.derive(
            f"entrypoint-test/{docker.checkout()}-postgres", _POSTGRES, {"start": _START}
        ),
    }
    found = Project(tmp_path / "compose", env)
    try:
        yield found
    finally:
        found("down", "--volumes", "--rmi", "local", "--remove-orphans", "--timeout", "1")


def _inspect(container, template):
    return json.loads(docker.docker("inspect", "--format", f"{{{{json {template}}}}}", container).stdout)


def _wait_for_health(container):
    wait_until(
        lambda: _inspect(container, ".State.Health.Status") == "healthy",
        timeout_s=60,
        what="a healthy container",
    )


def _migrations(port):
    """What the app says of them to whoever asks from outside."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=10) as answer:
        return json.load(answer)["migrations"]["status"]


def test_three_replicas_and_a_database_come_up_migrate_once_and_stop(project):
    project("up", "--detach", "--build")
    shops = project.containers("shop")
    assert len(shops) == 3
    for container in [*shops, *project.containers("db")]:
        _wait_for_health(container)
    for container in shops:
        (published, *_) = _inspect(container, ".NetworkSettings.Ports")["3000/tcp"]
        port = int(published["HostPort"])
        wait_for_probe(port, "/")  # healthy it is as soon as the app runs, before it listens
        wait_until(lambda port=port: _migrations(port) == "completed", what="the end of the migrations")

    project("stop")
    logs = {container: docker.docker("logs", container) for container in shops}
    events = [line["event"] for one in logs.values() for line in log_lines(one.stderr)]
    assert events.count("migration.applied") == 2
    assert [_inspect(container, ".State.ExitCode") for container in shops] == [0, 0, 0]
    seen = "".join(one.stderr + one.stdout for one in logs.values()) + docker.docker("inspect", *shops).stdout
    assert PASSWORD not in seen
