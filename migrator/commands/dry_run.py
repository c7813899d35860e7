"""`up --dry-run`: what is pending, tried and rolled back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from migrator import migration as files
from migrator import passage
from migrator import plan as plans
from migrator.errors import Conflict, LeaseBusy
from migrator.migrate import meaning_of
from migrator.rehearsal import Outcome, Rehearsal, Trial

if TYPE_CHECKING:
    import argparse

    from migrator.session import Session
    from migrator.store import Store


async def run(session: Session, options: argparse.Namespace) -> int:
    """Try it and show what came of it; 0 if nothing failed.

    Raises:
        MigratorError: What `up` would end with.
        Conflict: It was cut short, as somebody else needed what it had locked.
    """
    settings = session.settings
    found = files.load(settings.directories, settings.environment, chosen=settings.chosen)
    if options.to is not None:
        plans.require(found.migrations, options.to)
    async with session.database(), session.open_store() as store:
        history = await store.history()
        if history is not None:
            await _refuse_beside_a_run(store)
        plan = plans.make(
            found.migrations,
            history or [],
            refuse_changed=settings.changed_files == "refuse",
            meaning=meaning_of,
            out_of_order=settings.out_of_order,
        )
        plan = plan if options.to is None else plan.up_to(options.to)
        for text in (*found.warnings, *plan.warnings):
            session.log.warning("migration.odd", reason=text)
        care = passage.care(settings, session.open_store)
        rehearsal = Rehearsal(store, session.log, care, max_s=options.dry_run)
        trials = await rehearsal.of(plan.pending) if plan.pending else []
    _show(session, trials, as_json=options.json)
    for trial in trials:
        if trial.error is not None:
            raise trial.error
        if trial.outcome is Outcome.CUT_SHORT:
            raise Conflict(
                f"cannot try all of it: {trial.migration.filename} was cut short, as {trial.reason}; "
                "try again when less is going on"
            )
    return 0


async def _refuse_beside_a_run(store: Store) -> None:
    holder = await store.holder()
    if holder is not None and holder.is_alive:
        raise LeaseBusy(
            f"cannot try anything just now: {holder.name} has been migrating for {holder.held_s:.0f} s; "
            "try again when that is done"
        )


def _show(session: Session, trials: list[Trial], *, as_json: bool) -> None:
    complete = all(trial.outcome is Outcome.PASSED for trial in trials)
    if as_json:
        files_tried = [
            {
                "version": trial.migration.version,
                "filename": trial.migration.filename,
                "outcome": trial.outcome,
                "reason": str(trial.error) if trial.error else trial.reason,
                "durationMs": trial.duration_ms,
            }
            for trial in trials
        ]
        document = {"database": str(session.settings.require_database()), "complete": complete}
        session.answer(json.dumps({**document, "files": files_tried}, indent=2, ensure_ascii=False))
        return
    for trial in trials:
        took = f" ({trial.duration_ms} ms)" if trial.outcome is Outcome.PASSED else ""
        reason = f": {trial.reason}" if trial.reason else ""
        session.answer(f"{trial.outcome:9} {trial.migration.filename}{took}{reason}")
    passed = sum(trial.outcome is Outcome.PASSED for trial in trials)
    rest = "" if complete else "; the others are not known to work"
    session.answer(
        f"dry run: {passed} of {len(trials)} pending passed{rest}. All is rolled back; numbers that "
        "sequences gave out are used up"
    )
