"""Undo what was applied last, by the files that are there for it."""

from __future__ import annotations

import argparse
import asyncio
import json
from typing import TYPE_CHECKING

from migrator import lease as leases
from migrator import passage, undo
from migrator.commands import known
from migrator.commands.versions import version
from migrator.errors import LeaseBusy
from migrator.output import write
from migrator.report import MigrationPhase
from migrator.runners import SqlRunner
from migrator.transport import Ended

if TYPE_CHECKING:
    from migrator.session import Session
    from migrator.store import Store
    from migrator.undo import Step

_EPILOG = """\
Each migration is undone by <version>_<description>.down.sql beside it, in one transaction
that also takes it off the history; migration_undone keeps a trace. Nothing is asked: if one
of those files is missing, nothing is undone at all. The next `migrator up` applies them again.

exit codes: 0 undone, or nothing was applied; 65 a down file is missing, or VERSION isn't applied;
            75 somebody is migrating just now
example:    migrator down --steps 2
            migrator down --to 20260101090000"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """What it takes."""
    parser.description = "Undo the migrations that were applied last, the latest first."
    parser.epilog = _EPILOG
    how_far = parser.add_mutually_exclusive_group()
    how_far.add_argument(
        "--to",
        metavar="VERSION",
        type=version,
        help="undo all that have a higher version; 0 undoes everything",
    )
    how_far.add_argument("--steps", metavar="N", type=_count, help="how many (default: 1)")
    parser.add_argument("--json", action="store_true", help="for machines")


async def run(session: Session, options: argparse.Namespace) -> int:
    """Undo what is asked for; 0.

    Raises:
        MigratorError: It can't be done; what was undone before is off the record.
    """
    settings = session.settings
    settings.require_database()
    found = known.load(settings, "undo anything")
    undone: list[Step] = []
    try:
        async with session.database(), session.open_store() as store:
            if await store.history() is not None:
                await _undo(session, store, undo.Downs(found.down_paths), options, undone)
        if not undone and not options.json:
            write("nothing undone: nothing is applied that it was asked for")
    finally:
        # Also what was done before something went wrong.
        _tell(undone, as_json=options.json)
    return 0


async def _undo(
    session: Session, store: Store, downs: undo.Downs, options: argparse.Namespace, undone: list[Step]
) -> None:
    ttl_s = session.settings.lease_ttl_s
    lease = await leases.try_acquire(store, session.holder, ttl_s)
    if lease is None:
        holder = await store.holder()
        who = f"{holder.name} has been migrating for {holder.held_s:.0f} s" if holder else "somebody migrates"
        raise LeaseBusy(f"cannot undo anything just now: {who}; try again when that is done")
    async with leases.keep(store, lease, ttl_s=ttl_s, open_store=session.open_store, log=session.log):
        await store.install()  # an older version had no table for what was undone
        history = await undo.applied(store)
        chosen = (
            undo.latest(history, options.steps or 1)
            if options.to is None
            else undo.after(history, options.to)
        )
        steps = undo.steps(chosen, downs)
        care = passage.care(session.settings, session.open_store)
        runner = SqlRunner(store, session.log, care, kind=undo.Backwards)
        await undo.check(runner, steps)
        for one in undo.stranded(history, chosen):
            session.log.warning(
                "migration.odd", reason=f"{one.filename} stays, and was applied after some of what is undone"
            )

        def begin(step: Step) -> None:
            # The command line alone shows it: our supervisor never undoes anything.
            session.teller(MigrationPhase.APPLYING, current=step.down.filename)
            session.log.info("undo.started", filename=step.applied.filename, down=step.down.filename)

        try:
            await undo.run(runner, lease, session.log, steps, begin=begin, done=undone.append)
        except asyncio.CancelledError:
            known = "rolled back" if store.transport.ended is Ended.ROLLED_BACK else "see `migrator status`"
            session.teller(
                MigrationPhase.ABORTED,
                error=f"stopped while running {session.teller.report.current}: {known}",
            )
            raise


def _tell(undone: list[Step], *, as_json: bool) -> None:
    names = [step.applied.filename for step in undone]
    if as_json:
        write(json.dumps({"undone": names}, indent=2))
        return
    for step in undone:
        write(f"undone    {step.applied.filename} (by {step.down.filename})")


def _count(raw: str) -> int:
    if not raw.isdecimal() or not 0 < int(raw) < 10**6:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, not {raw!r}")
    return int(raw)
