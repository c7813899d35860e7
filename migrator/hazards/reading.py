"""The facts, read from the catalogs in one query, or two if somebody locks a table just then."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from migrator import sql
from migrator.hazards.facts import Column, Constraint, Facts, Function, Index, Relation, Type
from migrator.hazards.world import not_null_numbers
from migrator.transport import DatabaseError, Row, Transport

_LOCK_TIMEOUT = "55P03"


async def read(transport: Transport, names: Iterable[str]) -> Facts:
    """What the database knows of these names.

    Raises:
        DatabaseError: It doesn't let us ask.
        Unavailable: The connection is gone.
    """
    piece = sql.pieces("hazards.sql")["facts"]
    wanted = json.dumps(sorted(names))
    try:
        rows = await transport.fetch(piece.query(""), wanted, True)
    except DatabaseError as error:
        if error.sqlstate != _LOCK_TIMEOUT:
            raise
        rows = await transport.fetch(piece.query(""), wanted, False)
    return _facts(rows[0])


def _facts(row: Row) -> Facts:
    relations: list[dict[str, Any]] = json.loads(row["relations"])
    sizes = {one["oid"]: one["size_bytes"] for one in relations}
    return Facts(
        server_version=row["server_version"],
        timezone=row["timezone"],
        default_schema=row["default_schema"],
        has_api_roles=row["has_api_roles"],
        schemas=frozenset(json.loads(row["schemas"])),
        types=tuple(Type(**one) for one in json.loads(row["types"])),
        functions={
            one["name"]: Function(
                name=one["name"], volatility=one["volatility"], stored_in=tuple(one["stored_in"])
            )
            for one in json.loads(row["functions"])
        },
        relations=tuple(_relation(one, sizes) for one in relations),
    )


def _relation(one: dict[str, Any], sizes: dict[str, int | None]) -> Relation:
    statistics: dict[str, list[float | None]] = one["statistics"] or {}
    columns = {
        int(column["number"]): Column(
            name=column["name"],
            type_name=column["type"],
            typmod=column["typmod"],
            not_null=column["not_null"],
            has_default=column["default"],
            null_share=statistics.get(column["name"], [None])[0],
            top_share=_top_share(statistics.get(column["name"]), one["rows"]),
        )
        for column in one["columns"] or ()
    }

    def named(numbers: Iterable[int] | None) -> tuple[str, ...]:
        return tuple(columns[number].name if number in columns else "" for number in numbers or ())

    return Relation(
        schema=one["schema"],
        name=one["name"],
        kind=one["kind"],
        visible=one["visible"],
        size_bytes=one["size_bytes"],
        heap_bytes=one["heap_bytes"],
        rows=one["rows"],
        row_security=one["row_security"],
        policies=one["policies"],
        default_bytes=sizes.get(one["default_of"]) if one["default_of"] not in (None, "0") else None,
        index_of=tuple(one["index_of"]) if one["index_of"] else None,
        columns={column.name: column for column in columns.values()},
        constraints=tuple(
            Constraint(
                name=constraint["name"],
                kind=constraint["kind"],
                columns=named(constraint["columns"]),
                valid=constraint["valid"],
                not_null=named(not_null_numbers(constraint["test"] or "")),
                refers_to=constraint["refers_to"] or "",
            )
            for constraint in one["constraints"] or ()
        ),
        indexes=tuple(
            Index(
                name=index["name"],
                columns=named(index["columns"]),
                involved=named(index["involved"]),
                plain=index["plain"],
                valid=index["valid"],
                unique=index["unique"],
            )
            for index in one["indexes"] or ()
        ),
    )


def _top_share(statistics: list[float | None] | None, rows: int | None) -> float | None:
    """Of the most frequent value; where none is frequent, all are taken to be alike."""
    if statistics is None:
        return None
    _, top, distinct = statistics
    if top is not None or not distinct:
        return top
    values = distinct if distinct > 0 else -distinct * (rows or 1)
    return min(1.0, 1 / max(values, 1))
