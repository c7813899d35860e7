"""What a migration's text means: its statements, and whether they can share one transaction.

Statements are told apart by PostgreSQL's own parser, never by searching for words. The parser is
loaded only for files in which such a word occurs at all.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from msgspec import Struct

from migrator import headers, scan, statements
from migrator.errors import PlanError
from migrator.headers import NO_HEADERS, Headers
from migrator.statements import BLANKED, WAYS, Statement, Way, kind


class Special(Struct, frozen=True, kw_only=True):
    """A statement that isn't plain: the `number`th of its file, from 0; `where` and `shown` for people."""

    kind: str
    number: int
    where: str
    shown: str


class DiscardsAll(PlanError):
    """A file gives up what belongs to its session, which it can't do in a transaction either."""


class Script(Struct, frozen=True, kw_only=True):
    """A file, understood.

    Attributes:
        text: What to send, of the same length as the file, so that positions agree.
        steps: The statements to run one by one, each in its way; empty if the whole text runs in one
            transaction.
        understood: The parser knew all of it.
        ends_nothing: None of its statements can end the transaction that it is given.
        headers: What it asks for itself.
        meaning: See `migrator.meaning`; None if it isn't known.
    """

    text: str
    steps: tuple[tuple[Statement, Way], ...] = ()
    understood: bool = True
    ends_nothing: bool = False
    headers: Headers = NO_HEADERS
    meaning: str | None = None

    @property
    def total(self) -> int:
        """How many statements are sent one by one; 0: none, they share a transaction."""
        return len(self.steps)

    @property
    def alone(self) -> tuple[str, ...]:
        """The first lines of those that can't run in a transaction."""
        return tuple(one.first_line for one, way in self.steps if way is not Way.IN_TRANSACTION)


# Where none of these occurs, there is nothing but plain statements in the file.
_WORTH_A_LOOK = re.compile(
    r"\b(begin|start|commit|end|rollback|abort|prepare|vacuum|cluster|reindex|discard|concurrently|system|database"
    r"|tablespace|subscription|lock_timeout|idle_in_transaction_session_timeout)\b|\bstdin\b|^\s*\\",
    re.IGNORECASE | re.MULTILINE,
)
_COPY_DATA = re.compile(r"(?:^|;)\s*(copy\b[^;]*\bfrom\s+stdin\b)", re.IGNORECASE)
_STDIN = re.compile(r"\bstdin\b", re.IGNORECASE)
_RESTRICT = re.compile(r"^\\(un)?restrict[ \t]+\w+[ \t]*\r?$", re.MULTILINE)
_META = re.compile(r"\\(?:[a-z_]+\+?|\S?)", re.IGNORECASE)
# What to do besides removing it.
_META_REMEDIES = {
    "use INSERT": ("copy",),
    "set DATABASE_URL to the database that is meant": ("c", "connect"),
    "put the SQL of that file here": ("i", "ir", "include", "include_relative"),
    "write the value where it is used": ("set", "gset"),
    "end the statement with a semicolon": ("g", "gx"),
    "write the statements that it would run": ("gexec",),
}
# With this off, what a backslash in quotes means changes with the statement that sets it.
_STRINGS = re.compile(r"\bstandard_conforming_strings\b(?!\s*(?:=|to)\s*'?(?:on|true|1)\b)", re.IGNORECASE)


def understand(text: str, filename: str) -> Script:
    """What the text of a file means.

    Raises:
        PlanError: It holds what only psql could run, or ends transactions in a way that would
            leave it half done.
    """
    asked = headers.parse(text, filename)
    if asked.transactional is not False and not _WORTH_A_LOOK.search(text):
        # No procedure can, either: PostgreSQL refuses it in a transaction that a client has begun.
        return Script(text=text, ends_nothing=True, headers=asked)
    found = statements.split(text)
    if found is None:
        text = _without_psql(text, filename)
        found = statements.split(text)
    if found is None:  # a syntax error, or syntax that the server knows and the parser doesn't
        if asked.transactional is not False:
            return Script(text=text, understood=False, headers=asked)
        found = statements.cut(text)
    kinds = [kind(statement) for statement in found]
    in_steps = asked.transactional is False or (
        asked.transactional is None and not WAYS.keys().isdisjoint(kinds)
    )
    specials = [
        Special(kind=one, number=number, where=_at(text, statement.offset), shown=statement.first_line)
        for number, (statement, one) in enumerate(zip(found, kinds, strict=True))
        if one != "plain"
    ]
    refuse_torn(specials, len(found), filename, in_steps=in_steps)
    for special in specials:
        if special.kind in BLANKED:
            text = _blanked(text, found[special.number])
    if not in_steps:
        understood = "unknown" not in kinds
        return Script(text=text, understood=understood, ends_nothing=not specials, headers=asked)
    steps = [
        (statement, WAYS.get(one) or way(statement, asked))
        for statement, one in zip(found, kinds, strict=True)
        if one != "limit"
    ]
    return Script(text=text, steps=tuple(steps), headers=asked)


def way(statement: Statement, asked: Headers) -> Way:
    """How a statement is run that seems to be able to run in a transaction: in one, so that it is done once.

    Unless the file says that it isn't for transactions: then what might end one, or can't be in one for
    reasons that only the server sees, goes alone.
    """
    alone = asked.transactional is False and statements.is_doubtful(statement)
    return Way.ALONE if alone else Way.IN_TRANSACTION


def needs_parts(text: str) -> bool:
    """Whether the text can't be one message: there is COPY data in it, or its quotes change their meaning."""
    if _STRINGS.search(text):
        return True
    if not _STDIN.search(text):
        return False
    bare = scan.bare(_RESTRICT.sub("", text))
    copied, meta = _COPY_DATA.search(bare), bare.find("\\")
    return copied is not None and (meta < 0 or copied.start(1) < meta)


def line_and_column(text: str, offset: int) -> tuple[int, int]:
    """Where in a text an offset is, both counted from 1."""
    before = text[: max(0, min(offset, len(text)))]
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


def refuse_torn(specials: Sequence[Special], total: int, filename: str, *, in_steps: bool) -> None:
    """BEGIN and COMMIT may come in pairs, as the transaction is ours anyway; what would end that may not.

    Raises:
        PlanError: The file, of `total` statements, can't be kept whole; or it runs `in_steps` and they mean
            something there.
    """

    def refused(special: Special, why: str) -> PlanError:
        return PlanError(f"cannot apply {filename}: {special.where}: {special.shown!r} {why}")

    for special in specials:
        if special.kind == "discard":
            raise DiscardsAll(
                f"cannot apply {filename}: {special.where}: {special.shown!r} would give up the migration "
                "lock, which belongs to the session; remove it: what a file leaves in its session is gone "
                "after it"
            )
    controls = [one for one in specials if one.kind in ("begin", "commit", "transaction", "local")]
    if in_steps:
        for special in controls:
            if special.kind != "local":
                raise refused(
                    special,
                    "in a file with statements that can't run in a transaction; "
                    "give those a file of their own",
                )
        return
    begins = [one for one in controls if one.kind == "begin"]
    ends = [one for one in controls if one.kind == "commit"]
    wholly = len(begins) == 1 and begins[0].number == 0 and bool(ends) and ends[-1].number == total - 1
    is_open = False
    for special in controls:
        if special.kind == "local":
            if is_open and not wholly:
                raise refused(
                    special,
                    "is meant to end with the file's own transaction, and there is more in the file; "
                    "split it there",
                )
            continue
        if special.kind == "transaction" or (special.kind == "begin") == is_open:
            raise refused(
                special,
                "would end the transaction that keeps the file whole; remove it, or split the file there",
            )
        is_open = special.kind == "begin"
    if is_open:
        raise PlanError(
            f"cannot apply {filename}: its last BEGIN has no COMMIT, so psql would throw its work away; "
            "add the COMMIT or remove the BEGIN"
        )


def _blanked(text: str, statement: Statement) -> str:
    """The text without the statement; line ends stay, since errors are told by line."""
    end = statement.offset + len(statement.text)
    return text[: statement.offset] + blank(statement.text) + text[end:]


def blank(text: str) -> str:
    """As many blanks; line ends stay."""
    return re.sub(r"[^\n]", " ", text)


def _without_psql(text: str, filename: str) -> str:
    """Blank out what pg_dump writes for psql alone; refuse what we can't do."""
    text = _RESTRICT.sub(lambda found: " " * len(found[0]), text)
    bare = scan.bare(text)
    meta = bare.find("\\")  # of no use in SQL itself
    if meta >= 0 and bare[:meta].rpartition("\n")[2].strip() and scan.unfinished(text):
        meta = -1  # a forgotten quote turns things round
    if meta >= 0:
        raise PlanError(f"cannot apply {filename}: {_at(text, meta)}: {psql_command(text[meta:])}")
    return text


def psql_command(text: str) -> str | None:
    """What to say of the command of psql that the text begins with; None if it doesn't."""
    found = _META.match(text)
    if found is None:
        return None
    more = next((more for more, names in _META_REMEDIES.items() if found[0][1:] in names), None)
    return f"{found[0]} is a command of psql, not SQL; remove it{f', and {more}' if more else ''}"


def _at(text: str, offset: int) -> str:
    line, column = line_and_column(text, offset)
    return f"line {line}, column {column}"
