"""Images without Python, and the bundle in them."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import docker
from tests.support.docker import Container, Containers
from tests.support.waiting import wait_until

# What people run with who mean it.
HARDENED = (
    *("--read-only", "--tmpfs", "/tmp:noexec", "--user", "65532:65532"),
    *("--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
)
_LAST_LINES = """\
COPY --from=ours /opt/entrypoint /opt/entrypoint
COPY site-packages /opt/entrypoint/site-packages
COPY by_hand.py /app/by_hand.py
ENV PATH=/usr/bin:/bin:/opt/entrypoint/bin NODE_ENV=production
WORKDIR /app
ENTRYPOINT ["/opt/entrypoint/bin/entrypoint", "--"]
"""
_DEBIAN = "FROM {ours} AS ours\nFROM {bare}\n" + _LAST_LINES
# An image as Alpine's, and even less: the app's C library is musl, and nobody else has any.
_MUSL = (
    """\
FROM {ours} AS ours
FROM {bare} AS tools
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends busybox-static gcc musl-tools >/dev/null
WORKDIR /src
COPY *.c ./
RUN mkdir -p /made/bin /made/lib /made/tmp && chmod 1777 /made/tmp && cp -P /lib/ld-musl-*.so.1 /made/lib/ && cp /usr/lib/*-linux-musl/libc.so /made/lib/ \\
 && for one in /made/lib/ld-musl-*; do ln -sf libc.so $one; done \\
 && cp /bin/busybox /made/bin/ && for one in sh cat chmod chroot cp env ln mkdir ps sleep; do ln -s busybox /made/bin/$one; done \\
 && musl-gcc -o /made/bin/app app.c && musl-gcc -shared -fPIC -o /made/lib/preloaded.so preloaded.c
FROM scratch
COPY --from=tools /made /
"""
    + _LAST_LINES
)
_APP = """\
#include <stdio.h>
#include <stdlib.h>
int preloaded(void) __attribute__((weak));
int main(void) {
  printf("preloaded: %d, %s\\n", preloaded ? preloaded() : 0, getenv("LD_PRELOAD"));
  return 0;
}
"""
_PRELOADED = "int preloaded(void) { return 1; }\n"
_RUNNER = """\
import asyncpg


class Ours:
    async def run(self, context):
        connection = await asyncpg.connect(context.url)
        try:
            await connection.execute("create table by_runner (id int)")
        finally:
            await connection.close()
        context.say("done by the runner")
"""
_METADATA = "Metadata-Version: 2.1\nName: ours\nVersion: 1\n"
_BY_HAND = """\
import os, sys
import asyncio, asyncpg


async def main():
    connection = await asyncpg.connect(os.environ["DATABASE_URL"])
    await connection.execute("create table by_hand (id int)")
    await connection.close()


asyncio.run(main())
print("done by hand with", sys.executable)
"""


@pytest.fixture(scope="session")
def in_debian(image: str, bare_image: str) -> str:
    """Debian without Python, and the bundle."""
    return _derive("debian", _DEBIAN.format(ours=image, bare=bare_image))


@pytest.fixture(scope="session")
def in_musl(image: str, bare_image: str) -> str:
    """An image without glibc, and the bundle."""
    return _derive("musl", _MUSL.format(ours=image, bare=bare_image))


@pytest.fixture(params=["debian", "musl"])
def image_without_python(request: pytest.FixtureRequest) -> str:
    """Each of the two; a test with it runs in both."""
    return str(request.getfixturevalue(f"in_{request.param}"))


def _derive(name: str, dockerfile: str) -> str:
    files = {
        "app.c": _APP,
        "preloaded.c": _PRELOADED,
        "by_hand.py": _BY_HAND,
        "site-packages/ours.py": _RUNNER,
        "site-packages/ours-1.dist-info/METADATA": _METADATA,
        "site-packages/ours-1.dist-info/entry_points.txt": "[migrator.runners]\nours = ours:Ours\n",
    }
    return docker.derive(f"entrypoint-test/{docker.checkout()}-bundle-{name}", dockerfile, files)


@dataclass(frozen=True)
class Database:
    """A Postgres of a test's own."""

    server: Container
    network: str

    @property
    def options(self) -> tuple[str, ...]:
        return ("--network", self.network)

    @property
    def env(self) -> dict[str, str]:
        return {"DATABASE_URL": "postgresql://postgres:secret@db/postgres"}

    def fetch(self, query: str) -> str:
        return self.server.exec("psql", "-XAtqc", query).stdout.strip()


@pytest.fixture
def server(postgres_image: str, containers: Containers) -> Database:
    """A Postgres, as `db` on a network."""
    network = containers.network()
    started = containers.run(postgres_image, name="db", options=["--network", network])
    wait_until(
        lambda: started.exec("pg_isready", "-q", check=False).returncode == 0, timeout_s=60, what="Postgres"
    )
    return Database(started, network)


@pytest.fixture
def mounted(migrations: Callable[..., Path]) -> Callable[..., tuple[str, ...]]:
    """Write migrations, and mount them where they are looked for: options of `docker run`."""

    def mount(**files: str) -> tuple[str, ...]:
        return ("--volume", f"{migrations(**files)}:/app/migrations:ro")

    return mount


def run_once(image: str, *command: str, options: Sequence[str] = ()) -> str:
    """Run a container to its end; its standard output."""
    return docker.docker("run", "--rm", *options, image, *command).stdout


def script(text: str) -> tuple[str, ...]:
    """A command that runs Python of the bundle's."""
    return ("/opt/entrypoint/bin/python3", "-c", textwrap.dedent(text))
