"""A dry run: what is pending, in one transaction that is rolled back and gives way to everybody."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from enum import StrEnum

from msgspec import Struct

from migrator import sql
from migrator.attempts import Attempt
from migrator.errors import MigratorError, PlanError, Unavailable
from migrator.log import Log
from migrator.messages import Messages
from migrator.migration import Migration
from migrator.parts import Parts
from migrator.passage import Care, Passage
from migrator.runners import SqlRunner
from migrator.script import Script
from migrator.store import Lease, Store, Token
from migrator.transport import DatabaseError, Ended
from migrator.wants import Want

# How long a file waits for a lock, and so may keep others waiting that queue behind it.
LOCK_TIMEOUT_MS = 50
# How long the last words of a session that was ended may take.
_LAST_WORDS_S = 2.0
_IN_THE_WAY = "MG004"
_LOCK_TIMEOUT = "55P03"
# What is said of things that aren't there; a file that was left out may have been to make them.
_NOT_THERE = frozenset({"42P01", "42703", "42704", "42883", "3F000", "42830", "42P10", "42P02"})
# A new enum value can't be used in the transaction that adds it; two files have two transactions.
_NEW_ENUM_VALUE = "55P04"
# No message of a dry run asks for the lease: it works beside whoever has it.
_NO_LEASE = Lease(token=Token(0), holder="")


class Outcome(StrEnum):
    """What a dry run found out about one file."""

    PASSED = "passed"
    FAILED = "failed"
    # It can't run in a transaction.
    LEFT_OUT = "left out"
    # It failed, as it may well do here only.
    UNCERTAIN = "uncertain"
    # Others needed what it had locked, or it took too long.
    CUT_SHORT = "cut short"
    NOT_TRIED = "not tried"


class Trial(Struct, frozen=True, kw_only=True):
    """One file; `error` is what `up` would end with, `reason` why nothing is known."""

    migration: Migration
    outcome: Outcome
    reason: str | None = None
    error: MigratorError | None = None
    duration_ms: int = 0


class _Rehearsed(Messages):
    """A file within the transaction that is open: no fence, no history, no commit."""

    def head(self, locks: str = "", after: str | None = None) -> str:  # noqa: ARG002 - neither is for us
        limits = self._own("limits", lock_timeout_ms=self._values["lock_timeout_ms"])
        head = self._label + self._own("probe") + limits
        for setting, value in self._local_settings.items():
            head += self._joined("setting", setting=setting, value=value)
        return head + self._timeout() + (self._joined("role") if self._headers.role is not None else "")

    def limit_waits(self, limit_ms: int) -> None:
        self._values["lock_timeout_ms"] = min(limit_ms, LOCK_TIMEOUT_MS)  # also where the file asks for more

    def tail(self, *, unlocks: bool = True, guards: bool = True, durable: bool = True) -> str:  # noqa: ARG002
        return self._joined("unrole", "clean", "forget")

    def _own(self, name: str, **values: sql.Value) -> str:
        return _piece(name, **values)


class _Once(Passage):
    """A single try, without a look at who is in the way: it waits for nobody for long.

    A second one would be outside of the transaction that the first one ended.
    """

    async def through(
        self,
        attempt: Attempt,
        wants: Sequence[Want],  # noqa: ARG002
        *,
        waits_for_rows: bool = False,  # noqa: ARG002
        state: str = "",  # noqa: ARG002
    ) -> None:
        self._messages.limit_waits(min(LOCK_TIMEOUT_MS, self._care.restraint.freeze_budget_ms))
        try:
            await attempt("")
        except Unavailable as error:
            raise Unavailable(f"cannot try {self._filename}: {error}") from error


class Rehearsal:
    """One dry run over two connections: one tries, the other looks whether that is in anybody's way."""

    def __init__(self, store: Store, log: Log, care: Care, *, max_s: float) -> None:
        """Try over the connection of `store`, for `max_s` seconds at most."""
        self._store = store
        self._open_store = care.open_store
        self._runner = SqlRunner(store, log, care, kind=_Rehearsed, passage=_Once)
        self._max_s = max_s
        self._trials: list[Trial] = []
        self._current: Migration | None = None
        # Why it ended before its end.
        self._cut: str | None = None

    async def of(self, pending: Sequence[Migration]) -> list[Trial]:
        """Try all of these.

        Nothing of it is ever committed, whatever happens to us: only the numbers that sequences gave out are
        used up.

        Raises:
            Unavailable: The connection broke, and not for being in somebody's way.
        """
        # Read and understood before anything is locked.
        known = [(migration, await self._look_at(migration)) for migration in pending]
        async with self._open_store() as other:
            await self._store.transport.execute(_piece("begin"))
            if self._store.transport.limits_transactions:
                await self._store.transport.execute(_piece("unlimited"))
            (row,) = await self._store.rows("rehearsal.sql", "pid", "begin a dry run")
            try:
                async with asyncio.TaskGroup() as tasks:
                    trying = tasks.create_task(self._try_all(known), name="dry run")
                    watching = tasks.create_task(self._watch(other, int(row["pid"]), trying), name="watch")
                    trying.add_done_callback(lambda _: watching.cancel())
            except BaseExceptionGroup as group:
                raise group.exceptions[0] from None
        tried = {trial.migration for trial in self._trials}
        for migration in pending:
            if migration in tried:
                continue
            if migration is self._current and self._cut:
                self._trials.append(Trial(migration=migration, outcome=Outcome.CUT_SHORT, reason=self._cut))
            else:
                self._trials.append(Trial(migration=migration, outcome=Outcome.NOT_TRIED))
        return self._trials

    async def _look_at(self, migration: Migration) -> Trial | None:
        """What is known of a file without trying it; None if it is to be tried."""
        try:
            understood = await self._runner.check(migration)
        except PlanError as error:
            return Trial(migration=migration, outcome=Outcome.FAILED, error=error)
        reason = _untriable(understood)
        if reason is None:
            return None
        return Trial(migration=migration, outcome=Outcome.LEFT_OUT, reason=reason)

    async def _try_all(self, known: Sequence[tuple[Migration, Trial | None]]) -> None:
        try:
            async with asyncio.timeout(self._max_s):
                for migration, trial in known:
                    self._current = migration
                    self._trials.append(trial or await self._try(migration))
                    if self._trials[-1].outcome not in (Outcome.PASSED, Outcome.LEFT_OUT):
                        return
        except TimeoutError:
            self._cut = f"it took longer than {self._max_s:g} s"
        except Unavailable:
            # Whoever watches has ended the session, and is about to say so: that cancels us.
            await asyncio.sleep(_LAST_WORDS_S)
            raise
        finally:
            await self._end()  # while it is watched

    async def _try(self, migration: Migration) -> Trial:
        began_s = time.monotonic()
        try:
            await self._runner.apply(migration, _NO_LEASE, None)
        except MigratorError as error:
            cause = error.__cause__
            if isinstance(cause, Unavailable) or (
                isinstance(cause, DatabaseError) and cause.ended is Ended.UNKNOWN
            ):
                raise Unavailable(str(error)) from error
            return self._judged(migration, error)
        took_ms = int((time.monotonic() - began_s) * 1000)
        return Trial(migration=migration, outcome=Outcome.PASSED, duration_ms=took_ms)

    def _judged(self, migration: Migration, error: MigratorError) -> Trial:
        """What a failure in here says about `up`."""
        cause = error.__cause__
        sqlstate = cause.sqlstate if isinstance(cause, DatabaseError) else ""
        if sqlstate == _LOCK_TIMEOUT:
            self._cut = "it needed a lock that somebody else holds"
            return Trial(migration=migration, outcome=Outcome.CUT_SHORT, reason=self._cut)
        before = {trial.outcome for trial in self._trials}
        if Outcome.LEFT_OUT in before and sqlstate in _NOT_THERE:
            reason = f"it may need a file that was left out: {_first_line(error)}"
            return Trial(migration=migration, outcome=Outcome.UNCERTAIN, reason=reason)
        if Outcome.PASSED in before and sqlstate == _NEW_ENUM_VALUE:
            reason = f"it can't share a transaction with a file before it: {_first_line(error)}"
            return Trial(migration=migration, outcome=Outcome.UNCERTAIN, reason=reason)
        return Trial(migration=migration, outcome=Outcome.FAILED, error=error)

    async def _watch(self, other: Store, pid: int, trying: asyncio.Task[None]) -> None:
        """End the dry run as soon as somebody waits for it."""
        watch = _piece("watch", pid=pid)
        if other.transport.limits_transactions:
            watch = _piece("unlimited") + watch
        try:
            while True:
                await other.transport.execute(watch)
        except DatabaseError as error:
            self._cut = "somebody waited for a lock that it held"
            if error.sqlstate != _IN_THE_WAY:
                self._cut = f"it can't be seen whether somebody waits for it: {error.text}"
        except Unavailable as error:
            self._cut = f"it can't be seen whether somebody waits for it: {error}"
        trying.cancel()

    async def _end(self) -> None:
        try:
            await self._store.transport.execute(_piece("end"))
        except (
            DatabaseError,
            Unavailable,
        ):  # its session was ended, and the server has rolled back by itself
            if self._cut is None:
                raise


def _untriable(understood: Script | Parts) -> str | None:
    """Why a file can't be tried in the midst of a transaction."""
    if understood.total:
        alone = understood.alone
        return f"{alone[0]!r} can't run in a transaction" if alone else "it isn't to run in a transaction"
    if not understood.understood:
        return "the parser doesn't know all of it: it might end the transaction"
    return None


def _first_line(error: MigratorError) -> str:
    return str(error).split("\n", 1)[0]


def _piece(name: str, **values: sql.Value) -> str:
    return sql.message("rehearsal.sql", (name,), "", values)
