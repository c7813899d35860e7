"""Statements that touch the rows of a whole table, or work on while a table is locked. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from migrator import scan
from migrator.hazards import share, tree
from migrator.hazards.facts import shown_rows
from migrator.hazards.finding import Finding
from migrator.hazards.seen import Seen
from migrator.hazards.tree import Node

# So many rows are updated in less than a tenth of a second.
_MANY_ROWS = 5000
# Where nobody knows how many rows there are.
_MUCH = 0.1


def update_or_delete(seen: Seen) -> Iterator[Finding]:
    """UPDATE, DELETE, also those within WITH."""
    top = seen.kind in ("UpdateStmt", "DeleteStmt")
    for kind, node in [*([(seen.kind, seen.node)] if top else []), *tree.walk(seen.node)]:
        if kind in ("UpdateStmt", "DeleteStmt"):
            yield from _one(seen, kind, node, top=node is seen.node)


def _one(seen: Seen, kind: str, node: Node, *, top: bool) -> Iterator[Finding]:
    used = seen.in_use(node["relation"])
    if used is None:
        return
    where = node.get("whereClause")
    relation = seen.world.relation(used[0])
    if not seen.certain:
        if not share.is_plainly_all(where) or _others(node, kind):
            return
        condition = ""
    else:
        part = share.of_where(where, relation)
        rows = relation.rows if relation else None
        if _joins_values(node, kind) or (where is not None and _is_few(part, rows)):
            return
        condition = ""
        if where is not None:
            condition = f"; its WHERE may let {f'about {shown_rows(int(part * rows))}' if rows else 'most'} of them through"
    table = tree.relation_name(node["relation"])
    update = kind == "UpdateStmt"
    held = "".join(
        f"; and {name} stays locked since line {line}, against readers, too, for all that time"
        for name, line in list(seen.world.strong_locks.items())[:1]
        if seen.in_transaction
    )
    yield seen.finding(
        "update-whole-table" if update else "delete-whole-table",
        f"every row of {used[1]} is locked for writers until the transaction ends{condition}, and vacuum can clean up "
        f"nothing in the database meanwhile{held}",
        _in_batches(seen, node, table, update=update) if top else _hint(table, update=update),
    )


def insert(seen: Seen) -> Iterator[Finding]:
    """INSERT ... SELECT and CREATE TABLE AS from a large table, while another one is locked."""
    if not seen.world.strong_locks or not seen.in_transaction:
        return
    sources = [
        found
        for one in tree.relations(seen.node.get("selectStmt") or seen.node.get("query") or {})
        if (found := _large(seen, one)) is not None
    ]
    if sources:
        name, line = next(iter(seen.world.strong_locks.items()))
        yield seen.finding(
            "work-under-lock",
            f"{name} stays locked since line {line}, against readers, too, while all of {sources[0]} is read",
            f"-- in a file of its own:\n{seen.statement.text};",
        )


def _large(seen: Seen, relation: Node) -> str | None:
    used = seen.in_use(relation)
    return used[1] if used and (not seen.certain or seen.world.relation(used[0])) else None


def _own_names(node: Node) -> set[str]:
    relation = node["relation"]
    return {relation.get("alias", {}).get("aliasname", relation["relname"])}


def _others(node: Node, kind: str) -> bool:
    """Whether it joins another table."""
    return bool(node.get("fromClause" if kind == "UpdateStmt" else "usingClause"))


def _is_few(part: float, rows: int | None) -> bool:
    return part * rows <= _MANY_ROWS if rows else part <= _MUCH


def _joins_values(node: Node, kind: str) -> bool:
    """Whether all that it joins is written down in the statement itself."""
    joined = node.get("fromClause" if kind == "UpdateStmt" else "usingClause", [])
    return bool(joined) and all(
        "valuesLists" in one.get("RangeSubselect", {}).get("subquery", {}).get("SelectStmt", {})
        for one in joined
    )


def _in_batches(seen: Seen, node: Node, table: str, *, update: bool) -> str:
    """The statement, a thousand rows at a time."""
    text = seen.statement.text
    if _others(node, seen.kind) or "withClause" in node or "returningClause" in node:
        return _hint(table, update=update)
    where = node.get("whereClause")
    condition, head = "", text
    if where is not None:
        begin = _where_begins(text)
        if begin is None:
            return _hint(table, update=update)
        head, condition = text[:begin].rstrip(), f" {text[begin:]}"
    name = next(iter(_own_names(node)))
    alias = f" AS {tree.quoted(name)}" if "alias" in node["relation"] else ""
    again = ""
    if update and where is None:
        again = "-- add a WHERE that tells the rows that are still to be done, or else it never ends\n"
    return (
        f"-- in transactions of their own, until it says {'UPDATE' if update else 'DELETE'} 0:\n{again}"
        f"{head}\n WHERE {tree.quoted(name)}.ctid = ANY (ARRAY(SELECT ctid FROM {table}{alias}{condition} LIMIT 1000 "
        "FOR UPDATE SKIP LOCKED));"
    )


def _where_begins(text: str) -> int | None:
    """Where the outermost WHERE is."""
    bare, depth = scan.bare(text), 0
    for found in re.finditer(r"[()]|\bwhere\b", bare, re.IGNORECASE):
        if found[0] == "(":
            depth += 1
        elif found[0] == ")":
            depth -= 1
        elif depth == 0:
            return found.start()
    return None


def _hint(table: str, *, update: bool) -> str:
    verb = "UPDATE" if update else "DELETE FROM"
    return (
        f"-- in transactions of their own, a range of the primary key at a time:\n"
        f"{verb} {table} ... WHERE <key> BETWEEN <first> AND <last>;"
    )
