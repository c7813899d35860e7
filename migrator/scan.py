"""SQL as PostgreSQL's scanner sees it: what is quoted, and what has no end. Pure.

For texts that its parser refuses, and so can't tell anything about.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from msgspec import Struct

from migrator.comments import end_of_block

# As PostgreSQL's scanner has them (src/backend/parser/scan.l), with standard_conforming_strings on.
_TOKEN = re.compile(
    r"""
    (?P<comment> --[^\n]*)
    | (?P<block> /\*)
    | (?P<escaped> (?<![\w$])[eE]'[^'\\]*(?:(?:''|\\.)[^'\\]*)*'?)
    | (?P<quoted> '[^']*(?:''[^']*)*'?)
    | (?P<name> "[^"]*(?:""[^"]*)*"?)
    | (?P<dollar> (?<![\w$])\$(?:[^\W\d]\w*)?\$)
    | (?P<open> \()
    | (?P<close> \))
    """,
    re.VERBOSE | re.DOTALL,
)


class Unfinished(Struct, frozen=True, kw_only=True):
    """Where it begins, in characters from 0, and what it is, in words."""

    offset: int
    what: str


def unfinished(text: str) -> Unfinished | None:
    """What is still open at the end of the text: what hides its end, or else the first parenthesis.

    The server tells it where it notices, which is at the end of what we sent, or not at all: the next
    quote, of our own SQL, closes it.
    """
    parentheses: list[int] = []
    for begin, _, kind, what in _tokens(text):
        if what is not None:
            return Unfinished(offset=begin, what=what)
        if kind == "open":
            parentheses.append(begin)
        elif kind == "close" and parentheses:
            parentheses.pop()
    if parentheses:
        return Unfinished(
            offset=parentheses[0], what="the parenthesis that opens here is never closed: add )"
        )
    return None


def bare(text: str) -> str:
    """The text of the same length without what is in comments (blanks) and quotes (`_`); line ends stay."""
    pieces, done = [], 0
    for begin, end, kind, _ in _tokens(text):
        if kind not in ("open", "close"):
            filler = " " if kind in ("comment", "block") else "_"
            pieces += [text[done:begin], re.sub(r"[^\n]", filler, text[begin:end])]
            done = end
    return "".join([*pieces, text[done:]])


def _tokens(text: str) -> Iterator[tuple[int, int, str, str | None]]:
    """Begin, end and kind of each, and what is to be said if it has no end."""
    position = 0
    while found := _TOKEN.search(text, position):
        kind, token, begin, end = found.lastgroup or "", found[0], found.start(), found.end()
        what = None
        match kind:
            case "block":
                end = end_of_block(text, end)
                what = "the comment that begins here has no end: add */"
            case "dollar":
                end = text.find(token, end) + len(token)
                end = end if end >= len(token) else -1
                what = f"the text that begins with {token} here has no end: add {token}"
            case "quoted" | "escaped" | "name" if not _is_closed(token, escaped=kind == "escaped"):
                quote, end = token.lstrip("eE")[0], -1
                thing = "name in double" if kind == "name" else "text in single"
                remedy = f"add {quote}, or double the one within"
                what = f"the {thing} quotes that begins here has no end: {remedy}"
        position = end if end >= 0 else len(text)
        yield begin, position, kind, what if end < 0 else None


def _is_closed(token: str, *, escaped: bool) -> bool:
    """Whether a token that the pattern took as far as it goes has a quote at its end that closes it."""
    inner = token[2:] if escaped else token[1:]
    if escaped:
        inner = re.sub(r"(?s)\\.", "", inner)
    quote = token.lstrip("eE")[0]
    # Doubled ones are of the text; what is left at the end is its end.
    return (len(inner) - len(inner.rstrip(quote))) % 2 == 1
