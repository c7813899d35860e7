"""What the running release knows by name, and what stands behind it: dropped, renamed, redefined. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from migrator.hazards import tree
from migrator.hazards.finding import Finding
from migrator.hazards.seen import Seen, called
from migrator.hazards.tree import Node

_RELATIONS = {
    "OBJECT_TABLE": "table",
    "OBJECT_VIEW": "view",
    "OBJECT_MATVIEW": "materialized view",
    "OBJECT_FOREIGN_TABLE": "foreign table",
    "OBJECT_SEQUENCE": "sequence",
}
_OTHERS = {
    "OBJECT_FUNCTION": "function",
    "OBJECT_PROCEDURE": "procedure",
    "OBJECT_ROUTINE": "routine",
    "OBJECT_TYPE": "type",
    "OBJECT_DOMAIN": "domain",
    "OBJECT_SCHEMA": "schema",
    "OBJECT_EXTENSION": "extension",
}
_MAKES = {
    "function": ("CreateFunctionStmt", "funcname"),
    "procedure": ("CreateFunctionStmt", "funcname"),
    "routine": ("CreateFunctionStmt", "funcname"),
    "type": ("CreateEnumStmt", "typeName"),
}
_LATER = "-- first release code that doesn't use it any more; then, in a later release:"


def drop(seen: Seen) -> Iterator[Finding]:
    """DROP of what the running release may use."""
    kind = seen.node["removeType"]
    cascade = seen.node.get("behavior") == "DROP_CASCADE"
    also = ", and so is all that depends on it, unnamed" if cascade else ""
    for one in seen.node["objects"]:
        names = _names(one)
        if kind in _RELATIONS:
            yield from _drop_relation(seen, _RELATIONS[kind], names, also)
        elif (
            kind in _OTHERS
            and not _made_again(seen, _OTHERS[kind], names)
            and not _is_unknown(seen, kind, names)
        ):
            yield seen.finding(
                "drop-object",
                f"the {_OTHERS[kind]} {tree.written(*names)} is gone for the running release{also}",
                f"{_LATER}\n{seen.statement.text};",
            )


def _drop_relation(seen: Seen, what: str, names: list[str], also: str) -> Iterator[Finding]:
    relation: Node = {"relname": names[-1], "relpersistence": "p"}
    if len(names) > 1:
        relation["schemaname"] = names[-2]
    found = seen.table(relation)
    if found is None or _relation_made_again(seen, what, names):
        return
    name = tree.written(*names)
    if what == "table":
        foreign = [one for one in found[1].constraints if one.kind == "f"] if found[1] else []
        locks = f"; dropping it locks {', '.join(one.refers_to for one in foreign)}, too" if foreign else ""
        first = "".join(f"ALTER TABLE {name} DROP CONSTRAINT {tree.quoted(one.name)};\n" for one in foreign)
        hint = f"-- each of these in a file of its own, before:\n{first}" if first else ""
        yield seen.finding(
            "drop-table",
            f"the running release still reads and writes {called(name, found[1])}: its queries fail from that moment "
            f"on{also}{locks}",
            f"{_LATER}\n{hint}{seen.statement.text};",
        )
    else:
        yield seen.finding(
            "drop-object",
            f"the {what} {name} is gone for the running release{also}",
            f"{_LATER}\n{seen.statement.text};",
        )


def rename(seen: Seen) -> Iterator[Finding]:
    """ALTER ... RENAME."""
    node = seen.node
    kind, new = node["renameType"], tree.quoted(node.get("newname", ""))
    relation = node.get("relation")
    if kind in ("OBJECT_COLUMN", "OBJECT_ATTRIBUTE") and relation is not None:
        found = seen.table(relation)
        if found is None or (found[0], node["subname"]) in seen.world.new_columns:
            return
        table, old = tree.relation_name(relation), tree.quoted(node["subname"])
        yield seen.finding(
            "rename-column",
            f"the running release calls it {tree.relation_name(relation)}.{old}: its queries fail from that moment on",
            f"ALTER TABLE {table} ADD COLUMN {new} <type of {old}>;\n"
            f"-- a trigger BEFORE INSERT OR UPDATE keeps both alike; fill {new} in batches; once no release uses the old:\n"
            f"ALTER TABLE {table} DROP COLUMN {old};",
        )
    elif kind in _RELATIONS and relation is not None:
        if seen.table(relation) is None or _moved_away(seen, relation):
            return
        old = tree.relation_name(relation)
        yield seen.finding(
            "rename-table",
            f"the running release calls it {old}: its queries fail from that moment on",
            f"{seen.statement.text};\n"
            f"-- in the same file, a view of the old name, which can be written to as well:\n"
            f"CREATE VIEW {old} WITH (security_invoker) AS SELECT * FROM "
            f"{tree.written(relation.get('schemaname'), node['newname'])};",
        )
    elif kind in ("OBJECT_SCHEMA", "OBJECT_TYPE", "OBJECT_FUNCTION", "OBJECT_PROCEDURE", "OBJECT_DOMAIN"):
        names = [node["subname"]] if kind == "OBJECT_SCHEMA" else _names(node.get("object", {}))
        if names and names[-1] in seen.world.new_types:
            return
        yield seen.finding(
            "rename-object",
            f"the running release calls it {tree.written(*names)}: its queries fail from that moment on",
            f"-- make one of the new name beside it; once no release uses the old one, drop that:\n{seen.statement.text};",
        )


def set_schema(seen: Seen) -> Iterator[Finding]:
    """ALTER ... SET SCHEMA."""
    relation = seen.node.get("relation")
    if relation is None or seen.table(relation) is None:
        return
    old = tree.relation_name(relation)
    yield seen.finding(
        "set-schema",
        f"the running release looks for {old} where it was: its queries fail from that moment on",
        f"{seen.statement.text};\n"
        "-- in the same file, a view where it was, which can be written to as well:\n"
        f"CREATE VIEW {old} WITH (security_invoker) AS SELECT * FROM "
        f"{tree.written(seen.node['newschema'], relation['relname'])};",
    )


def alter_enum(seen: Seen) -> Iterator[Finding]:
    """ALTER TYPE ADD VALUE, RENAME VALUE."""
    node = seen.node
    names = tree.strings(node["typeName"])
    if names[-1] in seen.world.new_types:
        return
    value = node["newVal"]
    if "oldVal" in node:
        yield seen.finding(
            "rename-object",
            f"the running release writes {node['oldVal']!r}, which {tree.written(*names)} doesn't know from that moment on",
            f"ALTER TYPE {tree.written(*names)} ADD VALUE '{value.replace(chr(39), chr(39) * 2)}';\n"
            "-- release code that reads both and writes the new one; then change the rows in batches",
        )
    elif seen.in_transaction and any(_uses(one, value) for _, one in seen.rest):
        yield seen.finding(
            "enum-value-used-at-once",
            f"{value!r} can't be used in the transaction that adds it: the file fails",
            f"-- in a file before:\n{seen.statement.text};",
        )


def create_function(seen: Seen) -> Iterator[Finding]:
    """CREATE OR REPLACE FUNCTION of what an index or a generated column has computed with."""
    facts = seen.world.facts
    name = tree.strings(seen.node["funcname"])[-1]
    known = facts.functions.get(name) if facts else None
    if not seen.node.get("replace") or known is None or not known.stored_in:
        return
    yield seen.finding(
        "replace-stored-function",
        f"{', '.join(known.stored_in)} holds what it computed before, and isn't computed anew: the two disagree",
        f"{seen.statement.text.split(chr(10), 1)[0]} ...;\n"
        + "\n".join(
            f"-- then, in a file of its own:\nREINDEX INDEX CONCURRENTLY {one};" for one in known.stored_in
        ),
    )


def grant(seen: Seen) -> Iterator[Finding]:
    """REVOKE on a table that is in use."""
    if seen.node.get("is_grant") or seen.node.get("objtype") != "OBJECT_TABLE":
        return
    for one in seen.node.get("objects", []):
        relation = one.get("RangeVar")
        if relation is not None and seen.table(relation) is not None:
            yield seen.finding(
                "revoke",
                f"whoever still needs it gets nothing from {tree.relation_name(relation)} from that moment on",
                f"-- once nobody needs it any more:\n{seen.statement.text};",
            )


def _names(node: Node) -> list[str]:
    """The parts of the name of an object, in whatever node it stands."""
    if "List" in node:
        return tree.strings(node["List"]["items"])
    if "String" in node:
        return [node["String"].get("sval", "")]
    if "TypeName" in node:
        return tree.strings(node["TypeName"]["names"])
    return tree.strings(node.get("ObjectWithArgs", {}).get("objname"))


def _made_again(seen: Seen, what: str, names: list[str]) -> bool:
    """Whether the same file makes one of that name again."""
    maker, key = _MAKES.get(what, ("", ""))
    return any(kind == maker and tree.strings(node.get(key))[-1:] == names[-1:] for kind, node in seen.rest)


def _relation_made_again(seen: Seen, what: str, names: list[str]) -> bool:
    if what == "table":
        return False
    made = [node["view"] for kind, node in seen.rest if kind == "ViewStmt"]
    made += [node["into"]["rel"] for kind, node in seen.rest if kind == "CreateTableAsStmt"]
    made += [node["sequence"] for kind, node in seen.rest if kind == "CreateSeqStmt"]
    return any(one["relname"] == names[-1] for one in made)


def _moved_away(seen: Seen, relation: Node) -> bool:
    """Whether the same file puts a view, or another table, in its place."""
    made = [node["view"] for kind, node in seen.rest if kind == "ViewStmt"]
    renamed = [
        node["newname"]
        for kind, node in seen.rest
        if kind == "RenameStmt" and node["renameType"] in _RELATIONS
    ]
    return relation["relname"] in [*(one["relname"] for one in made), *renamed]


def _is_unknown(seen: Seen, kind: str, names: list[str]) -> bool:
    """Whether there certainly is none, or only what the files made themselves."""
    facts = seen.world.facts
    if names[-1:] and names[-1] in seen.world.new_types:
        return True
    if facts is None:
        return False
    match _OTHERS[kind]:
        case "function" | "procedure" | "routine":
            return names[-1] not in facts.functions
        case "type" | "domain":
            return not any(one.name == names[-1] for one in facts.types)
        case "schema":
            return names[-1] not in facts.schemas
        case _:
            return False


def _uses(node: Node, value: str) -> bool:
    return any(
        kind == "A_Const" and one.get("sval", {}).get("sval") == value for kind, one in tree.walk({"": node})
    )
