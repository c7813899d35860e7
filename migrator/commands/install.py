"""Create our tables and what the REST API needs, or show how."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from migrator import sql
from migrator.dsn import Dsn
from migrator.errors import ConfigError
from migrator.foreign import look
from migrator.output import paragraph, write
from migrator.store import lock_key_of

if TYPE_CHECKING:
    import argparse

    from migrator.session import Session
    from migrator.store import Store


def arguments(parser: argparse.ArgumentParser) -> None:
    """What it takes."""
    parser.description = paragraph(
        "Create the tables migration_history and migration_locks in the schema MIGRATION_SCHEMA (migrator). "
        "`migrator up` does so itself; this is for those who want to see the SQL first, or have somebody "
        "with more rights run it, or start with an empty history where another tool has migrated the "
        "database. With --rest also the functions by which a Supabase project's REST API lets us in, which "
        "needs a database URL this once, or somebody who runs the SQL in the dashboard's editor."
    )
    parser.epilog = """\
example:    migrator install --print | psql "$ADMIN_URL"
            migrator install --rest --print
exit codes: 0 they are there, 69 database unreachable, 75 others are at it, 78 configuration"""
    parser.add_argument("--rest", action="store_true", help="also what the REST API needs")
    parser.add_argument("--print", action="store_true", help="only print the SQL; needs no database")
    parser.add_argument("--json", action="store_true", help="for machines")


async def run(session: Session, options: argparse.Namespace) -> int:
    """Create them, or print the SQL; 0.

    Raises:
        MigratorError: It can't be done.
    """
    settings = session.settings
    if options.print:
        text = _script(settings.schema, rest=options.rest)
        write(json.dumps({"schema": settings.schema, "sql": text}, indent=2) if options.json else text)
        return 0
    place = settings.require_database()
    if options.rest and not isinstance(place, Dsn):
        raise ConfigError(
            "cannot install over the REST API, which isn't open to us before: set a database URL this once "
            "(and not MIGRATION_RUNNER=rest), or run the output of `migrator install --rest --print` in the "
            "dashboard's SQL editor"
        )
    async with session.database(), session.open_store() as store:
        created = await store.history() is None
        others = await look.sources(store.transport) if created else []
        await store.install()
        if others:
            session.log.warning(
                "install.odd",
                reason=f"{look.told(others)}: `migrator adopt` takes that over; else `migrator up` applies "
                "those files a second time",
            )
        if options.rest:
            await _open_doors(session, store)
    if options.json:
        answer = {"database": str(place), "schema": settings.schema, "created": created, "rest": options.rest}
        write(json.dumps(answer, indent=2))
        return 0
    done = "created our tables" if created else "our tables are there"
    write(f"{done}, in schema {settings.schema} on {place}")
    if options.rest:
        write("whoever has the service_role key or a secret key can migrate over the REST API")
    return 0


def _script(schema: str, *, rest: bool) -> str:
    if not rest:
        return sql.install(schema, lock_key_of(schema)).rstrip() + ";"
    from migrator import rest_install  # late: few need it

    return rest_install.script(schema)


async def _open_doors(session: Session, store: Store) -> None:
    from migrator import rest_install  # late, as above

    for note in await rest_install.install(store):
        session.log.warning("install.odd", reason=note)
