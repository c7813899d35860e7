"""Running a file statement by statement, as psql does: what can't run in one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

from migrator import errors, failure, sending, stages, statements, wants
from migrator import migration as files
from migrator.attempts import Alone, CopyStep, Sent, Step
from migrator.errors import LeaseLost, MigratorError, PlanError
from migrator.failure import Located
from migrator.log import Log
from migrator.messages import Messages
from migrator.migration import Migration
from migrator.parts import Parts
from migrator.passage import Passage
from migrator.plan import HistoryRow
from migrator.script import Script
from migrator.stages import Stage, Walk
from migrator.statements import Way
from migrator.store import Store
from migrator.transport import DatabaseError


class Stepping:
    """One file, from its start or where an earlier run came to."""

    def __init__(
        self,
        store: Store,
        log: Log,
        *,
        migration: Migration,
        understood: Script | Parts,
        messages: Messages,
        passage: Passage,
        begun: HistoryRow | None,
    ) -> None:
        """Run `migration`, which was `understood`; `begun` is what an earlier run left on record."""
        self._store = store
        self._log = log
        self._migration = migration
        self._understood = understood
        self._messages = messages
        self._passage = passage
        self._done = (begun.statements_done or 0) if begun else 0
        # What became of the statement after those isn't known.
        self._in_doubt = begun is not None and begun.in_doubt
        self._total = understood.total
        self._state = "nothing of it was applied"

    async def run(self) -> None:
        """Run what isn't done yet.

        Raises:
            PlanError: It was edited since it was understood.
            MigratorError: As `SqlRunner.apply`.
        """
        async with self._stages() as found:
            await self._begin()
            for stage in found:
                if stage.last <= self._done:
                    await self._set_again(stage)
                    continue
                self._state = failure.progress(stage.number, self._total)
                await self._take(stage)
                if stage.last < self._total:
                    self._state = failure.progress(stage.last + 1, self._total)

    @asynccontextmanager
    async def _stages(self) -> AsyncIterator[Iterator[Stage]]:
        if isinstance(self._understood, Script):
            yield stages.of_script(self._understood)
            return
        with files.open_file(self._migration.path) as file:
            walk = Walk(file, self._migration.filename, self._understood)
            await walk.verify()
            try:
                yield walk.stages(self._done)
            except PlanError as error:
                raise PlanError(f"{error}\n{self._state}") from error

    async def _begin(self) -> None:
        first = self._messages.first_step()
        try:
            await self._store.transport.execute(first)
        except DatabaseError as error:
            where = None
            if errors.from_sqlstate(error.sqlstate) is not LeaseLost:
                where = failure.role_refused(error, first, self._understood.headers)
            raise failure.failure(self._migration, error, where, self._state) from error

    async def _set_again(self, stage: Stage) -> None:
        """Have the session as what was done had set it: that one is gone."""
        await asyncio.sleep(0)  # it may be a file of 50 MB
        for statement in stage.statements:
            if not statements.lasts(statement):
                continue
            try:
                await self._store.transport.execute(self._messages.label + statement.text)
            except DatabaseError as error:  # a role, say, that the file itself has dropped since
                self._log.warning(
                    "session.changed",
                    filename=self._migration.filename,
                    reason=f"cannot repeat {statement.first_line!r}: {error.text.splitlines()[0]}",
                )

    async def _take(self, stage: Stage) -> None:
        attempt = self._attempt(stage)
        wanted = []
        if wants.may_lock(stage.statements[0].text):
            wanted = wants.of([statements.tree(stage.statements[0])], set())
        only_rows = stage.way is Way.IN_TRANSACTION and wants.is_data_only(
            one.text for one in stage.statements
        )
        try:
            await self._passage.through(
                attempt,
                [] if stage.way is Way.CONCURRENT else wanted,
                waits_for_rows=only_rows,
                state=self._state,
            )
            if isinstance(attempt, Alone):
                settled = self._messages.settle(done=stage.last, finished=stage.last == self._total)
                await self._passage.through(Sent(self._store.transport, settled), [])
        except DatabaseError as error:
            if stage.copy is not None:
                # Of data that is edited on its way the server may take offence before its end is reached.
                for _ in stage.copy.chunks():
                    await asyncio.sleep(0)
            raise self._failed(stage, attempt, error) from error

    def _attempt(self, stage: Stage) -> Step | CopyStep | Alone:
        transport, done, finished = self._store.transport, stage.last, stage.last == self._total
        if stage.copy is not None:
            return CopyStep(
                transport, self._messages, stage.text, stage.copy.chunks, done=done, finished=finished
            )
        if stage.way is Way.IN_TRANSACTION:
            return Step(transport, self._messages, stage.text, done=done, finished=finished)
        return Alone(
            self._store,
            self._log,
            self._messages,
            stage.statements[0],
            stage.way,
            done=done - 1,
            in_doubt=self._in_doubt and done == self._done + 1,
        )

    def _failed(self, stage: Stage, attempt: Step | CopyStep | Alone, error: DatabaseError) -> MigratorError:
        if errors.from_sqlstate(error.sqlstate) is LeaseLost:  # the fence stands before each statement
            return failure.failure(self._migration, error, None, self._state)
        unfinished = failure.unfinished(
            self._migration, error, stage.text, attempt.start, self._state, begin=stage.begin
        )
        located = unfinished or self._located(stage, attempt, error)
        if isinstance(located, MigratorError):
            return located
        return failure.failure(self._migration, error, located, self._state)

    def _located(self, stage: Stage, attempt: Step | CopyStep | Alone, error: DatabaseError) -> Located:
        if stage.copy is not None:
            line = failure.copied_line(error, stage.copy.table)
            if line is not None:
                return sending.located_line(self._migration, stage.copy.data, line)
        offset = None
        if error.position is not None and error.position > attempt.start:
            offset = min(error.position - 1 - attempt.start, len(stage.text))
            statement = [one for one in stage.statements if one.offset <= offset][-1]
        elif len(stage.statements) == 1:
            statement = stage.statements[0]
        else:
            number = error.completed - attempt.head
            if not 0 <= number < len(stage.statements):
                return Located(text="")  # a constraint that is looked at when all of them are done
            statement = stage.statements[number]
        return Located(text=stage.text, statement=statement, offset=offset, begin=stage.begin)
