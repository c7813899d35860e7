"""Create our tables, or show how."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from migrator import sql
from migrator.output import paragraph, write
from migrator.store import lock_key_of

if TYPE_CHECKING:
    import argparse

    from migrator.session import Session


def arguments(parser: argparse.ArgumentParser) -> None:
    """What it takes."""
    parser.description = paragraph(
        "Create the tables migration_history and migration_locks in the schema MIGRATION_SCHEMA (migrator). "
        "`migrator up` does so itself; this is for those who want to see the SQL first, or have somebody "
        "with more rights run it, or start with an empty history where another tool has migrated the "
        "database."
    )
    parser.epilog = """\
example:    migrator install --print | psql "$ADMIN_URL"
exit codes: 0 they are there, 69 database unreachable, 75 others are at it, 78 configuration"""
    parser.add_argument("--print", action="store_true", help="only print the SQL; needs no database")
    parser.add_argument("--json", action="store_true", help="for machines")


async def run(session: Session, options: argparse.Namespace) -> int:
    """Create our tables, or print the SQL; 0.

    Raises:
        MigratorError: It can't be done.
    """
    settings = session.settings
    if options.print:
        text = sql.install(settings.schema, lock_key_of(settings.schema)).rstrip() + ";"
        write(json.dumps({"schema": settings.schema, "sql": text}, indent=2) if options.json else text)
        return 0
    dsn = settings.require_database()
    async with session.database(), session.open_store() as store:
        created = await store.history() is None
        await store.install()
    if options.json:
        write(json.dumps({"database": str(dsn), "schema": settings.schema, "created": created}, indent=2))
    else:
        done = "created our tables" if created else "our tables are there already"
        write(f"{done}, in schema {settings.schema} on {dsn}")
    return 0
