"""Apply what is pending."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from migrator.migrate import Engine
from migrator.report import MigrationPhase

if TYPE_CHECKING:
    import argparse

    from migrator.session import Session


def arguments(_parser: argparse.ArgumentParser) -> None:
    """None."""


async def run(session: Session, _options: argparse.Namespace | None) -> int:
    """Apply what is pending; 0.

    Raises:
        MigratorError: It can't be done.
    """
    settings = session.settings
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
        )
        done = await engine.up()
    total = session.teller.report.applied
    session.log.info("migration.completed", applied=total, new=done, duration_ms=session.teller.elapsed_ms)
    session.say(f"{done} applied, {total} in all, nothing pending")
    return 0
