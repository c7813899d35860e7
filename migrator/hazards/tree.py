"""Reading libpg_query's trees: names, types, clauses as they are written. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from migrator import scan

Node = dict[str, Any]

_PLAIN_NAME = re.compile(r"[a-z_][a-z0-9_$]*")
_NAME = r'(?:"(?:[^"]|"")*"|[^\W\d][\w$]*)'
_RELATION = re.compile(rf"{_NAME}(?:\s*\.\s*{_NAME})*(?:\s*\*)?")
# Those that a plain name must be quoted for, of the keywords that people do use as names.
_RESERVED = frozenset(
    "all analyse analyze and any array as asc both case cast check collate column constraint create current_date "
    "current_role current_time current_timestamp current_user default deferrable desc distinct do else end except "
    "false fetch for foreign from grant group having in initially intersect into lateral leading limit localtime "
    "localtimestamp not null offset on only or order placing primary references returning select session_user some "
    "symmetric system_user table then to trailing true union unique user using variadic when where window with".split()
)


def quoted(name: str) -> str:
    """A name as SQL writes it, in quotes only where it needs them."""
    if _PLAIN_NAME.fullmatch(name) and name not in _RESERVED:
        return name
    return '"' + name.replace('"', '""') + '"'


def written(*names: str | None) -> str:
    """A qualified name as SQL writes it."""
    return ".".join(quoted(name) for name in names if name)


def relation_name(node: Node) -> str:
    """A RangeVar as SQL writes it."""
    return written(node.get("schemaname"), node["relname"])


def strings(nodes: list[Node] | None) -> list[str]:
    """The texts of a list of String nodes."""
    return [node["String"].get("sval", "") for node in nodes or [] if "String" in node]


def type_of(node: Node) -> tuple[str | None, str, list[int]]:
    """Schema, name and modifiers of a TypeName."""
    names = strings(node.get("names"))
    modifiers = [
        one["A_Const"].get("ival", {}).get("ival", 0) for one in node.get("typmods", []) if "A_Const" in one
    ]
    schema = names[-2] if len(names) > 1 else None
    name = names[-1] if names else ""
    return schema, f"{name}[]" if node.get("arrayBounds") else name, modifiers


def walk(node: Any) -> Iterator[tuple[str, Node]]:
    """Every node in a tree, with its kind, from the top."""
    if isinstance(node, dict):
        for key, value in node.items():
            if isinstance(value, dict):
                if key[:1].isupper():
                    yield key, value
                yield from walk(value)
            elif isinstance(value, list):
                yield from walk(value)
    elif isinstance(node, list):
        for one in node:
            yield from walk(one)


def relations(tree: Node) -> Iterator[Node]:
    """Every RangeVar in a tree; they hang under other keys, too."""
    pile: list[Any] = [tree]
    while pile:
        one = pile.pop()
        if isinstance(one, dict):
            if "relname" in one and "relpersistence" in one:
                yield one
            pile += one.values()
        elif isinstance(one, list):
            pile += one


def position(text: str, location: int) -> int:
    """Where in a text a location of the parser is, which counts bytes."""
    return location if text.isascii() else len(text.encode()[:location].decode("utf-8", "ignore"))


def clauses(text: str, relation: Node) -> tuple[str, list[tuple[int, int]]]:
    """The beginning of an ALTER TABLE up to its table, and where each of its clauses is in the text."""
    begin = position(text, relation.get("location", 0))
    found = _RELATION.match(text, begin)
    if found is None:
        return text, []
    bare = scan.bare(text)
    head = found.end()
    if bare[head:].lstrip().startswith(")"):  # ONLY (name)
        head = bare.index(")", head) + 1
    spans, depth, start = [], 0, head
    for index in range(head, len(text)):
        match bare[index]:
            case "(" | "[":
                depth += 1
            case ")" | "]":
                depth -= 1
            case "," if depth == 0:
                spans.append((start, index))
                start = index + 1
    spans.append((start, len(text)))
    return text[:head], [_stripped(bare, span) for span in spans]


def _stripped(bare: str, span: tuple[int, int]) -> tuple[int, int]:
    """Without the blanks and comments around: what is added behind must not become part of a comment."""
    begin, end = span
    while begin < end and bare[begin].isspace():
        begin += 1
    while end > begin and bare[end - 1].isspace():
        end -= 1
    return begin, end
