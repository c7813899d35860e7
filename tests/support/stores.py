"""Stores and sessions over real connections, for tests that look inside one process."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import asyncpg

from migrator import direct, dsn
from migrator.gate import Restraint
from migrator.log import Log, configure
from migrator.migration import Migration, checksum
from migrator.passage import Care
from migrator.runners import SqlRunner
from migrator.store import Store


@asynccontextmanager
async def store_on(url: str, *, schema: str = "migrator", pooled: bool = False) -> AsyncIterator[Store]:
    """A store over a connection of its own; `pooled` has it behave as through a transaction pooler."""
    async with direct.connect(dsn.parse(url, "DATABASE_URL"), "migrator/test") as transport:
        transport.pooled = transport.pooled or pooled
        yield Store(transport, schema)


@asynccontextmanager
async def session(url: str) -> AsyncIterator[asyncpg.Connection]:
    """A plain connection, as the app or an operator has one."""
    connection = await asyncpg.connect(url, statement_cache_size=0)
    try:
        yield connection
    finally:
        connection.terminate()


@contextmanager
def held(url: str, statement: str) -> Iterator[Callable[[], object]]:
    """A transaction in which the statement was run, as long as the body runs or until it calls what it gets."""
    with asyncio.Runner() as runner:
        connection = runner.run(asyncpg.connect(url))
        try:
            runner.run(connection.execute(f"begin; {statement}"))
            yield lambda: runner.run(connection.execute("commit"))
        finally:
            runner.run(connection.close())


def migration_of(directory: Path, filename: str, text: str) -> Migration:
    """A migration in a file."""
    path = directory / filename
    path.write_text(text)
    version, _, rest = filename.partition("_")
    return Migration(version=version, name=rest.removesuffix(".sql"), path=path, checksum=checksum(text))


def quiet_log() -> Log:
    """A log for code that needs one; errors still show."""
    return configure(component="test", level="error", console=False, to_stdout=False, mask=lambda text: text)


def runner_on(store: Store, url: str) -> SqlRunner:
    """A runner for code that looks inside one process."""
    care = Care(restraint=Restraint(), open_store=lambda: store_on(url), tell=lambda _reason: None)
    return SqlRunner(store, quiet_log(), care)
