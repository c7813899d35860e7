"""One statement of a file: where it is, and what it is to us.

Statements are told apart by PostgreSQL's own parser, never by searching for words. The parser is
loaded only for those that begin like something special.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from enum import Enum
from typing import Any

from msgspec import Struct

from migrator import shorten, wants
from migrator.comments import end_of_block
from migrator.lexer import Lexer

_SHOWN_CHARS = 200


class Statement(Struct, frozen=True, kw_only=True):
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


class Index(Struct, frozen=True, kw_only=True):
    """What a CREATE INDEX names. `schema` None: the search path's; `table` as SQL writes it."""

    schema: str | None
    name: str
    table: str


# Statements that begin otherwise are never special; the parser decides about the rest.
_CANDIDATE = re.compile(
    r"(begin|start|commit|end|rollback|abort|prepare|vacuum|cluster|reindex|discard)\b"
    r"|(create|drop|alter)\b(?=.*\b(concurrently|system|database|tablespace|subscription)\b)"
    r"|copy\b(?=.*\bstdin\b)"
    r"|(re)?set\b(?=.*\b(local|lock_timeout|idle_in_transaction_session_timeout|standard_conforming_strings)\b)",
    re.IGNORECASE | re.DOTALL,
)
# What is so for the rest of the session, and does nothing else.
_LASTS = re.compile(
    r"(set|reset)\b(?!\s+(local|constraints|transaction)\b)"
    r"|select\s+(pg_catalog\s*\.\s*)?set_config\s*\([^;()]*,\s*'?(false|f|off|no|0)'?\s*\)\Z",
    re.IGNORECASE,
)
_DOUBTFUL = frozenset({None, "CallStmt", "DoStmt", "ReindexStmt", "ClusterStmt", "AlterSubscriptionStmt"})
# These look at the publisher, unless they are told not to.
_REFRESHES = frozenset(
    {
        f"ALTER_SUBSCRIPTION_{what}"
        for what in ("REFRESH", *(f"{one}_PUBLICATION" for one in ("SET", "ADD", "DROP")))
    }
)
_NEVER_DOUBTFUL = re.compile(r"(insert|update|delete|select|with|grant|revoke|comment)\b", re.IGNORECASE)

# Kinds of statements that aren't sent: the file's transaction and the time that it waits for locks are ours.
BLANKED = frozenset({"begin", "commit", "limit"})
WAYS = {"alone": Way.ALONE, "concurrent": Way.CONCURRENT}
_BEGIN = frozenset({"TRANS_STMT_BEGIN", "TRANS_STMT_START"})
_SAVEPOINTS = frozenset({"TRANS_STMT_SAVEPOINT", "TRANS_STMT_RELEASE", "TRANS_STMT_ROLLBACK_TO"})


def split(text: str) -> list[Statement] | None:
    """The statements of a text; None if it can't be parsed."""
    from migrator import parser  # late: 7 MB of shared library that most starts don't need

    spans = parser.split(text)
    return None if spans is None else list(_statements(text, spans))


def cut(text: str, *, standard_strings: bool = True) -> list[Statement]:
    """The statements of a text that the parser doesn't know, as psql cuts it; see `Lexer`."""
    encoded = text.encode()
    lexer = Lexer(io.BytesIO(encoded).read)
    lexer.standard_strings = standard_strings
    found = []
    end_bytes = end_chars = 0
    for one in lexer:
        # Counted on from the last one, not from the start each time.
        end_chars += len(encoded[end_bytes : one.begin].decode())
        end_bytes = one.begin
        found.append(Statement(text=one.text.decode().rstrip(), offset=end_chars))
    return found


def is_doubtful(statement: Statement) -> bool:
    """Whether a statement may end a transaction or be unable to run in one, for all that is known here.

    A procedure and a DO block may COMMIT; REINDEX and CLUSTER of a partitioned table can't run in one.
    """
    return not _NEVER_DOUBTFUL.match(statement.text) and next(iter(tree(statement)), None) in _DOUBTFUL


def lasts(statement: Statement) -> bool:
    """Whether a statement only sets something for its session."""
    return _LASTS.match(statement.text) is not None


def shown(line: str) -> str:
    """A line of a file for people: it may be a megabyte, and hold a secret that isn't masked yet."""
    return shorten.middle(line.strip(), _SHOWN_CHARS, unmasked=True)


def index_of(statement: Statement) -> Index | None:
    """The index that a CREATE INDEX names."""
    node = tree(statement).get("IndexStmt")
    if not node or "idxname" not in node:
        return None
    table = node.get("relation", {})
    return Index(schema=table.get("schemaname"), name=node["idxname"], table=wants.name_of(table))


def is_nameless_index(statement: Statement) -> bool:
    """Whether a CREATE INDEX leaves the name to the server."""
    node = tree(statement).get("IndexStmt")
    return node is not None and "idxname" not in node


def detached_by(statement: Statement) -> tuple[str, str] | None:
    """Parent and partition of a DETACH PARTITION ... CONCURRENTLY; None if it is something else."""
    match tree(statement):
        case {
            "AlterTableStmt": {
                "relation": parent,
                "cmds": [{"AlterTableCmd": {"def": {"PartitionCmd": {"name": child, "concurrent": True}}}}],
            }
        }:
            return wants.name_of(parent), wants.name_of(child)
        case _:
            return None


def indexed_by(statement: Statement) -> str | None:
    """The table, or the index, of which a CONCURRENTLY makes an index anew; None if it makes none."""
    match tree(statement):
        case {"IndexStmt": {"relation": relation}} | {
            "ReindexStmt": {
                "kind": "REINDEX_OBJECT_TABLE" | "REINDEX_OBJECT_INDEX",
                "relation": relation,
            }
        }:
            return wants.name_of(relation)
        case _:
            return None


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
            end = end_of_block(text, position + 2)
            position = end if end >= 0 else len(text)
        else:
            break
    return position


def kind(statement: Statement) -> str:
    """What a statement is to us.

    `begin`, `commit`, `transaction` (other control of it), `alone` (can't run in one), `concurrent` (nor
    this, but it waits in nobody's way), `local` (its effect ends with the file's own transaction),
    `limit` (of how long it may stand in the way), `strings_on` and `strings_off`
    (standard_conforming_strings), `copy` (from stdin), `discard` (everything of the session), `unknown` (the
    parser doesn't know it), `plain`.
    """
    if not _CANDIDATE.match(statement.text):
        return "plain"
    parse_tree = tree(statement)
    if not parse_tree:
        return "unknown"
    name, node = next(iter(parse_tree.items()))
    if not isinstance(node, dict):
        return "plain"
    match name:
        case "TransactionStmt":
            what = node.get("kind")
            if what in _BEGIN:
                return "transaction" if node.get("options") else "begin"
            if what == "TRANS_STMT_COMMIT":
                return "transaction" if node.get("chain") else "commit"
            return "plain" if what in _SAVEPOINTS else "transaction"
        case "CopyStmt":
            return "copy" if node.get("is_from") and not node.get("filename") else "plain"
        case "IndexStmt" | "DropStmt":
            return "concurrent" if node.get("concurrent") else "plain"
        case "VariableSetStmt":
            if node.get("name") in ("lock_timeout", "idle_in_transaction_session_timeout"):
                return "limit"
            if node.get("name") == "standard_conforming_strings":
                return "strings_off" if _is_off(node) else "strings_on"
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
        case "DiscardStmt":
            return "discard" if node.get("target") == "DISCARD_ALL" else "plain"
        case "AlterDatabaseStmt":
            return "alone" if "tablespace" in _options(node) else "plain"
        case "AlterSubscriptionStmt":
            refreshes = node.get("kind") in _REFRESHES and "refresh" not in _options(node)
            return "alone" if refreshes else "plain"
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


def _options(node: dict[str, Any]) -> list[str]:
    return [str(option.get("DefElem", {}).get("defname")) for option in node.get("options", [])]


def copied_table(statement: Statement) -> str:
    """The table that a COPY names, without its schema."""
    return str(tree(statement).get("CopyStmt", {}).get("relation", {}).get("relname", ""))


def _is_off(node: dict[str, Any]) -> bool:
    """Whether a SET of something that is on or off sets it off."""
    constants = [argument.get("A_Const", {}) for argument in node.get("args", [])]
    values = [
        one["sval"]["sval"] if "sval" in one else str(one.get("ival", {}).get("ival", 0)) for one in constants
    ]
    return any(value.lower() in ("off", "false", "no", "0") for value in values)


def tree(statement: Statement) -> dict[str, Any]:
    """The statement's parse tree: one key, the kind of node."""
    from migrator import parser  # late, as in `split`

    parsed = parser.parse(statement.text)
    if parsed is None:
        return {}
    statements = json.loads(parsed).get("stmts", [])
    parse_tree: dict[str, Any] = statements[0]["stmt"] if statements else {}
    return parse_tree
