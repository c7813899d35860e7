"""Which rules look at which statement. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from msgspec.structs import replace

from migrator.hazards import (
    access,
    columns,
    constraints,
    domains,
    indexes,
    names,
    new_columns,
    rows,
    storage,
    tree,
)
from migrator.hazards.finding import Finding
from migrator.hazards.seen import Seen
from migrator.hazards.tree import Node

Look = Callable[[Seen], Iterator[Finding]]


def alter_table(seen: Seen) -> Iterator[Finding]:
    """ALTER TABLE, clause by clause."""
    if "relation" not in seen.node:
        return
    text = seen.statement.text
    _, spans = tree.clauses(text, seen.node["relation"])
    commands = [one["AlterTableCmd"] for one in seen.node["cmds"]]
    by_clause = len(spans) == len(commands)
    if not by_clause:  # not to be rewritten by clause; what it does is known all the same
        spans = [(0, len(text))] * len(commands)
    for number, (command, (begin, end)) in enumerate(zip(commands, spans, strict=True)):
        clause = text[begin:end]
        at = _at(seen, begin) if len(spans) > 1 else seen
        for one in _clause(at, command, number, clause):
            yield one if by_clause else replace(one, fix=None)


def _clause(seen: Seen, command: Node, number: int, clause: str) -> Iterator[Finding]:
    match command["subtype"]:
        case "AT_AddColumn" if seen.node.get("objtype") == "OBJECT_TABLE":
            yield from new_columns.add_column(seen, command, clause)
        case "AT_SetNotNull":
            yield from columns.set_not_null(seen, command, number)
        case "AT_AlterColumnType" if seen.node.get("objtype") == "OBJECT_TABLE":
            yield from columns.change_type(seen, command)
        case "AT_DropColumn":
            yield from columns.drop_column(seen, command)
        case "AT_ColumnDefault":
            yield from columns.drop_default(seen, command)
        case "AT_AddConstraint":
            yield from constraints.add_constraint(seen, command, number, clause)
        case "AT_ValidateConstraint":
            yield from constraints.validate(seen, command)
        case "AT_DropConstraint":
            yield from constraints.drop_constraint(seen, command)
        case "AT_AttachPartition":
            yield from storage.attach(seen, command)
        case "AT_DetachPartition":
            yield from storage.detach(seen, command)
        case "AT_EnableRowSecurity":
            yield from access.enable_row_security(seen, command)
        case _:
            yield from storage.change_storage(seen, command)


def _at(seen: Seen, begin: int) -> Seen:
    """The statement, at the place of one of its clauses."""
    before = seen.statement.text[:begin]
    below = before.count("\n")
    column = begin - before.rfind("\n") if below else seen.column + begin
    return replace(seen, line=seen.line + below, column=column)


def drop(seen: Seen) -> Iterator[Finding]:
    """DROP."""
    yield from indexes.drop_index(seen) if seen.node["removeType"] == "OBJECT_INDEX" else names.drop(seen)


def create_table(seen: Seen) -> Iterator[Finding]:
    """CREATE TABLE."""
    yield from access.create_table(seen)
    yield from storage.partition_of(seen)


def create_table_as(seen: Seen) -> Iterator[Finding]:
    """CREATE TABLE AS, CREATE MATERIALIZED VIEW."""
    if seen.node.get("objtype") == "OBJECT_TABLE":
        yield from access.create_table(seen)
    yield from rows.insert(seen)


def insert(seen: Seen) -> Iterator[Finding]:
    """INSERT."""
    yield from rows.update_or_delete(seen)
    yield from rows.insert(seen)


LOOKS: dict[str, Look] = {
    "AlterTableStmt": alter_table,
    "AlterDomainStmt": domains.alter_domain,
    "AlterEnumStmt": names.alter_enum,
    "AlterObjectSchemaStmt": names.set_schema,
    "ClusterStmt": storage.cluster,
    "CreateFunctionStmt": names.create_function,
    "CreateStmt": create_table,
    "CreateTableAsStmt": create_table_as,
    "DeleteStmt": rows.update_or_delete,
    "DropStmt": drop,
    "GrantStmt": names.grant,
    "IndexStmt": indexes.create_index,
    "InsertStmt": insert,
    "RefreshMatViewStmt": storage.refresh,
    "ReindexStmt": indexes.reindex,
    "RenameStmt": names.rename,
    "SelectStmt": rows.update_or_delete,
    "TruncateStmt": storage.truncate,
    "UpdateStmt": rows.update_or_delete,
    "VacuumStmt": storage.vacuum,
}
