"""What ALTER TABLE does to columns. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from migrator.hazards import tree, types
from migrator.hazards.facts import Relation
from migrator.hazards.finding import Finding, Fix
from migrator.hazards.seen import Seen
from migrator.hazards.tree import Node, quoted
from migrator.hazards.world import Key

_SERIALS = {
    "serial": "integer", "serial4": "integer", "bigserial": "bigint", "serial8": "bigint",
    "smallserial": "smallint", "serial2": "smallint",
}  # fmt: skip
# Where no catalogs are at hand; everything else that isn't among the steady ones may be volatile.
_VOLATILE = frozenset(
    "gen_random_uuid uuid_generate_v1 uuid_generate_v1mc uuid_generate_v4 uuidv4 uuidv7 random clock_timestamp "
    "timeofday nextval setval currval lastval random_normal gen_random_bytes gen_salt".split()
)
_STEADY = frozenset(
    "now transaction_timestamp statement_timestamp current_setting lower upper md5 to_timestamp to_jsonb to_json "
    "jsonb_build_object json_build_object jsonb_build_array json_build_array make_interval make_date timezone "
    "date_trunc date_part concat format to_char to_date coalesce abs round floor ceil left right replace repeat "
    "length array_fill decode encode txid_current pg_current_xact_id current_database current_schema version "
    "quote_literal int4range int8range tstzrange tsrange daterange numrange uuid_nil".split()
)


def add_column(seen: Seen, command: Node, clause: str) -> Iterator[Finding]:
    """ADD COLUMN."""
    relation, column = seen.node["relation"], command["def"]["ColumnDef"]
    found = seen.table(relation)
    if found is None:
        return
    if command.get("missing_ok") and found[1] is not None and column["colname"] in found[1].columns:
        return
    table, name = tree.relation_name(relation), quoted(column["colname"])
    yield from _required(seen, column, found[1], clause)
    used = seen.in_use(relation)
    if used is None:
        return
    size = used[1]
    constraints = [one["Constraint"] for one in column.get("constraints", [])]
    kinds = {one["contype"] for one in constraints}
    schema, type_name, _ = tree.type_of(column["typeName"])
    bare = f"ALTER TABLE {table} ADD COLUMN {name} {_type_text(clause, seen, column)}"
    if type_name in _SERIALS or "CONSTR_IDENTITY" in kinds:
        plain = _SERIALS.get(type_name) or _type_text(clause, seen, column)
        yield seen.finding(
            "add-column-serial",
            f"every row of {size} is written anew to number it, and nobody reads or writes the table meanwhile",
            f"ALTER TABLE {table} ADD COLUMN {name} {plain};\n"
            f"CREATE SEQUENCE {_sequence(relation, column)} OWNED BY {table}.{name};\n"
            f"ALTER TABLE {table} ALTER COLUMN {name} SET DEFAULT nextval('{_sequence(relation, column)}');\n"
            + _batches(table, f"{name} = nextval('{_sequence(relation, column)}')", f"{name} IS NULL"),
        )
    generated = [one for one in constraints if one["contype"] == "CONSTR_GENERATED"]
    if generated and generated[0].get("generated_kind") != "v":
        expression = _parenthesised(clause)
        yield seen.finding(
            "add-column-generated",
            f"every row of {size} is written anew to compute it, and nobody reads or writes the table meanwhile",
            f"{bare};\n"
            f"-- a trigger BEFORE INSERT OR UPDATE sets NEW.{name} to the same of NEW: {expression}\n"
            + _batches(table, f"{name} = {expression}", f"{name} IS NULL"),
        )
    default = next((one for one in constraints if one["contype"] == "CONSTR_DEFAULT"), None)
    volatile = _volatile(seen, default["raw_expr"]) if default else None
    if default and volatile:
        expression = _segment(clause, seen, constraints, default).removeprefix("DEFAULT").strip()
        expression = (
            expression[len("default") :].strip() if expression.lower().startswith("default") else expression
        )
        yield seen.finding(
            "add-column-volatile-default",
            f"{volatile}() is another value for each row, so every row of {size} is written anew, and nobody reads or "
            "writes the table meanwhile",
            f"{bare};\n"
            f"ALTER TABLE {table} ALTER COLUMN {name} SET DEFAULT {expression};\n"
            + _batches(table, f"{name} = {expression}", f"{name} IS NULL"),
        )
    known = seen.world.type(schema, type_name)
    if known is not None and known.kind == "d" and known.constrained:
        yield seen.finding(
            "add-column-domain",
            f"the domain {type_name} has constraints, so every row of {size} is written anew, and nobody reads or "
            "writes the table meanwhile",
            f"-- with the type that the domain stands for, and its CHECK as one of the table's:\n"
            f"ALTER TABLE {table} ADD COLUMN {name} <base type of {type_name}>;\n"
            f"ALTER TABLE {table} ADD CONSTRAINT {quoted(column['colname'] + '_check')} CHECK (...) NOT VALID;\n"
            "-- in the next file:\n"
            f"ALTER TABLE {table} VALIDATE CONSTRAINT {quoted(column['colname'] + '_check')};",
        )
    yield from _inline(seen, size, clause, column, constraints)


def _required(seen: Seen, column: Node, relation: Relation | None, clause: str) -> Iterator[Finding]:
    """NOT NULL without anything to fill it."""
    kinds = {one["Constraint"]["contype"] for one in column.get("constraints", [])}
    _, type_name, _ = tree.type_of(column["typeName"])
    fills = {"CONSTR_DEFAULT", "CONSTR_IDENTITY", "CONSTR_GENERATED"}
    if type_name in _SERIALS or kinds & fills or not kinds & {"CONSTR_NOTNULL", "CONSTR_PRIMARY"}:
        return
    if relation is not None and relation.is_empty:
        return
    table, name = tree.relation_name(seen.node["relation"]), quoted(column["colname"])
    rows = f", which has {relation.shown_size}" if relation is not None else ""
    yield seen.finding(
        "add-column-not-null",
        f"it fails as soon as there is one row in {table}{rows}; and the running release, which doesn't know {name}, "
        "could insert nothing any more",
        f"ALTER TABLE {table} ADD COLUMN {name} {_type_text(clause, seen, column)} DEFAULT <value> NOT NULL;\n"
        "-- or without DEFAULT and NOT NULL, filled in batches, and NOT NULL in a later release",
    )


def _inline(seen: Seen, size: str, clause: str, column: Node, constraints: list[Node]) -> Iterator[Finding]:
    """Constraints within the definition of a column."""
    relation = seen.node["relation"]
    table, name = tree.relation_name(relation), quoted(column["colname"])
    has_default = any(one["contype"] == "CONSTR_DEFAULT" for one in constraints)
    for one in constraints:
        own = _segment(clause, seen, constraints, one)
        kind = one["contype"]
        if kind == "CONSTR_CHECK" and not one.get("skip_validation"):
            constraint = quoted(one.get("conname") or f"{relation['relname']}_{column['colname']}_check")
            check = own if own.lower().startswith("constraint") else f"CONSTRAINT {constraint} {own}"
            yield seen.finding(
                "add-column-check",
                f"all of {size} is read to check it, and nobody reads or writes the table meanwhile",
                f"{_without(clause, own, table)};\n"
                f"ALTER TABLE {table} ADD {check} NOT VALID;\n"
                "-- in the next file:\n"
                f"ALTER TABLE {table} VALIDATE CONSTRAINT {constraint};",
            )
        elif kind in ("CONSTR_UNIQUE", "CONSTR_PRIMARY"):
            what, suffix = ("PRIMARY KEY", "pkey") if kind == "CONSTR_PRIMARY" else ("UNIQUE", "key")
            middle = "" if kind == "CONSTR_PRIMARY" else f"_{column['colname']}"
            constraint = quoted(one.get("conname") or f"{relation['relname']}{middle}_{suffix}")
            yield seen.finding(
                "add-column-unique",
                f"an index over all of {size} is built, and nobody reads or writes the table meanwhile",
                f"{_without(clause, own, table)};\n"
                "-- in a file of its own:\n"
                f"CREATE UNIQUE INDEX CONCURRENTLY {constraint} ON {table} ({name});\n"
                "-- in the next file:\n"
                f"ALTER TABLE {table} ADD CONSTRAINT {constraint} {what} USING INDEX {constraint};",
            )
        elif kind == "CONSTR_FOREIGN" and has_default:
            constraint = quoted(one.get("conname") or f"{relation['relname']}_{column['colname']}_fkey")
            references = own[own.lower().index("references") :]
            yield seen.finding(
                "add-column-references",
                f"with its default, each row of {size} is looked up in {tree.relation_name(one['pktable'])}; meanwhile "
                f"nobody uses the former, and nobody writes to the latter",
                f"{_without(clause, own, table)};\n"
                f"ALTER TABLE {table} ADD CONSTRAINT {constraint} FOREIGN KEY ({name}) {references} NOT VALID;\n"
                "-- in the next file:\n"
                f"ALTER TABLE {table} VALIDATE CONSTRAINT {constraint};",
            )


def set_not_null(seen: Seen, command: Node, number: int) -> Iterator[Finding]:
    """SET NOT NULL reads all rows, unless a valid CHECK says it already."""
    relation, column = seen.node["relation"], command["name"]
    used = seen.in_use(relation)
    if used is None or seen.world.proves_not_null(used[0], column):
        return
    if (used[0], column) in seen.world.new_columns:
        return  # told at the column itself, or it has a default; there is nothing old that could be null
    table = tree.relation_name(relation)
    check = quoted(_short(f"{relation['relname']}_{column}_not_null"))
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
            timezone=seen.world.facts.timezone if seen.world.facts else "",
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
        + _batches(table, f"{other} = {using}", f"{other} IS NULL AND {quoted_name} IS NOT NULL")
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


def _volatile(seen: Seen, expression: Any) -> str | None:
    """A function in it that gives each row another value; None: there is none."""
    known = seen.world.facts.functions if seen.world.facts else {}
    for kind, node in tree.walk({"": expression}):
        if kind != "FuncCall":
            continue
        name = tree.strings(node["funcname"])[-1]
        if name in known:
            if known[name].volatility == "v":
                return name
        elif name in _VOLATILE or name not in _STEADY:
            return name
    return None


def _segment(clause: str, seen: Seen, constraints: list[Node], one: Node) -> str:
    """A constraint of a column as it is written."""
    base = _base(clause, seen)
    places = sorted(tree.position(seen.statement.text, other["location"]) for other in constraints)
    begin = tree.position(seen.statement.text, one["location"])
    later = [place for place in places if place > begin]
    return clause[begin - base : (later[0] if later else base + len(clause)) - base].strip()


def _type_text(clause: str, seen: Seen, column: Node) -> str:
    """The type of a column as it is written, with its collation."""
    base = _base(clause, seen)
    begin = tree.position(seen.statement.text, column["typeName"]["location"]) - base
    ends = [
        tree.position(seen.statement.text, one["Constraint"]["location"]) - base
        for one in column.get("constraints", [])
    ]
    return clause[begin : min(ends, default=len(clause))].strip()


def _base(clause: str, seen: Seen) -> int:
    """Where the clause begins in the statement."""
    _, spans = tree.clauses(seen.statement.text, seen.node["relation"])
    return next(begin for begin, end in spans if seen.statement.text[begin:end] == clause)


def _without(clause: str, own: str, table: str) -> str:
    """The column without one of its constraints, as a statement."""
    return f"ALTER TABLE {table} " + " ".join(clause.replace(own, "", 1).split())


def _parenthesised(clause: str) -> str:
    begin = clause.lower().find("as", clause.lower().find("generated"))
    end = clause.rfind(")") + 1
    return clause[clause.find("(", begin) : end] if begin >= 0 else "(...)"


def _sequence(relation: Node, column: Node) -> str:
    return tree.written(relation.get("schemaname"), _short(f"{relation['relname']}_{column['colname']}_seq"))


def _written_type(name: str, modifiers: list[int]) -> str:
    known = {"int4": "integer", "int8": "bigint", "int2": "smallint", "bool": "boolean"}
    return known.get(name, name) + (f"({', '.join(map(str, modifiers))})" if modifiers else "")


def _batches(table: str, assignment: str, condition: str) -> str:
    return (
        "-- then, in transactions of their own, until it says UPDATE 0:\n"
        f"UPDATE {table} SET {assignment}\n"
        f" WHERE ctid = ANY (ARRAY(SELECT ctid FROM {table} WHERE {condition} LIMIT 1000 FOR UPDATE SKIP LOCKED));"
    )


def _short(name: str) -> str:
    """A name that PostgreSQL doesn't cut."""
    return name if len(name.encode()) <= 63 else name.encode()[:63].decode("utf-8", "ignore")
