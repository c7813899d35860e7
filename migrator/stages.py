"""What a file consists of that runs statement by statement: what gets on record at once, in order."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import groupby
from typing import BinaryIO

from msgspec import Struct

from migrator import script, statements
from migrator.errors import PlanError
from migrator.lexer import Data, Place
from migrator.parts import Copy, Part, Parts, Reading, Text
from migrator.script import Script
from migrator.statements import Statement, Way

# Such statements change rows, each for itself, and hold up nobody: those that follow each other share a
# transaction, as a round trip for each would take most of the time. What calls for more may take long.
_ROWS = re.compile(r"insert\s+into\s+[^();']+(?:\([^()';]*\)[^()';]*?)?\bvalues\b", re.IGNORECASE)


class Source(Struct, frozen=True, kw_only=True):
    """Where the data of a COPY comes from.

    `chunks` reads it from its beginning each time, and raises a PlanError if it was edited.
    """

    table: str
    data: Data
    chunks: Callable[[], Iterable[bytes]]


class Stage(Struct, frozen=True, kw_only=True):
    """What gets on record at once: a statement, or some that share a transaction.

    Attributes:
        number: Which of the file's statements the first of these is, from 1.
        text: What to send.
        begin: Where that begins in the file.
        statements: What it consists of.
        way: How it is run.
        copy: Where the data of a COPY ... FROM stdin comes from; None: it is something else.
    """

    number: int
    text: str
    begin: Place
    statements: tuple[Statement, ...]
    way: Way = Way.IN_TRANSACTION
    copy: Source | None = None

    @property
    def last(self) -> int:
        """Which of the file's statements the last of these is."""
        return self.number + len(self.statements) - 1


def of_script(understood: Script) -> Iterator[Stage]:
    """The stages of a file that is held whole."""
    for number, (statement, way) in enumerate(understood.steps, 1):
        line, column = script.line_and_column(understood.text, statement.offset)
        yield Stage(
            number=number,
            text=statement.text,
            begin=Place(line=line, column=column),
            statements=(Statement(text=statement.text, offset=0),),
            way=way,
        )


class Walk:
    """A file that was cut, gone through once more. What it gives is what was cut, or else it says so."""

    def __init__(self, file: BinaryIO, filename: str, cut: Parts) -> None:
        """Go through `file`, which was found to be `cut`."""
        self._file = file
        self._filename = filename
        self._cut = cut
        # Of each part's text, and of that with the data behind it. Not taken while the file is cut, as the
        # lexer reads ahead.
        self._digests: list[tuple[bytes, bytes]] = []

    async def verify(self) -> None:
        """Make sure that the whole file is as it was when it was cut.

        Raises:
            PlanError: It was edited, or can't be read.
        """
        reading = Reading(self._file)
        self._digests = []
        for part in self._cut.parts:
            seen = hashlib.sha256()
            found = []
            for begin, end in ((part.begin.offset, part.end), (part.end, _end(part))):
                for chunk in reading.chunks(begin, end):
                    seen.update(chunk)
                    await asyncio.sleep(0)  # the lease wants its heartbeat
                found.append(seen.digest())
            self._digests.append((found[0], found[1]))
        if reading.digest() != self._cut.digest:
            raise self._edited()

    def stages(self, done: int) -> Iterator[Stage]:
        """All of its stages; no stage is torn by what is `done`. Verify it first.

        Of what is done, COPY is left out: nothing of it outlives its session.

        Raises:
            PlanError: It was edited since, or can't be read.
        """
        number = 1
        for part, (of_text, of_all) in zip(self._cut.parts, self._digests, strict=True):
            if isinstance(part, Text):
                _, text = self._read(part, of_text)
                yield from self._of_text(part, text, number, done)
                number += part.count
                continue
            if number > done:
                _, text = self._read(part, of_text)
                yield Stage(
                    number=number,
                    text=text,
                    begin=part.begin,
                    statements=(Statement(text=text, offset=0),),
                    copy=Source(
                        table=part.table, data=part.data, chunks=partial(self._data, part, of_text, of_all)
                    ),
                )
            number += 1

    def _of_text(self, part: Text, text: str, number: int, done: int) -> Iterator[Stage]:
        found = statements.cut(text, standard_strings=part.standard_strings)
        assert len(found) == part.count  # its bytes are the same
        place, reached, index = part.begin, 0, 0
        together = groupby(
            enumerate(found, number),
            # What can't be joined has a key of its own.
            lambda one: (one[0] <= done, 0 if _ROWS.match(one[1].text) else one[0]),
        )
        for _, group in together:
            some = [statement for _, statement in group]
            first, last = some[0].offset, some[-1].offset + len(some[-1].text)
            place = place.after(text[reached:first].encode())
            reached = first
            yield Stage(
                number=number + index,
                text=text[first:last],
                begin=place,
                statements=tuple(Statement(text=one.text, offset=one.offset - first) for one in some),
                way=part.way,
            )
            index += len(some)

    def _data(self, part: Copy, of_text: bytes, of_all: bytes) -> Iterator[bytes]:
        reading, _ = self._read(part, of_text)
        yield from reading.chunks(part.data.begin.offset, part.data.end)
        # All of it was sent by now, and nothing of it is committed.
        if reading.seen != of_all:
            raise self._edited()

    def _read(self, part: Part, of_text: bytes) -> tuple[Reading, str]:
        reading = Reading(self._file, part.begin.offset)
        text = reading.text(part)
        if reading.seen != of_text:
            raise self._edited()
        return reading, text

    def _edited(self) -> PlanError:
        return PlanError(
            f"cannot apply {self._filename}: it was edited while we were sending it; restore it and start "
            "again"
        )


def _end(part: Part) -> int:
    return part.end if isinstance(part, Text) else part.data.end
