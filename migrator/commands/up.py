"""Apply what is pending."""

from __future__ import annotations

import asyncio
import json
import random
from typing import TYPE_CHECKING

from migrator.migrate import Engine
from migrator.output import write
from migrator.report import MigrationPhase

if TYPE_CHECKING:
    import argparse

    from migrator.session import Session

_EPILOG = """\
Each file is applied whole or not at all, by one of any number of replicas; the others wait.

exit codes: 0 nothing is pending any more; the others are in `migrator --help`
example:    migrator up
            migrator up --to 20260101090000"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """What it takes."""
    parser.description = "Apply what is pending, or wait until somebody else has."
    parser.epilog = _EPILOG
    parser.add_argument("--to", metavar="VERSION", help="stop after that one; what comes later stays pending")
    parser.add_argument("--json", action="store_true", help="for machines")


async def run(session: Session, options: argparse.Namespace | None) -> int:
    """Apply what is pending; 0.

    Raises:
        MigratorError: It can't be done.
    """
    settings = session.settings
    # Not there after --run, which is without a command.
    to = getattr(options, "to", None)
    if not settings.directories:
        reason = "there is no migrations directory (looked for supabase/migrations, migrations)"
        session.teller(MigrationPhase.SKIPPED, reason=reason)
        session.say(f"nothing to do: {reason}")
        return 0
    settings.require_database()
    # A hundred replicas that start together would take every connection that the app has left.
    await asyncio.sleep(random.uniform(0, settings.start_spread_s))  # noqa: S311 - no secret
    async with session.database():
        engine = Engine(
            settings=settings,
            open_store=session.open_store,
            holder=session.holder,
            tell=session.teller,
            log=session.log,
            to=to,
        )
        done = await engine.up()
    total, left = session.teller.report.applied, session.teller.report.pending
    session.log.info("migration.completed", applied=total, new=done, duration_ms=session.teller.elapsed_ms)
    if getattr(options, "json", False):
        write(json.dumps({"new": done, "applied": total, "pending": left}))
    else:
        session.say(f"{done} applied, {total} in all, {f'{left} left' if left else 'nothing'} pending")
    return 0
