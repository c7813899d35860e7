"""Running one migration: its SQL, its fence and its history row, whole or not at all."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from migrator import errors, script
from migrator.errors import (
    Conflict,
    LeaseLost,
    MigrationFailed,
    MigratorError,
    PlanError,
    Unavailable,
)
from migrator.log import Log
from migrator.migration import Migration, checksum, read_text
from migrator.script import Script, Statement
from migrator.sql import identifier
from migrator.store import Lease, Store
from migrator.transport import DatabaseError, Ended

# A file that met a lock timeout, a deadlock or a serialization failure is tried again so often,
# with pauses that double from the first to the last figure (seconds).
_CONFLICT_TRIES = 12
_FIRST_PAUSE_S = 0.25
_LAST_PAUSE_S = 10.0

_DUPLICATE_KEY = "23505"
_ENDED_OWN_TRANSACTION = "MG002"
_NOT_KNOWN = "whether it was rolled back is not known; the next run reads the history before it decides"
_REMEDIES = {
    "55P04": "a new enum value can't be used in the file that adds it; use it in a later file",
    "55P03": "somebody holds the lock; see pg_stat_activity",
    "42501": "give the migrating role the right to do this",
}


class SqlRunner:
    """Applies SQL files over a store's transport."""

    def __init__(self, store: Store, log: Log) -> None:
        """Apply to the database of `store`."""
        self._store = store
        self._log = log

    def check(self, migration: Migration) -> Script:
        """What the file means.

        Raises:
            PlanError: It can't be applied, or not over this connection.
        """
        text = read_text(migration.path)
        if checksum(text) != migration.checksum:
            raise PlanError(
                f"cannot apply {migration.filename}: it was edited while we were reading; start again"
            )
        understood = script.understand(text, migration.filename)
        if understood.steps and self._store.transport.pooled:
            alone = next(statement for statement, in_one in understood.steps if not in_one)
            raise PlanError(
                f"cannot apply {migration.filename} through a transaction pooler: {alone.first_line!r} "
                "can't run in a transaction; set DIRECT_URL to a direct connection"
            )
        return understood

    async def apply(self, migration: Migration, lease: Lease, *, done: int | None) -> None:
        """Apply the file and leave it in history.

        Args:
            migration: The file.
            lease: Ours; the server checks it in the same transaction.
            done: How many of its statements an earlier run finished; None if it is untouched.

        Raises:
            MigrationFailed: The server refused it; the message says where, why, and what is left.
            Conflict: Others were in the way for too long.
            LeaseLost: The lease isn't ours any more.
            Unavailable: The connection broke; the outcome is unknown.
        """
        understood = self.check(migration)
        if understood.steps:
            await self._apply_steps(migration, understood, lease, done)
        else:
            await self._apply_whole(migration, understood, lease)

    async def _apply_whole(self, migration: Migration, understood: Script, lease: Lease) -> None:
        message, start = self._store.apply_message(migration, understood.text, lease)
        try:
            await self._execute(migration, message)
        except DatabaseError as error:
            head = script.split(message[:start]) or []
            located = _locate(error, understood.text, start, len(head))
            raise _failure(migration, error, located, _state(error, understood)) from error

    async def _apply_steps(
        self, migration: Migration, understood: Script, lease: Lease, done: int | None
    ) -> None:
        await self._begin_steps(migration, lease)
        resumed = done is not None
        total = len(understood.steps)
        try:
            for number, (statement, in_transaction) in enumerate(understood.steps, 1):
                if number <= (done or 0):
                    continue
                state = (
                    f"statements 1 to {number - 1} of {total} are done and on record; "
                    f"the next run goes on with statement {number}"
                )
                try:
                    await self._step(
                        migration,
                        statement,
                        lease,
                        number,
                        in_transaction=in_transaction,
                        finished=number == total,
                        resumed=resumed,
                    )
                except DatabaseError as error:
                    where = _Located(statement=statement, text=understood.text)
                    raise _failure(migration, error, where, state) from error
                resumed = False
        finally:
            await self._clean_session()

    async def _begin_steps(self, migration: Migration, lease: Lease) -> None:
        try:
            await self._store.begin_steps(migration, lease)
        except DatabaseError as error:
            raise _failure(migration, error, None, "nothing of it was applied") from error

    async def _step(
        self,
        migration: Migration,
        statement: Statement,
        lease: Lease,
        number: int,
        *,
        in_transaction: bool,
        finished: bool,
        resumed: bool,
    ) -> None:
        if in_transaction:
            message, _ = self._store.step_message(
                migration, statement.text, lease, done=number, finished=finished
            )
            await self._execute(migration, message)
            return

        async def alone() -> None:
            # Nothing can fence a statement that can't run in a transaction. The session advisory lock
            # keeps others away while it runs; that the lease is ours is asked right before it.
            await self._store.transport.execute(self._store.fence_message(migration, lease))
            # Before each try: a deadlock, say, leaves an INVALID index, which IF NOT EXISTS takes for done.
            if not await self._is_done_already(statement, resumed=resumed):
                await self._run_alone(statement, resumed=resumed)

        await self._persist(migration, alone)
        record, _ = self._store.step_message(migration, "", lease, done=number, finished=finished)
        await self._execute(migration, record)

    async def _run_alone(self, statement: Statement, *, resumed: bool) -> None:
        try:
            await self._store.transport.execute(statement.text)
        except DatabaseError as error:
            gone = error.sqlstate == "42704" and statement.text[:4].lower() == "drop"
            if not (resumed and gone):  # dropped by the run that didn't live to record it
                raise

    async def _is_done_already(self, statement: Statement, *, resumed: bool) -> bool:
        """Clear the way for a CREATE INDEX CONCURRENTLY; True if an earlier run had finished it."""
        index = script.index_of(statement)
        if index is None:
            return False
        found = await self._store.index_state(*index)
        if found is None:
            return False
        schema, valid = found
        if valid:
            return resumed
        # What a broken CONCURRENTLY leaves behind: of no use, and in the way of the next try.
        name = f"{identifier(schema)}.{identifier(index[1])}"
        self._log.warning("index.dropped", index=name, reason="left INVALID by an earlier try")
        await self._store.transport.execute(f"drop index concurrently if exists {name}")
        return False

    async def _execute(self, migration: Migration, message: str) -> None:
        """Send a message, again if others were in its way."""
        await self._persist(migration, lambda: self._store.transport.execute(message))

    async def _persist(self, migration: Migration, once: Callable[[], Awaitable[None]]) -> None:
        """Do it, again if others were in its way."""
        for attempt in range(1, _CONFLICT_TRIES + 1):
            try:
                await once()
            except Unavailable as error:
                raise Unavailable(f"cannot apply {migration.filename}: {error}\n{_NOT_KNOWN}") from error
            except DatabaseError as error:
                conflict = errors.from_sqlstate(error.sqlstate) is Conflict
                if not conflict or attempt == _CONFLICT_TRIES or error.ended is Ended.UNKNOWN:
                    raise
                pause_s = min(_FIRST_PAUSE_S * 2 ** (attempt - 1), _LAST_PAUSE_S)
                self._log.warning(
                    "migration.retrying",
                    filename=migration.filename,
                    attempt=attempt,
                    reason=f"{error.text.splitlines()[0]} ({error.sqlstate})",
                )
                await asyncio.sleep(random.uniform(pause_s / 2, pause_s))  # noqa: S311 - no secret
            else:
                return

    async def _clean_session(self) -> None:
        """What the file set for its session must not reach the next one."""
        try:
            await self._store.transport.execute(
                "reset role; reset session authorization; reset all; discard temp"
            )
        except (DatabaseError, Unavailable) as error:
            self._log.warning("session.unclean", reason=str(error))


class _Located:
    """Where an error belongs in a file: `shown` is the first line of the statement, or else the line."""

    def __init__(self, *, text: str, statement: Statement | None = None, offset: int | None = None) -> None:
        at = offset if offset is not None else statement.offset if statement else None
        self.where = self.shown = ""
        if at is not None:
            line, column = script.line_and_column(text, at)
            self.where = f"line {line}, column {column}: "
            self.shown = text.split("\n")[line - 1].strip()[:200]
        if statement is not None:
            self.shown = statement.first_line


def _locate(error: DatabaseError, text: str, start: int, head: int) -> _Located | None:
    """Where in the file the error is; None if it isn't in the file but in what we put around it."""
    statements = script.split(text) or []
    if error.position is not None and error.position > start:
        offset = min(error.position - 1 - start, len(text.rstrip()))
        begun = [one for one in statements if one.offset <= offset]
        return _Located(text=text, statement=begun[-1] if begun else None, offset=offset)
    if error.completed < head:
        return None
    number = error.completed - head
    return _Located(text=text, statement=statements[number] if number < len(statements) else None)


def _state(error: DatabaseError, understood: Script) -> str:
    """What state the database is in; only what is known."""
    if error.sqlstate == _ENDED_OWN_TRANSACTION:
        return "a part of it may have been committed; look what is there"
    # Of a text that the parser doesn't know, anything might be a COMMIT, unless the server ran none of it.
    if error.ended is not Ended.UNKNOWN and (understood.understood or error.completed == 0):
        return "rolled back: nothing of this file was applied"
    return _NOT_KNOWN


def _failure(
    migration: Migration, error: DatabaseError, located: _Located | None, state: str
) -> MigratorError:
    kind = errors.from_sqlstate(error.sqlstate)
    first, *more = error.text.split("\n")
    if located is None and error.sqlstate == _DUPLICATE_KEY:
        return Conflict(f"cannot apply {migration.filename}: somebody else has just done so; trying again")
    if kind is LeaseLost:
        return LeaseLost("cannot go on: the migration lock was taken over or removed; trying again")
    if kind is errors.ConfigError:  # a role or database named inside of a migration isn't our setting
        kind = MigrationFailed
    lines = [
        f"cannot apply {migration.filename}: {located.where if located else ''}{first} ({error.sqlstate})"
    ]
    if located and located.shown:
        lines.append(f"  {located.shown}")
    lines += more
    if error.sqlstate in _REMEDIES:
        lines.append(f"remedy: {_REMEDIES[error.sqlstate]}")
    lines.append(state)
    return kind("\n".join(lines))
