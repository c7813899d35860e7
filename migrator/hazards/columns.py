"""What ALTER TABLE does to columns that are there. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from migrator.hazards import tree, types
from migrator.hazards.finding import Finding, Fix
from migrator.hazards.seen import Seen
from migrator.hazards.tree import Node, quoted
from migrator.hazards.wording import batches, short
from migrator.hazards.world import Key


def set_not_null(seen: Seen, command: Node, number: int) -> Iterator[Finding]:
    """SET NOT NULL reads all rows, unless a valid CHECK says it already."""
    relation, column = seen.node["relation"], command["name"]
    used = seen.in_use(relation)
    if used is None or seen.world.proves_not_null(used[0], column):
        return
    if (used[0], column) in seen.world.new_columns:
        return  # told at the column itself, or it has a default; there is nothing old that could be null
    table = tree.relation_name(relation)
    check = quoted(short(f"{relation['relname']}_{column}_not_null"))
    yield seen.finding(
        "set-not-null",
        f"all of {used[1]} is read to see that there is no null, and nobody reads or writes the table meanwhile",
        fix=Fix(
            clause=number,
            text=f"ADD CONSTRAINT {check} CHECK ({quoted(column)} IS NOT NULL) NOT VALID",
            then=(
                (f"ALTER TABLE {table} VALIDATE CONSTRAINT {check};",),
                (
                    f"ALTER TABLE {table} ALTER COLUMN {quoted(column)} SET NOT NULL;",
                    f"ALTER TABLE {table} DROP CONSTRAINT {check};",
                ),
            ),
        ),
    )


def _timezone(seen: Seen) -> str:
    """The session's; empty if it isn't known, as where the file sets it."""
    is_set = any(
        kind == "VariableSetStmt" and node.get("name", "timezone").lower() == "timezone"
        for kind, node in seen.trees[: seen.number]
    )
    return seen.world.facts.timezone if seen.world.facts and not is_set else ""


def change_type(seen: Seen, command: Node) -> Iterator[Finding]:
    """ALTER COLUMN TYPE."""
    relation, column, definition = seen.node["relation"], command["name"], command["def"]["ColumnDef"]
    used = seen.in_use(relation)
    if used is None:
        return
    _, name, modifiers = tree.type_of(definition["typeName"])
    found = seen.world.relation(used[0])
    what = "every row of {} is written anew, and its indexes with it"
    if found is not None and column in found.columns and _keeps_value(definition, column, name):
        checks = [one.name for one in found.constraints if one.kind == "c" and column in one.columns]
        holding = [one for one in found.indexes if column in (*one.involved, *one.columns)]
        harmless = types.same_on_disk(
            found.columns[column],
            name,
            modifiers,
            timezone=_timezone(seen),
            indexed=bool(holding),
        )
        # What an index computes, or leaves out, is never compared: PostgreSQL builds it anew.
        rebuilt = [one.name for one in holding if not one.plain or "collClause" in definition]
        if harmless and not checks and not rebuilt:
            return
        if harmless:
            what = f"all of {{}} is read to check {', '.join(checks)} anew"
            if rebuilt:
                what = f"all of {{}} is read to build {', '.join(rebuilt)} anew"
    table, quoted_name = tree.relation_name(relation), quoted(column)
    other = quoted(f"{column}_new")
    new_type = _written_type(name, modifiers)
    using = f"{quoted_name}::{new_type}"
    yield seen.finding(
        "change-column-type",
        f"{what.format(used[1])}, and nobody reads or writes the table meanwhile",
        f"ALTER TABLE {table} ADD COLUMN {other} {new_type};\n"
        f"-- a trigger BEFORE INSERT OR UPDATE keeps it: NEW.{other} := NEW.{using};\n"
        + batches(table, f"{other} = {using}", f"{other} IS NULL AND {quoted_name} IS NOT NULL")
        + "\n-- once no release uses the old one:\n"
        f"ALTER TABLE {table} DROP COLUMN {quoted_name};\n"
        f"ALTER TABLE {table} RENAME COLUMN {other} TO {quoted_name};",
    )


def drop_column(seen: Seen, command: Node) -> Iterator[Finding]:
    """DROP COLUMN."""
    found = seen.table(seen.node["relation"])
    if found is None or (found[0], command["name"]) in seen.world.new_columns:
        return
    key, relation = found
    if relation is not None and relation.columns and command["name"] not in relation.columns:
        return  # IF EXISTS, or an error
    taken = [one.name for one in relation.indexes if command["name"] in one.columns] if relation else []
    also = f"; it takes the index {', '.join(taken)} along" if taken else ""
    yield seen.finding(
        "drop-column",
        f"the running release still reads and writes {tree.written(*_shown_key(seen, key), command['name'])}: its "
        f"queries fail from that moment on{also}",
        "-- first release code that doesn't name the column any more; then, in a later release:\n"
        f"{seen.statement.text};",
    )


def drop_default(seen: Seen, command: Node) -> Iterator[Finding]:
    """DROP DEFAULT of what can't be null: who leaves it out of an INSERT fails."""
    if "def" in command:
        return
    found = seen.table(seen.node["relation"])
    if found is None:
        return
    key, relation = found
    column = relation.columns.get(command["name"]) if relation else None
    if relation is not None and (column is None or not column.has_default or not column.not_null):
        return
    yield seen.finding(
        "drop-default",
        f"an INSERT of the running release that leaves {tree.written(*_shown_key(seen, key), command['name'])} out fails "
        "from that moment on, as it can't be null",
        f"-- first release code that always gives it; then, in a later release:\n{seen.statement.text};",
    )


def _shown_key(seen: Seen, key: Key) -> tuple[str | None, str]:
    return (None if key[0] == seen.world.default_schema else key[0], key[1])


def _keeps_value(definition: Node, column: str, type_name: str) -> bool:
    """Whether there is no USING, or one that says what is done without it."""
    using = definition.get("raw_default")
    if using is None:
        return True
    if "TypeCast" in using:
        cast = using["TypeCast"]
        if tree.type_of(cast["typeName"])[1] != type_name:
            return False
        using = cast["arg"]
    return tree.strings(using.get("ColumnRef", {}).get("fields")) == [column]


def _written_type(name: str, modifiers: list[int]) -> str:
    known = {"int4": "integer", "int8": "bigint", "int2": "smallint", "bool": "boolean"}
    return known.get(name, name) + (f"({', '.join(map(str, modifiers))})" if modifiers else "")
