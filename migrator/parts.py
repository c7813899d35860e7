"""Files that don't fit into one message: with COPY data between their statements, or large.

They are cut into parts once, to learn what is in them, and read again part by part when they are sent.
Nothing but the places of the parts is kept.
"""

from __future__ import annotations

import asyncio
import codecs
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from msgspec import Struct

from migrator import headers, script, statements, wants
from migrator.errors import PlanError
from migrator.headers import NO_HEADERS, Headers
from migrator.lexer import BEGINNING, Cut, Data, Lexer, Place
from migrator.migration import Checksum
from migrator.script import Special
from migrator.statements import Statement
from migrator.wants import Want

# A file up to this size goes as one message, unless there is COPY data in it.
WHOLE_BYTES = 1024 * 1024
# Of a larger one so much goes as one message: a message costs several times its size in memory.
_PART_BYTES = 256 * 1024
_CHUNK_BYTES = 64 * 1024


class Text(Struct, frozen=True, kw_only=True):
    """Statements to be sent as one message: up to `end` (bytes), without `blanks`."""

    begin: Place
    end: int
    blanks: tuple[tuple[int, int], ...] = ()


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
    """

    parts: tuple[Part, ...]
    digest: bytes
    checksum: str
    understood: bool
    wants: tuple[Want, ...] = ()
    runs_code: bool = False
    headers: Headers = NO_HEADERS
    meaning: str | None = None


class Reading:
    """One file, read from its beginning to its end."""

    def __init__(self, file: BinaryIO) -> None:
        """Read `file`, which is at its beginning."""
        self._file = file
        self._hash = hashlib.sha256()
        self.offset = 0
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

    def digest(self) -> bytes:
        """Of everything, to the end of the file."""
        while self.read(_CHUNK_BYTES):
            pass
        return self._hash.digest()


async def cut(file: BinaryIO, filename: str) -> Parts:
    """What is in a file. It may take seconds, in which others get their turns: the lease wants its heartbeat.

    Raises:
        PlanError: It can't be applied as a whole.
    """
    head = file.read(_CHUNK_BYTES).decode("utf-8", "replace").removeprefix("\ufeff")
    asked = headers.parse(head, filename)
    if asked.transactional is False:
        raise PlanError(
            f"cannot apply {filename}: it asks for no-transaction, and a large file, and one with COPY data, "
            "must run in one; split it"
        )
    file.seek(0)
    reading = Reading(file)
    reading.checksum = Checksum()
    cutting = _Cutting(filename, Lexer(reading.read), asked)
    for _ in cutting.run():
        await asyncio.sleep(0)
    return Parts(
        parts=tuple(cutting.parts),
        digest=reading.digest(),
        checksum=str(reading.checksum),
        understood=cutting.understood,
        wants=tuple(cutting.wants),
        runs_code=cutting.runs_code,
        headers=asked,
    )


class _Cutting:
    def __init__(self, filename: str, lexer: Lexer, asked: Headers) -> None:
        self._filename = filename
        self._asked = asked
        self._lexer = lexer
        self.parts: list[Part] = []
        self.understood = True
        self.wants: list[Want] = []
        self.runs_code = False
        self._made: set[str] = set()
        self._specials: list[Special] = []
        self._count = 0
        # Of the part that is being gathered: where it begins, and what isn't to be sent of it, in bytes.
        self._begin = BEGINNING
        self._blanks: list[tuple[int, int]] = []
        # asyncpg can't send a text without a statement.
        self._holds_statements = False

    def run(self) -> Iterator[None]:
        """Yields after each part."""
        for found in self._lexer:
            if found.kind == "meta":
                raise self._refused(
                    self._lexer.place_of(found.begin),
                    str(script.psql_command(found.text.decode("utf-8", "replace"))),
                )
            if found.kind == "skipped":
                self._blanks.append((found.begin, found.end))
            else:
                self._take(found)
            if found.end - self._begin.offset >= _PART_BYTES:
                self._finish_part(found.end)
                yield
        self._finish_part(self._lexer.here().offset)
        script.refuse_torn(self._specials, self._count, self._filename, in_steps=False)

    def _take(self, found: Cut) -> None:
        statement = Statement(text=found.text.decode("utf-8", "replace").rstrip(), offset=found.begin)
        kind = statements.kind(statement)
        self._count += 1
        self.runs_code = self.runs_code or wants.may_run_code(statement.text)
        if wants.may_lock(statement.text):
            self.wants += wants.of([statements.tree(statement)], self._made)
        if kind == "plain":
            self._holds_statements = True
            return
        where = self._lexer.place_of(found.begin)
        self._specials.append(
            Special(kind=kind, number=self._count - 1, where=str(where), shown=statement.first_line)
        )
        if kind in statements.BLANKED:
            self._blanks.append((found.begin, found.begin + len(found.text)))
        elif kind in statements.WAYS and not self._asked.transactional:
            raise self._refused(
                where,
                f"{statement.first_line!r} can't run in a transaction, as a large file, and one with COPY "
                "data, must; give it a file of its own",
            )
        elif kind == "copy":
            self._take_copy(found, statements.copied_table(statement))
        else:
            self._holds_statements = True
        if kind in ("strings_off", "strings_on"):
            # The server tells quotes from backslashes before it runs anything of a message.
            self._lexer.standard_strings = kind == "strings_on"
            self._finish_part(found.end)
        self.understood = self.understood and kind != "unknown"

    def _take_copy(self, found: Cut, table: str) -> None:
        self._finish_part(found.begin)
        begin = self._begin
        data = self._lexer.data()
        if data is None:
            raise self._refused(
                begin, "the data of this COPY begins on the next line; move what follows it here"
            )
        end = found.begin + len(found.text)
        self.parts.append(Copy(begin=begin, end=end, table=table, data=data))
        self._begin = data.after

    def _finish_part(self, end: int) -> None:
        if self._holds_statements:
            self.parts.append(Text(begin=self._begin, end=end, blanks=tuple(self._blanks)))
        self._begin = self._lexer.place_of(end)
        self._blanks = []
        self._holds_statements = False

    def _refused(self, where: Place, why: str) -> PlanError:
        return PlanError(f"cannot apply {self._filename}: {where}: {why}")
