"""Sending a file part by part, in one transaction: what is too large for one message, or isn't SQL alone."""

from __future__ import annotations

import asyncio
from itertools import islice

from migrator import errors, failure, statements
from migrator import migration as files
from migrator.errors import MigrationFailed, MigratorError, PlanError
from migrator.failure import Located
from migrator.lexer import Data
from migrator.messages import Messages
from migrator.migration import Migration
from migrator.parts import Copy, Part, Parts, Reading, Text
from migrator.transport import DatabaseError, Ended, Transport

_CHUNK_BYTES = 64 * 1024


class Sending:
    """Sends one file, at each call once more from its start."""

    def __init__(self, transport: Transport, migration: Migration, cut: Parts, messages: Messages) -> None:
        """Send `migration`, which was found to consist of the parts `cut`."""
        self._transport = transport
        self._migration = migration
        self._cut = cut
        self._messages = messages
        # What was sent last; None: something of ours.
        self._part: Part | None = None
        self._text = ""
        self._has_begun = False
        self._head = ""

    @property
    def head(self) -> int:
        """How many statements of ours were in the message that was refused; 0 if it was one of the file."""
        return 0 if self._has_begun else len(statements.split(self._head) or [])

    async def __call__(self, locks: str) -> None:
        """Send it all, and the statements `locks` before.

        Raises:
            PlanError: It is being edited; rolled back.
            DatabaseError: See Transport.
            Unavailable: See Transport.
        """
        self._part, self._has_begun = None, False
        with files.open_file(self._migration.path) as file:
            self._head = self._messages.head(locks)
            await self._transport.execute(self._head)
            self._has_begun = True
            try:
                await self._send_parts(Reading(file))
            except PlanError:
                await self._transport.execute("rollback")
                raise
            await self._transport.execute(self._messages.tail())

    async def _send_parts(self, reading: Reading) -> None:
        label = self._messages.label
        for part in self._cut.parts:
            self._part, self._text = part, reading.text(part)
            if not self._text.strip():
                break  # it was cut short
            if isinstance(part, Text):
                await self._transport.execute(label + self._text)
            else:
                data = reading.chunks(part.data.begin.offset, part.data.end)
                await self._transport.copy(label + self._text, data)
        self._part, self._text = None, ""
        if reading.digest() != self._cut.digest:
            raise self._edited()

    async def failed(self, error: DatabaseError) -> MigratorError:
        """What to say of a refusal of what was sent last."""
        is_of_file = errors.from_sqlstate(error.sqlstate) is MigrationFailed
        if is_of_file and error.ended is Ended.ROLLED_BACK and await self._is_edited():
            return self._edited()
        untouched = self._part is not None and self._part is self._cut.parts[0]
        state = failure.state_of(error, understood=self._cut.understood, untouched=untouched)
        start = len(self._messages.label)
        match self._part:
            case None:
                # After the file, it is something that the file left behind.
                located = Located(text="") if self._has_begun else self._role_refused(error)
            case Text(begin=begin):
                unfinished = failure.unfinished(self._migration, error, self._text, start, state, begin=begin)
                if unfinished is not None:
                    return unfinished
                located = failure.locate(error, self._text, start, 0, begin)
            case Copy(begin=begin, table=table, data=data):
                line = failure.copied_line(error, table)
                if line is None:
                    located = failure.locate(error, self._text, start, 0, begin)
                else:
                    located = located_line(self._migration, data, line)
        return failure.failure(self._migration, error, located, state)

    async def _is_edited(self) -> bool:
        """Whether the server may have met something that is neither the old file nor the new one."""
        with files.open_file(self._migration.path) as file:
            reading = Reading(file)
            for _ in iter(lambda: reading.read(_CHUNK_BYTES), b""):
                await asyncio.sleep(0)  # the lease wants its heartbeat
            return reading.digest() != self._cut.digest

    def _edited(self) -> PlanError:
        return PlanError(
            f"cannot apply {self._migration.filename}: it was edited while we were sending it; start again"
        )

    def _role_refused(self, error: DatabaseError) -> Located | None:
        return failure.role_refused(error, self._head, self._cut.headers)


def located_line(migration: Migration, data: Data, number: int) -> Located:
    """Where in the file a line of the data of a COPY is, counted from 1.

    Raises:
        PlanError: It can't be read any more.
    """
    located = Located(text="")
    located.where = f"line {data.begin.line + number - 1}: "
    with files.open_file(migration.path) as file:
        file.seek(data.begin.offset)
        line = next(islice(file, number - 1, None), b"")
    located.shown = statements.shown(line.decode("utf-8", "replace"))
    return located
