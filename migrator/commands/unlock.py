"""Show who holds the lock, and take it away."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

from migrator import ledger
from migrator.errors import LeaseBusy
from migrator.output import paragraph, write

if TYPE_CHECKING:
    import argparse

    from migrator.holding import Holding
    from migrator.session import Session
    from migrator.store import Store

# What was at work for the one whose session we ended is rolled back by then, but for the very large.
_ENDING_S = 10.0
_PAUSE_S = 0.1


def arguments(parser: argparse.ArgumentParser) -> None:
    """What it takes."""
    parser.description = paragraph(
        "Show who holds the migration lock, since when and whether it lives, and take it away if it doesn't. "
        "Seldom needed: `migrator up` takes a dead holder's lock by itself. From a living one it is taken "
        "only with --force: its session is ended, which rolls back what it is applying."
    )
    parser.epilog = """\
example:    migrator unlock            # says who holds it, if somebody lives
            migrator unlock --force    # stop that container first, or it may take the lock again
exit codes: 0 nobody holds it any more, 69 database unreachable, 75 somebody living holds it,
            78 configuration"""
    parser.add_argument("--force", action="store_true", help="also from a holder who lives")
    parser.add_argument("--json", action="store_true", help="for machines")


async def run(session: Session, options: argparse.Namespace) -> int:
    """Take the lock away; 0.

    Raises:
        LeaseBusy: Somebody living holds it.
        MigratorError: It can't be done.
    """
    dsn = session.settings.require_database()
    async with session.database(), session.open_store() as store:
        held = await ledger.look(store)
        if held is not None:
            if options.json:
                shown = {"database": str(dsn), **_json(held)}
            if not (held.may_be_taken or options.force):
                if options.json:
                    write(json.dumps({**shown, "released": False}, indent=2))
                raise _refusal(held)
            await _take(store, held)
    if options.json:
        nobody = {"database": str(dsn), "holder": None}
        write(json.dumps({**shown, "released": True} if held else {**nobody, "released": False}, indent=2))
    elif held is None:
        write(f"nobody holds the migration lock on {dsn}")
    else:
        write(f"{held}\nthe lock is free now, on {dsn}")
        if held.pid is None and not held.may_be_taken:
            write(f"its process ({held.holder}: host/pid) may still run: it stops before its next migration")
    return 0


async def _take(store: Store, held: Holding) -> None:
    """Take it away.

    Raises:
        LeaseBusy: A migration of it is still running.
    """
    give_up_s = time.monotonic() + _ENDING_S
    while not await ledger.take_away(store, held):
        now = await ledger.look(store)
        if now is None or now.token != held.token:
            return  # given back, or taken over, in the meantime
        if time.monotonic() > give_up_s:
            raise LeaseBusy(
                f"cannot take the lock from {held.holder}: the server is still at work for it, maybe in the "
                f"name of another role; end that with pg_terminate_backend as a role that may, see "
                f"pg_stat_activity"
            )
        await asyncio.sleep(_PAUSE_S)


def _refusal(held: Holding) -> LeaseBusy:
    if held.expires_in_s > 0:
        wait = f"it counts as dead after {held.expires_in_s:.0f} s more without a heartbeat"
    else:
        wait = "it is free as soon as the server is done"
    doing = f"; its session (pid {held.pid}) {held.doing}" if held.doing else ""
    return LeaseBusy(
        f"cannot unlock: {held}{doing}; {wait}. Wait for the end with `migrator wait --applied`, or stop "
        f"that process; to take it all the same, and roll back what it is applying: `migrator unlock --force`"
    )


def _json(held: Holding) -> dict[str, Any]:
    return {
        "holder": held.holder,
        "state": held.state,
        "heldS": round(held.held_s, 1),
        "silentS": round(held.silent_s, 1),
        "expiresInS": round(held.expires_in_s, 1),
        "serverPid": held.pid,
    }
