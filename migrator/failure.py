"""What to say when the server refuses a migration: where, why, what to do, and what state it left. Pure."""

from __future__ import annotations

import re
from typing import TypeVar

from migrator import caret, errors, scan, script, statements
from migrator.errors import NOT_KNOWN, Conflict, LeaseLost, MigrationFailed, MigratorError
from migrator.headers import Headers
from migrator.lexer import BEGINNING, Place
from migrator.migration import Migration
from migrator.statements import Statement
from migrator.transport import DatabaseError, Ended

_Kind = TypeVar("_Kind", bound=MigratorError)

_TORN = "a part of it may have been committed; look what is there, then see `migrator repair`"

# What is so of the next run begins with this; `rollback` may make it something else.
NEXT_RUN = "; the next run "

LEASE_LOST = "cannot go on: the migration lock was taken over or removed; trying again"

_READ_ONLY = "25006"
_OUT_OF_MEMORY = "53200"
_SYNTAX_ERROR = "42601"
_DUPLICATE_KEY = "23505"
_NULL = "23502"
_ENDED_OWN_TRANSACTION = "MG002"
_NOT_IN_A_BLOCK = (
    "it can't run in a transaction, which can't be told beforehand; begin the file with the line "
    "-- migrator: no-transaction"
)
# What editors and word processors leave in a text; PostgreSQL takes it for a part of a name.
_INVISIBLE = {
    "\ufeff": "byte order mark",
    "\u200b": "zero-width space",
    "\u2060": "word joiner",
    "\u00a0": "no-break space",
}
_PSQL_VARIABLE = re.compile(r""":['"]?\w+['"]?""")
_REMEDIES = {
    "25001": _NOT_IN_A_BLOCK,
    "2D000": _NOT_IN_A_BLOCK,
    "55P04": "a new enum value can't be used in the file that adds it; use it in a later file",
    "55P03": "somebody holds the lock; see pg_stat_activity",
    "42501": "give the migrating role the right to do this",
    "55000": "",  # the message of so many things that none of them can be meant
}


class Located:
    """Where an error belongs in a file, and what to show of it.

    Attributes:
        shown: The first line of the statement, or else the line.
        pointed: Below that, where it isn't the same, the line with the error; and a mark under the place.
    """

    def __init__(
        self,
        *,
        text: str,
        statement: Statement | None = None,
        offset: int | None = None,
        begin: Place = BEGINNING,
    ) -> None:
        """In `text`, which begins at `begin` of the file."""
        at = offset if offset is not None else statement.offset if statement else None
        self.text, self.offset, self.line = text, at, 0
        self.where = self.shown = ""
        self.pointed: list[str] = []
        if at is not None:
            line, column = script.line_and_column(text, at)
            self.line = line
            column += begin.column - 1 if line == 1 else 0
            self.where = f"line {begin.line + line - 1}, column {column}: "
            if not errors.tears_password(text, text.rfind("\n", 0, at) + 1):
                self.shown = statements.shown(text.split("\n")[line - 1])
        if statement is not None:
            self.shown = statement.first_line
        if offset is not None:
            self.pointed = self._pointed(offset, statement)

    @property
    def lines(self) -> list[str]:
        """All that is shown of it."""
        return [f"  {line}" for line in (self.shown, *self.pointed) if line]

    def _pointed(self, offset: int, statement: Statement | None) -> list[str]:
        begin = self.text.rfind("\n", 0, offset) + 1
        begin = max(begin, statement.offset) if statement is not None else begin
        line = self.text[begin:].partition("\n")[0]
        column = offset - begin - (len(line) - len(line.lstrip())) + 1
        line = line.strip()
        if column < 1 or statements.shown(line) != line:  # a line of a megabyte
            return []
        if errors.tears_password(self.text, begin):
            return []
        if line.startswith(self.shown):
            return [caret.under(line, column)]
        return [line, caret.under(line, column)]


def locate(
    error: DatabaseError, text: str, start: int, head: int, begin: Place = BEGINNING
) -> Located | None:
    """Where in the file the error is; None if it isn't in the file but in what we put around it.

    Args:
        error: What the server said of a message.
        text: What the message holds of the file, from its place `begin` on.
        start: Where in the message that begins.
        head: How many statements of ours are before it.
        begin: See `text`.
    """
    found = statements.split(text) or []
    if error.position is not None and error.position > start:
        offset = min(error.position - 1 - start, len(text.rstrip()))
        begun = [one for one in found if one.offset <= offset]
        return Located(text=text, statement=begun[-1] if begun else None, offset=offset, begin=begin)
    if error.completed < head:
        return None
    number = error.completed - head
    statement = found[number] if number < len(found) else None
    return Located(text=text, statement=statement, begin=begin)


def role_refused(error: DatabaseError, message: str, headers: Headers) -> Located | None:
    """Where the file asks for a role that isn't granted; None if that isn't what failed.

    `message` is what was sent, up to the statement that sets the role.
    """
    if headers.role is None or error.completed != len(statements.split(message) or []) - 1:
        return None
    located = Located(text="")
    located.where = f"line {headers.role_line}: "
    located.shown = f"-- migrator: role={headers.role}"
    return located


def copied_line(error: DatabaseError, table: str) -> int | None:
    """Which line of a COPY's data an error is in, from 1, by its context; None if it isn't in the data."""
    # "COPY orders, line 3, column net: ...", with words of the server's language between.
    found = re.search(rf"COPY {re.escape(table)}, \w+ (\d+)", error.text)
    return int(found[1]) if found else None


def state_of(error: DatabaseError, *, understood: bool, untouched: bool) -> str:
    """What state the database is in; only what is known.

    Args:
        error: What the server said.
        understood: The parser knew all of the file.
        untouched: Nothing of the file had been executed before this message.
    """
    if error.sqlstate == _ENDED_OWN_TRANSACTION:
        return _TORN
    # Of a text that the parser doesn't know, anything might be a COMMIT, unless the server ran none of it.
    if error.ended is not Ended.UNKNOWN and (understood or (untouched and error.completed == 0)):
        return errors.ROLLED_BACK
    return NOT_KNOWN


def progress(number: int, total: int) -> str:
    """What state a file that runs statement by statement is in, if its statement `number` failed."""
    if number == 1:
        return f"none of its {total} statements is done{NEXT_RUN}starts with the first"
    before = "statement 1 is" if number == 2 else f"statements 1 to {number - 1} are"
    return f"of {total} statements, {before} done and on record{NEXT_RUN}goes on with statement {number}"


def unfinished(
    migration: Migration,
    error: DatabaseError,
    text: str,
    start: int,
    state: str,
    *,
    begin: Place = BEGINNING,
) -> MigrationFailed | None:
    """What to end with if the server couldn't read a file since something in it has no end; else None.

    Where it noticed is told as well if that is before: the next quote closes what a forgotten one opened.
    """
    found = scan.unfinished(text) if error.sqlstate == _SYNTAX_ERROR else None
    if found is None:
        return None
    at = Located(text=text, offset=found.offset, begin=begin)
    lines = [f"cannot apply {migration.filename}: {at.where}{found.what} ({error.sqlstate})", *at.lines]
    noticed = (error.position or 0) - 1 - start
    if 0 <= noticed < len(text.rstrip()) and noticed != found.offset:
        there = Located(text=text, offset=noticed, begin=begin)
        # Its own words may quote all that follows, which is ours.
        said = error.text.split("\n")[0].partition(" at or near ")[0]
        lines += [
            f"the server noticed at {there.where}{said}",
            *([f"  {there.shown}"] if there.shown != at.shown else []),
        ]
    return _ended(MigrationFailed, lines, state)


def _ended(kind: type[_Kind], lines: list[str], state: str) -> _Kind:
    error = kind("\n".join([*lines, state]))
    error.outcome_known = state not in (NOT_KNOWN, _TORN)
    return error


def _remedy(error: DatabaseError, located: Located | None) -> str | None:
    """What to do about it, where that can be told from where it is."""
    if error.sqlstate == _READ_ONLY and located is not None:
        return "the file made its transaction read-only; remove that"
    if error.sqlstate in _REMEDIES:
        return _REMEDIES[error.sqlstate]
    if error.sqlstate != _SYNTAX_ERROR or located is None or located.offset is None:
        return errors.REMEDIES.get(error.sqlstate)
    at = located.text[located.offset :]
    if command := script.psql_command(at):
        return command
    if variable := _PSQL_VARIABLE.match(at):
        return f"{variable[0]} is a variable of psql, which nobody replaces here; write its value"
    bare_line = scan.bare(located.text).split("\n")[located.line - 1]
    for column, character in enumerate(bare_line, 1):
        if character in _INVISIBLE:
            return f"column {column} holds a {_INVISIBLE[character]}, which isn't seen; remove it"
    return None


def failure(migration: Migration, error: DatabaseError, located: Located | None, state: str) -> MigratorError:
    """The error to end with.

    Args:
        migration: The file.
        error: What the server said.
        located: Where in the file; None if it isn't in the file but in what we put around it.
        state: What is known of the database now.
    """
    kind = errors.from_sqlstate(error.sqlstate)
    first, *more = error.text.split("\n")
    if located is None and error.sqlstate == _DUPLICATE_KEY:
        return Conflict(f"cannot apply {migration.filename}: somebody else has just done so; trying again")
    if located is None and error.sqlstate == _NULL and error.column == "filename":
        return Conflict(
            f"cannot apply {migration.filename}: the file before it isn't what this session committed last; "
            "trying again"
        )
    # What our `record` comes to without the lease.
    is_unfenced = error.sqlstate == _NULL and error.column == "version"
    if (kind is LeaseLost or is_unfenced) and located is None:
        return LeaseLost(LEASE_LOST)
    # A role or a peer that is named inside of a migration isn't our setting, nor our connection.
    if kind in (errors.ConfigError, LeaseLost) or error.sqlstate.startswith("08"):
        kind = MigrationFailed
    # The file's own wish, and what it needs itself (locks, mostly): the next time would be the same.
    if error.sqlstate in (_READ_ONLY, _OUT_OF_MEMORY) and located is not None:
        kind = MigrationFailed
    lines = [
        f"cannot apply {migration.filename}: {located.where if located else ''}{first} ({error.sqlstate})"
    ]
    if located:
        lines += located.lines
    lines += more
    remedy = _remedy(error, located)
    if remedy:
        lines.append(f"remedy: {remedy}")
    return _ended(kind, lines, state)
