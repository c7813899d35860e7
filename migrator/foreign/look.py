"""Reading other tools' histories."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path

from msgspec import Struct

from migrator import errors, sql
from migrator.errors import ConfigError, MigratorError, PlanError
from migrator.foreign import tools
from migrator.foreign.tools import Entry, Journal, State, Table, Tool
from migrator.transport import DatabaseError, Transport

# What to_regclass() says of what can't be a table's name: too many dots, or none between the parts.
_NO_NAMES = frozenset({"0A000", "42601", "42602"})


class Source(Struct, frozen=True, kw_only=True):
    """One tool's history in this database."""

    tool: Tool
    table: Table
    entries: tuple[Entry, ...]

    @property
    def applied(self) -> int:
        """How many it has applied, as far as rows tell."""
        return sum(entry.state is State.APPLIED for entry in self.entries)

    def __str__(self) -> str:
        return f"{self.tool.name} (table {self.table})"


async def sources(
    transport: Transport, *, table: str | None = None, directories: Sequence[Path] = ()
) -> list[Source]:
    """The histories of other tools that aren't empty.

    Args:
        transport: Where to look.
        table: Only this one, whatever it is called.
        directories: Where the files are: some tools have a journal beside them.

    Raises:
        MigratorError: They can't be read.
    """
    found = await _tables(transport, table)
    if table is not None and not found:
        raise ConfigError(f"cannot find a table {table}: give it as SCHEMA.TABLE")
    recognised = tools.recognise(found, named=table is not None)
    if table is not None and not recognised:
        raise PlanError(
            f"cannot tell which tool the table {table} is of: its columns are those of none we know"
        )
    journal = _journal(directories) if any(tool.name == "Drizzle" for tool, _ in recognised) else {}
    read = [
        Source(tool=tool, table=one, entries=tuple(tool.read(await _rows(transport, one), journal)))
        for tool, one in recognised
    ]
    return [source for source in read if source.entries]


def told(found: Sequence[Source]) -> str:
    """Whose histories there are, for people."""
    return f"this database was migrated by {' and '.join(map(str, found))}"


async def refuse_foreign(transport: Transport, heard: Collection[str] = ()) -> None:
    """Don't begin an empty history of ours in a database that another tool than those `heard` has migrated.

    Raises:
        PlanError: One has.
        MigratorError: That can't be found out.
    """
    found = [source for source in await sources(transport) if source.tool.name not in heard]
    if found:
        raise PlanError(
            f"cannot begin: {told(found)}, and our own history is empty, so that "
            f"files would be applied a second time; `migrator adopt` shows what would be taken over from "
            f"there, and takes it over with --yes. If its files have nothing to do with ours: `migrator "
            f"install` begins an empty history"
        )


async def _tables(transport: Transport, table: str | None) -> list[Table]:
    # Without a parameter, which would be one round trip more.
    query = sql.message("foreign.sql", ("tables",), "", {"table_name": table})
    try:
        rows = await transport.fetch(query)
    except DatabaseError as error:
        if table is not None and error.sqlstate in _NO_NAMES:
            return []
        raise _unread(error, table or "the catalogue") from error
    return [
        Table(schema=row["schema_name"], name=row["table_name"], columns=frozenset(row["columns"]))
        for row in rows
    ]


async def _rows(transport: Transport, table: Table) -> list[tools.Row]:
    query = sql.pieces("foreign.sql")["entries"].query(table.schema)
    try:
        rows = await transport.fetch(query.replace("{table}", sql.identifier(table.name)))
    except DatabaseError as error:
        raise _unread(error, str(table)) from error
    return [json.loads(row["entry"]) for row in rows]


def _unread(error: DatabaseError, what: str) -> MigratorError:
    kind = ConfigError if error.sqlstate == "42501" else errors.from_sqlstate(error.sqlstate)
    first = error.text.split("\n", 1)[0]
    return kind(f"cannot read the history of another tool ({what}): {first} ({error.sqlstate})")


def _journal(directories: Sequence[Path]) -> Journal:
    """Drizzle's, by the time that its table has.

    Raises:
        PlanError: It can't be read.
    """
    found: dict[int, str] = {}
    for directory in directories:
        path = directory / "meta" / "_journal.json"
        try:
            document = json.loads(path.read_bytes())
            found |= {int(entry["when"]): str(entry["tag"]) for entry in document["entries"]}
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise PlanError(f"cannot read Drizzle's journal {path}: {error!r}") from error
    return found
