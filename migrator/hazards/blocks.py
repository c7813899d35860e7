"""The statements of a DO block, as PL/pgSQL's own parser finds them. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from migrator import parser
from migrator.hazards.tree import Node
from migrator.statements import Statement

_LITERAL = re.compile(r"'(?:[^']|'')*'")
_OPENED = re.compile(r"\$\w*\$|'")


def statements_in(block: Statement) -> Iterator[tuple[Statement, int, frozenset[str]]]:
    """Each statement, by how many lines it comes after the block's first one, and the variables in its sight.

    What it puts together itself and then EXECUTEs isn't known, unless it is a plain text.
    """
    written = parser.parse_plpgsql(block.text)
    try:
        functions = json.loads(written or b"[]")
    except ValueError:  # it answers so for a block in another language
        return
    opened = _OPENED.search(block.text)
    before = block.text.count("\n", 0, opened.end()) if opened else 0
    variables = frozenset(_values(functions, "refname"))
    for kind, node in _commands(functions):
        query = node.get("sqlstmt" if kind == "PLpgSQL_stmt_execsql" else "query", {}).get("PLpgSQL_expr", {})
        text = str(query.get("query", "")).strip()
        if kind == "PLpgSQL_stmt_dynexecute":
            if not _LITERAL.fullmatch(text):
                continue
            text = text[1:-1].replace("''", "'").strip().rstrip(";")
        yield Statement(text=text, offset=block.offset), before + int(node.get("lineno", 1)) - 1, variables


def without_variables(node: Any, variables: frozenset[str]) -> Any:
    """A tree in which a variable is no column: to the statement it is a value."""
    if isinstance(node, list):
        return [without_variables(one, variables) for one in node]
    if not isinstance(node, dict):
        return node
    fields = node.get("ColumnRef", {}).get("fields", []) if isinstance(node.get("ColumnRef"), dict) else []
    if fields and fields[0].get("String", {}).get("sval") in variables:
        return {"ParamRef": {}}
    return {key: without_variables(value, variables) for key, value in node.items()}


def _commands(node: Any) -> Iterator[tuple[str, Node]]:
    if isinstance(node, list):
        for one in node:
            yield from _commands(one)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key in ("PLpgSQL_stmt_execsql", "PLpgSQL_stmt_dynexecute"):
                yield key, value
            yield from _commands(value)


def _values(node: Any, key: str) -> Iterator[str]:
    if isinstance(node, list):
        for one in node:
            yield from _values(one, key)
    elif isinstance(node, dict):
        if isinstance(node.get(key), str):
            yield node[key]
        for value in node.values():
            yield from _values(value, key)
