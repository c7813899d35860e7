"""What a file opens and never closes: a quote, a comment or a parenthesis. Pure.

The server tells it where it notices, which is at the end of what we sent, or not at all: the next
quote, of our own SQL, closes it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

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
_COMMENT_MARK = re.compile(r"/\*|\*/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """Where it begins, in characters from 0, and what it is, in words."""

    offset: int
    what: str


def find(text: str) -> Unfinished | None:
    """What is still open at the end of the text: what hides its end, or else the first parenthesis."""
    parentheses: list[int] = []
    position = 0
    while found := _TOKEN.search(text, position):
        kind, token, position = found.lastgroup, found[0], found.end()
        begin = found.start()
        match kind:
            case "open":
                parentheses.append(begin)
            case "close":
                if parentheses:
                    parentheses.pop()
            case "block":
                end = _end_of_comment(text, position)
                if end is None:
                    return Unfinished(offset=begin, what="the comment that begins here has no end: add */")
                position = end
            case "dollar":
                end = text.find(token, position)
                if end < 0:
                    return Unfinished(
                        offset=begin, what=f"the text that begins with {token} here has no end: add {token}"
                    )
                position = end + len(token)
            case "quoted" | "escaped" | "name" if not _is_closed(token, escaped=kind == "escaped"):
                quote = token.lstrip("eE")[0]
                thing = "name in double" if kind == "name" else "text in single"
                remedy = f"add {quote}, or double the one within"
                return Unfinished(
                    offset=begin, what=f"the {thing} quotes that begins here has no end: {remedy}"
                )
    if parentheses:
        return Unfinished(
            offset=parentheses[0], what="the parenthesis that opens here is never closed: add )"
        )
    return None


def _is_closed(token: str, *, escaped: bool) -> bool:
    """Whether a token that the pattern took as far as it goes has a quote at its end that closes it."""
    inner = token[2:] if escaped else token[1:]
    if escaped:
        inner = re.sub(r"(?s)\\.", "", inner)
    quote = token.lstrip("eE")[0]
    # Doubled ones are of the text; what is left at the end is its end.
    return (len(inner) - len(inner.rstrip(quote))) % 2 == 1


def _end_of_comment(text: str, position: int) -> int | None:
    """They nest, other than in the SQL standard."""
    depth = 1
    for mark in _COMMENT_MARK.finditer(text, position):
        depth += 1 if mark[0] == "/*" else -1
        if depth == 0:
            return mark.end()
    return None
