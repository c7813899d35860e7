"""Record files as applied without running them, up to a version."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from migrator import ledger, naming
from migrator.commands import known
from migrator.commands.versions import version
from migrator.errors import PlanError
from migrator.migrate import meaning_of
from migrator.output import paragraph, write

if TYPE_CHECKING:
    import argparse

    from migrator.session import Session


def arguments(parser: argparse.ArgumentParser) -> None:
    """What it takes."""
    parser.description = paragraph(
        "For a database that already is as the files up to VERSION make it (restored from a dump, or made by "
        "hand): record these files as applied, without running them. `migrator up` goes on after them. If "
        "another tool applied them, use `migrator adopt`, which reads which ones. Undone by `migrator repair "
        "--not-applied VERSION`."
    )
    parser.epilog = """\
example:    migrator baseline 20260101090000     # or the file's name
exit codes: 0 recorded, 65 no such file, or one is half done, 69 database unreachable,
            75 somebody else migrates, 78 configuration"""
    parser.add_argument("version", type=version, metavar="VERSION", help="of the last file that needn't run")
    parser.add_argument("--json", action="store_true", help="for machines")


async def run(session: Session, options: argparse.Namespace) -> int:
    """Record them; 0.

    Raises:
        MigratorError: It can't be done.
    """
    settings = session.settings
    dsn = settings.require_database()
    found = known.recorded(settings)
    last = naming.find(options.version, found.migrations)
    wanted = [one for one in found.migrations if one.version <= last.version]
    async with (
        session.database(),
        session.ledger() as book,
    ):
        for migration in wanted:
            row = book.rows.get(migration.version)
            if row is not None and not row.finished:
                raise PlanError(
                    f"cannot record {migration.filename} as applied: it is half done; settle it first with "
                    "`migrator repair`"
                )
        recorded = [one for one in wanted if one.version not in book.rows]
        await book.write([ledger.record_file(one, meaning_of) for one in recorded], by="baseline")
    if options.json:
        document = {
            "database": str(dsn),
            "recorded": [one.filename for one in recorded],
            "alreadyApplied": len(wanted) - len(recorded),
            "pending": len(found.migrations) - len(wanted),
        }
        write(json.dumps(document, indent=2))
        return 0
    for one in recorded:
        write(f"applied   {one.filename}")
    already = f", {len(wanted) - len(recorded)} were on record before" if len(recorded) < len(wanted) else ""
    write(f"{len(recorded)} recorded as applied without being run{already}, on {dsn}")
    return 0
