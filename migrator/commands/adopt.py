"""Take over the history of another migration tool."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from migrator import ledger
from migrator import migration as files
from migrator.errors import PlanError
from migrator.foreign import look, matching
from migrator.foreign.tools import TOOLS
from migrator.migrate import meaning_of
from migrator.output import paragraph, write
from migrator.plan import NO_CHECKSUM

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from migrator.foreign.look import Source
    from migrator.foreign.matching import Adoption
    from migrator.migration import Migration
    from migrator.session import Session
    from migrator.store import Store


def arguments(parser: argparse.ArgumentParser) -> None:
    """What it takes."""
    parser.description = paragraph(
        "Take over what another tool has applied, so that `migrator up` goes on where it ended. Finds the "
        f"tables of {', '.join(tool.name for tool in TOOLS)}; they are read and left as they are. A file "
        f"counts as applied if its version is in that history, or else its content or its name. Without "
        f"--yes it only shows what it would record."
    )
    parser.epilog = """\
example:    migrator adopt            # show
            migrator adopt --yes      # record it, in one transaction; then migrator up
exit codes: 0 shown or recorded, 65 it can't be done: the message says why,
            69 database unreachable, 75 somebody else migrates, 78 configuration"""
    parser.add_argument("--yes", action="store_true", help="record it")
    parser.add_argument(
        "--from",
        dest="tool",
        metavar="TOOL",
        choices=[_key(tool.name) for tool in TOOLS],
        help="if there are several",
    )
    parser.add_argument("--table", metavar="SCHEMA.TABLE", help="if its table isn't where that tool puts it")
    parser.add_argument("--json", action="store_true", help="for machines")


async def run(session: Session, options: argparse.Namespace) -> int:
    """Show what would be recorded, or record it; 0.

    Raises:
        MigratorError: It can't be done.
    """
    settings = session.settings
    dsn = settings.require_database()
    found = files.load(settings.directories, settings.environment, chosen=settings.chosen)
    async with session.database():
        async with session.open_store() as store:
            source = await _source(session, store, options)
            rows = await store.history() or []
        adoption = _match(source, found.migrations, rows)
        if options.yes and not adoption.refusals:
            async with session.ledger() as book:
                # Again, under the lease: that tool may have been at work until now.
                async with session.open_store() as store:
                    source = await _source(session, store, options)
                adoption = _match(source, found.migrations, book.rows.values())
                adoption.refuse(source.tool.name)
                await book.write(_changes(adoption), by=f"adopt from {source.tool.name}")
    recorded = options.yes and not adoption.refusals
    if options.json:
        write(json.dumps({"database": str(dsn), **_json(source, adoption), "recorded": recorded}, indent=2))
    else:
        _show(source, adoption, str(dsn), recorded=recorded)
    adoption.refuse(source.tool.name)
    return 0


def _key(name: str) -> str:
    return name.lower().replace(" ", "-")


async def _source(session: Session, store: Store, options: argparse.Namespace) -> Source:
    """The one history to take over.

    Raises:
        PlanError: There is none, or more than one.
    """
    found = await look.sources(store.transport, table=options.table, directories=session.settings.directories)
    chosen = [one for one in found if options.tool in (None, _key(one.tool.name))]
    if not chosen:
        wanted = options.tool or "another migration tool"
        raise PlanError(
            f"cannot find a history of {wanted} with anything in it in {session.settings.require_database()} "
            f"(looked in public, the search_path, supabase_migrations and drizzle); if its table is "
            f"elsewhere: --table SCHEMA.TABLE; if there is none: `migrator baseline VERSION`"
        )
    if len(chosen) > 1:
        several = ", ".join(f"{one} with {len(one.entries)} entries" for one in chosen)
        raise PlanError(f"cannot choose among {several}: say which with --from or --table")
    return chosen[0]


def _match(source: Source, migrations: tuple[Migration, ...], rows: Iterable[Any]) -> Adoption:
    return matching.match(source, migrations, {row.version: row for row in rows}, files.content)


def _changes(adoption: Adoption) -> list[ledger.Change]:
    changes = [ledger.record_file(one.migration, meaning_of, one.entry.applied_at) for one in adoption.record]
    changes += [
        ledger.record(
            entry.version or "",
            filename=entry.label,
            name=entry.name or "",
            checksum=NO_CHECKSUM,
            executed_at=entry.applied_at,
        )
        for entry in adoption.without_file
    ]
    return changes


def _show(source: Source, adoption: Adoption, dsn: str, *, recorded: bool) -> None:
    write(f"{source} on {dsn}: {source.applied} applied")
    for one in adoption.record:
        edited = "; edited since, by that tool's checksum" if one.edited else ""
        same = one.entry.label.removesuffix(".sql") in (
            one.migration.filename.removesuffix(".sql"),
            one.migration.version,
        )
        there = "" if same else f" (there: {one.entry.label})"
        write(f"applied   {one.migration.filename}{there}{edited}")
    for entry in adoption.without_file:
        write(
            f"applied   {entry.label}: no file here; on record so that none of that version is ever applied"
        )
    for entry in adoption.nameless:
        write(
            f"ignored   {entry.label}: no file here, and no version to record; such a file would be pending"
        )
    for entry in adoption.not_applied:
        write(f"ignored   {entry.label}: not applied there")
    for migration in adoption.pending:
        write(f"pending   {migration.filename}")
    new = len(adoption.record) + len(adoption.without_file)
    already = f", {adoption.already} were on record before" if adoption.already else ""
    then = (
        f"{len(adoption.pending)} pending: `migrator up` applies them"
        if adoption.pending
        else "nothing pending"
    )
    if not new and not adoption.refusals:
        write(f"nothing to record{already}; {then}")
    elif recorded:
        write(f"{new} recorded as applied{already}; {then}")
    elif not adoption.refusals:
        write(f"{new} to record{already}; nothing was changed: `migrator adopt --yes` records it")


def _json(source: Source, adoption: Adoption) -> dict[str, Any]:
    return {
        "tool": source.tool.name,
        "table": str(source.table),
        "record": [
            {
                "filename": one.migration.filename,
                "version": one.migration.version,
                "there": one.entry.label,
                "edited": one.edited,
            }
            for one in adoption.record
        ],
        "withoutFile": [{"version": entry.version, "there": entry.label} for entry in adoption.without_file],
        "ignored": [entry.label for entry in (*adoption.nameless, *adoption.not_applied)],
        "alreadyApplied": adoption.already,
        "pending": [migration.filename for migration in adoption.pending],
        "refusals": list(adoption.refusals),
    }
