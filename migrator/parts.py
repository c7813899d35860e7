"""Files that don't fit into one message: with COPY data between their statements, or large.

They are cut into parts once, to learn what is in them, and read again part by part when they are sent.
Nothing but the places of the parts is kept.
"""

from __future__ import annotations

import asyncio
import codecs
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import BinaryIO

from msgspec import Struct

from migrator import headers, script, statements, wants
from migrator import migration as files
from migrator.errors import PlanError
from migrator.headers import NO_HEADERS, Headers
from migrator.lexer import BEGINNING, Cut, Data, Lexer, Place
from migrator.migration import Checksum, Migration
from migrator.script import Special
from migrator.statements import Statement, Way
from migrator.wants import Want

# A file up to this size goes as one message, unless there is COPY data in it.
WHOLE_BYTES = 1024 * 1024
# Of a larger one so much goes as one message: a message costs several times its size in memory.
_PART_BYTES = 256 * 1024
_CHUNK_BYTES = 64 * 1024


class Text(Struct, frozen=True, kw_only=True):
    """Statements to be sent as one message, if they share a transaction.

    Attributes:
        end: Up to where it goes, in bytes.
        blanks: What isn't to be sent of it.
        count: How many statements it holds without those.
        way: How it is run in a file that runs statement by statement; it is a single one if not in a
            transaction.
        standard_strings: What a backslash in quotes means in it; see `Lexer`.
    """

    begin: Place
    end: int
    blanks: tuple[tuple[int, int], ...] = ()
    count: int = 1
    way: Way = Way.IN_TRANSACTION
    standard_strings: bool = True


class Copy(Struct, frozen=True, kw_only=True):
    """A COPY ... FROM stdin and its data; `table` as errors call it."""

    begin: Place
    end: int
    table: str
    data: Data


Part = Text | Copy


class Parts(Struct, frozen=True, kw_only=True):
    """A file, understood.

    Attributes:
        digest: Of all its bytes, to notice that it is edited while it is sent.
        checksum: See `migration.Checksum`.
        understood: The parser knew all of it that might matter.
        wants: What it will lock.
        runs_code: It may lock more than that.
        headers: What it asks for itself.
        meaning: See `migrator.meaning`; None if it isn't known.
        in_steps: It runs statement by statement.
        alone: The first lines of those that can't run in a transaction.
    """

    parts: tuple[Part, ...]
    digest: bytes
    checksum: str
    understood: bool
    wants: tuple[Want, ...] = ()
    runs_code: bool = False
    headers: Headers = NO_HEADERS
    meaning: str | None = None
    in_steps: bool = False
    alone: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """How many statements are sent one by one; 0: none, they share a transaction."""
        return sum(one.count if isinstance(one, Text) else 1 for one in self.parts) if self.in_steps else 0


class Reading:
    """One file, read from its beginning, or a place in it, onwards."""

    def __init__(self, file: BinaryIO, offset: int = 0) -> None:
        """Read `file` from `offset` (bytes) on."""
        self._file = file
        file.seek(offset)
        self._hash = hashlib.sha256()
        self.offset = offset
        # Of what was read, if somebody wants to know.
        self.checksum: Checksum | None = None
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode

    def read(self, size: int) -> bytes:
        """The next bytes.

        Raises:
            PlanError: It can't be read any more.
        """
        try:
            got = self._file.read(size)
        except OSError as error:
            raise PlanError(f"cannot read {Path(self._file.name).name}: {error.strerror}") from error
        self._hash.update(got)
        if self.checksum is not None:
            text = self._decode(got)
            self.checksum.update(text if self.offset else text.removeprefix("\ufeff"))
        self.offset += len(got)
        return got

    def chunks(self, begin: int, end: int) -> Iterator[bytes]:
        """The bytes from `begin`, which may still be ahead, to `end`, piece by piece."""
        for bound, wanted in ((begin, False), (end, True)):
            while self.offset < bound:
                got = self.read(min(_CHUNK_BYTES, bound - self.offset))
                if not got:
                    return  # it was cut short; the digest tells
                if wanted:
                    yield got

    def text(self, part: Part) -> str:
        """The text of a part; of a COPY, its statement."""
        raw = b"".join(self.chunks(part.begin.offset, part.end))
        # From the last to the first, so that places before stay as they are.
        for begin, end in reversed(part.blanks if isinstance(part, Text) else ()):
            before, gone, after = (
                raw[: begin - part.begin.offset],
                raw[begin - part.begin.offset : end - part.begin.offset],
                raw[end - part.begin.offset :],
            )
            raw = before + script.blank(gone.decode("utf-8", "replace")).encode() + after
        return raw.decode("utf-8", "replace").removeprefix("\ufeff")

    @property
    def seen(self) -> bytes:
        """The digest of what was read so far."""
        return self._hash.digest()

    def digest(self) -> bytes:
        """Of everything, to the end of the file."""
        while self.read(_CHUNK_BYTES):
            pass
        return self.seen


async def cut(file: BinaryIO, filename: str) -> Parts:
    """What is in a file. It may take seconds, in which others get their turns: the lease wants its heartbeat.

    Raises:
        PlanError: It can't be applied as a whole.
    """
    cutting = _Cutting(file, filename)
    for _ in cutting.run():
        await asyncio.sleep(0)
    return cutting.result()


@cache  # it is asked for twice, and the second time under the lease, which wants its heartbeat
def total(migration: Migration) -> int:
    """How many statements of a file are sent one by one; 0: none, they share a transaction.

    For those who want to know no more of it. Of a file of gigabytes it takes seconds, in which nothing else
    gets its turn.

    Raises:
        PlanError: It can't be applied.
    """
    if files.size_bytes(migration.path) <= WHOLE_BYTES:
        text = files.read_text(migration.path)
        if not script.needs_parts(text):
            return script.understand(text, migration.filename).total
    with files.open_file(migration.path) as file:
        cutting = _Cutting(file, migration.filename)
        for _ in cutting.run():
            pass
        return cutting.result().total


class _Cutting:
    def __init__(self, file: BinaryIO, filename: str) -> None:
        head = file.read(_CHUNK_BYTES).decode("utf-8", "replace").removeprefix("\ufeff")
        self._asked = headers.parse(head, filename)
        self._filename = filename
        self._reading = Reading(file)
        self._reading.checksum = Checksum()
        self._lexer = Lexer(self._reading.read)
        self._parts: list[Part] = []
        self._in_steps = self._asked.transactional is False
        self._alone: list[str] = []
        self._understood = True
        self._wants: list[Want] = []
        self._runs_code = False
        self._made: set[str] = set()
        self._specials: list[Special] = []
        self._count = 0
        # Of the part that is being gathered: where it begins, and what isn't to be sent of it, in bytes.
        self._begin = BEGINNING
        self._blanks: list[tuple[int, int]] = []
        # asyncpg can't send a text without a statement.
        self._held = 0
        self._standard_strings = self._lexer.standard_strings

    def run(self) -> Iterator[None]:
        """Yields now and then."""
        for found in self._lexer:
            if found.kind == "meta":
                raise self._refused(
                    self._lexer.place_of(found.begin),
                    str(script.psql_command(found.text.decode("utf-8", "replace"))),
                )
            if found.kind == "skipped":
                self._blanks.append((found.begin, found.end))
            else:
                yield from self._take(found)
            if found.end - self._begin.offset >= _PART_BYTES:
                self._finish_part(found.end)
                yield
        self._finish_part(self._lexer.here().offset)
        script.refuse_torn(self._specials, self._count, self._filename, in_steps=self._in_steps)

    def result(self) -> Parts:
        """What was found."""
        return Parts(
            parts=tuple(self._parts),
            digest=self._reading.digest(),
            checksum=str(self._reading.checksum),
            understood=self._understood,
            wants=tuple(self._wants),
            runs_code=self._runs_code,
            headers=self._asked,
            in_steps=self._in_steps,
            alone=tuple(self._alone),
        )

    def _take(self, found: Cut) -> Iterator[None]:
        statement = Statement(text=found.text.decode("utf-8", "replace").rstrip(), offset=found.begin)
        kind = statements.kind(statement)
        self._count += 1
        self._runs_code = self._runs_code or wants.may_run_code(statement.text)
        if wants.may_lock(statement.text):
            self._wants += wants.of([statements.tree(statement)], self._made)
        way = self._way(kind, statement)
        if kind == "plain" and way is Way.IN_TRANSACTION:
            self._held += 1
            return
        where = self._lexer.place_of(found.begin)
        self._specials.append(
            Special(kind=kind, number=self._count - 1, where=str(where), shown=statement.first_line)
        )
        if way is not Way.IN_TRANSACTION:
            self._take_alone(found, statement, way)
        elif kind == "copy":
            yield from self._take_copy(found, statements.copied_table(statement))
        elif kind in statements.BLANKED:
            self._blanks.append((found.begin, found.begin + len(found.text)))
        else:
            self._held += 1
        if kind in ("strings_off", "strings_on"):
            # The server tells quotes from backslashes before it runs anything of a message.
            self._lexer.standard_strings = kind == "strings_on"
            self._finish_part(found.end)
        self._understood = self._understood and kind != "unknown"

    def _way(self, kind: str, statement: Statement) -> Way:
        """How it is run: see `script.understand`, which decides the same of smaller files."""
        if self._asked.transactional or kind in statements.BLANKED:
            return Way.IN_TRANSACTION
        return statements.WAYS.get(kind) or script.way(statement, self._asked)

    def _take_alone(self, found: Cut, statement: Statement, way: Way) -> None:
        self._in_steps = True
        self._alone.append(statement.first_line)
        self._finish_part(found.begin)
        self._held = 1
        self._finish_part(found.end, way)

    def _take_copy(self, found: Cut, table: str) -> Iterator[None]:
        self._finish_part(found.begin)
        begin = self._begin
        data = yield from self._lexer.data_by_turns()
        if data is None:
            raise self._refused(
                begin, "the data of this COPY begins on the next line; move what follows it here"
            )
        end = found.begin + len(found.text)
        self._parts.append(Copy(begin=begin, end=end, table=table, data=data))
        self._begin = data.after

    def _finish_part(self, end: int, way: Way = Way.IN_TRANSACTION) -> None:
        if self._held:
            self._parts.append(
                Text(
                    begin=self._begin,
                    end=end,
                    blanks=tuple(self._blanks),
                    count=self._held,
                    way=way,
                    standard_strings=self._standard_strings,
                )
            )
        self._begin = self._lexer.place_of(end)
        self._blanks = []
        self._held = 0
        self._standard_strings = self._lexer.standard_strings

    def _refused(self, where: Place, why: str) -> PlanError:
        return PlanError(f"cannot apply {self._filename}: {where}: {why}")
