r"""A file cut into statements and COPY data as psql cuts it, a window at a time. Pure.

PostgreSQL's parser wants a text whole, and knows nothing of data between statements. psql's own rules
(src/fe_utils/psqlscan.l) are few, and what they say is by definition what psql makes of a file: a
statement ends at a semicolon that isn't in quotes, in a comment, in parentheses, or in a BEGIN ATOMIC body.

Bytes, not text: of a file of 50 MB only a window is held, and a character needs up to four times as much
as its bytes. UTF-8 has no ASCII byte within a character, so nothing is mistaken.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Generator, Iterator
from functools import cache

from msgspec import Struct

from migrator.comments import end_of_block

_WINDOW_BYTES = 256 * 1024
# Enough to tell what a statement begins with.
_HEAD_BYTES = 256

# The character before an E'...' or $tag$ must not be of a name: date'...' is no escape string.
_NO_NAME = rb"(?<![A-Za-z0-9_$\x80-\xff])"
_AFTER_E = rb"[^A-Za-z0-9_$\x80-\xff][eE]"
# What isn't special is passed first, as that is fast.
_LEXEMES = rb"""[^;()'"$\-/\\]*(?:
    (?P<semicolon> ; )
    | (?P<open> \( )
    | (?P<close> \) )
    | (?P<quoted> (?<!AFTER_E)QUOTED | (?<=AFTER_E)ESCAPED | "[^"]*(?:""[^"]*)*"(?!") )
    | (?P<dollar> NO_NAME\$(?:[A-Za-z_\x80-\xff][A-Za-z0-9_\x80-\xff]*)?\$ )
    | (?P<comment> --[^\n\r]* )
    | (?P<block> /\* )
    | (?P<meta> \\ )
    | (?P<unfinished> ['"] )
    | (?P<sign> [$\-/] )
)"""
_QUOTED = rb"'[^']*(?:''[^']*)*'(?!')"
_ESCAPED = rb"'[^'\\]*(?:(?:''|\\.)[^'\\]*)*'(?!')"


_BLANKS = re.compile(rb"(?:\s+|--[^\n\r]*)*")
_BLANK = rb"(?:\s|--[^\n\r]*[\n\r]|/\*(?:[^*]|\*(?!/))*\*/)+"
_ROUTINE = re.compile(
    rb"create" + _BLANK + rb"(?:or" + _BLANK + rb"replace" + _BLANK + rb")?(?:function|procedure)\b",
    re.IGNORECASE,
)
_BODY_WORD = re.compile(rb"(?<![\w\x80-\xff])(begin|case|end)(?![\w\x80-\xff])", re.IGNORECASE)
_RESTRICT = re.compile(rb"\\(?:un)?restrict[ \t]+\w+[ \t]*\r?(?:\n|\Z)")
_END_OF_DATA = re.compile(rb"^\\\.\r?(?:\n|\Z)", re.MULTILINE)
_REST_OF_LINE = re.compile(rb"(?:[ \t\r\f\v]|/\*(?:[^*\n]|\*(?!/))*\*/)*(?:--[^\n]*)?(?:\n|\Z)")


@cache  # most starts need none: 1 ms
def _lexemes(*, standard_strings: bool) -> re.Pattern[bytes]:
    # With standard_conforming_strings off a backslash means in each text what it means after E.
    quoted = _QUOTED if standard_strings else _ESCAPED
    written = _LEXEMES.replace(b"QUOTED", quoted).replace(b"ESCAPED", _ESCAPED)
    written = written.replace(b"NO_NAME", _NO_NAME).replace(b"AFTER_E", _AFTER_E)
    return re.compile(written, re.VERBOSE | re.DOTALL)


class Place(Struct, frozen=True, kw_only=True):
    """A place in the file: bytes from 0, line and column (in characters) from 1."""

    offset: int = 0
    line: int = 1
    column: int = 1

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}"

    def after(self, passed: bytes) -> Place:
        """The place that is reached by passing these bytes."""
        tail = passed[passed.rfind(b"\n") + 1 :]
        columns = len(tail) if tail.isascii() else len(tail.decode("utf-8", "replace"))
        lines = passed.count(b"\n")
        return Place(
            offset=self.offset + len(passed),
            line=self.line + lines,
            column=columns + (1 if lines else self.column),
        )


BEGINNING = Place()


class Cut(Struct, frozen=True, kw_only=True):
    r"""What was found next.

    Attributes:
        kind: `statement`, `skipped` (\restrict, for psql alone), or `meta` (another command of psql).
        begin: Where it begins, comments before it not counted; bytes from 0.
        end: After its semicolon.
        text: Without that.
    """

    kind: str
    begin: int
    end: int
    text: bytes


class Data(Struct, frozen=True, kw_only=True):
    """The data after a COPY: from `begin` up to `end` (bytes); the file goes on at `after`."""

    begin: Place
    end: int
    after: Place


class Lexer:
    """Cuts one file. Whoever meets a COPY ... FROM stdin calls `data` before going on."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        """Read the file with `read(size)`, which gives nothing at its end."""
        self._read = read
        self._window = b""
        self._is_whole = False
        # In the window, and where that begins in the file.
        self._index = 0
        self._base = 0
        # Where we were when somebody last wanted to know.
        self._place = BEGINNING
        self.standard_strings = True

    def __iter__(self) -> Iterator[Cut]:
        """Everything up to the end of the file, in order; empty statements are left out."""
        while len(self._window) < len(codecs.BOM_UTF8) and self._grow():
            pass
        if self._window.startswith(codecs.BOM_UTF8):
            self._index = len(codecs.BOM_UTF8)
            self._place = Place(offset=self._index)
        while True:
            self._skip_blanks()
            kind, length, semicolon = self._next()
            begin = self._base + self._index
            text = self._window[self._index : self._index + length]
            self._index += length + semicolon
            if text:
                yield Cut(kind=kind, begin=begin, end=self._base + self._index, text=text)
            elif not semicolon:
                return

    def data(self) -> Data | None:
        r"""The data that begins on the next line; None if something else follows on this one.

        As psql reads it: up to a line that is nothing but `\.`, or the end of the file.
        """
        reading = self.data_by_turns()
        while True:
            try:
                next(reading)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]  # the generator's own type says it

    def data_by_turns(self) -> Generator[None, None, Data | None]:
        """As `data`, for those who have other things to do: yields now and then. It may be of gigabytes."""
        while self._window.find(b"\n", self._index) < 0 and self._grow():
            pass
        rest = _REST_OF_LINE.match(self._window, self._index)
        if rest is None:
            return None
        self._index = rest.end()
        begin = self.here()
        while True:
            found = _END_OF_DATA.search(self._window, self._index)
            if found and (found.end() < len(self._window) or self._is_whole):
                self._index = found.end()
                return Data(begin=begin, end=self._base + found.start(), after=self.here())
            # Whole lines are passed; a last one that the window cuts through isn't.
            self._index = max(self._index, self._window.rfind(b"\n", self._index) + 1)
            yield
            if not self._grow() and not _END_OF_DATA.search(self._window, self._index):
                self._index = len(self._window)
                return Data(begin=begin, end=self._base + self._index, after=self.here())

    def place_of(self, offset: int) -> Place:
        """Where that is: something in what was found last. Not counted unless asked: most isn't."""
        self._place = self._place.after(self._window[self._place.offset - self._base : offset - self._base])
        return self._place

    def here(self) -> Place:
        """How far we are."""
        return self.place_of(self._base + self._index)

    def _grow(self) -> bool:
        """Read on; False at the end of the file.

        As much again as there is, so that a long text isn't looked through too often.
        """
        if self._is_whole:
            return False
        more = self._read(max(_WINDOW_BYTES, len(self._window) - self._index))
        if not more:
            self._is_whole = True
            return False
        self.here()
        self._base += self._index
        self._window, self._index = self._window[self._index :] + more, 0
        return True

    def _skip_blanks(self) -> None:
        while True:
            found = _BLANKS.match(self._window, self._index)
            assert found is not None  # it matches nothing, too
            end = found.end()
            if self._window.startswith(b"/*", end):
                end = end_of_block(self._window, end + 2)
            elif end == self._index < len(self._window) and self._window[end : end + 2] not in (b"-", b"/"):
                return
            # What reaches the end of the window may go on behind it.
            if (end < 0 or end >= len(self._window) - 1) and self._grow():
                continue
            # A comment without an end is for the server to tell.
            reached = end if end >= 0 else found.end()
            self._index = reached
            if end < 0 or reached == found.start():
                return

    def _next(self) -> tuple[str, int, int]:
        """What comes: its kind, its length, and the length of the semicolon behind it (0: there is none)."""
        while len(self._window) - self._index < _HEAD_BYTES and self._grow():
            pass
        begins = self._window[self._index : self._index + 1]
        if begins == b"\\" and (command := _RESTRICT.match(self._window, self._index)):
            return "skipped", command.end() - self._index, 0
        is_routine = begins in (b"c", b"C") and _ROUTINE.match(self._window, self._index) is not None
        lexemes = _lexemes(standard_strings=self.standard_strings)
        depth = body_depth = 0
        position = self._index
        while True:
            found = lexemes.match(self._window, position)
            end = self._end_of(found) if found else -1
            # What reaches the end of the window may go on behind it.
            if (end < 0 or end == len(self._window)) and not self._is_whole:
                passed = position - self._index
                self._grow()
                position = self._index + passed
                continue
            if found is None or end < 0:
                return "statement", len(self._window) - self._index, 0
            kind = found.lastgroup or ""
            if kind == "semicolon" and depth == 0:
                if is_routine:
                    body_depth = _body_depth(self._window[position : end - 1], body_depth)
                if body_depth == 0:
                    return "statement", end - 1 - self._index, 1
            elif kind == "meta":
                self._index = found.start(kind)
                return "meta", end - self._index, 0
            elif is_routine and depth == 0:
                body_depth = _body_depth(self._window[position : found.start(kind)], body_depth)
            if kind == "open":
                depth += 1
            elif kind == "close":
                depth = max(0, depth - 1)
            position = end

    def _end_of(self, found: re.Match[bytes]) -> int:
        """Where this lexeme ends; -1: not in the window."""
        match found.lastgroup:
            case "dollar":
                tag = found["dollar"]
                end = self._window.find(tag, found.end())
                return end + len(tag) if end >= 0 else -1
            case "block":
                return end_of_block(self._window, found.end())
            case "meta":
                end = self._window.find(b"\n", found.end())
                return end if end >= 0 else len(self._window)
            case "unfinished":
                return -1
            case _:
                return found.end()


def _body_depth(words: bytes, depth: int) -> int:
    """How deep in BEGIN ATOMIC bodies we are after these words."""
    for word in _BODY_WORD.findall(words):
        match word.lower():
            case b"begin":
                depth += 1
            case b"case":
                depth += 1 if depth else 0
            case _:
                depth = max(0, depth - 1)
    return depth
