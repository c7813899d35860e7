"""Whole tables at once: written anew, emptied, cut into partitions. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from migrator.hazards import tree
from migrator.hazards.finding import Finding
from migrator.hazards.seen import Seen, called
from migrator.hazards.tree import Node, quoted

_REWRITES = {
    "AT_SetUnLogged": "SET UNLOGGED",
    "AT_SetLogged": "SET LOGGED",
    "AT_SetTableSpace": "SET TABLESPACE",
    "AT_SetAccessMethod": "SET ACCESS METHOD",
}
_PG_REPACK = "-- pg_repack does the same beside the running app:"


def vacuum(seen: Seen) -> Iterator[Finding]:
    """VACUUM FULL."""
    options = [one.get("DefElem", {}) for one in seen.node.get("options", [])]
    if not any(one.get("defname") == "full" and not _is_off(one) for one in options):
        return
    named = [one["VacuumRelation"]["relation"] for one in seen.node.get("rels", [])]
    yield from _rewritten(seen, "VACUUM FULL", named)


def cluster(seen: Seen) -> Iterator[Finding]:
    """CLUSTER."""
    yield from _rewritten(seen, "CLUSTER", [seen.node["relation"]] if "relation" in seen.node else [])


def _rewritten(seen: Seen, what: str, named: list[Node]) -> Iterator[Finding]:
    if not named:
        yield seen.finding(
            "rewrite-table",
            f"{what} writes every table anew, one after the other, and nobody reads or writes it meanwhile",
            f"{_PG_REPACK}\n-- pg_repack --all",
        )
    for relation in named:
        used = seen.in_use(relation)
        if used is not None:
            yield seen.finding(
                "rewrite-table",
                f"{what} writes {used[1]} anew, and nobody reads or writes it meanwhile",
                f"{_PG_REPACK}\n-- pg_repack --table={tree.relation_name(relation)}\n"
                f"-- for statistics and room alone:\nVACUUM (ANALYZE) {tree.relation_name(relation)};",
            )


def change_storage(seen: Seen, command: Node) -> Iterator[Finding]:
    """ALTER TABLE SET LOGGED and its kind."""
    what = _REWRITES.get(command["subtype"])
    if what is None:
        return
    relation = seen.node["relation"]
    if seen.node.get("objtype") == "OBJECT_INDEX":
        index = seen.world.index(relation.get("schemaname"), relation["relname"])
        if seen.certain and (index is None or index.is_small):
            return
        size = called(tree.relation_name(relation), index)
    else:
        used = seen.in_use(relation)
        if used is None:
            return
        size = used[1]
    table = tree.relation_name(relation)
    option = f" --tablespace={command['name']}" if command["subtype"] == "AT_SetTableSpace" else ""
    yield seen.finding(
        "rewrite-table",
        f"{what} writes {size} anew, and nobody reads or writes it meanwhile",
        f"{_PG_REPACK}\n-- pg_repack --table={table}{option}"
        if "Logged" not in command["subtype"]
        else f"-- a new table, filled in batches and kept by a trigger, then exchanged by name:\n"
        f"CREATE{' UNLOGGED' if command['subtype'] == 'AT_SetUnLogged' else ''} TABLE {quoted(relation['relname'] + '_new')} "
        f"(LIKE {table} INCLUDING ALL);",
    )


def refresh(seen: Seen) -> Iterator[Finding]:
    """REFRESH MATERIALIZED VIEW."""
    if seen.node.get("concurrent") or seen.node.get("skipData"):
        return
    used = seen.in_use(seen.node["relation"])
    if used is None:
        return
    view = tree.relation_name(seen.node["relation"])
    found = seen.world.relation(used[0])
    unique = found is not None and any(
        one.unique and one.valid and "" not in one.columns for one in found.indexes
    )
    first = "" if unique else f"CREATE UNIQUE INDEX ON {view} (<key>);\n-- in the next file:\n"
    yield seen.finding(
        "refresh-materialized-view",
        f"{used[1]} is made anew, and nobody reads it meanwhile",
        f"{first}REFRESH MATERIALIZED VIEW CONCURRENTLY {view};",
    )


def truncate(seen: Seen) -> Iterator[Finding]:
    """TRUNCATE."""
    for one in seen.node["relations"]:
        relation = one["RangeVar"]
        found = seen.table(relation)
        if found is None or (found[1] is not None and found[1].is_empty):
            continue
        also = ""
        if seen.node.get("behavior") == "DROP_CASCADE":
            also = ", and so is every table that refers to it, however far"
        table = tree.relation_name(relation)
        yield seen.finding(
            "truncate",
            f"{called(table, found[1])} is emptied under the running release{also}",
            f"-- in transactions of their own, until it says DELETE 0:\n"
            f"DELETE FROM {table} WHERE ctid = ANY (ARRAY(SELECT ctid FROM {table} LIMIT 1000));",
        )


def partition_of(seen: Seen) -> Iterator[Finding]:
    """CREATE TABLE ... PARTITION OF."""
    if "partbound" not in seen.node or seen.node["partbound"].get("is_default"):
        return
    parent = seen.node["inhRelations"][0]["RangeVar"]
    found = seen.table(parent)
    if found is None:
        return
    name, above = tree.relation_name(seen.node["relation"]), tree.relation_name(parent)
    why = f"nobody reads or writes {above} until the transaction ends"
    if found[1] is not None and found[1].default_bytes:
        why = f"the default partition of {above} is read whole for rows that belong here, and {why}"
    bound = seen.statement.text[seen.statement.text.lower().find("for values") :]
    yield seen.finding(
        "create-partition",
        why,
        f"CREATE TABLE {name} (LIKE {above} INCLUDING ALL);\n-- in the next file:\n"
        f"ALTER TABLE {above} ATTACH PARTITION {name} {bound};",
    )


def attach(seen: Seen, command: Node) -> Iterator[Finding]:
    """ATTACH PARTITION reads the table, unless a valid CHECK says that all of it fits."""
    parent, child = seen.node["relation"], command["def"]["PartitionCmd"]["name"]
    if seen.node.get("objtype") == "OBJECT_INDEX":
        return
    above = seen.table(parent)
    if above is None:
        return
    used = seen.in_use(child)
    wholly = command["def"]["PartitionCmd"].get("bound", {}).get("is_default")
    default = above[1].default_bytes if above[1] else None
    name = tree.relation_name(child)
    if used is not None and not any(one.kind == "c" and one.valid for one in seen.world.constraints(used[0])):
        check = quoted(f"{child['relname']}_fits")
        yield seen.finding(
            "attach-partition",
            f"all of {used[1]} is read to see that it fits, and nobody reads or writes it meanwhile",
            f"ALTER TABLE {name} ADD CONSTRAINT {check} CHECK (<the bounds, and IS NOT NULL>) NOT VALID;\n"
            f"-- in the next file:\nALTER TABLE {name} VALIDATE CONSTRAINT {check};\n"
            f"-- in the next file:\n{seen.statement.text};\nALTER TABLE {name} DROP CONSTRAINT {check};",
        )
    elif default and not wholly:
        yield seen.finding(
            "attach-partition",
            f"the default partition of {tree.relation_name(parent)} is read whole for rows that belong into {name}, "
            "and nobody reads or writes it meanwhile",
            f"-- a valid CHECK on the default partition that says that no row of it belongs into {name}; then:\n"
            f"{seen.statement.text};",
        )


def detach(seen: Seen, command: Node) -> Iterator[Finding]:
    """DETACH PARTITION."""
    found = seen.table(seen.node["relation"])
    if found is None or command["def"]["PartitionCmd"].get("concurrent"):
        return
    if seen.world.facts is not None and (
        seen.world.facts.server_version < 140000 or (found[1] and found[1].default_bytes is not None)
    ):
        return  # there is no other way
    yield seen.finding(
        "detach-partition",
        f"nobody reads or writes {called(tree.relation_name(seen.node['relation']), found[1])} until the transaction "
        "ends",
        f"-- in a file of its own:\n{seen.statement.text} CONCURRENTLY;",
    )


def _is_off(option: Node) -> bool:
    argument = option.get("arg", {})
    value = str(argument.get("String", {}).get("sval", argument.get("Integer", {}).get("ival", "on"))).lower()
    return value in ("off", "false", "0", "no") or argument.get("Integer") == {}
