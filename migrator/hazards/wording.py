"""SQL that several rules propose. Pure."""

from __future__ import annotations


def batches(table: str, assignment: str, condition: str) -> str:
    """Filling a column of a table that is in use."""
    return (
        "-- then, in transactions of their own, until it says UPDATE 0:\n"
        f"UPDATE {table} SET {assignment}\n"
        f" WHERE ctid = ANY (ARRAY(SELECT ctid FROM {table} WHERE {condition} LIMIT 1000 FOR UPDATE SKIP LOCKED));"
    )


def short(name: str) -> str:
    """A name that PostgreSQL doesn't cut."""
    return name if len(name.encode()) <= 63 else name.encode()[:63].decode("utf-8", "ignore")
