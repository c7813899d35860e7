"""What a file means, as a checksum: comments, white space and case outside of quotes don't count. Pure.

A quarter of what people edit in committed migrations is nothing else (reference/real-projects.md). It takes
some ten times as long as the plain checksum, and so is asked for only where those differ. It is beside the
plain one in history. Its rules must never change, or it needs another prefix: old rows would differ.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator

from migrator import headers
from migrator.comments import end_of_block
from migrator.errors import PlanError
from migrator.lexer import Lexer

_LEXEMES = re.compile(
    rb"""
    (?P<blank> \s+ | --[^\n\r]* )
    | (?P<comment> /\* )
    | (?P<quoted> (?<=[^A-Za-z0-9_$\x80-\xff][eE])'[^'\\]*(?:(?:''|\\.)[^'\\]*)*'?
        | '[^']*(?:''[^']*)*'? | "[^"]*(?:""[^"]*)*"? )
    | (?P<dollar> \$(?:[A-Za-z_\x80-\xff][A-Za-z0-9_\x80-\xff]*)?\$ )
    | (?P<word> [A-Za-z0-9_$\x80-\xff]+ )
    | (?P<operator> (?:(?!--|/\*)[-+*/<>=~!@\#%^&|`?:.])+ )
    | (?P<other> . )
    """,
    re.VERBOSE | re.DOTALL,
)
_COPY = re.compile(rb"copy\0.*\0from\0stdin\0", re.DOTALL)
# With this off, what is in quotes can't be told without running the file.
_STRINGS = re.compile(r"\bstandard_conforming_strings\b(?!\s*(?:=|to)\s*'?on\b)", re.IGNORECASE)
# Before a quote these may belong to it, or not: E'x', but e 'x' with a type e.
_PREFIXES = frozenset({b"e", b"b", b"x", b"n", b"&"})


def of(text: str, filename: str) -> str | None:
    """`meaning:` and 64 hex digits; None if it can't be told."""
    if _STRINGS.search(text):
        return None
    try:
        role = headers.parse(text, filename).role
    except PlanError:
        return None
    digest = hashlib.sha256(f"role={role}\0".encode() if role is not None else b"")
    content = text.encode()
    lexer = Lexer(io.BytesIO(content).read)
    for found in lexer:
        if found.kind == "skipped":
            continue
        canonical = b"\0".join(_tokens(found.text)) + b"\0"
        digest.update(canonical + b";\0")
        if _COPY.match(canonical):
            data = lexer.data()
            if data is not None:
                digest.update(content[data.begin.offset : data.end] + b"\0")
    return f"meaning:{digest.hexdigest()}"


def _tokens(statement: bytes) -> Iterator[bytes]:
    """Its tokens, each as it would be written if there were but one way to write it."""
    position, glued = 0, b""
    while found := _LEXEMES.match(statement, position):
        position, kind, token = found.end(), found.lastgroup, found[0]
        if kind == "comment":
            end = end_of_block(statement, position)
            position = end if end >= 0 else len(statement)
        elif kind == "dollar":
            end = statement.find(token, position)
            position = end + len(token) if end >= 0 else len(statement)
            token = statement[found.start() : position]
        if kind in ("blank", "comment"):
            glued = b""
            continue
        if kind in ("quoted", "dollar"):
            # Whether E or the like stands right before it makes a difference.
            yield token if glued.lower() not in _PREFIXES else b"'" + token
            glued = b""
            continue
        yield token.lower()
        glued = token
