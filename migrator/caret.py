"""A mark under a place in a line, as terminals show it. Pure."""

from __future__ import annotations

import unicodedata


def under(line: str, column: int) -> str:
    """What to print below a line so that a caret is under that column of it, counted from 1."""
    return "".join(map(_blank, line[: column - 1])) + "^"


def _blank(character: str) -> str:
    """As wide as the character: two columns for a Chinese one, none for an accent of its own."""
    if character == "\t":
        return character
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return ""
    return "  " if unicodedata.east_asian_width(character) in "WF" else " "
