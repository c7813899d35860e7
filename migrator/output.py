"""What a command answers, on standard output."""

from __future__ import annotations


def paragraph(text: str) -> str:
    """The text in lines that fit a terminal, for a command's help."""
    import textwrap  # late: only the commands that people type need it

    return textwrap.fill(text, 100)


def write(text: str) -> None:
    """A line, if anybody still reads it; `__main__` tells if it is lost."""
    try:
        print(text)
    except OSError:
        pass
