"""Migration files as parse trees, as far as a statement could matter to a rule."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec import Struct, field

from migrator import headers, statements
from migrator import migration as files
from migrator.hazards import blocks, tree
from migrator.hazards.tree import Node
from migrator.lexer import Lexer
from migrator.migration import AnyPath
from migrator.statements import Statement

# Beyond this a file is cut by psql's rules, a window at a time, as it is when it is applied.
WHOLE_BYTES = 1024 * 1024
_MATTERS = re.compile(
    r"(?:alter|drop|truncate|update|delete|reindex|vacuum|cluster|refresh|revoke|set|reset|do)\b"
    r"|create\s+(?!(?:or\s+replace\s+)?(?:trigger|rule|role|user|extension|publication|subscription|statistics)\b)"
    r"|(?:insert|merge)\b(?=.*\b(?:select|delete|update)\b)|with\b(?=.*\b(?:update|delete|insert)\b)"
    r"|select\b(?=.*\bset_config\b)",
    re.IGNORECASE | re.DOTALL,
)
_COPY = re.compile(rb"copy\b.*\bfrom\s+stdin\b", re.IGNORECASE | re.DOTALL)
_ALONE = re.compile(r"(?:vacuum\b|.*\bconcurrently\b)", re.IGNORECASE | re.DOTALL)


class Step(Struct, frozen=True, kw_only=True):
    """A statement, where it is (line and column from 1), and its tree: the kind of node and what is in it.

    Attributes:
        in_block: It stands in a DO block, and may or may not be run.
    """

    statement: Statement
    line: int
    column: int
    kind: str
    node: Node
    in_block: bool = False


class Parsed(Struct, kw_only=True):
    """A file.

    Attributes:
        text: As it was read; "" of one that is too large to be held.
        in_transaction: Its statements share one.
        allowed: What its headers allow: rule and reason.
        whole: All of it was looked at.
        lexed: The parser doesn't know all of it, so that it was cut by psql's rules.
        unknown: Statements that the parser doesn't know, each with its line.
    """

    path: Path
    text: str = ""
    steps: list[Step] = field(default_factory=list)
    in_transaction: bool = True
    allowed: dict[str, str] = field(default_factory=dict)
    whole: bool = True
    lexed: bool = False
    unknown: list[tuple[int, str]] = field(default_factory=list)

    @property
    def in_supabase(self) -> bool:
        """Whether it is one of a Supabase project."""
        return self.path.absolute().parent.parts[-2:] == ("supabase", "migrations")


def parse(path: AnyPath, go_on: Callable[[], bool] = lambda: True) -> Parsed:
    """Read a file; no further than `go_on` allows.

    Raises:
        PlanError: It can't be read, or its headers are wrong.
    """
    parsed = Parsed(path=Path(path))
    if files.size_bytes(path) > WHOLE_BYTES:
        found = _cut_large(parsed, go_on)
    else:
        parsed.text = files.read_text(path)
        _take_headers(parsed, parsed.text)
        found = _cut(parsed)
    for statement, line, column in found:
        if not go_on():
            parsed.whole = False
            break
        matters = _MATTERS.match(statement.text)
        if not matters and not parsed.lexed:
            continue
        whole = statements.tree(statement)
        if not whole:
            parsed.unknown.append((line, statement.first_line))
        if not whole or not matters:
            continue
        kind, node = next(iter(whole.items()))
        if kind == "DoStmt":
            parsed.steps += _in_block(statement, line)
        elif isinstance(node, dict):
            parsed.steps.append(Step(statement=statement, line=line, column=column, kind=kind, node=node))
            if _ALONE.match(statement.text) and statements.kind(statement) in ("alone", "concurrent"):
                parsed.in_transaction = False
    return parsed


def _in_block(block: Statement, line: int) -> Iterator[Step]:
    for statement, below, variables in blocks.statements_in(block):
        whole = statements.tree(statement) if _MATTERS.match(statement.text) else {}
        for kind, node in whole.items():
            if isinstance(node, dict) and kind != "DoStmt":
                yield Step(
                    statement=statement,
                    line=line + below,
                    column=1,
                    kind=kind,
                    node=blocks.without_variables(node, variables),
                    in_block=True,
                )


def names(parsed: list[Parsed]) -> set[str]:
    """What to ask the catalogs about: relations, types, functions and schemas that the files name."""
    found: set[str] = set()
    for one in parsed:
        for step in one.steps:
            found |= {relation["relname"] for relation in tree.relations(step.node)}
            for kind, node in tree.walk({step.kind: step.node}):
                match kind:
                    case "FuncCall":
                        found |= set(tree.strings(node["funcname"])[-1:])
                    case "DropStmt":
                        found |= {text for listed in node["objects"] for text in _texts(listed)}
                    case "CreateFunctionStmt":
                        found |= set(tree.strings(node["funcname"])[-1:])
                    case "AlterDomainStmt" | "AlterEnumStmt":
                        found |= set(tree.strings(node["typeName"])[-1:])
                    case "ColumnDef" if "typeName" in node:
                        found.add(tree.type_of(node["typeName"])[1])
    return found


def _texts(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        if "sval" in node:
            yield str(node["sval"])
        for value in node.values():
            yield from _texts(value)
    elif isinstance(node, list):
        for value in node:
            yield from _texts(value)


def _take_headers(parsed: Parsed, text: str) -> None:
    asked = headers.parse(text, parsed.path.name)
    parsed.allowed = dict(asked.allow)
    if asked.transactional is False:
        parsed.in_transaction = False


def _cut(parsed: Parsed) -> Iterator[tuple[Statement, int, int]]:
    text = parsed.text
    found = statements.split(text)
    if found is None:  # COPY data, a psql command, or syntax that the parser doesn't know
        parsed.lexed = True
        yield from _placed(text, list(_lexed(text)))
    else:
        yield from _placed(text, found)


def _placed(text: str, found: list[Statement]) -> Iterator[tuple[Statement, int, int]]:
    line, done, line_begin = 1, 0, 0
    for statement in found:
        line += text.count("\n", done, statement.offset)
        last = text.rfind("\n", done, statement.offset)
        line_begin = last + 1 if last >= 0 else line_begin
        done = statement.offset
        yield statement, line, statement.offset - line_begin + 1


def _lexed(text: str) -> Iterator[Statement]:
    encoded = text.encode()
    lexer = Lexer(io.BytesIO(encoded).read)
    for one in lexer:
        if one.kind == "statement":
            yield Statement(text=one.text.decode().rstrip(), offset=len(encoded[: one.begin].decode()))
            if _COPY.match(one.text):
                lexer.data()


def _cut_large(parsed: Parsed, go_on: Callable[[], bool]) -> Iterator[tuple[Statement, int, int]]:
    with files.open_file(parsed.path) as file, files.open_file(parsed.path) as counted:
        head = file.read(WHOLE_BYTES).decode("utf-8", "ignore")
        _take_headers(parsed, head[: head.find("\n\n")] if head.startswith("--") else "")
        file.seek(0)
        line, column, done = 1, 1, 0
        lexer = Lexer(file.read)
        for one in lexer:
            while done < one.begin:
                passed = counted.read(min(one.begin - done, WHOLE_BYTES))
                if not passed:
                    break
                line += passed.count(b"\n")
                last = passed.rfind(b"\n")
                column = len(passed) - last if last >= 0 else column + len(passed)
                done += len(passed)
            if one.kind == "statement":
                yield Statement(text=one.text.decode("utf-8", "replace").rstrip(), offset=-1), line, column
                if _COPY.match(one.text) and not all(go_on() for _ in lexer.data_by_turns()):
                    parsed.whole = False
                    return
