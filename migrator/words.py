"""A command as people write it into a variable: split as a shell does, but without one. Pure."""

from __future__ import annotations

import shlex

# Outside of quotes they mean something to a shell, and would be mere words to a program.
_OPERATORS = ";|&<>()\n"


def split(raw: str) -> tuple[str, ...]:
    """The words.

    Raises:
        ValueError: It makes sense to a shell only, or to nobody.
    """
    raw = raw.strip()
    found = _of_shell(raw)
    if found is not None:
        raise ValueError(
            f"it has {found}, which only a shell understands, and isn't given to one; write sh -c '...'"
        )
    try:
        return tuple(shlex.split(raw))
    except ValueError:
        raise ValueError("it has a quote that isn't closed") from None


def _of_shell(raw: str) -> str | None:
    """The first thing in it that needs a shell."""
    first = raw.split(maxsplit=1)[0]
    name, equals, _ = first.partition("=")
    if equals and name.isidentifier():
        return f"{name}=..."
    quote = ""
    skip = False
    for at, letter in enumerate(raw):
        if skip:
            skip = False
        elif letter == "\\" and quote != "'":
            skip = True
        elif letter == quote:
            quote = ""
        elif quote != "'" and (letter == "`" or (letter == "$" and _names(raw[at + 1 : at + 2]))):
            return "a $ before a name" if letter == "$" else "a backtick"
        elif not quote and letter in "'\"":
            quote = letter
        elif not quote and letter in _OPERATORS:
            return "a line break" if letter == "\n" else letter
    return None


def _names(letter: str) -> bool:
    return letter.isalnum() or letter in ("{", "(", "_")
