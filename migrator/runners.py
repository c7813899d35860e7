"""Running one migration: its SQL, its fence and its history row, whole or not at all."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

from migrator import errors, failure, meaning, parts, script, statements
from migrator import migration as files
from migrator.errors import Conflict, LeaseLost, MigrationFailed, PlanError, Unavailable
from migrator.log import Log
from migrator.messages import LOCK_TIMEOUT_MS, Messages
from migrator.migration import Migration, checksum, read_text
from migrator.parts import Parts
from migrator.plan import HistoryRow
from migrator.script import Script
from migrator.sending import Sending
from migrator.sql import identifier
from migrator.statements import Statement, Way
from migrator.store import Lease, Store
from migrator.transport import DatabaseError, Ended

# A file that met a lock timeout, a deadlock or a serialization failure is tried again so often,
# with pauses that double from the first to the last figure (seconds).
_CONFLICT_TRIES = 12
_FIRST_PAUSE_S = 0.25
_LAST_PAUSE_S = 10.0


def meaning_of(migration: Migration) -> str | None:
    """What the file means, as a checksum; None if it can't be told, or is too large for being edited by hand.

    Raises:
        PlanError: It can't be read.
    """
    if files.size_bytes(migration.path) > parts.WHOLE_BYTES:
        return None
    return meaning.of(read_text(migration.path), migration.filename)


class SqlRunner:
    """Applies SQL files over a store's transport."""

    def __init__(self, store: Store, log: Log) -> None:
        """Apply to the database of `store`."""
        self._store = store
        self._log = log
        # The file at work runs statement by statement.
        self.in_steps = False

    async def check(self, migration: Migration) -> Script | Parts:
        """What the file means.

        Raises:
            PlanError: It can't be applied, or not over this connection.
        """
        if files.size_bytes(migration.path) > parts.WHOLE_BYTES:
            return await self._cut(migration)
        text = read_text(migration.path)
        if checksum(text) != migration.checksum:
            raise _edited(migration)
        meant = meaning.of(text, migration.filename)
        if script.needs_parts(text):
            return replace(await self._cut(migration), meaning=meant)
        understood = script.understand(text, migration.filename)
        if understood.steps and self._store.transport.pooled:
            alone = [one.first_line for one, way in understood.steps if way is not Way.IN_TRANSACTION]
            what = f"{alone[0]!r} can't" if alone else "it isn't to"
            raise PlanError(
                f"cannot apply {migration.filename} through a transaction pooler: {what} "
                "run in a transaction; set DIRECT_URL to a direct connection"
            )
        return replace(understood, meaning=meant)

    async def apply(
        self, migration: Migration, lease: Lease, begun: HistoryRow | None, *, last: bool = True
    ) -> None:
        """Apply the file and leave it in history.

        Args:
            migration: The file.
            lease: Ours; the server checks it in the same transaction.
            begun: What an earlier run left on record; None if the file is untouched.
            last: No other follows in this run. Else its commit needn't wait for the disk: a later one will,
                be it that which gives the lease back after a failure.

        Raises:
            MigrationFailed: The server refused it; the message says where, why, and what is left.
            Conflict: Others were in the way for too long.
            LeaseLost: The lease isn't ours any more.
            Unavailable: The connection broke; the outcome is unknown.
        """
        understood = await self.check(migration)
        self.in_steps = isinstance(understood, Script) and bool(understood.steps)
        transport = self._store.transport
        messages = Messages(
            self._store.schema,
            migration,
            lease,
            headers=understood.headers,
            meaning=understood.meaning,
            lock_key=self._store.lock_key,
            pooled=transport.pooled,
            local_settings=transport.local_settings,
        )
        if isinstance(understood, Parts):
            await self._apply_parts(migration, understood, messages)
        elif understood.steps:
            await self._apply_steps(migration, understood, messages, begun)
        else:
            await self._apply_whole(migration, understood, messages, last=last)

    async def _apply_whole(
        self, migration: Migration, understood: Script, messages: Messages, *, last: bool
    ) -> None:
        message, start = messages.whole(understood.text, durable=last)
        try:
            await self._persist(migration, partial(self._store.transport.execute, message))
        except DatabaseError as error:
            head = statements.split(message[:start]) or []
            located = failure.locate(error, understood.text, start, len(head)) or failure.role_refused(
                error, message[:start], understood.headers
            )
            state = failure.state_of(error, understood=understood.understood, untouched=True)
            unfinished = failure.unfinished(migration, error, understood.text, start, state)
            if unfinished is not None:
                raise MigrationFailed(unfinished) from error
            raise failure.failure(migration, error, located, state) from error

    async def _cut(self, migration: Migration) -> Parts:
        with files.open_file(migration.path) as file:
            cut = await parts.cut(file, migration.filename)
        if cut.checksum != migration.checksum:
            raise _edited(migration)
        return cut

    async def _apply_parts(self, migration: Migration, cut: Parts, messages: Messages) -> None:
        sending = Sending(self._store.transport, migration, cut, messages)
        try:
            await self._persist(migration, sending)
        except DatabaseError as error:
            raise sending.failed(error) from error

    async def _apply_steps(
        self, migration: Migration, understood: Script, messages: Messages, begun: HistoryRow | None
    ) -> None:
        where, state = None, "nothing of it was applied"
        before = (begun.statements_done or 0) if begun else 0
        total = len(understood.steps)
        first = messages.first_step()
        try:
            try:
                await self._store.transport.execute(first)
            except DatabaseError as error:
                where = failure.role_refused(error, first, understood.headers)
                raise
            for number, (statement, way) in enumerate(understood.steps, 1):
                if number <= before:
                    continue
                where = failure.Located(statement=statement, text=understood.text)
                state = failure.progress(number, total)
                finished = number == total
                if way is Way.IN_TRANSACTION:
                    message = messages.step(statement.text, done=number, finished=finished)
                else:
                    in_doubt = begun is not None and begun.in_doubt and number == before + 1
                    alone = _Alone(
                        self._store, self._log, messages, statement, way, done=number - 1, in_doubt=in_doubt
                    )
                    await self._persist(migration, alone)
                    message = messages.settle(done=number, finished=finished)
                await self._persist(migration, partial(self._store.transport.execute, message))
        except DatabaseError as error:
            if errors.from_sqlstate(error.sqlstate) is LeaseLost:
                where = None  # the fence stands before each statement
            raise failure.failure(migration, error, where, state) from error
        finally:
            await self._clean_session(messages)

    async def _persist(self, migration: Migration, once: Callable[[], Awaitable[None]]) -> None:
        """Do it, again if others were in its way."""
        for attempt in range(1, _CONFLICT_TRIES + 1):
            try:
                await once()
            except Unavailable as error:
                raise Unavailable(
                    f"cannot apply {migration.filename}: {error}\n{errors.NOT_KNOWN}"
                ) from error
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

    async def _clean_session(self, messages: Messages) -> None:
        """What the file set for its session must not reach the next one."""
        try:
            await self._store.transport.execute(messages.clean())
        except (DatabaseError, Unavailable) as error:
            self._log.warning("session.unclean", reason=str(error))


def _edited(migration: Migration) -> PlanError:
    return PlanError(f"cannot apply {migration.filename}: it was edited while we were reading; start again")


class _Alone:
    """A statement that can't run in a transaction: what is done each time it is tried."""

    def __init__(
        self,
        store: Store,
        log: Log,
        messages: Messages,
        statement: Statement,
        way: Way,
        *,
        done: int,
        in_doubt: bool,
    ) -> None:
        self._store = store
        self._log = log
        self._messages = messages
        self._statement = statement
        self._way = way
        self._done = done
        # An earlier run sent it and didn't live to hear what became of it.
        self._in_doubt = in_doubt

    async def __call__(self) -> None:
        execute = self._store.transport.execute
        # Nothing can fence such a statement. The session advisory lock keeps others away while it runs;
        # that the lease is ours is asked right before it.
        await execute(self._messages.announce(done=self._done))
        # Each time: a deadlock, say, leaves an INVALID index, which IF NOT EXISTS takes for done.
        if await self._is_done_already():
            return
        # CONCURRENTLY waits in nobody's way, and a timeout would leave it broken. VACUUM FULL and its kind do
        # stand in the way while they wait.
        limit_ms = 0 if self._way is Way.CONCURRENT else LOCK_TIMEOUT_MS
        await execute(self._messages.limit(limit_ms))
        try:
            await execute(self._statement.text)
        except DatabaseError as error:
            if error.ended is Ended.UNKNOWN:
                raise
            gone = error.sqlstate == "42704" and self._statement.text[:4].lower() == "drop"
            if not (self._in_doubt and gone):
                await execute(self._messages.settle(done=self._done, finished=False))
                raise

    async def _is_done_already(self) -> bool:
        """Clear the way for a CREATE INDEX CONCURRENTLY; True if an earlier run had finished it."""
        index = statements.index_of(self._statement)
        found = await self._store.index_state(index.schema, index.name, index.table) if index else None
        if index is None or found is None:
            return False
        schema, valid = found
        if valid:
            return self._in_doubt
        # What a broken CONCURRENTLY leaves behind: of no use, and in the way of the next try.
        name = f"{identifier(schema)}.{identifier(index.name)}"
        self._log.warning("index.dropped", index=name, reason="left INVALID by an earlier try")
        await self._store.transport.execute(f"drop index concurrently if exists {name}")
        return False
