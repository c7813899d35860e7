"""The transport over a PostgreSQL connection, direct or through a pooler."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from migrator import errors
from migrator.connection import Connection, Sent
from migrator.dsn import Dsn, Kind
from migrator.errors import ConfigError, Crowded, MigratorError, Unavailable
from migrator.keepalive import keep_alive
from migrator.sql import Value
from migrator.transport import DatabaseError, Ended, Row

# A dead client is noticed within seconds, also in the middle of a statement, which is then rolled
# back instead of being finished for nobody (measured: 0.5 s instead of 7.6 s; reference/migrate.md 4.8).
_CHECK = {"client_connection_check_interval": "1s"}
_SESSION = {
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "idle_in_transaction_session_timeout": "60s",
    # Whatever the role says: Supabase gives `postgres` two minutes. A transaction sets its own.
    "statement_timeout": "0",
    "lock_timeout": "0",
}
# The first version with transaction_timeout. No startup parameter: an older one would refuse it.
_LIMITS_TRANSACTIONS = 17
# How long the server may take to confirm a rollback, in seconds.
_ROLLBACK_S = 3.0
_CLOSE_S = 1.0
# None of our own queries waits for anything. Where there is no answer for so long, there will be none: a
# connection may have been cut without a word.
_ANSWER_S = 15.0
# What a transaction through a pooler can set of what a URL asks for. Its timeouts are ours anyway, and in
# another role it couldn't write our history.
_LOCAL = frozenset({"search_path", "timezone", "datestyle", "work_mem", "maintenance_work_mem"})
_HINT_OF_ASYNCPG = "\nNOTE: pgbouncer"
# How a lost connection shows. InternalClientError is among them: asyncpg raises it for a query that is
# sent between the server's last words and the end of the connection.
_BROKEN = (asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)


class DirectTransport:
    """One connection. It is never renewed behind the caller's back: a lease may depend on it."""

    by_call = False

    def __init__(self, connection: Connection, dsn: Dsn, *, pooled: bool) -> None:
        """Use `connection`; `pooled` if a transaction pooler is at its other end."""
        self._connection = connection
        self._dsn = dsn
        self.pooled = pooled
        self.limits_transactions: bool = connection.get_server_version().major >= _LIMITS_TRANSACTIONS
        self.session_pid: int = connection.get_server_pid()
        self.ended = Ended.UNKNOWN
        self._ahead: deque[Sent] = deque()
        # Since when an answer is awaited, by the monotonic clock.
        self._asked_s: float | None = None

    def awaiting_s(self) -> float:
        """See Transport."""
        if self._asked_s is None:
            return 0.0
        if self._connection._transport.get_write_buffer_size():  # noqa: SLF001 - a large file on its way
            self._asked_s = time.monotonic()
        return time.monotonic() - self._asked_s

    @property
    def local_settings(self) -> Mapping[str, str]:
        """See Transport."""
        wanted = self._dsn.server_settings if self.pooled else {}
        return {key: value for key, value in wanted.items() if key in _LOCAL}

    def found_pooled(self) -> None:
        """See Transport."""
        _refuse_role(self._dsn)
        self.pooled = True

    async def fetch(self, query: str, *arguments: Value) -> list[Row]:
        """See Transport."""
        if self._ahead:  # we are stopping, and weren't waiting for an answer when we were told to
            self._ahead.clear()
            await self._end_transaction()
        try:
            async with asyncio.timeout(_ANSWER_S):
                return list(await self._connection.fetch(query, *arguments))
        except asyncio.CancelledError:
            await self._end_transaction()  # or else whoever uses it next would wait for the cancellation
            raise
        except asyncpg.PostgresError as error:
            raise self._refused(error) from error
        except TimeoutError as error:
            self._connection.terminate()
            raise Unavailable(
                f"lost the connection to the database: no answer within {_ANSWER_S:g} s"
            ) from error
        except _BROKEN as error:
            raise _lost(error) from error

    def send_ahead(self, message: str) -> None:
        """See Transport."""
        try:
            self._ahead.append(self._connection.send_ahead(message))
        except _BROKEN as error:
            raise _lost(error) from error

    async def execute(self, message: str) -> None:
        """See Transport."""
        if self._ahead:
            sent = self._ahead.popleft()
            assert sent.message is message  # what is sent in an order is awaited in it
            try:
                await self._in_transaction(self._connection.answer(sent), sent)
            except BaseException:
                self._ahead.clear()
                raise
        else:
            await self._in_transaction(self._connection.execute(message))

    async def copy(self, statement: str, chunks: Iterable[bytes]) -> None:
        """See Transport."""
        counter = self._connection.counter
        counter.answered.clear()

        async def wanted() -> AsyncIterator[bytes]:
            # asyncpg would send on and on to a server that has refused the statement, or a line.
            await counter.answered.wait()
            for chunk in chunks:
                # As long as the server takes all that comes, nothing else lets us hear of an error.
                await asyncio.sleep(0)
                if not counter.is_copying:
                    return
                yield chunk

        # asyncpg's public ways make the statement themselves, from options of which they know fewer than
        # PostgreSQL. This is what they all call then, with flow control and cancellation.
        running = self._connection._copy_in(statement, wanted(), None)  # noqa: SLF001
        # If we are killed, the kernel would give the server what it has of the data before it tells of the
        # end: with a slow trigger on the table that takes minutes. So it throws that away.
        counter.set_linger(enabled=True)
        try:
            await self._in_transaction(running)
        except RuntimeError as error:
            if not self._connection.is_closed():
                raise
            raise _lost(error) from error  # asyncpg wrote on, and uvloop refused it
        finally:
            if not self._connection.is_closed():
                counter.set_linger(enabled=False)

    async def _in_transaction(self, running: Awaitable[object], sent: Sent | None = None) -> None:
        """Await it; what it leaves of a transaction when it goes wrong is rolled back.

        `sent` if it was sent ahead.
        """
        self._connection.counter.completed = 0
        self.ended = Ended.UNKNOWN
        self._asked_s = time.monotonic()
        try:
            await running
        except (asyncio.CancelledError, MigratorError):
            # asyncpg has asked the server to cancel; what the server made of it we ask for here.
            self.ended = await self._end_transaction()
            if sent is not None and sent.is_done:  # what was rolled back then, came after it
                self.ended = Ended.COMMITTED
            raise
        except asyncpg.PostgresError as error:
            completed = self._connection.counter.completed
            refused = self._refused(error, completed=completed)
            refused.ended = self.ended = await self._end_transaction()
            raise refused from error
        except UnicodeDecodeError as error:
            refused = DatabaseError(
                sqlstate="22021",
                text="the server's answer isn't UTF-8: the file must not change client_encoding",
                completed=self._connection.counter.completed,
                ended=await self._end_transaction(),
            )
            raise refused from error
        except _BROKEN as error:
            raise _lost(error) from error
        finally:
            self._asked_s = None

    async def _end_transaction(self) -> Ended:
        """Roll back what a broken-off message left open; what is known about it afterwards."""
        try:
            async with asyncio.timeout(_ROLLBACK_S):
                await self._connection.cancel_ahead()
                try:
                    await self._connection.execute("select 1")  # first waits for a cancellation to be over
                except (asyncpg.InFailedSQLTransactionError, asyncpg.QueryCanceledError):
                    pass  # the second if the cancellation came late
                if not self._connection.is_in_transaction():
                    return Ended.ALREADY
                await self._connection.execute("rollback")
                return Ended.ROLLED_BACK
        except (asyncpg.PostgresError, *_BROKEN):
            # Nothing is to wait for an answer of this one again. Its server notices, and rolls back.
            self._connection.terminate()
            return Ended.UNKNOWN
        except asyncio.CancelledError:  # once more, as the heartbeat has found it dead
            self._connection.terminate()
            raise

    def _refused(self, error: asyncpg.PostgresError, completed: int = 0) -> DatabaseError:
        # 08xxx is made up by asyncpg on a cut; a server that says it speaks of another connection.
        if isinstance(error, asyncpg.PostgresConnectionError) and self._connection.is_closed():
            raise _lost(error) from error
        lines = [str(error.args[0]) if error.args else type(error).__name__]
        hint = getattr(error, "hint", None)
        lines += [
            f"{name}: {value}"
            for name, value in (
                ("detail", getattr(error, "detail", None)),
                # asyncpg adds what would help if it had prepared something itself.
                ("hint", hint and hint.partition(_HINT_OF_ASYNCPG)[0].strip()),
                ("context", getattr(error, "context", None)),
            )
            if value
        ]
        position = getattr(error, "position", None)
        return DatabaseError(
            sqlstate=error.sqlstate or "XX000",
            text="\n".join(lines),
            position=int(position) if position else None,
            column=getattr(error, "column_name", None),
            completed=completed,
        )


@asynccontextmanager
async def connect(dsn: Dsn, application_name: str) -> AsyncIterator[DirectTransport]:
    """A transport for as long as the body runs.

    Raises:
        Unavailable: Nobody answers, or not now.
        ConfigError: We are not let in.
    """
    connection, pooled = await _open(dsn, application_name)
    try:
        transport = DirectTransport(connection, dsn, pooled=pooled)
        if dsn.kind is Kind.SESSION_POOLER and not pooled:
            # Its log-in may name a process that isn't the one who answers; here it is the same one each time.
            transport.session_pid = (await transport.fetch("select pg_backend_pid() as pid"))[0]["pid"]
        yield transport
    except asyncio.CancelledError:
        connection.terminate()  # whoever cancels has no time for manners
        raise
    finally:
        try:
            # Not its own timeout: before that begins, it waits for a cancellation to be sent, for ever if
            # that connection is swallowed as well.
            async with asyncio.timeout(_CLOSE_S):
                await connection.close()
        except (asyncpg.PostgresError, *_BROKEN):
            connection.terminate()


async def _open(dsn: Dsn, application_name: str) -> tuple[Connection, bool]:
    """A connection, and whether it goes through a transaction pooler."""
    settings = {"application_name": application_name[:63]}
    pooled = dsn.pooled
    try:
        if not pooled:
            try:
                return await _connect(dsn, {**dsn.server_settings, **settings, **_SESSION, **_CHECK}), False
            except asyncpg.PostgresError as error:
                # A pooler refuses startup parameters that it doesn't know (08P01); a server before
                # PostgreSQL 14 doesn't know how to check (42704), and not every system can (22023).
                if error.sqlstate not in ("08P01", "42704", "22023"):
                    raise
                pooled = error.sqlstate == "08P01"
            if pooled:
                _refuse_role(dsn)
            else:
                settings = {**dsn.server_settings, **settings, **_SESSION}
        return await _connect(dsn, settings), pooled
    except asyncpg.PostgresError as error:
        raise _not_let_in(dsn, error) from error


async def _connect(dsn: Dsn, server_settings: dict[str, str]) -> Connection:
    _refuse_missing_files(dsn)
    extra: dict[str, Any] = {}
    if dsn.system_ca:
        from migrator import trust  # late: for few URLs

        extra["ssl"] = trust.context()
    try:
        connected = await asyncpg.connect(
            dsn.url,
            timeout=dsn.connect_timeout_s,
            # Prepared statements don't survive a transaction pooler (111 of 320 queries failed).
            statement_cache_size=0,
            server_settings=server_settings,
            connection_class=Connection,
            **extra,
        )
    except asyncpg.PostgresError:
        raise
    except TimeoutError as error:
        raise Unavailable(
            f"cannot reach the database at {dsn.place}: no answer within "
            f"{dsn.connect_timeout_s:g} s; "
            "check host, port and network"
        ) from error
    except (*_BROKEN, ValueError) as error:
        from migrator import reach  # late: it went wrong

        told = await reach.without_ipv6(dsn.hosts, error) if isinstance(error, OSError) else None
        if told is not None:
            raise Unavailable(f"cannot reach the database at {dsn.place}: {told}") from error
        raise _unreachable(dsn, error) from error
    assert isinstance(connected, Connection)
    # asyncpg has no public way to it.
    keep_alive(connected._transport.get_extra_info("socket"))  # noqa: SLF001
    return connected


def _refuse_role(dsn: Dsn) -> None:
    if "role" in dsn.server_settings:
        raise ConfigError(
            f"cannot set the role that the URL of {dsn.place} asks for: a transaction pooler answers "
            "there; set DIRECT_URL to a direct connection, or log in as that role"
        )


def _refuse_missing_files(dsn: Dsn) -> None:
    """Said here, as an error from the connection's set-up looks like a socket that isn't there."""
    for path in dsn.files:
        if not os.path.exists(path):
            raise ConfigError(
                f"cannot connect to {dsn.place}: {path} doesn't exist; check sslrootcert and its like"
            )


def _unreachable(dsn: Dsn, error: Exception) -> MigratorError:
    if isinstance(error, ssl.SSLError):
        return ConfigError(
            f"cannot trust the database at {dsn.place}: {getattr(error, 'reason', None) or error}; "
            "check sslmode, sslrootcert, sslcert and sslkey"
        )
    # asyncpg's own words. Where TLS is only preferred, the server said no and died in the same breath.
    if isinstance(error, ConnectionError) and "rejected SSL" in str(error) and dsn.requires_tls:
        return ConfigError(f"cannot connect to {dsn.place}: it offers no TLS; check sslmode")
    if isinstance(error, FileNotFoundError | ConnectionRefusedError):
        return Unavailable(f"cannot reach the database at {dsn.place}: nobody answers there; is it running?")
    if isinstance(error, OSError):
        return Unavailable(
            f"cannot reach the database at {dsn.place}: {error.strerror or error}; "
            "check host, port and network"
        )
    if isinstance(error, asyncpg.InternalClientError):  # target_session_attrs, or an end in the middle
        return Unavailable(f"cannot reach the database at {dsn.place}: {error}; try again later")
    return ConfigError(f"cannot use the database URL of {dsn.place}: {error}")


def _not_let_in(dsn: Dsn, error: asyncpg.PostgresError) -> MigratorError:
    said = str(error.args[0]) if error.args else type(error).__name__
    kind = errors.from_sqlstate(error.sqlstate)
    # Supavisor gives the first two as XX000, PgBouncer the third as 08P01.
    if any(words in said for words in ("max clients reached", "MaxClients", "no more connections allowed")):
        kind = Crowded
    # PgBouncer has one code for everything, also for what no retry can help.
    refused = error.sqlstate == "08P01" and ("does not exist" in said or "authentication failed" in said)
    if kind is errors.MigrationFailed or refused:
        kind = ConfigError
    remedy = "check user, password and database name" if kind is ConfigError else "try again later"
    if "pg_hba.conf" in said:
        remedy = "let the server's pg_hba.conf admit us, or check user, database name and sslmode"
    remedy = remedy if error.sqlstate == "42501" else errors.REMEDIES.get(error.sqlstate or "", remedy)
    return kind(f"cannot connect to {dsn.place}: {said} ({error.sqlstate}); {remedy}")


def is_loss(error: object) -> bool:
    """Whether asyncpg says with it that a connection is gone; it says so to nobody as well."""
    return isinstance(error, asyncpg.PostgresConnectionError | OSError)


def _lost(error: Exception) -> Unavailable:
    said = "the server ended it" if isinstance(error, asyncpg.InternalClientError) else error
    return Unavailable(f"lost the connection to the database: {said}")
