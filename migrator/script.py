"""What a migration's text means: its statements, and whether they can share one transaction.

Statements are told apart by PostgreSQL's own parser, never by searching for words. The parser is
loaded only for files in which such a word occurs at all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

from migrator import scan, shorten
from migrator.errors import PlanError
from migrator.sql import identifier

_SHOWN_CHARS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One statement; `offset` is where it begins in the file, in characters from 0."""

    text: str
    offset: int

    @property
    def first_line(self) -> str:
        """Its first line, for people."""
        return shown(self.text.split("\n", 1)[0])


class Way(Enum):
    """How a statement of a file is run that can't run in one transaction."""

    IN_TRANSACTION = "in a transaction"
    ALONE = "alone"
    # Alone, and in nobody's way while it waits.
    CONCURRENT = "concurrently"


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """What a CREATE INDEX names. `schema` None: the search path's; `table` as SQL writes it."""

    schema: str | None
    name: str
    table: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """A file, understood.

    Attributes:
        text: What to send, of the same length as the file, so that positions agree.
        steps: The statements to run one by one, each in its way; empty if the whole text runs in one
            transaction.
        understood: The parser knew all of it.
    """

    text: str
    steps: tuple[tuple[Statement, Way], ...] = ()
    understood: bool = True


# Where none of these occurs, there is nothing but plain statements in the file.
_WORTH_A_LOOK = re.compile(
    r"\b(begin|start|commit|end|rollback|abort|prepare|vacuum|cluster|reindex|concurrently|system|database"
    r"|tablespace|subscription|lock_timeout)\b|\bstdin\b|^\s*\\",
    re.IGNORECASE | re.MULTILINE,
)
# Statements that begin otherwise are never special; the parser decides about the rest.
_CANDIDATE = re.compile(
    r"(begin|start|commit|end|rollback|abort|prepare|vacuum|cluster|reindex)\b"
    r"|(create|drop|alter)\b(?=.*\b(concurrently|system|database|tablespace|subscription)\b)"
    r"|copy\b(?=.*\bstdin\b)"
    r"|set\b(?=.*\b(local|lock_timeout)\b)",
    re.IGNORECASE | re.DOTALL,
)
_COPY_DATA = re.compile(r"(?:^|;)\s*(copy\b[^;]*\bfrom\s+stdin\b)", re.IGNORECASE)
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
_COMMENT_MARK = re.compile(r"/\*|\*/")

_WAYS = {"alone": Way.ALONE, "concurrent": Way.CONCURRENT}
_BEGIN = frozenset({"TRANS_STMT_BEGIN", "TRANS_STMT_START"})
_SAVEPOINTS = frozenset({"TRANS_STMT_SAVEPOINT", "TRANS_STMT_RELEASE", "TRANS_STMT_ROLLBACK_TO"})


def understand(text: str, filename: str) -> Script:
    """What the text of a file means.

    Raises:
        PlanError: It holds what only psql could run, or ends transactions in a way that would
            leave it half done.
    """
    if not _WORTH_A_LOOK.search(text):
        return Script(text=text)
    found = split(text)
    if found is None:
        text = _without_psql(text, filename)
        found = split(text)
    if found is None:  # a syntax error, or syntax that the server knows and the parser doesn't
        return Script(text=text, understood=False)
    kinds = [_kind(statement) for statement in found]
    if "copy" in kinds:  # without its data, or the parser would have stumbled
        raise _copy_refused(text, found[kinds.index("copy")].offset, filename)
    text = _without_lock_timeouts(text, found, kinds)
    if not _WAYS.keys() & set(kinds):
        return Script(text=_without_own_transactions(text, found, kinds, filename))
    for statement, kind in zip(found, kinds, strict=True):
        if kind in ("begin", "commit", "transaction"):
            raise PlanError(
                f"cannot apply {filename}: {_at(text, statement.offset)}: {statement.first_line!r} in a file "
                "with statements that can't run in a transaction; give those a file of their own"
            )
    steps = [
        (statement, _WAYS.get(kind, Way.IN_TRANSACTION))
        for statement, kind in zip(found, kinds, strict=True)
        if kind != "lock_timeout"
    ]
    return Script(text=text, steps=tuple(steps))


def split(text: str) -> list[Statement] | None:
    """The statements of a text; None if it can't be parsed."""
    from migrator import parser  # late: 7 MB of shared library that most starts don't need

    spans = parser.split(text)
    return None if spans is None else list(_statements(text, spans))


def shown(line: str) -> str:
    """A line of a file for people: it may be a megabyte, and hold a secret that isn't masked yet."""
    return shorten.middle(line.strip(), _SHOWN_CHARS, unmasked=True)


def line_and_column(text: str, offset: int) -> tuple[int, int]:
    """Where in a text an offset is, both counted from 1."""
    before = text[: max(0, min(offset, len(text)))]
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


def index_of(statement: Statement) -> Index | None:
    """The index that a CREATE INDEX names."""
    node = _tree(statement).get("IndexStmt")
    if not node or "idxname" not in node:
        return None
    table = node.get("relation", {})
    names = [table[key] for key in ("schemaname", "relname") if table.get(key)]
    return Index(schema=table.get("schemaname"), name=node["idxname"], table=".".join(map(identifier, names)))


def _statements(text: str, spans: list[tuple[int, int]]) -> Iterator[Statement]:
    encoded = text.encode()
    ascii_only = len(encoded) == len(text)
    end_bytes = end_chars = 0
    for location, length in spans:
        # Spans are in bytes; count on from the last one, not from the start each time.
        if ascii_only:
            begin, body = location, text[location : location + length]
        else:
            begin = end_chars + len(encoded[end_bytes:location].decode())
            body = encoded[location : location + length].decode()
        end_bytes, end_chars = location + length, begin + len(body)
        blank = _blank_length(body)
        yield Statement(text=body[blank:].rstrip(), offset=begin + blank)


def _blank_length(text: str) -> int:
    """How much white space and comments a text begins with."""
    position = 0
    while position < len(text):
        if text[position].isspace():
            position += 1
        elif text.startswith("--", position):
            end = text.find("\n", position)
            position = len(text) if end < 0 else end
        elif text.startswith("/*", position):
            depth = 0
            for mark in _COMMENT_MARK.finditer(text, position):
                depth += 1 if mark[0] == "/*" else -1
                if depth == 0:
                    position = mark.end()
                    break
            else:
                return len(text)
        else:
            break
    return position


def _kind(statement: Statement) -> str:
    """What a statement is to us.

    `begin`, `commit`, `transaction` (other control of it), `alone` (can't run in one), `concurrent` (nor
    this, but it waits in nobody's way), `local` (its effect ends with the file's own transaction),
    `lock_timeout`, `copy`, `plain`.
    """
    if not _CANDIDATE.match(statement.text):
        return "plain"
    tree = _tree(statement)
    name, node = next(iter(tree.items()), (None, None))
    if not isinstance(node, dict):
        return "plain"
    match name:
        case "TransactionStmt":
            kind = node.get("kind")
            if kind in _BEGIN:
                return "transaction" if node.get("options") else "begin"
            if kind == "TRANS_STMT_COMMIT":
                return "transaction" if node.get("chain") else "commit"
            return "plain" if kind in _SAVEPOINTS else "transaction"
        case "CopyStmt":
            return "copy" if node.get("is_from") and not node.get("filename") else "plain"
        case "IndexStmt" | "DropStmt":
            return "concurrent" if node.get("concurrent") else "plain"
        case "VariableSetStmt":
            if node.get("name") == "lock_timeout":
                return "lock_timeout"
            return "local" if node.get("is_local") else "plain"
        case "VacuumStmt":
            return "alone" if node.get("is_vacuumcmd") else "plain"
        case "ReindexStmt":
            options = [option.get("DefElem", {}).get("defname") for option in node.get("params", [])]
            whole = node.get("kind") in (
                "REINDEX_OBJECT_SCHEMA",
                "REINDEX_OBJECT_SYSTEM",
                "REINDEX_OBJECT_DATABASE",
            )
            if "concurrently" in options:
                return "concurrent"
            return "alone" if whole else "plain"
        case "ClusterStmt":
            return "plain" if node.get("relation") else "alone"
        case (
            "AlterSystemStmt"
            | "CreatedbStmt"
            | "DropdbStmt"
            | "CreateTableSpaceStmt"
            | "DropTableSpaceStmt"
            | "CreateSubscriptionStmt"
            | "DropSubscriptionStmt"
        ):
            return "alone"
        case "AlterTableStmt":
            changes = [change.get("AlterTableCmd", {}) for change in node.get("cmds", [])]
            detached = [change.get("def", {}).get("PartitionCmd", {}) for change in changes]
            return "concurrent" if any(one.get("concurrent") for one in detached) else "plain"
        case _:
            return "plain"


def _tree(statement: Statement) -> dict[str, Any]:
    """The statement's parse tree: one key, the kind of node."""
    from migrator import parser  # late, as in `split`

    parsed = parser.parse(statement.text)
    if parsed is None:
        return {}
    statements = json.loads(parsed).get("stmts", [])
    tree: dict[str, Any] = statements[0]["stmt"] if statements else {}
    return tree


def _without_own_transactions(text: str, found: list[Statement], kinds: list[str], filename: str) -> str:
    """Blank out BEGIN and COMMIT where they come in pairs: the file's transaction is ours anyway."""
    is_open = False
    wholly = kinds.count("begin") == 1 and kinds[0] == "begin" and kinds[-1] == "commit"
    for statement, kind in zip(found, kinds, strict=True):
        if kind == "local" and is_open and not wholly:
            raise PlanError(
                f"cannot apply {filename}: {_at(text, statement.offset)}: {statement.first_line!r} is meant "
                "to end with the file's own transaction, and there is more in the file; split it there"
            )
        nested = kind in ("begin", "commit") and (kind == "begin") == is_open
        wrong = kind == "transaction" or nested
        if wrong:
            raise PlanError(
                f"cannot apply {filename}: {_at(text, statement.offset)}: {statement.first_line!r} would end "
                "the transaction that keeps the file whole; remove it, or split the file there"
            )
        if kind in ("begin", "commit"):
            is_open = kind == "begin"
            text = _blanked(text, statement)
    if is_open:
        raise PlanError(
            f"cannot apply {filename}: its last BEGIN has no COMMIT, so psql would throw its work away; "
            "add the COMMIT or remove the BEGIN"
        )
    return text


def _without_lock_timeouts(text: str, found: list[Statement], kinds: list[str]) -> str:
    """Blank out what would let the file wait longer for a lock, and the app behind it: ours is enough."""
    for statement, kind in zip(found, kinds, strict=True):
        if kind == "lock_timeout":
            text = _blanked(text, statement)
    return text


def _blanked(text: str, statement: Statement) -> str:
    """The text without the statement; line ends stay, since errors are told by line."""
    end = statement.offset + len(statement.text)
    return text[: statement.offset] + re.sub(r"[^\n]", " ", statement.text) + text[end:]


def _without_psql(text: str, filename: str) -> str:
    """Blank out what pg_dump writes for psql alone; refuse what we can't do."""
    text = _RESTRICT.sub(lambda found: " " * len(found[0]), text)
    bare = scan.bare(text)
    copied = _COPY_DATA.search(bare)
    meta = bare.find("\\")  # of no use in SQL itself
    if meta >= 0 and bare[:meta].rpartition("\n")[2].strip() and scan.unfinished(text):
        meta = -1  # a forgotten quote turns things round
    if copied and (meta < 0 or copied.start(1) < meta):
        raise _copy_refused(text, copied.start(1), filename)
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


def _copy_refused(text: str, offset: int, filename: str) -> PlanError:
    return PlanError(
        f"cannot apply {filename}: {_at(text, offset)}: COPY ... FROM stdin with its data in the "
        "file isn't supported yet; use INSERT (pg_dump --inserts)"
    )


def _at(text: str, offset: int) -> str:
    line, column = line_and_column(text, offset)
    return f"line {line}, column {column}"
