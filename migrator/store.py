"""Our tables as typed methods, over any transport."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections.abc import Iterable
from typing import TYPE_CHECKING, NewType

from msgspec import Struct

from migrator import errors, sql
from migrator.errors import ConfigError, LeaseBusy, MigratorError, SessionGone
from migrator.plan import HistoryRow
from migrator.transport import DatabaseError, Row, Transport

if TYPE_CHECKING:
    from migrator.locks import Target
    from migrator.wants import Want

Token = NewType("Token", int)

LOCK_NAME = "migrations"
# Somebody else created the same thing in the same moment: IF NOT EXISTS doesn't save from that.
_INSTALL_RACES = frozenset({"23505", "42P06", "42P07", "42710", "40001", "55P03", "XX000"})
_INSTALL_TRIES = 60
_NO_SUCH_TABLE = frozenset({"42P01", "3F000"})
_NO_SUCH_COLUMN = "42703"


class Lease(Struct, frozen=True, kw_only=True):
    """The right to migrate, as long as the row in `migration_locks` says the same.

    Attributes:
        token: Fences off whoever held it before; never used twice.
        holder: Shown to operators, e.g. "web-7f9c/41/3fa2c1". Not a credential.
    """

    token: Token
    holder: str


class Holder(Struct, frozen=True, kw_only=True):
    """Who migrates, since how many seconds, and whether it is known to be alive."""

    name: str
    held_s: float
    is_alive: bool


class Waiting(Struct, frozen=True, kw_only=True):
    """A session that waits for a lock, which is that of `table` in `mode` if that is what it waits for.

    `is_ours`: it is the one that works for us.
    """

    pid: int
    is_ours: bool
    table: str | None
    mode: str | None


class Store:
    """History and lease in one database."""

    def __init__(self, transport: Transport, schema: str) -> None:
        """Use our tables in `schema`, a name that needs no quotes."""
        self.transport = transport
        self.schema = schema
        self.lock_key = lock_key_of(schema)

    async def history(self) -> list[HistoryRow] | None:
        """Everything on record; None if our tables don't exist.

        Raises:
            MigratorError: It can't be read.
        """
        try:
            rows = await self.transport.fetch(sql.pieces("queries.sql")["history"].query(self.schema))
        except DatabaseError as error:
            if error.sqlstate in _NO_SUCH_TABLE:
                return None
            raise translated(error, "read the history") from error
        if rows and rows[0]["hidden"]:
            raise ConfigError(
                "cannot read the history: row-level security hides it from this role; log in as the owner of "
                f"{self.schema}.migration_history, or as a role with BYPASSRLS"
            )
        return [
            HistoryRow(
                version=row["version"],
                filename=row["filename"],
                checksum=row["checksum"],
                executed_at=row["executed_at"],
                finished=row["finished"],
                statements_done=row["statements_done"],
                in_doubt=row["in_doubt"],
                adopted=row["adopted"],
            )
            for row in rows
            if row["version"] is not None
        ]

    async def install(self, tries: int = _INSTALL_TRIES) -> None:
        """Create our tables, whoever else does the same just now.

        Raises:
            LeaseBusy: Others were at it each time.
            MigratorError: We may not.
        """
        for _ in range(tries):
            try:
                await self.transport.execute(sql.install(self.schema, self.lock_key))
            except DatabaseError as error:
                if error.sqlstate not in _INSTALL_RACES:
                    raise translated(error, f"create our tables in schema {self.schema}") from error
                await asyncio.sleep(random.uniform(0.02, 0.2))  # noqa: S311 - no secret
            else:
                return
        raise LeaseBusy(f"cannot create our tables in schema {self.schema}: others are at it; try again")

    async def lock_session(self) -> bool | None:
        """Take the session advisory lock, if it is free; None if there is a pooler in between."""
        rows = await self._query(
            "lock_session", session_pid=self.transport.session_pid, lock_key=self.lock_key
        )
        got: bool | None = rows[0]["got"]
        return got

    async def acquire(self, holder: str, ttl_s: float, *, session: bool) -> Lease | None:
        """Take the lease if it is free or its holder is dead; None if somebody holds it.

        Never waits: a row locked by a running migration counts as held.

        Args:
            holder: Shown to operators.
            ttl_s: Seconds until others may take it without a renewal.
            session: We hold the session advisory lock, too.
        """
        wanted: dict[str, sql.Value] = {"name": LOCK_NAME, "holder": holder, "session": session}
        wanted |= {"ttl_s": ttl_s, "lock_key": self.lock_key}
        rows = await self._query("acquire", **wanted)
        # Somebody may have deleted the row: that is how a lock is taken away by hand.
        if not rows and await self._query("ensure_lock", name=LOCK_NAME):
            rows = await self._query("acquire", **wanted)
        return Lease(token=Token(rows[0]["token"]), holder=holder) if rows else None

    async def renew(self, lease: Lease, ttl_s: float, *, awaiting_s: float = 0.0) -> bool:
        """Prolong the lease; False if it isn't ours any more.

        Args:
            lease: Ours.
            ttl_s: Seconds until others may take it without the next renewal.
            awaiting_s: For how long the connection that works has owed us an answer.

        Raises:
            SessionGone: That connection has ended, or is cut without a word: nothing is at work there.
        """
        mine: dict[str, sql.Value] = {"name": LOCK_NAME, "token": lease.token, "holder": lease.holder}
        high, low = self.lock_halves
        rows = await self._query("renew", **mine, ttl_s=ttl_s, lock_high=high, lock_low=low)
        if not rows:
            return False
        session, idle_s = rows[0]["session"], rows[0]["idle_s"]
        gone = session and idle_s is None
        if awaiting_s > ttl_s:
            gone = gone or (idle_s > ttl_s if session else await self.is_idle(lease))
        if gone:
            raise SessionGone("lost the connection to the database: nothing is at work at its other end")
        return True

    async def is_idle(self, lease: Lease) -> bool:
        """Whether no transaction of ours is at work."""
        return bool(await self._query("unfenced", name=LOCK_NAME, token=lease.token, holder=lease.holder))

    async def release(self, lease: Lease) -> None:
        """Give the lease back; nothing happens if it isn't ours any more."""
        await self._query("release", name=LOCK_NAME, token=lease.token, holder=lease.holder)

    async def holder(self) -> Holder | None:
        """Who migrates just now."""
        high, low = self.lock_halves
        rows = await self._query("holder", name=LOCK_NAME, lock_high=high, lock_low=low)
        if not rows:
            return None
        return Holder(name=rows[0]["holder"], held_s=rows[0]["held_s"], is_alive=rows[0]["is_alive"])

    async def evict(self) -> bool:
        """End the session of a holder that is frozen; whether there was one."""
        high, low = self.lock_halves
        return bool(await self._query("evict", name=LOCK_NAME, lock_high=high, lock_low=low))

    @property
    def lock_halves(self) -> tuple[int, int]:
        """The advisory lock's key as pg_locks shows it."""
        return divmod(self.lock_key % 2**64, 2**32)

    async def index_state(self, schema: str | None, name: str, table: str) -> tuple[str, bool] | None:
        """Schema and validity of an index; None if that table has none of that name."""
        rows = await self._query("index_state", schema_name=schema, index_name=name, table_name=table)
        return (rows[0]["schema_name"], rows[0]["valid"]) if rows else None

    async def broken_indexes(self, relation: str) -> list[str]:
        """The INVALID indexes of a table, or of an index's table, that nobody is making."""
        rows = await self._query("broken_indexes", "look for broken indexes", relation_name=relation)
        return [row["name"] for row in rows]

    async def partition_state(self, parent: str, child: str) -> tuple[bool, bool] | None:
        """Whether one is attached to the other, and is left half detached; None: one of them isn't there."""
        rows = await self._query(
            "partition_state", "look at the partition", parent_name=parent, child_name=child
        )
        return (rows[0]["attached"], rows[0]["pending"]) if rows else None

    async def valid_indexes(self, table: str) -> dict[str, str]:
        """The indexes of a table by name, each with all that it is but that name."""
        rows = await self._query("valid_indexes", "look at the indexes", relation_name=table)
        return {row["name"]: row["meant"] for row in rows}

    async def look(self, wanted: Iterable[Want]) -> tuple[Target, ...]:
        """What will be locked, and who holds it.

        Raises:
            MigratorError: It can't be told.
        """
        from migrator import locks  # late: 3 ms that a start with nothing to do is spared

        described = [
            {
                "name": one.name,
                "mode": one.mode,
                "kind": one.kind,
                "part": one.part,
                "only_itself": one.only,
            }
            for one in wanted
        ]
        return locks.read(await self._query("look", "see who is in the way", wanted=json.dumps(described)))

    async def waiting(self, label: str) -> list[Waiting]:
        """Who waits for a lock that the session has which is at work under `label`, and whether it waits."""
        return [
            Waiting(
                pid=row["pid"],
                is_ours=row["pid"] == row["ours"],
                table=row["table_name"],
                mode=row["mode"],
            )
            for row in await self._query("waiting", "see who waits for us", label=label)
        ]

    async def end_idle(self, pid: int, idle_s: float) -> bool:
        """End a session that has been idle in its transaction for so long; whether it was so, and we may.

        Raises:
            MigratorError: We may not.
        """
        rows = await self._query("end_idle", f"end the session of pid {pid}", pid=pid, idle_s=idle_s)
        return any(row["ended"] for row in rows)

    async def is_bare(self) -> bool:
        """Whether the database has no tables but ours, so that nobody can be in our way."""
        return bool(
            (await self._query("is_bare", "look at the database", schema_name=self.schema))[0]["bare"]
        )

    async def _query(
        self, piece: str, wanted: str = "take the migration lock", /, **values: sql.Value
    ) -> list[Row]:
        return await self.rows("queries.sql", piece, wanted, **values)

    async def rows(self, file: str, piece: str, wanted: str, /, **values: sql.Value) -> list[Row]:
        """What a query of ours finds, from a file of `migrator.sql`.

        Raises:
            MigratorError: The server refused it: "cannot", and `wanted`.
        """
        found = sql.pieces(file)[piece]
        arguments = [values[name] for name in found.names]
        try:
            return await self.transport.fetch(found.query(self.schema), *arguments)
        except DatabaseError as error:
            raise translated(error, wanted) from error


def lock_key_of(schema: str) -> int:
    """The key of our advisory lock: the same in every database, as such locks are per database already."""
    digest = hashlib.sha256(f"migrator:{schema}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def translated(error: DatabaseError, wanted: str) -> MigratorError:
    """The error to end with where the server refused something of ours."""
    kind = errors.from_sqlstate(error.sqlstate)
    remedy = errors.REMEDIES.get(error.sqlstate)
    if error.sqlstate == "42501":
        kind = errors.ConfigError
    elif error.sqlstate in _NO_SUCH_TABLE:
        kind, remedy = errors.ConfigError, "`migrator install` creates what is missing of our tables"
    elif error.sqlstate == _NO_SUCH_COLUMN:
        # Of ours it would be of another release, which would be a defect.
        kind = errors.ConfigError
        remedy = "a table of that name isn't ours: set MIGRATION_SCHEMA to a schema of its own"
    first = error.text.split("\n", 1)[0]
    return kind(f"cannot {wanted}: {first} ({error.sqlstate}){f'; {remedy}' if remedy else ''}")
