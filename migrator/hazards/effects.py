"""What a statement changes for those after it. Pure."""

from __future__ import annotations

from migrator.hazards import tree
from migrator.hazards.constraints import free_name
from migrator.hazards.facts import Constraint
from migrator.hazards.seen import Seen
from migrator.hazards.tree import Node
from migrator.hazards.world import World, not_null_columns

_TABLES = frozenset(
    {"OBJECT_TABLE", "OBJECT_VIEW", "OBJECT_MATVIEW", "OBJECT_SEQUENCE", "OBJECT_FOREIGN_TABLE"}
)
# ALTER TABLE under a lock that lets readers and writers pass.
_WEAK = frozenset(
    "AT_ValidateConstraint AT_SetStatistics AT_SetOptions AT_ResetOptions AT_SetRelOptions AT_ResetRelOptions "
    "AT_ClusterOn AT_DropCluster AT_AttachPartition AT_DetachPartition".split()
)
_WEAKER = frozenset({"CONSTR_FOREIGN"})


def take(seen: Seen) -> None:
    """Let the world know."""
    node, world = seen.node, seen.world
    match seen.kind:
        case "CreateStmt":
            world.create(node["relation"], unless_there=bool(node.get("if_not_exists")))
        case "CreateTableAsStmt":
            world.create(node["into"]["rel"], unless_there=bool(node.get("if_not_exists")))
        case "CreateForeignTableStmt":
            world.create(node["base"]["relation"])
        case "ViewStmt" if not node.get("replace"):
            world.create(node["view"])
        case "CreateSeqStmt":
            world.create(node["sequence"], unless_there=bool(node.get("if_not_exists")))
        case "IndexStmt" if node.get("idxname"):
            world.new.add((world.key(node["relation"])[0], node["idxname"]))
        case "CreateEnumStmt":
            world.new_types.add(tree.strings(node["typeName"])[-1])
        case "CreateDomainStmt":
            world.new_types.add(tree.strings(node["domainname"])[-1])
        case "CompositeTypeStmt":
            world.new_types.add(node["typevar"]["relname"])
        case "CreateFunctionStmt" if not node.get("replace"):
            world.new_types.add(tree.strings(node["funcname"])[-1])
        case "CreatePolicyStmt":
            world.policies.add(world.key(node["table"]))
        case "AlterTableStmt":
            _altered(seen)
        case "DropStmt" if node["removeType"] in _TABLES:
            _dropped(seen)
        case "RenameStmt" if node["renameType"] in _TABLES and "relation" in node:
            _lock(seen, node["relation"])
            key = world.key(node["relation"])
            world.rename(key, (key[0], node["newname"]))
        case "RenameStmt" | "RefreshMatViewStmt" | "CreatePolicyStmt" if "relation" in node:
            _lock(seen, node["relation"])
        case "TruncateStmt":
            for one in node["relations"]:
                _lock(seen, one["RangeVar"])
        case "VariableSetStmt" if node.get("name") == "search_path":
            world.set_path(node)
        case "SelectStmt":
            _configured(world, node)
        case _:
            pass


def take_perhaps(seen: Seen) -> None:
    """The same of a statement that may or may not be run: what was there stays there."""
    match seen.kind:
        case "CreateStmt":
            seen.world.create(seen.node["relation"], unless_there=True)
        case "CreateTableAsStmt":
            seen.world.create(seen.node["into"]["rel"], unless_there=True)
        case "AlterTableStmt":
            _altered(seen)
        case _:
            pass


def _altered(seen: Seen) -> None:
    node, world = seen.node, seen.world
    relation = node["relation"]
    key = world.key(relation)
    strong = False
    for one in node["cmds"]:
        command = one["AlterTableCmd"]
        subtype = command["subtype"]
        constraint: Node = (
            command.get("def", {}).get("Constraint", {}) if isinstance(command.get("def"), dict) else {}
        )
        weaker = subtype == "AT_AddConstraint" and constraint.get("contype") in _WEAKER
        strong = strong or not (subtype in _WEAK or weaker)
        match subtype:
            case "AT_AddColumn":
                world.new_columns.add((key, command["def"]["ColumnDef"]["colname"]))
            case "AT_AddConstraint" if constraint.get("contype") in (
                "CONSTR_CHECK",
                "CONSTR_NOTNULL",
                "CONSTR_FOREIGN",
            ):
                name = free_name(seen, constraint)
                valid = not constraint.get("skip_validation")
                says = not_null_columns(constraint.get("raw_expr", {}))
                if constraint["contype"] == "CONSTR_NOTNULL":
                    says = tuple(tree.strings(constraint["keys"]))
                added = Constraint(
                    name=name, kind=constraint["contype"][7].lower(), valid=valid, not_null=says
                )
                world.add_constraint(key, added)
                if not valid:
                    world.unvalidated[key, name] = seen.line
            case "AT_ValidateConstraint":
                world.validate(key, command["name"])
            case "AT_SetNotNull":
                proven = Constraint(name="", kind="n", not_null=(command["name"],))
                world.add_constraint(key, proven)
            case _:
                pass
    if strong:
        _lock(seen, relation)


def _dropped(seen: Seen) -> None:
    for one in seen.node["objects"]:
        names = tree.strings(one["List"]["items"])
        key = seen.world.key_of(names[-2] if len(names) > 1 else None, names[-1])
        if not seen.world.is_new(key):
            seen.world.strong_locks.setdefault(tree.written(*names), seen.line)
        seen.world.drop(key)


def _lock(seen: Seen, relation: Node) -> None:
    """The table is the transaction's alone until it ends."""
    if not seen.world.is_new(seen.world.key(relation)):
        seen.world.strong_locks.setdefault(tree.relation_name(relation), seen.line)


def _configured(world: World, node: Node) -> None:
    """SELECT set_config('search_path', ...), as every dump has it."""
    for kind, call in tree.walk(node):
        if kind == "FuncCall" and tree.strings(call["funcname"])[-1] == "set_config":
            values = [one.get("A_Const", {}).get("sval", {}).get("sval", "") for one in call.get("args", [])]
            if values[0] == "search_path":
                world.path = tuple(part.strip().strip('"') for part in values[1].split(",")) or ("",)
