"""Settle what is wrong between the files and the history."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from migrator import ledger, naming, repairs
from migrator import migration as files
from migrator.commands import known
from migrator.commands.versions import version
from migrator.errors import PlanError
from migrator.migrate import meaning_of
from migrator.output import paragraph, write
from migrator.repairs import Repair, Wish

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from migrator.holding import Holding
    from migrator.plan import HistoryRow
    from migrator.repairs import Finding
    from migrator.session import Session

_FINDINGS = PlanError.exit_code


def arguments(parser: argparse.ArgumentParser) -> None:
    """What it takes."""
    parser.description = paragraph(
        "Without options: show what is wrong (edited, missing and half-done files), and the commands that "
        "settle it; changes nothing. With options: change the history, all of it or nothing. No file is run, "
        "and nothing else in the database is touched. VERSION may be a file's name."
    )
    parser.epilog = """\
example:    migrator repair
            migrator repair --accept 20260101090000 --not-applied 20260102100000
exit codes: 0 nothing is wrong (any more), 65 something is, or the wish makes no sense,
            69 database unreachable, 75 somebody else migrates, 78 configuration"""
    for wish, help_ in (
        (Wish.ACCEPT, "take the edited file as it is now; a half-done one goes on after what is done"),
        (Wish.APPLIED, "record the file as applied, without running it (again)"),
        (Wish.NOT_APPLIED, "take it off the record: its file, if there is one, runs from the start"),
    ):
        parser.add_argument(f"--{wish}", nargs="+", type=version, default=[], metavar="VERSION", help=help_)
    parser.add_argument("--json", action="store_true", help="for machines")


async def run(session: Session, options: argparse.Namespace) -> int:
    """Show, or settle; 0, or 65 if something is wrong.

    Raises:
        MigratorError: It can't be done.
    """
    settings = session.settings
    dsn = settings.require_database()
    found = known.recorded(settings)
    wishes = [(wish, given) for wish in Wish for given in getattr(options, wish.replace("-", "_"))]
    # First a mere look: a wish that makes no sense mustn't create our tables, as an empty history of ours
    # tells `up` that no other tool's matters.
    async with session.database(), session.open_store() as store:
        rows = {row.version: row for row in await store.history() or []}
        half_done = not wishes and any(not row.finished for row in rows.values())
        held = await ledger.look(store) if half_done else None
    if not wishes:
        wrong = repairs.findings(found.migrations, rows, meaning_of)
        at_work = held if held is not None and not held.may_be_taken else None
        _show(wrong, str(dsn), at_work, json_=options.json)
        return _FINDINGS if wrong else 0
    _settle(wishes, found.migrations, rows)
    async with (
        session.database(),
        session.ledger() as book,
    ):
        done = _settle(wishes, found.migrations, book.rows)
        await book.write([one.change for one in done if one.change], by="repair")
    if options.json:
        listed = [
            {
                "version": one.version,
                "filename": one.filename,
                "changed": one.change is not None,
                "outcome": one.outcome,
            }
            for one in done
        ]
        write(json.dumps({"database": str(dsn), "repairs": listed}, indent=2))
        return 0
    for one in done:
        write(f"{one.filename}: {one.outcome}")
    changed = sum(one.change is not None for one in done)
    write(f"{changed} of {len(done)} changed in the history of {dsn}")
    return 0


def _settle(
    wishes: list[tuple[Wish, str]], migrations: tuple[files.Migration, ...], rows: Mapping[str, HistoryRow]
) -> list[Repair]:
    by_version = {migration.version: migration for migration in migrations}
    done: dict[str, Repair] = {}
    for wish, given in wishes:
        version = naming.version_of(given)
        if version in done:
            raise PlanError(f"cannot do two things with version {version} at once")
        if version not in by_version and version not in rows:
            naming.find(given, migrations)  # says what there is instead
        done[version] = repairs.repair(wish, version, by_version.get(version), rows.get(version), meaning_of)
    return list(done.values())


def _show(wrong: list[Finding], dsn: str, at_work: Holding | None, *, json_: bool) -> None:
    if json_:
        listed = [
            {
                "version": one.version,
                "filename": one.filename,
                "state": one.state,
                "reason": one.what,
                "ways": [{"way": way, "effect": effect} for way, effect in one.ways],
            }
            for one in wrong
        ]
        holder = at_work.holder if at_work else None
        write(json.dumps({"database": dsn, "holder": holder, "findings": listed}, indent=2))
        return
    for one in wrong:
        write(f"{one.filename}: {one.state}: {one.what}")
        for way, effect in one.ways:
            write(f"    {way}\n        {effect}")
    if at_work:
        write(f"somebody is at work just now: {at_work}; what is half done may end well by itself")
    write(
        f"{len(wrong)} file{'s' * (len(wrong) != 1)} to settle on {dsn}"
        if wrong
        else f"nothing to repair on {dsn}"
    )
