"""What `up` would do."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from migrator import passage, supabase_history
from migrator import plan as plans
from migrator.commands import known
from migrator.commands.versions import version
from migrator.errors import PlanError
from migrator.migrate import meaning_of, runner_for
from migrator.runners import SqlRunner

if TYPE_CHECKING:
    import argparse

    from migrator.migration import Migration
    from migrator.plan import HistoryRow, Plan
    from migrator.session import Session

# With --exit-code: something is pending.
PENDING = 10

_EPILOG = """\
Shows what `migrator up` would apply, in this order, and how: in one transaction, or statement by
statement where one of them can't run in one. Nothing is run or changed; `migrator up --dry-run` tries it.

exit codes: 0 also if something is pending (with --exit-code: 10 then),
            65 `migrator up` would refuse; the last line says why
example:    migrator plan --to 20260101090000"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """What it takes."""
    parser.description = "Show what would be applied. Nothing is changed."
    parser.epilog = _EPILOG
    parser.add_argument("--to", metavar="VERSION", type=version, help="only up to that one")
    parser.add_argument("--exit-code", action="store_true", help=f"exit {PENDING} if something is pending")
    parser.add_argument("--json", action="store_true", help="for machines")


class _Entry(Struct, frozen=True, kw_only=True):
    """One file of the plan; `refused` is why `up` wouldn't apply it."""

    migration: Migration
    transaction: bool = True
    statements: int | None = None
    alone: tuple[str, ...] = ()
    done: int = 0
    refused: str | None = None


async def run(session: Session, options: argparse.Namespace) -> int:
    """Show it; 0, or what --exit-code asks for.

    Raises:
        PlanError: What `up` would refuse.
        MigratorError: It can't be told.
    """
    settings = session.settings
    dsn = settings.require_database()
    found = known.load(settings, "plan")
    if options.to is not None:
        plans.require(found.migrations, options.to)
    async with session.database(), session.open_store() as store:
        history = await store.history() or []
        elsewhere = None
        if settings.supabase_history != "off":
            elsewhere = await supabase_history.versions(store)
        plan, refused = _make(found.migrations, history, session, elsewhere or ())
        plan = plan if options.to is None else plan.up_to(options.to)
        runner = runner_for(store, session.log, passage.care(settings, session.open_store))
        begun = {row.version: row.statements_done or 0 for row in history}
        entries = [await _entry(runner, one, begun.get(one.version, 0)) for one in plan.pending]
    refused = refused or next((PlanError(one.refused) for one in entries if one.refused), None)
    warnings = [*found.warnings, *plan.warnings]
    if options.json:
        document = {
            "database": str(dsn),
            "applied": plan.applied,
            "pending": [_document(one) for one in entries],
            "warnings": warnings,
            "refused": str(refused) if refused else None,
        }
        session.answer(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        _show(session, entries, warnings)
        session.answer(f"{len(entries)} to apply, {plan.applied} applied, on {dsn}")
    if refused is not None:
        raise refused
    return PENDING if entries and options.exit_code else 0


def _make(
    migrations: tuple[Migration, ...],
    history: list[HistoryRow],
    session: Session,
    elsewhere: Collection[str],
) -> tuple[Plan, PlanError | None]:
    """The plan, and what keeps `up` from following it; `elsewhere`: see `plan.make`.

    Raises:
        PlanError: There is no plan at all.
    """
    settings = session.settings
    refuse_changed = settings.changed_files == "refuse"
    try:
        plan = plans.make(
            migrations,
            history,
            refuse_changed=refuse_changed,
            meaning=meaning_of,
            out_of_order=settings.out_of_order,
            elsewhere=elsewhere,
        )
    except PlanError as error:
        made = plans.make(migrations, history, refuse_changed=False, meaning=meaning_of, elsewhere=elsewhere)
        return made, error
    return plan, None


async def _entry(runner: SqlRunner, migration: Migration, done: int) -> _Entry:
    try:
        understood = await runner.check(migration)
    except PlanError as error:
        return _Entry(migration=migration, refused=str(error))
    if not understood.total:
        return _Entry(migration=migration)
    return _Entry(
        migration=migration,
        transaction=False,
        statements=understood.total,
        alone=understood.alone,
        done=done,
    )


def _show(session: Session, entries: list[_Entry], warnings: list[str]) -> None:
    for number, one in enumerate(entries, 1):
        session.answer(f"{number:3} {one.migration.path}")
        if one.refused:
            how = f"refused: {one.refused}"
        elif one.transaction:
            how = "in one transaction"
        else:
            how = f"statement by statement, {one.statements} in all"
            how += f"; the first {one.done} are done" if one.done else ""
        session.answer(f"    {how}")
        for line in one.alone:
            session.answer(f"      outside of a transaction: {line}")
    for warning in warnings:
        session.answer(f"warning: {warning}")


def _document(one: _Entry) -> dict[str, Any]:
    return {
        "version": one.migration.version,
        "filename": one.migration.filename,
        "path": str(one.migration.path),
        "transaction": one.transaction,
        "statements": one.statements,
        "outsideOfTransaction": list(one.alone),
        "done": one.done,
        "refused": one.refused,
    }
