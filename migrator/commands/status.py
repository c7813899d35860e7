"""Which migrations are applied, and which are pending."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from migrator import migration as files
from migrator import supabase_history
from migrator.commands import known
from migrator.migrate import meaning_of
from migrator.output import write
from migrator.plan import HistoryRow, is_changed
from migrator.report import timestamp
from migrator.supabase_history import HEARD

if TYPE_CHECKING:
    import argparse
    from collections.abc import Collection

    from migrator.session import Session
    from migrator.store import Store


def arguments(parser: argparse.ArgumentParser) -> None:
    """What it takes."""
    parser.description = "Show every migration: applied, pending, changed, half done, missing."
    parser.epilog = """\
exit codes: 0 whatever the state; `migrator verify` and `migrator plan --exit-code` tell by theirs
example:    migrator status --json"""
    parser.add_argument("--json", action="store_true", help="for machines")


async def run(session: Session, options: argparse.Namespace) -> int:
    """Show the files beside the history; 0.

    Raises:
        MigratorError: It can't be done.
    """
    settings = session.settings
    found = known.found(settings)
    dsn = settings.require_database()
    async with session.database(), session.open_store() as store:
        history = await store.history()
        holder = None if history is None else await store.holder()
        heard = HEARD if settings.supabase_history != "off" else ()
        others = "" if history is not None else await _others(store, heard)
        elsewhere = None
        undone = {} if history is None else await _undone(store)
        on_record = {row.version for row in history or []}
        unknown = found is not None and any(one.version not in on_record for one in found.migrations)
        if settings.supabase_history != "off" and unknown:
            elsewhere = await supabase_history.versions(store)
    rows = _rows(found.migrations, history or [], elsewhere or frozenset()) if found else []
    for row in rows:
        row["undoneAt"] = undone.get(row["version"]) if row["state"] == "pending" else None
    pending = sum(row["state"] in ("pending", "half done") for row in rows) if found else None
    if options.json:
        document = {
            "database": str(dsn),
            "pending": pending,
            "holder": holder.name if holder else None,
            "migrations": rows,
        }
        write(json.dumps(document, indent=2))
        return 0
    if found is None:
        write(f"what is applied and pending, only the program of {settings.runner} knows, on {dsn}")
    for row in rows:
        told = f" (undone {row['undoneAt']})" if row["undoneAt"] else ""
        write(f"{row['state']:9} {row['executedAt'] or '':24} {row['filename']}{told}")
    if found is not None:
        write(f"{len(rows)} migration{'s' * (len(rows) != 1)}, {pending} pending, on {dsn}")
    if holder:
        write(f"{holder.name} has been migrating for {holder.held_s:.0f} s; `migrator unlock` tells more")
    if wrong := sum(row["state"] not in ("applied", "pending") for row in rows):
        write(f"{wrong} to look at: `migrator repair` shows what can be done")
    if others:
        write(others)
    return 0


async def _undone(store: Store) -> dict[str, str]:
    """When each version was undone last."""
    from migrator import ledger  # late: it is large

    return {row["version"]: timestamp(row["undone_at"]) for row in await ledger.ask(store, "undone")}


async def _others(store: Store, heard: Collection[str]) -> str:
    """What to say of other tools than those `heard` that have migrated this database; empty if none has."""
    from migrator.foreign import look  # late: only where ours hasn't yet

    found = [one for one in await look.sources(store.transport) if one.tool.name not in heard]
    return f"{look.told(found)}: `migrator adopt` takes that over" if found else ""


def _rows(
    migrations: tuple[files.Migration, ...], history: list[HistoryRow], elsewhere: frozenset[str]
) -> list[dict[str, Any]]:
    rows = {row.version: row for row in history}
    listed = []
    for migration in migrations:
        row = rows.pop(migration.version, None)
        state = "applied" if migration.version in elsewhere else "pending"
        if row is not None:
            state = "applied" if row.finished else "half done"
            if row.finished and is_changed(migration, row, meaning_of):
                state = "changed"
        listed.append(_row(migration.version, migration.filename, state, row))
    listed += [_row(row.version, row.filename, "missing", row) for row in rows.values()]
    return sorted(listed, key=lambda row: (str(row["version"]), str(row["filename"])))


def _row(version: str, filename: str, state: str, row: HistoryRow | None) -> dict[str, Any]:
    executed_at = timestamp(row.executed_at) if row else None
    return {"version": version, "filename": filename, "state": state, "executedAt": executed_at}
