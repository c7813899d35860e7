"""The history, changed by hand: under the lease, in one fenced transaction."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

from msgspec import Struct

from migrator import errors, holding, sql
from migrator import lease as leases
from migrator.errors import Conflict, LeaseBusy, LeaseLost, MigratorError
from migrator.holding import Holding
from migrator.lease import StoreFactory
from migrator.log import Log
from migrator.migration import Migration
from migrator.plan import HistoryRow, Meaning
from migrator.store import LOCK_NAME, Lease, Store, translated
from migrator.transport import DatabaseError, Row

# How long to wait for one who holds the lock, in seconds: most migrations are over sooner.
PATIENCE_S = 3.0
_PAUSE_S = 0.25
_LOCK_TIMEOUT_MS = 1000


class Change(Struct, frozen=True, kw_only=True):
    """One change: a piece of desk.sql and its values."""

    piece: str
    values: dict[str, sql.Value]


def record(
    version: str,
    *,
    filename: str,
    name: str,
    checksum: str,
    executed_at: str | None = None,
) -> Change:
    """Put it on record as applied; `executed_at` is when, in SQL, if not now."""
    values: dict[str, sql.Value] = {
        "version": version,
        "filename": filename,
        "title": name,
        "checksum": checksum,
        "executed_at": executed_at,
    }
    return Change(piece="record", values=values)


def record_file(migration: Migration, meaning: Meaning, executed_at: str | None = None) -> Change:
    """Put a file on record as applied; see `record`."""
    return record(
        migration.version,
        filename=migration.filename,
        name=migration.name,
        checksum=_checksum(migration, meaning),
        executed_at=executed_at,
    )


def amend(migration: Migration, row: HistoryRow, meaning: Meaning, *, finished: bool) -> Change:
    """Have the row say that the file is as it is now; `finished`: and applied."""
    values: dict[str, sql.Value] = {
        "filename": migration.filename,
        "title": migration.name,
        "checksum": _checksum(migration, meaning),
        "finished": finished,
    }
    return Change(piece="amend", values={**values, **_was(row)})


def forget(row: HistoryRow) -> Change:
    """Take it off the record."""
    return Change(piece="forget", values=_was(row))


def _checksum(migration: Migration, meaning: Meaning) -> str:
    """As the history has it after a run of the file."""
    meant = meaning(migration)
    return f"{migration.checksum} {meant}" if meant else migration.checksum


def _was(row: HistoryRow) -> dict[str, sql.Value]:
    return {
        "version": row.version,
        "was_checksum": row.checksum,
        "was_finished": row.finished,
        "was_done": row.statements_done,
    }


class Ledger:
    """Our history while the lease is ours."""

    def __init__(self, store: Store, lease: Lease, history: Iterable[HistoryRow]) -> None:
        """Over `store`, under `lease`; `history` was read under it."""
        self._store = store
        self._lease = lease
        self.rows = {row.version: row for row in history}

    async def write(self, changes: Sequence[Change], *, by: str) -> None:
        """Make all the changes in one transaction, or none.

        Args:
            changes: What to do, each to another version.
            by: Which command did it, for the history.

        Raises:
            LeaseLost: The lease isn't ours any more; nothing was changed.
            Conflict: Somebody changed a row since it was read; nothing was changed.
        """
        common: dict[str, sql.Value] = {
            "by": f"{by}, {self._lease.holder}",
            "token": self._lease.token,
            "name": LOCK_NAME,
            "holder": self._lease.holder,
            "lock_timeout_ms": _LOCK_TIMEOUT_MS,
            "application": f"migrator/{self._lease.holder}"[:63],
        }
        schema, transport = self._store.schema, self._store.transport
        written = [sql.message("desk.sql", (one.piece,), schema, {**common, **one.values}) for one in changes]
        if transport.by_call:  # each call is a transaction already
            message = [sql.message("rest.sql", ("prepare", "fence"), schema, common), *written]
        else:
            begun = sql.message("apply.sql", ("begin", "fence"), schema, common)
            message = [begun, *written, sql.message("apply.sql", ("commit",), schema, common)]
        try:
            await transport.execute("\n".join(message))
        except DatabaseError as error:
            raise _refused(error) from error


def _refused(error: DatabaseError) -> MigratorError:
    kind = errors.from_sqlstate(error.sqlstate)
    if kind is LeaseLost:
        return LeaseLost("cannot change the history: the migration lock was taken over or removed; try again")
    if error.sqlstate in ("MG003", "23505"):
        return Conflict(
            "cannot change the history: somebody else has just changed it; nothing was changed here"
        )
    first = error.text.split("\n", 1)[0]
    remedy = errors.REMEDIES.get(error.sqlstate)
    return kind(
        f"cannot change the history: {first} ({error.sqlstate}){f'; {remedy}' if remedy else ''}; "
        "nothing was changed"
    )


@asynccontextmanager
async def opened(open_store: StoreFactory, *, holder: str, ttl_s: float, log: Log) -> AsyncIterator[Ledger]:
    """The history, ours alone as long as the body runs; our tables are created where they are missing.

    Raises:
        LeaseBusy: Somebody living migrates.
        MigratorError: It can't be done.
    """
    async with open_store() as store:
        if await store.history() is None:
            await store.install()
        lease = await _acquire(store, holder, ttl_s)
        async with leases.keep(store, lease, ttl_s=ttl_s, open_store=open_store, log=log):
            yield Ledger(store, lease, await store.history() or [])


async def _acquire(store: Store, holder: str, ttl_s: float) -> Lease:
    give_up_s = time.monotonic() + PATIENCE_S
    while True:
        lease = await leases.try_acquire(store, holder, ttl_s)
        if lease is not None:
            return lease
        if time.monotonic() > give_up_s:
            held = await look(store)
            who = str(held) if held else "somebody else is about to migrate"
            raise LeaseBusy(
                f"cannot change the history while somebody migrates: {who}; wait for the end with "
                "`migrator wait --applied`, or see `migrator unlock --help`"
            )
        await asyncio.sleep(_PAUSE_S)


async def look(store: Store) -> Holding | None:
    """Who holds the lock; None if nobody does, or our tables don't exist."""
    high, low = store.lock_halves
    rows = await ask(store, "lock_state", name=LOCK_NAME, lock_high=high, lock_low=low)
    return holding.of(rows[0]) if rows else None


async def take_away(store: Store, held: Holding) -> bool:
    """Take the lock away from its holder, and end its sessions; False while a migration of it is running."""
    high, low = store.lock_halves
    application = f"migrator/{held.holder}"[:63]  # as the server cuts it
    await ask(store, "end_sessions", application=application, lock_high=high, lock_low=low)
    return bool(await ask(store, "take_away", name=LOCK_NAME, token=held.token))


async def ask(store: Store, piece: str, **values: sql.Value) -> list[Row]:
    """The rows of a query of desk.sql.

    Raises:
        MigratorError: The server refused it.
    """
    found = sql.pieces("desk.sql")[piece]
    arguments = [values[name] for name in found.names]
    try:
        return await store.transport.fetch(found.query(store.schema), *arguments)
    except DatabaseError as error:
        if error.sqlstate in ("42P01", "3F000"):
            return []  # our tables don't exist
        raise translated(error, "look at the migration lock") from error
