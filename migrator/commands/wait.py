"""Wait until the database answers, or until all is applied."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import time
from typing import TYPE_CHECKING

from migrator import ledger
from migrator import migration as files
from migrator import plan as plans
from migrator.commands import known
from migrator.errors import LeaseBusy, Unavailable
from migrator.migrate import FIRST_PAUSE_S, LAST_PAUSE_S, meaning_of
from migrator.output import paragraph, write

if TYPE_CHECKING:
    from migrator.plan import Plan
    from migrator.session import Session

_TIMEOUT_S = 60.0
# What one look may take at least, with --timeout 0 too.
_LAST_LOOK_S = 1.0


def arguments(parser: argparse.ArgumentParser) -> None:
    """What it takes."""
    parser.description = paragraph(
        "Wait until the database answers; with --applied, until every migration file is applied, by "
        "whomever. Changes nothing. What waiting can't help, a wrong password or an edited file, ends it at "
        "once."
    )
    parser.epilog = """\
example:    migrator wait && psql "$DATABASE_URL"
            migrator wait --applied --timeout 300 && exec ./worker
exit codes: 0 it is so, 65 files don't fit the history, 69 the database didn't answer in time,
            75 something was still pending by then, 78 configuration"""
    parser.add_argument("--applied", action="store_true", help="until nothing is pending")
    parser.add_argument(
        "--timeout", type=_seconds, default=_TIMEOUT_S, metavar="SECONDS", help="give up then (default: 60)"
    )
    parser.add_argument("--json", action="store_true", help="for machines")


async def run(session: Session, options: argparse.Namespace) -> int:
    """Wait; 0.

    Raises:
        MigratorError: It isn't so in time, or never will be.
    """
    settings = session.settings
    dsn = settings.require_database()
    migrations: tuple[files.Migration, ...] = ()
    if options.applied:
        migrations = known.load(settings, "wait for that", takes_scripts=True).migrations
    began_s = time.monotonic()
    pause_s = FIRST_PAUSE_S
    told = ""
    async with session.database():
        while True:
            left_s = began_s + options.timeout - time.monotonic()
            try:
                async with asyncio.timeout(max(left_s, _LAST_LOOK_S)):
                    missing = await _missing(session, migrations, applied=options.applied)
            except TimeoutError:
                missing = Unavailable(f"no answer from the database at {dsn}")
            if missing is None:
                break
            if str(missing) != told:
                told = str(missing)
                session.log.info("database.awaited", reason=told)
            left_s = began_s + options.timeout - time.monotonic()
            if left_s <= 0:
                raise _too_long(missing, options.timeout)
            await asyncio.sleep(min(left_s, random.uniform(pause_s / 2, pause_s)))  # noqa: S311 - no secret
            pause_s = min(pause_s * 2, LAST_PAUSE_S)
    waited_s = round(time.monotonic() - began_s, 1)
    if options.json:
        write(json.dumps({"database": str(dsn), "applied": options.applied, "waitedS": waited_s}, indent=2))
    else:
        done = f"all {len(migrations)} migrations are applied" if options.applied else "the database answers"
        write(f"{done}, on {dsn}, after {waited_s:g} s")
    return 0


async def _missing(
    session: Session, migrations: tuple[files.Migration, ...], *, applied: bool
) -> Unavailable | LeaseBusy | None:
    """Why it isn't so yet; None if it is."""
    try:
        async with session.open_store(advise=False) as store:
            history = await store.history() or []
            plan = _plan(session, migrations, history) if applied else None
            if plan is None or not plan.pending:
                return None
            holder = await ledger.look(store)
    except Unavailable as error:
        return error
    names = ", ".join(one.filename for one in plan.pending[:3])
    more = f" and {len(plan.pending) - 3} more" if len(plan.pending) > 3 else ""
    who = f"lock: {holder}" if holder else "nobody is migrating; `migrator up` does"
    return LeaseBusy(f"pending: {names}{more}; {who}")


def _plan(session: Session, migrations: tuple[files.Migration, ...], history: list[plans.HistoryRow]) -> Plan:
    refuse_changed = session.settings.changed_files == "refuse"
    return plans.make(migrations, history, refuse_changed=refuse_changed, meaning=meaning_of)


def _too_long(missing: Unavailable | LeaseBusy, timeout_s: float) -> Unavailable | LeaseBusy:
    return type(missing)(f"cannot wait any longer than {timeout_s:g} s: {missing}")


def _seconds(given: str) -> float:
    try:
        value = float(given)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 86_400:
        raise argparse.ArgumentTypeError(f"{given!r} isn't a number of seconds from 0 to 86400")
    return value
