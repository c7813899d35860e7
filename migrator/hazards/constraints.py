"""What ALTER TABLE does to constraints. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from migrator.hazards import tree
from migrator.hazards.facts import Relation
from migrator.hazards.finding import Finding, Fix
from migrator.hazards.seen import Seen, called
from migrator.hazards.tree import Node, quoted


def add_constraint(seen: Seen, command: Node, number: int, clause: str) -> Iterator[Finding]:
    """ADD CONSTRAINT in all its kinds."""
    constraint = command["def"]["Constraint"]
    match constraint["contype"]:
        case "CONSTR_CHECK":
            yield from _check(seen, constraint, number, clause)
        case "CONSTR_NOTNULL":
            yield from _not_null(seen, constraint, number, clause)
        case "CONSTR_FOREIGN":
            yield from _foreign(seen, constraint, number, clause)
        case "CONSTR_UNIQUE" | "CONSTR_PRIMARY":
            yield from _unique(seen, constraint)
        case "CONSTR_EXCLUSION":
            yield from _exclusion(seen)
        case _:
            pass


def _check(seen: Seen, constraint: Node, number: int, clause: str) -> Iterator[Finding]:
    used = seen.in_use(seen.node["relation"])
    if used is None or constraint.get("skip_validation") or constraint.get("is_enforced") is False:
        return
    name = free_name(seen, constraint)
    yield seen.finding(
        "add-check",
        f"all of {used[1]} is read to check it, and nobody reads or writes the table meanwhile",
        fix=_later_validated(seen, constraint, number, clause, name),
    )


def _not_null(seen: Seen, constraint: Node, number: int, clause: str) -> Iterator[Finding]:
    used = seen.in_use(seen.node["relation"])
    (column,) = tree.strings(constraint["keys"])
    if used is None or constraint.get("skip_validation") or seen.world.proves_not_null(used[0], column):
        return
    name = constraint.get("conname") or f"{seen.node['relation']['relname']}_{column}_not_null"
    yield seen.finding(
        "set-not-null",
        f"all of {used[1]} is read to see that there is no null, and nobody reads or writes the table meanwhile",
        fix=_later_validated(seen, constraint, number, clause, name),
    )


def _foreign(seen: Seen, constraint: Node, number: int, clause: str) -> Iterator[Finding]:
    relation, parent = seen.node["relation"], constraint["pktable"]
    found = seen.table(relation)
    if found is None:
        return
    name = free_name(seen, constraint)
    columns = tuple(tree.strings(constraint.get("fk_attrs")))
    if found[1] is not None and not any(one.columns[: len(columns)] == columns for one in found[1].indexes):
        yield from _without_index(seen, columns, found[1], parent)
    used = seen.in_use(relation)
    if used is None or constraint.get("skip_validation") or constraint.get("is_enforced") is False:
        return
    other = seen.table(parent)
    parents = called(tree.relation_name(parent), other[1] if other else None)
    partitioned = found[1] is not None and found[1].kind == "p"
    safe = ""
    if partitioned and seen.world.facts is not None and seen.world.facts.server_version < 180000:
        # "cannot add NOT VALID foreign key on partitioned table" up to 17.
        safe = (
            f"-- on each partition, NOT VALID, and validated in the next file; then on the table itself:\n"
            f"ALTER TABLE <partition> {clause} NOT VALID;\nALTER TABLE <partition> VALIDATE CONSTRAINT {quoted(name)};\n"
            f"{seen.statement.text};"
        )
    yield seen.finding(
        "add-foreign-key",
        f"each row of {used[1]} is looked up in {parents}, and nobody writes to either meanwhile",
        safe,
        fix=None if safe else _later_validated(seen, constraint, number, clause, name),
    )


def _without_index(
    seen: Seen, columns: tuple[str, ...], relation: Relation, parent: Node
) -> Iterator[Finding]:
    if relation.is_small or not columns:
        return
    table = tree.relation_name(seen.node["relation"])
    yield seen.finding(
        "foreign-key-without-index",
        f"each DELETE in {tree.relation_name(parent)}, and each UPDATE of its key, reads all of "
        f"{called(table, relation)}, as no index begins with {', '.join(columns)}",
        f"-- before, in a file of its own:\n"
        f"CREATE INDEX CONCURRENTLY ON {table} ({', '.join(map(quoted, columns))});",
    )


def _unique(seen: Seen, constraint: Node) -> Iterator[Finding]:
    relation = seen.node["relation"]
    used = seen.in_use(relation)
    if used is None:
        return
    if "indexname" in constraint:
        yield from _primary_of_nullable(seen, constraint, used[1])
        return
    table = tree.relation_name(relation)
    primary = constraint["contype"] == "CONSTR_PRIMARY"
    columns = tree.strings(constraint.get("keys"))
    name = free_name(seen, constraint)
    what = "PRIMARY KEY" if primary else "UNIQUE"
    attributes = [
        text
        for text, is_set in (
            ("DEFERRABLE", constraint.get("deferrable")),
            ("INITIALLY DEFERRED", constraint.get("initdeferred")),
        )
        if is_set
    ]
    using = " ".join([f"ADD CONSTRAINT {quoted(name)} {what} USING INDEX {quoted(name)}", *attributes])
    including = tree.strings(constraint.get("including"))
    include = f" INCLUDE ({', '.join(map(quoted, including))})" if including else ""
    nulls = " NULLS NOT DISTINCT" if constraint.get("nulls_not_distinct") else ""
    index = f"CREATE UNIQUE INDEX CONCURRENTLY {quoted(name)} ON {table} "
    index += f"({', '.join(map(quoted, columns))}){include}{nulls}"
    nullable = [one for one in columns if primary and not seen.world.proves_not_null(used[0], one)]
    first = "".join(
        f"-- first make {quoted(one)} NOT NULL by a CHECK: see set-not-null\n" for one in nullable
    )
    relation_facts = seen.world.relation(used[0])
    partitioned = relation_facts is not None and relation_facts.kind == "p"
    fixable = (
        not nullable
        and not partitioned
        and len(seen.node["cmds"]) == 1
        and not constraint.keys() & {"options", "indexspace", "without_overlaps"}
    )
    fix = Fix(text=index, alone=True, then=((f"ALTER TABLE {table} {using};",),)) if fixable else None
    yield seen.finding(
        "add-unique",
        f"an index over all of {used[1]} is built, and nobody reads or writes the table meanwhile",
        ""
        if fix
        else f"{first}-- in a file of its own:\n{index};\n-- in the next file:\nALTER TABLE {table} {using};",
        fix=fix,
    )


def _primary_of_nullable(seen: Seen, constraint: Node, size: str) -> Iterator[Finding]:
    if constraint["contype"] != "CONSTR_PRIMARY" or not seen.certain:
        return
    relation = seen.node["relation"]
    found = seen.world.relation(seen.world.key(relation))
    indexes = found.indexes if found else ()
    columns = next((one.columns for one in indexes if one.name == constraint["indexname"]), ())
    nullable = [
        one for one in columns if one and not seen.world.proves_not_null(seen.world.key(relation), one)
    ]
    if not nullable:
        return
    table = tree.relation_name(relation)
    checks = [(one, quoted(f"{relation['relname']}_{one}_not_null")) for one in nullable]
    yield seen.finding(
        "primary-key-nullable",
        f"{', '.join(nullable)} may be null, so all of {size} is read to make it NOT NULL, and nobody reads or writes "
        "the table meanwhile",
        "\n".join(
            [
                *(
                    f"ALTER TABLE {table} ADD CONSTRAINT {name} CHECK ({quoted(one)} IS NOT NULL) NOT VALID;"
                    for one, name in checks
                ),
                "-- in the next file:",
                *(f"ALTER TABLE {table} VALIDATE CONSTRAINT {name};" for _, name in checks),
                "-- in the next file:",
                *(f"ALTER TABLE {table} ALTER COLUMN {quoted(one)} SET NOT NULL;" for one in nullable),
                f"{seen.statement.text};",
                *(f"ALTER TABLE {table} DROP CONSTRAINT {name};" for _, name in checks),
            ]
        ),
    )


def _exclusion(seen: Seen) -> Iterator[Finding]:
    used = seen.in_use(seen.node["relation"])
    if used is None:
        return
    table = tree.relation_name(seen.node["relation"])
    yield seen.finding(
        "add-exclusion",
        f"an index over all of {used[1]} is built, and each row is looked up in it; nobody reads or writes the table "
        "meanwhile, and PostgreSQL knows no NOT VALID for this",
        f"-- a new table that has the constraint, filled in batches and kept by a trigger, then exchanged by name:\n"
        f"CREATE TABLE {tree.written(seen.node['relation'].get('schemaname'), seen.node['relation']['relname'] + '_new')} "
        f"(LIKE {table} INCLUDING ALL);",
    )


def validate(seen: Seen, command: Node) -> Iterator[Finding]:
    """VALIDATE CONSTRAINT in the transaction that added it."""
    found = seen.table(seen.node["relation"])
    if found is None or not seen.in_transaction:
        return
    added_line = seen.world.unvalidated.get((found[0], command["name"]))
    used = seen.in_use(seen.node["relation"])
    if added_line is None or used is None:
        return
    yield seen.finding(
        "validate-in-same-transaction",
        f"all of {used[1]} is read while the lock of line {added_line} is still held, so that NOT VALID there has "
        "saved nothing",
        f"-- in the next file:\n{seen.statement.text};",
        fix=Fix(text="", then=((f"{seen.statement.text};",),)) if len(seen.node["cmds"]) == 1 else None,
    )


def drop_constraint(seen: Seen, command: Node) -> Iterator[Finding]:
    """DROP CONSTRAINT of a foreign key."""
    found = seen.table(seen.node["relation"])
    if found is None or found[1] is None:
        return
    key = next((one for one in found[1].constraints if one.name == command["name"]), None)
    if key is None or key.kind != "f":
        return
    yield seen.finding(
        "drop-foreign-key",
        f"it locks {key.refers_to} as well, against readers, too",
        f"-- in a file that does nothing else:\n{seen.statement.text};",
    )


def _later_validated(seen: Seen, constraint: Node, number: int, clause: str, name: str) -> Fix:
    """The constraint NOT VALID, and validated in the next file; named, so that it can be called by name."""
    text = clause
    if "conname" not in constraint:
        begin = clause.lower().index("add") + len("add")
        text = f"{clause[:begin]} CONSTRAINT {quoted(name)}{clause[begin:]}"
    table = tree.relation_name(seen.node["relation"])
    return Fix(
        clause=number,
        text=f"{text} NOT VALID",
        then=((f"ALTER TABLE {table} VALIDATE CONSTRAINT {quoted(name)};",),),
    )


def free_name(seen: Seen, constraint: Node) -> str:
    """The constraint's name: as given, or as PostgreSQL makes it, with a number if there is one of that name."""
    relation = seen.node["relation"]
    taken = {one.name for one in seen.world.constraints(seen.world.key(relation))}
    name = ""
    for command in seen.node["cmds"]:
        definition = command["AlterTableCmd"].get("def")
        one = definition.get("Constraint") if isinstance(definition, dict) else None
        if one is None:
            continue
        name = base = constraint_name(relation, one)
        number = 0
        while name in taken and not one.get("conname"):
            number += 1
            name = f"{base}{number}"
        taken.add(name)
        if one is constraint:
            break
    return name


def constraint_name(relation: Node, constraint: Node) -> str:
    """The constraint's name: as given, or as PostgreSQL makes it."""
    if constraint.get("conname"):
        return str(constraint["conname"])
    table = relation["relname"]
    match constraint["contype"]:
        case "CONSTR_PRIMARY":
            parts, suffix = [table], "pkey"
        case "CONSTR_UNIQUE":
            parts, suffix = [table, *tree.strings(constraint.get("keys"))], "key"
        case "CONSTR_FOREIGN":
            parts, suffix = [table, *tree.strings(constraint.get("fk_attrs"))], "fkey"
        case _:
            columns = {
                tree.strings(node.get("fields"))[-1]
                for kind, node in tree.walk(constraint)
                if kind == "ColumnRef" and tree.strings(node.get("fields"))
            }
            # As PostgreSQL does: a single column gives it its name.
            parts, suffix = [table, *(columns if len(columns) == 1 else ())], "check"
    whole = "_".join([*parts, suffix])
    room = 63 - len(suffix) - 1
    return whole if len(whole.encode()) <= 63 else f"{'_'.join(parts)[:room]}_{suffix}"
