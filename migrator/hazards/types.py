"""Which changes of a column's type leave the table as it is on disk. Pure.

Each was measured (tests/integration/test_hazards.py): the file on disk stays the same, and nothing is scanned.
"""

from __future__ import annotations

from collections.abc import Sequence

from migrator.hazards.facts import Column

_HEADER = 4  # what varchar and numeric add to their modifiers in pg_attribute
_ALIASES = {"decimal": "numeric", "int": "int4", "integer": "int4", "bigint": "int8", "smallint": "int2"}
_WITH_PRECISION = frozenset({"timestamp", "timestamptz", "time", "timetz"})
_STAMPS = frozenset({"timestamp", "timestamptz"})


def same_on_disk(
    column: Column, name: str, modifiers: Sequence[int], *, timezone: str, indexed: bool
) -> bool:
    """Whether the column can be given a type without a rewrite, a scan or a new index.

    Args:
        column: As it is.
        name: The new type's.
        modifiers: As they are written: 10 and 2 of numeric(10,2).
        timezone: The session's.
        indexed: Some index holds the column.
    """
    old, new = column.type_name, _ALIASES.get(name, name)
    match old, new:
        case ("varchar", "varchar"):
            length = _length(column.typmod)
            return not modifiers or (length is not None and modifiers[0] >= length)
        case ("varchar", "text"):
            return True
        case ("text", "varchar"):
            return not modifiers
        case ("text", "text") | ("cidr", "inet"):
            return True
        case ("numeric", "numeric"):
            return _wider_numeric(column.typmod, modifiers)
        case ("varbit", "varbit"):
            return not modifiers or (column.typmod >= 0 and modifiers[0] >= column.typmod)
        case _ if old == new and old in _WITH_PRECISION:
            # 6 is what there is without.
            return (modifiers[0] if modifiers else 6) >= (column.typmod if column.typmod >= 0 else 6)
        case _ if {old, new} == _STAMPS:
            is_utc = timezone.upper() in ("UTC", "ETC/UTC", "GMT", "ETC/GMT", "UCT", "ZULU")
            return is_utc and not modifiers and column.typmod < 0 and not indexed
        case _:
            return old == new and not modifiers and column.typmod < 0


def _length(typmod: int) -> int | None:
    return typmod - _HEADER if typmod >= _HEADER else None


def _wider_numeric(typmod: int, modifiers: Sequence[int]) -> bool:
    if not modifiers:
        return True
    if typmod < _HEADER:
        return False
    precision, scale = (typmod - _HEADER) >> 16 & 0xFFFF, (typmod - _HEADER) & 0x7FF
    return modifiers[0] >= precision and (modifiers[1] if len(modifiers) > 1 else 0) == scale
