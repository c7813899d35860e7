"""Our SQL: files with named pieces, and how values get into them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import cache

from msgspec import Struct

Value = str | int | float | bool | None

_PIECE = re.compile(r"^-- (\w+)\(([\w, ]*)\): ", re.MULTILINE)
_NAME = re.compile(r"(?<![:\w]):([a-z_]+)\b")


class Piece(Struct, frozen=True, kw_only=True):
    """One named piece of a file; `names` are what it needs, in order."""

    text: str
    names: tuple[str, ...]

    def query(self, schema: str) -> str:
        """With $1, $2 ... for the names, to be sent with parameters."""
        numbers = {name: f"${number}" for number, name in enumerate(self.names, 1)}
        return _NAME.sub(lambda found: numbers[found[1]], self.text).replace("{schema}", identifier(schema))


@cache
def pieces(file: str) -> dict[str, Piece]:
    """The pieces of a file in this directory, by name."""
    whole = _read(file)
    found = list(_PIECE.finditer(whole))
    ends = [*(one.start() for one in found[1:]), len(whole)]
    return {
        one[1]: Piece(
            text=_without_comments(whole[one.start() : end]),
            names=tuple(name.strip() for name in one[2].split(",") if name.strip()),
        )
        for one, end in zip(found, ends, strict=True)
    }


def message(file: str, names: tuple[str, ...], schema: str, values: Mapping[str, Value]) -> str:
    """Pieces, each ended by a line end, with the values as literals: to be sent without parameters."""
    cut = _cut(file, names, schema)
    return "".join([literal(values[part]) if number % 2 else part for number, part in enumerate(cut)])


@cache
def _cut(file: str, names: tuple[str, ...], schema: str) -> list[str]:
    """Text, name of a value, text and so on: the same few pieces are put together for each file."""
    texts = [pieces(file)[name].text + "\n" for name in names]
    return _NAME.split("".join(texts).replace("{schema}", identifier(schema)))


def install(schema: str, lock_key: int) -> str:
    """The message that creates our tables."""
    whole = _read("install.sql")
    return whole.replace("{schema}", identifier(schema)).replace(":lock_key", literal(lock_key))


def rest_install(schema: str) -> str:
    """The message that creates the functions through which a REST API lets us in."""
    return _read("rest_install.sql").replace("{schema}", identifier(schema))


def literal(value: Value) -> str:
    """The value in SQL, whatever standard_conforming_strings is set to, also within dollar quotes."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value)
        case str():
            return "E'" + value.replace("\\", "\\\\").replace("'", "''").replace("$", "\\x24") + "'"


def identifier(name: str) -> str:
    """The name in SQL, in quotes."""
    return '"' + name.replace('"', '""') + '"'


def _read(file: str) -> str:
    """A file of this directory. Not by importlib.resources, which takes 3 ms to load."""
    with open(os.path.join(os.path.dirname(__file__), file), encoding="utf-8") as opened:
        return opened.read()


def _without_comments(text: str) -> str:
    return "\n".join(line for line in text.split("\n") if not line.lstrip().startswith("--")).strip()
