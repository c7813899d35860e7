"""Undoing what was applied, by the files that are beside the migrations for that: the latest first."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import ClassVar

from msgspec import Struct

from migrator import migration as files
from migrator import sql
from migrator.errors import PlanError
from migrator.log import Log
from migrator.messages import Messages
from migrator.migration import AnyPath, Migration
from migrator.plan import HistoryRow
from migrator.runners import SqlRunner
from migrator.store import Lease, Store
from migrator.transport import Row

# Stands for "before the first one", where no file has it for its version.
NOTHING = "0"


class Broken(Struct, frozen=True, kw_only=True):
    """An undoing that broke off: how far it came, and in which file, by its checksum."""

    statements_done: int
    in_doubt: bool
    checksum: str


class Applied(Struct, frozen=True, kw_only=True):
    """A migration on record.

    Attributes:
        executed_by: Which run applied it.
        finished: False: it is half done.
        broken: What was begun to undo it.
    """

    version: str
    filename: str
    executed_at: datetime
    executed_by: str | None
    finished: bool
    broken: Broken | None


class Step(Struct, frozen=True, kw_only=True):
    """One migration, and the file that undoes it."""

    applied: Applied
    down: Migration


class Backwards(Messages):
    """Takes a migration off the record, in the same transaction as the file that undoes it."""

    _INSTEAD: ClassVar = {
        "record": ("fence", "undo"),
        "guard": ("undo_guard",),
        "finish": ("undo_guard",),
        "record_steps": ("undo_steps",),
        "progress": ("undo_progress",),
    }

    def _joined(self, *names: str, **more: sql.Value) -> str:
        ours = sql.pieces("undo.sql")
        values = {**self._values, **more}
        return "".join(
            sql.message("undo.sql" if piece in ours else "apply.sql", (piece,), self._schema, values)
            for name in names
            for piece in self._INSTEAD.get(name, (name,))
        )


async def applied(store: Store) -> list[Applied]:
    """What is on record, the latest first. Our tables must be there."""
    return [_applied(row) for row in await store.rows("undo.sql", "applied", "read the history")]


def latest(history: Sequence[Applied], steps: int) -> list[Applied]:
    """The last `steps` migrations that were applied."""
    return list(history[:steps])


def after(history: Sequence[Applied], version: str) -> list[Applied]:
    """All migrations of a higher version than that, which stays; "0" for all there are.

    Raises:
        PlanError: That one isn't applied.
    """
    known = {one.version for one in history}
    if version == NOTHING and version not in known:
        return list(history)
    if version not in known:
        raise PlanError(
            f"cannot go down to {version}: no migration of that version is applied; `migrator status` "
            f"lists them, and --to {NOTHING} undoes all"
        )
    return [one for one in history if one.version > version]


def stranded(history: Sequence[Applied], chosen: Sequence[Applied]) -> list[Applied]:
    """What stays though it came after one of the chosen, and so may need what is undone."""
    if not chosen:
        return []
    gone = {one.version for one in chosen}
    return [one for one in history[: history.index(chosen[-1])] if one.version not in gone]


class Downs:
    """The files that undo, by the version of what they undo."""

    def __init__(self, paths: Iterable[AnyPath]) -> None:
        """Look for them among `paths`."""
        self._paths: dict[str, list[AnyPath]] = {}
        for path in paths:
            self._paths.setdefault(os.path.basename(path).partition("_")[0], []).append(path)

    def of(self, one: Applied) -> Migration | None:
        """The one that undoes a migration; None if there is none.

        Raises:
            PlanError: There are several, or it can't be read.
        """
        paths = self._paths.get(one.version, [])
        if len(paths) > 1:
            raise PlanError(
                f"cannot tell {' and '.join(map(str, paths))} apart: both undo version {one.version}; "
                "remove one of them"
            )
        return files.load_down(paths[0]) if paths else None


def steps(chosen: Iterable[Applied], downs: Downs) -> list[Step]:
    """The files that undo all of the chosen.

    Raises:
        PlanError: One is missing or doesn't fit what was begun; all that are missing are named.
    """
    found = [(one, downs.of(one)) for one in chosen]
    missing = [one for one, down in found if down is None]
    if missing:
        names = "; ".join(f"{one.filename} has no {down_name(one)}" for one in missing)
        raise PlanError(f"cannot undo, and nothing was undone: {names}; write it beside the migration")
    made = [Step(applied=one, down=down) for one, down in found if down is not None]
    for step in made:
        refuse_edited(step)
    return made


def down_name(one: Applied) -> str:
    """What the file has to be called that undoes it."""
    return one.filename.removesuffix(".sql") + files.DOWN


def refuse_edited(step: Step) -> None:
    """Not to go on in a file that isn't the one that was begun.

    Raises:
        PlanError: It isn't.
    """
    begun = step.applied.broken
    if begun is not None and begun.statements_done and begun.checksum.split(" ")[0] != step.down.checksum:
        raise PlanError(
            f"cannot undo {step.applied.filename}: {step.down.filename} was run up to statement "
            f"{begun.statements_done} and edited since; restore it to have it finished"
        )


async def check(runner: SqlRunner, made: Iterable[Step]) -> None:
    """Refuse what can't be run here before anything is.

    Raises:
        PlanError: A file can't be run.
    """
    for step in made:
        await runner.check(step.down)


async def run(
    runner: SqlRunner,
    lease: Lease,
    log: Log,
    made: Sequence[Step],
    *,
    begin: Callable[[Step], None],
    done: Callable[[Step], None],
) -> None:
    """Undo them in this order, each in a transaction of its own that takes it off the record.

    `runner` is one of the `Backwards` kind; `begin` and `done` are told of each.

    Raises:
        MigratorError: As `SqlRunner.apply`.
    """
    for step in made:
        begin(step)
        await runner.apply(step.down, lease, _begun(step))
        log.info(
            "migration.undone",
            filename=step.applied.filename,
            version=step.applied.version,
            down=step.down.filename,
        )
        done(step)


def _begun(step: Step) -> HistoryRow | None:
    """How far an undoing came that broke off, in the runner's terms."""
    begun = step.applied.broken
    if begun is None:
        return None
    return HistoryRow(
        version=step.down.version,
        filename=step.down.filename,
        checksum=begun.checksum,
        executed_at=step.applied.executed_at,
        finished=False,
        statements_done=begun.statements_done,
        in_doubt=begun.in_doubt,
    )


def _applied(row: Row) -> Applied:
    broken = None
    if row["undone"] is not None:
        broken = Broken(
            statements_done=row["undone"], in_doubt=row["undoing_in_doubt"], checksum=row["down_checksum"]
        )
    return Applied(
        version=row["version"],
        filename=row["filename"],
        executed_at=row["executed_at"],
        executed_by=row["executed_by"],
        finished=row["finished"],
        broken=broken,
    )
