"""What a rule finds, and how bad it is. Pure."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

PAGE = "docs/reference/hazards.md"


class Severity(StrEnum):
    """How bad it is."""

    # Readers or writers of the running app stand still for as long as it takes.
    BLOCKING = "blocking"
    # What the running release relies on is gone afterwards.
    BREAKING = "breaking"
    # Worth knowing; shown only where somebody asks for all.
    NOTICE = "notice"


class Rule(Struct, frozen=True, kw_only=True):
    """One hazard, as its page tells it.

    Attributes:
        name: In kebab-case; for `-- migrator: allow=`, and the heading on the page.
        title: What it is, in half a line.
        why: What happens, to whom, and when it doesn't.
        safe: The way without it.
        example: SQL that has it.
        safe_example: The same the safe way.
    """

    name: str
    severity: Severity
    title: str
    why: str
    safe: str
    example: str
    safe_example: str

    @property
    def page(self) -> str:
        """Where it is written down."""
        return f"{PAGE}#{self.name}"


class Fix(Struct, frozen=True, kw_only=True):
    """What to write in place of a statement, so that it means the same and is no hazard.

    Attributes:
        text: In place of the statement, or of one of the clauses of an ALTER TABLE.
        clause: Which clause, from 0; None: the statement.
        alone: It can't run in a transaction, and gets a file of its own.
        then: The statements of each file that follows, in order.
    """

    text: str
    clause: int | None = None
    alone: bool = False
    then: tuple[tuple[str, ...], ...] = ()


class Finding(Struct, frozen=True, kw_only=True):
    """A hazard in a file.

    Attributes:
        line: From 1, as is `column`.
        offset: Of the statement, in characters of the file.
        statement: Its first line.
        why: What happens, with the size of what it happens to.
        safe: The SQL to write in its place.
        fix: The same for `--fix`, where it is equivalent.
        certain: The catalogs were asked.
    """

    rule: str
    severity: Severity
    filename: str
    line: int
    column: int
    offset: int
    statement: str
    why: str
    safe: str
    fix: Fix | None = None
    certain: bool = True
