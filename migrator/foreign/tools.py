"""The tables of other migration tools: how to tell them apart, and what their rows say. Pure.

Five tools call theirs schema_migrations: it is the columns that tell.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from msgspec import Struct

Row = Mapping[str, Any]
# Drizzle's journal: the file's name without `.sql`, by the time that its table has.
Journal = Mapping[int, str]

_NUMBERED = re.compile(r"(\d+)(?:[-_](.*))?", re.DOTALL)
_EXTENSION = re.compile(r"\.(?:up\.)?(?:sql|[cm]?[jt]s)$")


class State(StrEnum):
    """What a row says of a migration."""

    APPLIED = "applied"
    # Begun, and neither brought to its end nor undone.
    FAILED = "failed"
    # Undone, or no migration at all.
    NOT_APPLIED = "not applied"


class Entry(Struct, frozen=True, kw_only=True):
    """What another tool's history says of one migration.

    Attributes:
        label: What the tool calls it.
        version: Digits, if it has such.
        name: What follows them in the file's name, if that is known.
        applied_at: In SQL; None if that isn't known.
        checksum: Of the file, by the tool's own formula.
        and_below: It stands for all versions before it, too.
        remedy: What settles it with that tool, if it failed.
    """

    label: str
    version: str | None
    name: str | None = None
    state: State = State.APPLIED
    applied_at: str | None = None
    checksum: str | None = None
    and_below: bool = False
    remedy: str = ""


class Tool(Struct, frozen=True, kw_only=True):
    """A migration tool.

    Attributes:
        name: As people write it.
        tables: What its table is called.
        columns: That all of these are there tells it; the first tool whose are, is it.
        read: Its rows as entries.
        keeps_numbers: Its versions are numbers, without the zeros that a file's name begins with.
        checksums: All that its formula makes of a file's bytes; None if it has none.
    """

    name: str
    tables: tuple[str, ...]
    columns: frozenset[str]
    read: Callable[[Sequence[Row], Journal], list[Entry]]
    keeps_numbers: bool = False
    checksums: Callable[[bytes], Collection[str]] | None = None


def _split(label: str) -> tuple[str | None, str | None]:
    """Version and name of `<digits>_<name>`, with or without an extension."""
    stem = _EXTENSION.sub("", label)
    found = _NUMBERED.fullmatch(stem)
    return (found[1], found[2]) if found else (None, stem)


def _versions(rows: Sequence[Row], _journal: Journal) -> list[Entry]:
    """The Supabase CLI, dbmate, Rails: a row is there, and so it is applied."""
    return [
        Entry(
            label=f"{row['version']}_{row['name']}" if row.get("name") else str(row["version"]),
            version=_split(str(row["version"]))[0],
            name=row.get("name"),
        )
        for row in rows
    ]


def _golang_migrate(rows: Sequence[Row], _journal: Journal) -> list[Entry]:
    """One row, which stands for all before it; dirty is what was begun."""
    return [
        Entry(
            label=f"version {row['version']}",
            version=str(row["version"]),
            state=State.FAILED if row["dirty"] else State.APPLIED,
            and_below=True,
            remedy=f"settle it with `migrate force {row['version']}`, or with the version before",
        )
        for row in rows
    ]


def _goose(rows: Sequence[Row], _journal: Journal) -> list[Entry]:
    """The latest row of a version decides; 0 is no migration."""
    latest = {row["version_id"]: row for row in _by(rows, "id")}
    return [
        Entry(
            label=str(version),
            version=str(version),
            state=State.APPLIED if row["is_applied"] else State.NOT_APPLIED,
            applied_at=row["tstamp"],
        )
        for version, row in sorted(latest.items())
        if version > 0
    ]


def _flyway(rows: Sequence[Row], _journal: Journal) -> list[Entry]:
    """The latest row of a version decides. Without a version: a repeatable one, or the making of a schema."""
    latest = {row["version"] or row["script"]: row for row in _by(rows, "installed_rank")}
    entries = []
    for row in latest.values():
        kind = str(row["type"]).upper()
        version = row["version"]
        state = State.APPLIED if row["success"] else State.FAILED
        if kind.startswith("UNDO") or kind in ("DELETE", "SCHEMA"):
            state = State.NOT_APPLIED
        entries.append(
            Entry(
                label=row["script"],
                version=version if version and version.isdecimal() else None,
                # A repeatable one is run again and again: no file of ours can be it.
                name=row["description"] if version else None,
                state=state,
                applied_at=row["installed_on"],
                checksum=None if row["checksum"] is None else str(row["checksum"]),
                and_below="BASELINE" in kind,
                remedy="settle it with `flyway repair`",
            )
        )
    return entries


def _prisma(rows: Sequence[Row], _journal: Journal) -> list[Entry]:
    """One that failed and was tried again has a row for each; finished wins over rolled back over failed."""
    entries: dict[str, Entry] = {}
    for row in _by(rows, "started_at"):
        label = row["migration_name"]
        version, name = _split(label)
        state = State.FAILED
        if row["rolled_back_at"] is not None:
            state = State.NOT_APPLIED
        elif row["finished_at"] is not None:
            state = State.APPLIED
        entry = Entry(
            label=label,
            version=version,
            name=name,
            state=state,
            applied_at=row["finished_at"],
            checksum=row["checksum"],
            remedy=f"settle it with `prisma migrate resolve --applied {label}`, or --rolled-back",
        )
        before = entries.get(label)
        if before is None or before.state is State.NOT_APPLIED or state is not State.NOT_APPLIED:
            entries[label] = entry
    return list(entries.values())


def _named(when: str) -> Callable[[Sequence[Row], Journal], list[Entry]]:
    """Knex, node-pg-migrate: a row with the file's name."""

    def read(rows: Sequence[Row], _journal: Journal) -> list[Entry]:
        entries = []
        for row in _by(rows, "id"):
            version, name = _split(row["name"])
            entries.append(Entry(label=row["name"], version=version, name=name, applied_at=row[when]))
        return entries

    return read


def _scripts(rows: Sequence[Row], _journal: Journal) -> list[Entry]:
    """A row with the file's name; some also write those that failed."""
    entries = []
    for row in rows:
        label = str(row["filename"])
        version, name = _split(label)
        state = State.NOT_APPLIED if row.get("success") is False else State.APPLIED
        entries.append(
            Entry(label=label, version=version, name=name, state=state, applied_at=row["executed_at"])
        )
    return entries


def _drizzle(rows: Sequence[Row], journal: Journal) -> list[Entry]:
    """A hash, and the time that the journal has for the file."""
    entries = []
    for row in _by(rows, "id"):
        when = int(row["created_at"] or 0)
        label = row.get("name") or journal.get(when)
        version, name = _split(label) if label else (None, None)
        made = datetime.fromtimestamp(when / 1000, UTC).strftime("%Y-%m-%d %H:%M")
        entries.append(
            Entry(
                label=label or f"the file of {made}, sha256 {row['hash'][:8]}",
                version=version,
                name=name,
                checksum=row["hash"],
            )
        )
    return entries


def _by(rows: Iterable[Row], key: str) -> list[Row]:
    return sorted(rows, key=lambda row: row[key])


def _sha256(content: bytes) -> set[str]:
    """Whatever line ends it had when the sum was made."""
    plain = content.replace(b"\r\n", b"\n")
    return {hashlib.sha256(one).hexdigest() for one in (content, plain, plain.replace(b"\n", b"\r\n"))}


def _crc32(content: bytes) -> set[str]:
    text = content.removeprefix(b"\xef\xbb\xbf").replace(b"\r", b"").replace(b"\n", b"")
    value = zlib.crc32(text)
    return {str(value - (value >> 31 << 32))}


TOOLS = (
    Tool(
        name="golang-migrate",
        tables=("schema_migrations",),
        columns=frozenset({"version", "dirty"}),
        read=_golang_migrate,
        keeps_numbers=True,
    ),
    Tool(
        name="Supabase CLI",
        tables=("schema_migrations",),
        columns=frozenset({"version", "statements"}),
        read=_versions,
    ),
    Tool(name="dbmate", tables=("schema_migrations",), columns=frozenset({"version"}), read=_versions),
    Tool(
        name="goose",
        tables=("goose_db_version",),
        columns=frozenset({"id", "version_id", "is_applied", "tstamp"}),
        read=_goose,
        keeps_numbers=True,
    ),
    Tool(
        name="Flyway",
        tables=("flyway_schema_history",),
        columns=frozenset({"installed_rank", "version", "description", "type", "script", "success"}),
        read=_flyway,
        checksums=_crc32,
    ),
    Tool(
        name="Prisma",
        tables=("_prisma_migrations",),
        columns=frozenset({"migration_name", "started_at", "finished_at", "rolled_back_at", "checksum"}),
        read=_prisma,
        checksums=_sha256,
    ),
    Tool(
        name="node-pg-migrate",
        tables=("pgmigrations",),
        columns=frozenset({"id", "name", "run_on"}),
        read=_named("run_on"),
    ),
    Tool(
        name="Knex",
        tables=("knex_migrations",),
        columns=frozenset({"id", "name", "batch", "migration_time"}),
        read=_named("migration_time"),
    ),
    Tool(
        name="Drizzle",
        tables=("__drizzle_migrations",),
        columns=frozenset({"id", "hash", "created_at"}),
        read=_drizzle,
        checksums=_sha256,
    ),
    # What many write themselves around Supabase's files.
    Tool(
        name="scripts of your own",
        tables=("migration_history",),
        columns=frozenset({"filename", "executed_at"}),
        read=_scripts,
    ),
)
# A column of our own table, which may lie in any schema and has the others as well.
_OURS = "in_doubt"
_RAILS = Tool(name="Rails", tables=("schema_migrations",), columns=frozenset({"version"}), read=_versions)
_RAILS_MARK = "ar_internal_metadata"


class Table(Struct, frozen=True, kw_only=True):
    """A table that may be a tool's."""

    schema: str
    name: str
    columns: frozenset[str]

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


def recognise(tables: Sequence[Table], *, named: bool) -> list[tuple[Tool, Table]]:
    """Which tools these tables are of.

    Args:
        tables: What is there.
        named: A person has named the table, so it may be called anything.
    """
    rails = {table.schema for table in tables if table.name == _RAILS_MARK}
    found = []
    for table in tables:
        tool = next(
            (one for one in TOOLS if one.columns <= table.columns and (named or table.name in one.tables)),
            None,
        )
        if tool is None or table.name == _RAILS_MARK or _OURS in table.columns:
            continue
        if tool.name == "dbmate":
            if table.schema == "supabase_migrations":  # of a CLI from before it kept the statements
                tool = next(one for one in TOOLS if one.name == "Supabase CLI")
            elif table.schema in rails:
                tool = _RAILS
            elif table.columns != {"version"}:
                continue  # Ecto and others: nothing is known of them
        found.append((tool, table))
    return found
