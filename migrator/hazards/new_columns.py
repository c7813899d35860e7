"""What ADD COLUMN brings with it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from migrator.hazards import tree
from migrator.hazards.facts import Relation
from migrator.hazards.finding import Finding
from migrator.hazards.seen import Seen
from migrator.hazards.tree import Node, quoted
from migrator.hazards.wording import batches, short

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
    required = "CONSTR_NOTNULL" in kinds or type_name in _SERIALS or "CONSTR_IDENTITY" in kinds
    finish = "\n-- then NOT NULL: see set-not-null" if required else ""
    bare = f"ALTER TABLE {table} ADD COLUMN {name} {_type_text(clause, seen, column)}"
    if type_name in _SERIALS or "CONSTR_IDENTITY" in kinds:
        plain = _SERIALS.get(type_name) or _type_text(clause, seen, column)
        yield seen.finding(
            "add-column-serial",
            f"every row of {size} is written anew to number it, and nobody reads or writes the table meanwhile",
            f"ALTER TABLE {table} ADD COLUMN {name} {plain};\n"
            f"CREATE SEQUENCE {_sequence(relation, column)} OWNED BY {table}.{name};\n"
            f"ALTER TABLE {table} ALTER COLUMN {name} SET DEFAULT nextval('{_sequence(relation, column)}');\n"
            + batches(table, f"{name} = nextval('{_sequence(relation, column)}')", f"{name} IS NULL")
            + finish,
        )
    generated = [one for one in constraints if one["contype"] == "CONSTR_GENERATED"]
    if generated and generated[0].get("generated_kind") != "v":
        expression = _parenthesised(clause)
        yield seen.finding(
            "add-column-generated",
            f"every row of {size} is written anew to compute it, and nobody reads or writes the table meanwhile",
            f"{bare};\n"
            f"-- a trigger BEFORE INSERT OR UPDATE sets NEW.{name} to the same of NEW: {expression}\n"
            + batches(table, f"{name} = {expression}", f"{name} IS NULL")
            + finish,
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
            + batches(table, f"{name} = {expression}", f"{name} IS NULL")
            + finish,
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
    return next((begin for begin, end in spans if seen.statement.text[begin:end] == clause), 0)


def _without(clause: str, own: str, table: str) -> str:
    """The column without one of its constraints, as a statement."""
    return f"ALTER TABLE {table} " + " ".join(clause.replace(own, "", 1).split())


def _parenthesised(clause: str) -> str:
    begin = clause.lower().find("as", clause.lower().find("generated"))
    end = clause.rfind(")") + 1
    return clause[clause.find("(", begin) : end] if begin >= 0 else "(...)"


def _sequence(relation: Node, column: Node) -> str:
    return tree.written(relation.get("schemaname"), short(f"{relation['relname']}_{column['colname']}_seq"))
