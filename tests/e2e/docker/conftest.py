"""Our image with an app, and a Postgres beside it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import docker
from tests.support.docker import Container, Containers
from tests.support.processes import APPS
from tests.support.waiting import wait_until

# Looked for wherever it mustn't be.
PASSWORD = "hunter2-in-a-url"
# The session of a migration that sleeps, and not our own look at it.
SLEEPING = "from pg_stat_activity where query like '%sleep(600)%' and pid <> pg_backend_pid()"


@pytest.fixture(scope="session")
def app_image(image: str) -> str:
    """Ours with the tests' apps in /apps, as somebody's own Dockerfile has it."""
    sources = [*APPS.glob("*.py"), *Path(__file__).parent.glob("apps/*.py")]
    files = {f"apps/{path.name}": path.read_text() for path in sources}
    return docker.derive(f"{image}-app", f"FROM {image}\nCOPY apps /apps\n", files)


def app(name: str, *arguments: str) -> list[str]:
    """The command of one of the apps in the image."""
    return ["python3", "-I", "-S", f"/apps/{name}.py", *arguments]


@dataclass(frozen=True)
class Database:
    """An empty database of one test's own, in a container on a network."""

    server: Container
    network: str
    name: str

    @property
    def url(self) -> str:
        """As seen from the network."""
        return f"postgresql://postgres:{PASSWORD}@db/{self.name}"

    @property
    def env(self) -> dict[str, str]:
        """What makes migrations run."""
        return {"DATABASE_URL": self.url, "NODE_ENV": "production"}

    @property
    def options(self) -> tuple[str, ...]:
        """Of a container that is to reach it."""
        return ("--network", self.network)

    def fetch(self, query: str) -> str:
        """What psql prints for it, unaligned."""
        command = ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", self.name, "-c", query]
        return self.server.exec(*command).stdout.strip()


@pytest.fixture(scope="session")
def database_server(
    postgres_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Container, str]]:
    """One server for all tests, as `db` on a network of its own; the container and the network."""
    started = Containers(tmp_path_factory.mktemp("postgres"))
    try:
        network = started.network()
        server = started.run(postgres_image, name="db", options=["--network", network])
        wait_until(lambda: server.exec("pg_isready", "-q", check=False).returncode == 0, what="Postgres")
        yield server, network
    finally:
        started.close()


@pytest.fixture
def database(database_server: tuple[Container, str], containers: Containers) -> Iterator[Database]:
    """A database; it is dropped when the test's containers are gone."""
    server, network = database_server
    found = Database(server, network, f"test_{uuid.uuid4().hex[:12]}")
    server.exec("createdb", found.name)
    yield found
    containers.close()
    server.exec("dropdb", "--force", found.name)


Mounted = Callable[..., tuple[str, ...]]


@pytest.fixture
def mounted(migrations: Callable[..., Path]) -> Mounted:
    """Write migrations, `name=content`, and mount them where the image looks for them: options of `docker run`."""

    def mount(**files: str) -> tuple[str, ...]:
        return ("--volume", f"{migrations(**files)}:/app/migrations:ro")

    return mount
