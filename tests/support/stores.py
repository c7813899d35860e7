"""Stores and sessions over real connections, for tests that look inside one process."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import asyncpg

from migrator import direct, dsn, endpoint, rest, rest_install
from migrator.gate import Restraint
from migrator.log import Log, configure
from migrator.migrate import runner_for
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
async def store_over(env: Mapping[str, str], *, schema: str = "migrator") -> AsyncIterator[Store]:
    """A store over the way that the variables in `env` name, as the migrator takes it."""
    if "DATABASE_URL" in env:
        async with store_on(env["DATABASE_URL"], schema=schema) as store:
            yield store
        return
    found = endpoint.parse(env["SUPABASE_URL"], "URL", env["SUPABASE_SERVICE_ROLE_KEY"], "KEY")
    async with rest.connect(found) as transport:
        yield Store(transport, schema)


async def install_for_rest(url: str, *, schema: str = "migrator") -> list[str]:
    """Our tables and functions, as `migrator install --rest` makes them."""
    async with store_on(url, schema=schema) as store:
        return await rest_install.install(store)


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
    return runner_over(store, {"DATABASE_URL": url})


def runner_over(store: Store, env: Mapping[str, str]) -> SqlRunner:
    """The same, by the way that the variables in `env` name."""
    care = Care(restraint=Restraint(), open_store=lambda: store_over(env), tell=lambda _reason: None)
    return runner_for(store, quiet_log(), care)
