"""What a run undoes of its own when it fails half-way (MIGRATION_ROLLBACK_ON_FAILURE)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from itertools import takewhile
from typing import Protocol

from migrator import failure, undo
from migrator.errors import Conflict, MigrationFailed, MigratorError, PlanError, Unavailable
from migrator.log import Log
from migrator.migration import AnyPath
from migrator.passage import Care
from migrator.report import MigrationPhase, Report
from migrator.runners import SqlRunner
from migrator.store import Lease, Store
from migrator.transport import Ended
from migrator.undo import Applied, Downs, Step

# The names of so many files are told one by one.
_NAMED = 8


class Teller(Protocol):
    """Tells what changed of a report, as `teller.Teller` does."""

    report: Report

    def __call__(self, phase: MigrationPhase, **changes: object) -> None:
        """Tell it."""


@asynccontextmanager
async def on_failure(
    store: Store, lease: Lease, care: Care, *, down_paths: Iterable[AnyPath], tell: Teller, log: Log
) -> AsyncIterator[None]:
    """If the body fails, undo what this run applied, the latest first, as far as there are files for it.

    Only what is known to have failed counts: not a lost connection or lease, nor a file of which a part may
    have been committed, nor a request to stop.

    Raises:
        MigratorError: What the body raised, with a word on what was undone and what wasn't.
    """
    try:
        yield
    except (MigrationFailed, Conflict, PlanError) as error:
        if not error.outcome_known:
            raise
        runner = SqlRunner(store, log, care, kind=undo.Backwards)
        undoing = _Undoing(store, lease, runner, Downs(down_paths), tell=tell, log=log)
        told = await undoing.after(error)
        if told is None:
            raise
        said = str(error)
        if undoing.reached_half_done:  # what it says of the next run isn't so any more
            said = said.rpartition(failure.NEXT_RUN)[0] or said
        raise type(error)(f"{said}\n{told}") from error


class _Undoing:
    """One failure, and what is made of it."""

    def __init__(
        self, store: Store, lease: Lease, runner: SqlRunner, downs: Downs, *, tell: Teller, log: Log
    ) -> None:
        self._store = store
        self._lease = lease
        self._runner = runner
        self._downs = downs
        self._tell = tell
        self._log = log
        self._undone: list[Applied] = []

    @property
    def reached_half_done(self) -> bool:
        """Whether the file that failed was undone as well, so far as it had come."""
        return any(not one.finished for one in self._undone)

    async def after(self, failed: MigratorError) -> str | None:
        """Undo; what to say of it, or None if nothing of this run is on record."""
        failed_at = self._tell.report.current
        try:
            await self._store.install()  # an older version had no table for what was undone
            history = await undo.applied(self._store)
        except MigratorError as error:
            self._log.warning("undo.stopped", reason=str(error))
            return f"nothing was undone: {error}"
        # What others applied after something of ours may need it: then that stays as well.
        ours = list(takewhile(lambda one: one.executed_by == self._lease.holder, history))
        if not ours:
            return None
        self._log.warning("undo.started", files=len(ours), reason=str(failed).split("\n", 1)[0])
        stopped = await self._undo(ours)
        kept = ours[len(self._undone) :]
        if stopped:
            self._log.warning("undo.stopped", reason=stopped, kept=[one.filename for one in kept])
        self._tell(MigrationPhase.APPLYING, current=failed_at)
        return _told(self._undone, kept, stopped)

    async def _undo(self, ours: Sequence[Applied]) -> str | None:
        """Undo them one by one; why it went no further, None if it came to the end.

        What is beneath one that stays, stays: the one may need it.
        """
        for one in ours:
            try:
                down = self._downs.of(one)
                if down is None:
                    return f"there is no {undo.down_name(one)}"
                step = Step(applied=one, down=down)
                undo.refuse_edited(step)
                await undo.run(
                    self._runner, self._lease, self._log, [step], begin=self._begin, done=self._done
                )
            except asyncio.CancelledError:
                # Undoing sends nothing ahead: it never hears more than this.
                known = (
                    "rolled back" if self._store.transport.ended is Ended.ROLLED_BACK else "outcome not known"
                )
                told = _told(self._undone, ours[len(self._undone) :], f"stopped by a signal, {known}")
                self._tell(MigrationPhase.ABORTED, error=f"stopped while undoing {one.filename}\n{told}")
                raise
            except Unavailable as error:
                return f"whether {one.filename} was undone is not known: {_first_line(error)}"
            except MigratorError as error:
                return _first_line(error)
        return None

    def _begin(self, step: Step) -> None:
        self._tell(
            MigrationPhase.APPLYING,
            current=step.down.filename,
            reason="a later file failed: undoing what this run applied",
        )

    def _done(self, step: Step) -> None:
        self._undone.append(step.applied)
        applied, pending = self._tell.report.applied or 0, self._tell.report.pending or 0
        if step.applied.finished:  # else it was counted as pending
            self._tell(MigrationPhase.APPLYING, applied=applied - 1, pending=pending + 1)


def _told(undone: Sequence[Applied], kept: Sequence[Applied], why: str | None) -> str:
    """What was undone and what wasn't, in the order in which they were applied."""
    lines = []
    if undone:
        lines.append(
            f"undone again (MIGRATION_ROLLBACK_ON_FAILURE): {_names(undone)}; the next run begins with "
            f"{undone[-1].filename}"
        )
    if kept:
        lines.append(f"not undone: {_names(kept)}, as {why}")
    return "\n".join(lines)


def _names(files: Sequence[Applied]) -> str:
    names = [one.filename + ("" if one.finished else " (half done)") for one in reversed(files)]
    if len(names) <= _NAMED:
        return ", ".join(names)
    return f"all {len(names)} from {names[0]} to {names[-1]}"


def _first_line(error: MigratorError) -> str:
    return str(error).split("\n", 1)[0]
