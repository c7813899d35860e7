"""Running one migration over a REST API: all of it is one call of one function, and so one transaction."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence

from migrator import errors, failure, parser, script, sql, statements
from migrator import migration as files
from migrator.errors import MigrationFailed, PlanError, Unavailable
from migrator.log import Log
from migrator.messages import Messages
from migrator.migration import Migration, read_text
from migrator.parts import WHOLE_BYTES
from migrator.passage import Passage
from migrator.plan import HistoryRow
from migrator.refusal import TooLate
from migrator.rest import RestTransport
from migrator.runners import SqlRunner
from migrator.script import Script
from migrator.statements import Statement
from migrator.store import Lease, Store
from migrator.transport import DatabaseError, Ended

_REMEDY = "set DIRECT_URL to a direct connection"
# Pauses between two looks whether what was sent is still at work, in seconds.
_FIRST_PAUSE_S = 0.1
_LAST_PAUSE_S = 2.0
# How long stopping what is at work may take, when we are told to stop.
_CANCEL_S = 2.5
# What the parser is asked about; no other statement is more than the file's own business.
_CANDIDATE = re.compile(
    r"(deallocate|savepoint|release|rollback)\b|(re)?set\b(?=.*\b(role|authorization)\b)",
    re.IGNORECASE | re.DOTALL,
)
# What a function can't do, as only the server saw: a COMMIT in a procedure, a role set by set_config.
_NOT_IN_A_FUNCTION = frozenset({"25001", "2D000"})
_NO_ROLE = "within security-definer function"


class RestRunner(SqlRunner):
    """Applies SQL files by calls."""

    through = "the REST API"

    async def check(self, migration: Migration) -> Script:
        """What the file means.

        Raises:
            PlanError: It can't be applied, or not in one call.
        """
        if files.size_bytes(migration.path) > WHOLE_BYTES:
            raise _refused(migration, f"it is larger than {WHOLE_BYTES // 2**20} MiB; split it, or ")
        if script.needs_parts(read_text(migration.path)):
            why = "data of a COPY can't be sent, nor quotes that change their meaning; use INSERT, or "
            raise _refused(migration, why)
        understood = await super().check(migration)
        assert isinstance(understood, Script)
        asked = understood.headers
        for name, value in (("role", asked.role), ("timeout", asked.timeout_ms)):
            if value is not None:
                asked_for = f"`-- migrator: {name}=...`"
                raise _refused(migration, f"{asked_for} can't be had in a function; remove it, or ")
        for statement in _statements(understood):
            reason = _why_not(statement)
            if reason is not None:
                line, column = script.line_and_column(understood.text, statement.offset)
                place = f"line {line}, column {column}: {statement.first_line!r}"
                raise _refused(migration, f"{place} {reason}; remove it, or ")
        return understood

    async def apply(
        self,
        migration: Migration,
        lease: Lease,
        begun: HistoryRow | None,
        *,
        following: Sequence[Migration] = (),
    ) -> None:
        """See SqlRunner. Nothing is half done here, and each call waits for the disk."""
        del begun, following
        understood = await self.check(migration)
        found = _statements(understood)
        messages = _CallMessages(self._store.schema, migration, lease, understood)
        call = _Call(self._store, self._log, messages, migration=migration, lease=lease, found=found)
        passage = Passage(self._store, self._log, self._care, messages, migration.filename)
        wanted, waits_for_rows = await self._wants(understood)
        try:
            await passage.through(call, wanted, waits_for_rows=waits_for_rows)
        except DatabaseError as error:
            raise _failed(migration, error, found, understood) from error


class _CallMessages(Messages):
    """What goes before and after a file's statements in a call."""

    def __init__(self, schema: str, migration: Migration, lease: Lease, understood: Script) -> None:
        super().__init__(
            schema,
            migration,
            lease,
            headers=understood.headers,
            meaning=understood.meaning,
            lock_key=0,
            pooled=True,
            local_settings={},
        )
        self._values["application"] = self.label

    @property
    def label(self) -> str:
        """By what pg_stat_activity shows what is at work for us: its query is PostgREST's own."""
        return f"migrator/{self._values['holder']}"[:63]

    def head(self, locks: str = "", after: str | None = None) -> str:
        """See Messages."""
        del after
        begun = self._pieces("prepare", "fence") + self._joined("record")
        return self._label + begun + self._locking(locks)

    def end(self) -> str:
        """What goes after the file's last statement."""
        return self._joined("finish") + self._pieces("clean", "reload")

    def _pieces(self, *names: str) -> str:
        return sql.message("rest.sql", names, self._schema, self._values)


class _Call:
    """A file in one call; without an answer, what became of it is read from the history."""

    # What an error's `completed` counts: 1 is the file's first statement.
    head = 1

    def __init__(
        self,
        store: Store,
        log: Log,
        messages: _CallMessages,
        *,
        migration: Migration,
        lease: Lease,
        found: list[Statement],
    ) -> None:
        assert isinstance(store.transport, RestTransport)
        self._store = store
        self._transport = store.transport
        self._log = log
        self._messages = messages
        self._migration = migration
        self._lease = lease
        self._texts = [one.text for one in found]

    async def __call__(self, locks: str) -> None:
        """See Attempt.

        Raises:
            MigrationFailed: It took more time than the gateway has, and is rolled back.
        """
        self._transport.ended = Ended.UNKNOWN
        try:
            await self._transport.apply(self._messages.head(locks), self._texts, self._messages.end())
        except Unavailable as error:
            await self._settle(error)
        except asyncio.CancelledError:
            self._transport.ended = await self._cancel()
            raise

    async def _settle(self, lost: Unavailable) -> None:
        """Wait until nothing of ours is at work, and see what it has left; nothing is sent again before that.

        Raises:
            MigrationFailed: See `__call__`.
            Unavailable: It isn't applied, or that can't be found out.
        """
        filename = self._migration.filename
        self._log.warning("migration.retrying", filename=filename, reason=str(lost))
        await self._idle()
        if not await self._is_applied():
            if not isinstance(lost, TooLate):
                raise lost
            # A call that is still on its way finds the lease gone, so that what is read now is the truth.
            await self._store.release(self._lease)
            if not await self._is_applied():
                raise MigrationFailed(
                    f"cannot apply {filename} over the REST API: {lost}\n"
                    f"remedy: if it takes that long, make the file smaller, or {_REMEDY}; what else may have "
                    "gone wrong is in the database's log\n"
                    "rolled back: nothing of this file was applied"
                ) from lost
        self._log.info("migration.settled", filename=filename, outcome="applied")

    async def _idle(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while not await self._store.is_idle(self._lease):
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _LAST_PAUSE_S)

    async def _is_applied(self) -> bool:
        history = await self._store.history() or []
        return any(row.version == self._migration.version and row.finished for row in history)

    async def _cancel(self) -> Ended:
        """Have the server stop what we don't wait for any more, if it lets us; what became of it."""
        piece = sql.pieces("rest.sql")["cancel"]
        try:
            async with asyncio.timeout(_CANCEL_S):
                found = await self._transport.fetch(piece.query(self._store.schema), self._messages.label)
                # What wasn't at work may be on its way still.
                if any(row["cancelled"] for row in found):
                    await self._idle()
                    return Ended.COMMITTED if await self._is_applied() else Ended.ROLLED_BACK
        except (DatabaseError, errors.MigratorError, TimeoutError) as error:
            self._log.warning("session.unclean", reason=str(error))
        return Ended.UNKNOWN


def _statements(understood: Script) -> list[Statement]:
    """One by one, so that an error tells which it was."""
    text = understood.text
    return statements.split(text) or statements.cut(text)


def _why_not(statement: Statement) -> str | None:
    """Why a statement can't be in a call; None if it can, for all that is known here."""
    parsed = parser.parse(statement.text) if _CANDIDATE.match(statement.text) else None
    if parsed is None:
        return None
    found = json.loads(parsed).get("stmts", [])
    name, node = next(iter(found[0]["stmt"].items())) if found else ("", {})
    match name:
        case "DeallocateStmt" if not node.get("name"):
            return "would take the API its own prepared statements"
        case "TransactionStmt":
            return "can't run in a function"
        case "VariableSetStmt" if node.get("name") in ("role", "session_authorization"):
            return "can't be in a function, which runs as its owner"
    return None


def _refused(migration: Migration, why: str) -> PlanError:
    return PlanError(f"cannot apply {migration.filename} over the REST API: {why}{_REMEDY}")


def _failed(
    migration: Migration, error: DatabaseError, found: list[Statement], understood: Script
) -> errors.MigratorError:
    """The error to end with: `completed` counts from 1 in the file; 0 is before it."""
    located = None
    if 0 < error.completed <= len(found):
        located = failure.Located(text=understood.text, statement=found[error.completed - 1])
    elif error.completed > len(found):
        located = failure.Located(text="")  # what it has left behind: a deferred constraint
    state = failure.state_of(error, understood=True, untouched=True)
    impossible = error.sqlstate in _NOT_IN_A_FUNCTION or _NO_ROLE in error.text
    if located is not None and (impossible or (error.sqlstate == "0A000" and "EXECUTE" in error.text)):
        return MigrationFailed(
            f"cannot apply {migration.filename}: {located.where}{error.text} ({error.sqlstate})\n"
            f"  {located.shown}\n"
            f"remedy: it can't run in a function, as all does over the REST API; {_REMEDY}\n{state}"
        )
    return failure.failure(migration, error, located, state)
