"""The examples' Dockerfiles, built and run by a real engine with a Postgres beside them."""

import http.client
import json

import pytest

from tests.e2e.examples import images
from tests.e2e.examples.apps import ALL, DJANGO, NEXTJS
from tests.e2e.examples.conftest import ROLES
from tests.support.docker import Containers
from tests.support.waiting import wait_until

# Builds wait for each other, and a slow machine for npm.
pytestmark = pytest.mark.timeout(600)
EVERY = pytest.mark.parametrize("example", ALL, ids=lambda example: example.name)
PASSWORD = "s3cret-of-a-url"
# As little as a platform may give; the image's own user stays.
HARDENED = (
    "--read-only",
    "--tmpfs",
    "/tmp:noexec",
    "--cap-drop",
    "ALL",
    "--security-opt",
    "no-new-privileges",
)


@pytest.fixture(scope="module")
def server(postgres_image, tmp_path_factory):
    """A Postgres, as `db` on a network; both."""
    started = Containers(tmp_path_factory.mktemp("postgres"))
    try:
        network = started.network()
        found = started.run(postgres_image, name="db", options=["--network", network])
        wait_until(lambda: found.exec("pg_isready", "-q", check=False).returncode == 0, what="Postgres")
        found.exec("psql", "-Xqc", ROLES)
        yield found, network
    finally:
        started.close()


def _get(address, port, path):
    connection = http.client.HTTPConnection(address, port, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    except OSError:
        return 0, b""
    finally:
        connection.close()


@EVERY
def test_the_image_serves_migrates_turns_healthy_and_stops(example, image, server, containers):
    database, network = server
    database.exec("createdb", example.name)
    built = images.build(example, image)
    container = containers.run(
        built,
        options=("--network", network, *HARDENED, "--health-interval", "1s"),
        DATABASE_URL=f"postgresql://postgres:{PASSWORD}@db/{example.name}",
        DJANGO_SECRET_KEY="k3y-of-django",
        SERVICE_NAME="shop",
    )
    address, port = container.address(network), int(example.image.env[example.port])
    wait_until(lambda: _get(address, port, "/")[0] == 200, timeout_s=60, what="a page, from outside")
    container.wait_for_health("healthy")

    def completed():
        status, body = _get(address, port, "/api/health")
        return (
            status == 200 and (health := json.loads(body))["migrations"]["status"] == "completed" and health
        )

    health = wait_until(completed, what="completed migrations")
    assert (health["service"], health["app"]["status"]) == ("shop", "running")
    assert health["migrations"]["pending"] == (None if example is DJANGO else 0)
    assert container.inspect(".Config.User") == "1000"
    table = "shop_product" if example is DJANGO else "products"
    found = database.exec("psql", "-XAtqc", f"select count(*) from {table}", "-d", example.name)
    assert found.stdout == "0\n"

    assert "on db" in container.exec("migrator", "status").stdout
    assert container.exec("entrypoint", "--status").stdout.startswith("app running")

    assert container.stop() == example.codes[0]
    assert PASSWORD not in container.stdout + container.stderr + json.dumps(health)
    assert "ERROR" not in container.stdout + container.stderr
    # What isn't JSON is the app's own.
    assert [line["event"] for line in container.log][-1] == "stop.finished"


def test_next_js_is_reached_by_the_loopback_address_too(image, containers):
    """A sidecar, a probe in the container, and what people type ask 127.0.0.1, which Docker's HOSTNAME isn't."""
    built = images.build(NEXTJS, image)
    asks = "fetch('http://127.0.0.1:3000/api/health').then((r) => r.text()).then(console.log, () => process.exit(1))"
    container = containers.run(built, SKIP_MIGRATIONS="true")
    ask = ("node", "--eval", asks)
    wait_until(lambda: container.exec(*ask, check=False).returncode == 0, what="an answer on 127.0.0.1")

    assert json.loads(container.exec(*ask).stdout)["app"]["status"] == "running"
    assert container.exec("sh", "-c", "echo $HOSTNAME").stdout == "0.0.0.0\n"
