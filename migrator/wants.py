"""Which locks a file will ask for, as far as its statements tell. Pure.

What the catalogs must add (the parents of a foreign key, partitions, the table of an index) is added by the
query `look` of queries.sql.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import Any

from msgspec import Struct

from migrator.sql import identifier

Node = dict[str, Any]


class Mode(IntEnum):
    """PostgreSQL's table locks (manual, 13.3.1), each with its number in the server."""

    ACCESS_SHARE = 1
    ROW_SHARE = 2
    ROW_EXCLUSIVE = 3
    SHARE_UPDATE_EXCLUSIVE = 4
    SHARE = 5
    SHARE_ROW_EXCLUSIVE = 6
    EXCLUSIVE = 7
    ACCESS_EXCLUSIVE = 8

    @property
    def sql(self) -> str:
        """As LOCK TABLE wants it."""
        return self.name.replace("_", " ").lower()


class Want(Struct, frozen=True, kw_only=True):
    """A lock that will be asked for.

    Attributes:
        name: The relation as SQL writes it; of `schema` a schema, of `domain` a domain.
        mode: How strong.
        kind: `relation`: that; `index`: with its table; `drop` and `truncate`: with those that foreign keys
            join to it; `column` and `constraint`: with the other end of the foreign key `part`;
            `partitioned`: with its default partition; `domain`: the tables that use it; `schema`: all in it.
        part: See `kind`.
        only: Not its partitions and children.
    """

    name: str
    mode: Mode
    kind: str = "relation"
    part: str = ""
    only: bool = False


# What these do is done without a lock in anybody's way, or with none that lasts.
_NEVER = re.compile(
    r"(insert|update|delete|select|with|values|grant|revoke|set|reset|begin|commit|start|end|savepoint|copy"
    r"|show|notify|listen|prepare|execute|merge|call|do|explain|create\s+(extension|schema|type|function|role"
    r"|sequence|domain|or\s+replace\s+function))\b",
    re.IGNORECASE,
)
_WEAKER = {
    Mode.SHARE_ROW_EXCLUSIVE: re.compile(r"AT_(Enable|Disable)\w*Trig\w*"),
    Mode.SHARE_UPDATE_EXCLUSIVE: re.compile(
        r"AT_(SetStatistics|ClusterOn|DropCluster|SetOptions|ResetOptions|ValidateConstraint|AttachPartition"
        r"|SetRelOptions|ResetRelOptions)"
    ),
}
_RELATIONS = frozenset(
    {"OBJECT_TABLE", "OBJECT_VIEW", "OBJECT_MATVIEW", "OBJECT_SEQUENCE", "OBJECT_FOREIGN_TABLE"}
)
_OF_TABLES = frozenset({"OBJECT_TRIGGER", "OBJECT_POLICY", "OBJECT_RULE"})


# Where none of these occurs, there is no lock that anybody could mind.
_WORTH_A_LOOK = re.compile(
    r"\b(alter|drop|index|references|inherits|partition|trigger|policy|rule|truncate|lock|vacuum|analyze|cluster"
    r"|reindex|refresh|view|comment|statistics)\b",
    re.IGNORECASE,
)
# What may wait for rows that the app has changed. In itself that holds up nobody but who wants those rows.
_DATA_ONLY = re.compile(
    r"(insert|update|delete|merge|with|select|values|copy|set|reset|analyze)\b", re.IGNORECASE
)
# What may lock anything, without a word of it: it runs code that we don't see. Dumps set and count up a lot.
_MAY_RUN_CODE = re.compile(
    r"(call\b|execute\b|select\b(?=[^(]*\()(?!\s+(pg_catalog\s*\.\s*)?(set_config|setval)\s*\()"
    r"|do\b(?=.*\b(perform|execute|call)\b))",
    re.IGNORECASE | re.DOTALL,
)
_MENTIONS_CODE = re.compile(r"\b(call|execute|perform)\b|\bselect\b[^;(]*\(", re.IGNORECASE)


def is_worth_a_look(text: str) -> bool:
    """Whether a file may hold a statement that `may_lock`: cheap."""
    return _WORTH_A_LOOK.search(text) is not None


def is_data_only(texts: Iterable[str]) -> bool:
    """Whether statements only read and change rows, for all that can be told."""
    return all(_DATA_ONLY.match(text) and not may_run_code(text) for text in texts)


def may_run_code(text: str) -> bool:
    """Whether a statement may call somebody's function that locks whatever it likes."""
    return _MAY_RUN_CODE.match(text) is not None


def mentions_code(text: str) -> bool:
    """Whether a file may hold a statement that `may_run_code`: cheap."""
    return _MENTIONS_CODE.search(text) is not None


def may_lock(text: str) -> bool:
    """Whether a statement is worth parsing: cheap, and wrong only for those who do it in disguise."""
    return not _NEVER.match(text)


def of(trees: Iterable[Node], made: set[str]) -> list[Want]:
    """The locks that statements will ask for, in order, the strongest of each kind only.

    Args:
        trees: The parse trees of the statements.
        made: The relations that were made before, as SQL writes them: nobody uses those yet. Those that the
            statements make are added.
    """
    found: dict[tuple[str, str, str], Want] = {}
    for tree in trees:
        for want in _of_statement(tree):
            if want.name in made:
                continue
            key = (want.kind, want.name, want.part)
            if key not in found or found[key].mode < want.mode:
                found[key] = want
        made.update(_made(tree))
    return list(found.values())


def name_of(relation: Node | None) -> str:
    """A RangeVar as SQL writes it; empty if there is none."""
    if not relation or not relation.get("relname"):
        return ""
    names = [relation[key] for key in ("schemaname", "relname") if relation.get(key)]
    return ".".join(map(identifier, names))


def _made(tree: Node) -> Iterator[str]:
    match tree:
        case {"CreateStmt": node} | {"CreateForeignTableStmt": {"base": node}}:
            if not node.get("if_not_exists") and _lasts(node.get("relation")):
                yield name_of(node.get("relation"))
        case {"CreateTableAsStmt": {"into": {"rel": relation}} as node} if not node.get(
            "if_not_exists"
        ) and _lasts(relation):
            yield name_of(relation)
        case {"ViewStmt": node} if not node.get("replace"):
            yield name_of(node.get("view"))


def _lasts(relation: Node | None) -> bool:
    """Whether it isn't a temporary table, behind which there may be one of that name in use."""
    return (relation or {}).get("relpersistence") != "t"


def _of_statement(tree: Node) -> Iterator[Want]:  # noqa: PLR0915 - a table
    """What one statement asks for."""
    match tree:
        case {"AlterTableStmt": node}:
            yield from _of_alter_table(node)
        case {"IndexStmt": node} if not node.get("concurrent"):
            yield from _relation(node.get("relation"), Mode.SHARE)
        case {"CreateStmt": node}:
            yield from _of_create_table(node)
        case {"DropStmt": node} if not node.get("concurrent"):
            yield from _of_drop(node)
        case {"RenameStmt": node}:
            mode = Mode.ACCESS_EXCLUSIVE
            if node.get("renameType") == "OBJECT_INDEX":
                mode = Mode.SHARE_UPDATE_EXCLUSIVE
            yield from _relation(node.get("relation"), mode)
        case {"AlterObjectSchemaStmt": node}:
            yield from _relation(node.get("relation"), Mode.ACCESS_EXCLUSIVE)
        case {"CreateTrigStmt": node}:
            yield from _relation(node.get("relation"), Mode.SHARE_ROW_EXCLUSIVE)
            yield from _relation(node.get("constrrel"), Mode.SHARE_ROW_EXCLUSIVE)
        case {"CreatePolicyStmt": {"table": relation}} | {"AlterPolicyStmt": {"table": relation}}:
            yield from _relation(relation, Mode.ACCESS_EXCLUSIVE)
        case {"RuleStmt": node}:
            yield from _relation(node.get("relation"), Mode.ACCESS_EXCLUSIVE)
        case {"TruncateStmt": node}:
            cascade = node.get("behavior") == "DROP_CASCADE"
            for relation in node.get("relations", []):
                kind = "truncate" if cascade else "relation"
                yield from _relation(relation.get("RangeVar"), Mode.ACCESS_EXCLUSIVE, kind)
        case {"LockStmt": node}:
            for relation in node.get("relations", []):
                yield from _relation(relation.get("RangeVar"), Mode(node.get("mode", 8)))
        case {"VacuumStmt": node}:
            full = any(_option(option) == "full" for option in node.get("options", []))
            mode = Mode.ACCESS_EXCLUSIVE if full else Mode.SHARE_UPDATE_EXCLUSIVE
            for relation in node.get("rels", []):
                yield from _relation(relation.get("VacuumRelation", {}).get("relation"), mode)
        case {"ClusterStmt": node} | {"RepackStmt": node}:
            yield from _relation(node.get("relation"), Mode.ACCESS_EXCLUSIVE)
        case {"ReindexStmt": node} if not any(
            _option(option) == "concurrently" for option in node.get("params", [])
        ):
            kind = "index" if node.get("kind") == "REINDEX_OBJECT_INDEX" else "relation"
            # Of the table only SHARE, but of its indexes, which every query opens, all.
            yield from _relation(node.get("relation"), Mode.ACCESS_EXCLUSIVE, kind)
        case {"RefreshMatViewStmt": node}:
            mode = Mode.EXCLUSIVE if node.get("concurrent") else Mode.ACCESS_EXCLUSIVE
            yield from _relation(node.get("relation"), mode)
        case {"ViewStmt": node} if node.get("replace"):
            yield from _relation(node.get("view"), Mode.ACCESS_EXCLUSIVE)
        case {"CommentStmt": {"objtype": "OBJECT_TABLE" | "OBJECT_VIEW", "object": {"List": one}}}:
            yield Want(name=_dotted(one), mode=Mode.SHARE_UPDATE_EXCLUSIVE)
        case {"CommentStmt": {"objtype": "OBJECT_COLUMN", "object": {"List": one}}}:
            yield Want(name=_dotted(one, 1), mode=Mode.SHARE_UPDATE_EXCLUSIVE)
        case {"CreateStatsStmt": node}:
            for relation in node.get("relations", []):
                yield from _relation(relation.get("RangeVar"), Mode.SHARE_UPDATE_EXCLUSIVE)
        case {"AlterDomainStmt": {"subtype": "C" | "V" | "O", "typeName": names}}:
            yield Want(name=_dotted({"items": names}), mode=Mode.SHARE, kind="domain")
        case {"AlterSeqStmt": node}:
            yield from _relation(node.get("sequence"), Mode.SHARE_ROW_EXCLUSIVE)
        case _:
            return


def _relation(relation: Node | None, mode: Mode, kind: str = "relation", part: str = "") -> Iterator[Want]:
    name = name_of(relation)
    if relation and name:
        yield Want(name=name, mode=mode, kind=kind, part=part, only=not relation.get("inh"))


def _of_alter_table(node: Node) -> Iterator[Want]:
    relation = node.get("relation")
    kind = "index" if node.get("objtype") == "OBJECT_INDEX" else "relation"
    for change in node.get("cmds", []):
        command = change.get("AlterTableCmd", {})
        subtype, definition = command.get("subtype", ""), command.get("def", {})
        mode = next(
            (mode for mode, names in _WEAKER.items() if names.fullmatch(subtype)), Mode.ACCESS_EXCLUSIVE
        )
        match subtype, definition:
            case "AT_AddConstraint", {"Constraint": {"contype": "CONSTR_FOREIGN"} as constraint}:
                mode = Mode.SHARE_ROW_EXCLUSIVE
                yield from _relation(constraint.get("pktable"), mode)
            case "AT_AddColumn", {"ColumnDef": column}:
                yield from _referenced(column)
            case "AT_DropConstraint", _:
                yield from _relation(relation, mode, "constraint", command.get("name", ""))
            case "AT_DropColumn", _:
                yield from _relation(relation, mode, "column", command.get("name", ""))
            case (("AT_AttachPartition" | "AT_DetachPartition"), {"PartitionCmd": partition}):
                if partition.get("concurrent"):
                    return
                yield from _relation(partition.get("name"), Mode.ACCESS_EXCLUSIVE)
                kind = "partitioned"
            case _:
                pass
        yield from _relation(relation, mode, kind)


def _of_create_table(node: Node) -> Iterator[Want]:
    """A new table is in nobody's way, but those that it refers to are in use."""
    mode, kind = Mode.SHARE_UPDATE_EXCLUSIVE, "relation"
    if node.get("partbound"):
        mode, kind = Mode.ACCESS_EXCLUSIVE, "partitioned"
    for parent in node.get("inhRelations", []):
        if name := name_of(parent.get("RangeVar")):
            yield Want(name=name, mode=mode, kind=kind, only=True)
    for element in node.get("tableElts", []):
        match element:
            case {"ColumnDef": column}:
                yield from _referenced(column)
            case {"Constraint": {"contype": "CONSTR_FOREIGN"} as constraint}:
                yield from _relation(constraint.get("pktable"), Mode.SHARE_ROW_EXCLUSIVE)
            case _:
                pass


def _referenced(column: Node) -> Iterator[Want]:
    for element in column.get("constraints", []):
        constraint = element.get("Constraint", {})
        if constraint.get("contype") == "CONSTR_FOREIGN":
            yield from _relation(constraint.get("pktable"), Mode.SHARE_ROW_EXCLUSIVE)


def _of_drop(node: Node) -> Iterator[Want]:
    what = node.get("removeType")
    for one in node.get("objects", []):
        match one:
            case {"List": names} if what in _RELATIONS:
                yield Want(name=_dotted(names), mode=Mode.ACCESS_EXCLUSIVE, kind="drop")
            case {"List": names} if what == "OBJECT_INDEX":
                yield Want(name=_dotted(names), mode=Mode.ACCESS_EXCLUSIVE, kind="index")
            case {"List": names} if what in _OF_TABLES:
                yield Want(name=_dotted(names, 1), mode=Mode.ACCESS_EXCLUSIVE)
            case {"String": {"sval": name}} if (
                what == "OBJECT_SCHEMA" and node.get("behavior") == "DROP_CASCADE"
            ):
                yield Want(name=identifier(name), mode=Mode.ACCESS_EXCLUSIVE, kind="schema")
            case _:
                pass


def _dotted(names: Node, without_last: int = 0) -> str:
    """A list of names as SQL writes it, without the last ones."""
    parts = [one.get("String", {}).get("sval", "") for one in names.get("items", [])]
    return ".".join(map(identifier, parts[: len(parts) - without_last]))


def _option(option: Node) -> str:
    name = option.get("DefElem", {}).get("defname", "")
    return str(name)
