"""How many rows a WHERE lets through, at the most, by what the statistics say. Pure.

Not what the planner would guess: where nothing is known, a comparison with a value is taken to find few rows, and
anything else to find all.
"""

from __future__ import annotations

from typing import Any

from migrator.hazards import tree
from migrator.hazards.facts import Relation
from migrator.hazards.tree import Node

_ALL, _FEW = 1.0, 0.0
_MATCHES = frozenset({"@>", "<@", "&&", "@@", "~~", "~~*", "~", "~*", "?"})
_LESS, _MORE = frozenset({"<", "<="}), frozenset({">", ">="})


def of_where(where: Node | None, relation: Relation | None) -> float:
    """The share of the table's rows, from 0 to 1."""
    if where is None:
        return _ALL
    conditions = _parts(where, "AND_EXPR")
    below = {column for one in conditions for column in _bounded(one, _LESS)}
    above = {column for one in conditions for column in _bounded(one, _MORE)}
    if below & above:
        return _FEW
    return min(_of_condition(one, relation) for one in conditions)


def is_plainly_all(where: Node | None) -> bool:
    """Whether it is all of the table, or a backfill's usual `IS NULL`, for all that the text shows."""
    return where is None or all("NullTest" in one or "A_Const" in one for one in _parts(where, "AND_EXPR"))


def _of_condition(condition: Node, relation: Relation | None) -> float:
    if "A_Expr" in condition:
        return _of_comparison(condition["A_Expr"], relation)
    if "NullTest" in condition:
        test = condition["NullTest"]
        column = _column(test.get("arg"))
        known = relation.columns.get(column) if relation and column else None
        if known is None or known.null_share is None:
            return _ALL  # also of a column that the files add
        return known.null_share if test["nulltesttype"] == "IS_NULL" else 1 - known.null_share
    if "SubLink" in condition:
        inner = condition["SubLink"].get("subselect", {}).get("SelectStmt", {})
        return _FEW if "limitCount" in inner or "valuesLists" in inner else _ALL
    if condition.get("BoolExpr", {}).get("boolop") == "OR_EXPR":
        return min(_ALL, sum(_of_condition(one, relation) for one in condition["BoolExpr"]["args"]))
    if condition.get("BoolExpr", {}).get("boolop") == "AND_EXPR":
        return of_where(condition, relation)
    return _FEW if "CurrentOfExpr" in condition else _ALL


def _of_comparison(one: Node, relation: Relation | None) -> float:
    operator = (tree.strings(one.get("name")) or [""])[-1]
    left, right = one.get("lexpr"), one.get("rexpr")
    # With a column on both sides it is a join: each row may have its partner.
    if _has_column(left) == _has_column(right):
        return _ALL
    if one["kind"] in ("AEXPR_BETWEEN", "AEXPR_BETWEEN_SYM"):
        return _FEW
    if one["kind"] in ("AEXPR_IN", "AEXPR_OP_ANY", "AEXPR_OP") and operator == "=":
        column = _column(left) or _column(right)
        known = relation.columns.get(column) if relation and column else None
        items = right.get("List", {}).get("items", [None]) if isinstance(right, dict) else [None]
        top = known.top_share if known is not None else None
        return min(_ALL, len(items) * top) if top is not None else _FEW
    return _FEW if operator in _MATCHES else _ALL


def _bounded(condition: Node, operators: frozenset[str]) -> list[str]:
    """The column that a comparison bounds from that side."""
    one = condition.get("A_Expr", {})
    operator = (tree.strings(one.get("name")) or [""])[-1]
    left, right = _column(one.get("lexpr")), _column(one.get("rexpr"))
    if operator in operators and left and not _has_column(one.get("rexpr")):
        return [left]
    turned = _MORE if operators is _LESS else _LESS
    return [right] if operator in turned and right and not _has_column(one.get("lexpr")) else []


def _parts(where: Node, operator: str) -> list[Node]:
    joined = where.get("BoolExpr", {})
    return list(joined["args"]) if joined.get("boolop") == operator else [where]


def _column(node: Any) -> str | None:
    fields = node.get("ColumnRef", {}).get("fields") if isinstance(node, dict) else None
    names = tree.strings(fields)
    return names[-1] if names else None


def _has_column(node: Any) -> bool:
    """Whether a column of the statement's own is in it; those of a query within it count for themselves."""
    if isinstance(node, list):
        return any(map(_has_column, node))
    if not isinstance(node, dict):
        return False
    return "ColumnRef" in node or any(_has_column(one) for key, one in node.items() if key != "SubLink")
