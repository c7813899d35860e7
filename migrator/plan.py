"""What is to be done: files against history. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from migrator.errors import PlanError
from migrator.migration import Migration

# In place of a checksum: what was applied isn't known, as another tool did it and no file of ours was there.
NO_CHECKSUM = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryRow:
    """One row of `migration_history`.

    Attributes:
        checksum: Of the file as it was applied: the plain one, and what it means behind a blank, if known.
        finished: False: begun, but not brought to its end.
        statements_done: Of a file that can't run in one transaction: how far it came.
        in_doubt: What became of the statement after those isn't known; without a number of those: of all of
            them, as undoing it broke off.
    """

    version: str
    filename: str
    checksum: str
    executed_at: datetime
    finished: bool = True
    statements_done: int | None = None
    in_doubt: bool = False

    @property
    def day(self) -> str:
        """When it was applied, for people."""
        return self.executed_at.strftime("%Y-%m-%d %H:%M UTC")

    @property
    def adopted_without_file(self) -> bool:
        """Another tool applied it, and there was no file of it here even then."""
        return self.checksum == NO_CHECKSUM


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to apply, in order, and what looks odd.

    Attributes:
        applied: How many of the files are applied.
    """

    pending: tuple[Migration, ...]
    applied: int
    warnings: tuple[str, ...]


# What a file means, as a checksum; None if it can't be told.
Meaning = Callable[[Migration], str | None]


def make(
    migrations: Sequence[Migration],
    history: Iterable[HistoryRow],
    *,
    refuse_changed: bool,
    meaning: Meaning,
) -> Plan:
    """Compare the files with the history, by version: a renamed file is still the same migration.

    Args:
        migrations: The files.
        history: What is on record.
        refuse_changed: Whether an edited file keeps us from going on.
        meaning: Asked only about files whose plain checksum isn't that on record.

    Raises:
        PlanError: An applied file was edited (if that is refused), or one was left half done in a
            way that no one can go on from.
    """
    rows = {row.version: row for row in history}
    pending: list[Migration] = []
    applied: list[Migration] = []
    changed: list[str] = []
    for migration in migrations:
        row = rows.get(migration.version)
        if row is None:
            pending.append(migration)
            continue
        if not row.finished:
            _refuse_unless_resumable(migration, row, meaning)
            pending.append(migration)
            continue
        applied.append(migration)
        if is_changed(migration, row, meaning):
            changed.append(f"{migration.filename} differs from what was applied on {row.day}")
    if changed and refuse_changed:
        raise PlanError(
            f"cannot go on: {'; '.join(changed)}; restore the file and add a new migration instead, "
            "or take it as it is now (`migrator repair` shows how), or set MIGRATION_CHANGED_FILES=warn"
        )
    return Plan(
        pending=tuple(pending),
        applied=len(applied),
        warnings=(*changed, *_missing(migrations, rows), *_out_of_order(pending, applied)),
    )


def is_changed(migration: Migration, row: HistoryRow, meaning: Meaning) -> bool:
    """Whether the file means something else than what was applied."""
    if row.adopted_without_file:
        return False
    plain, _, meant = row.checksum.partition(" ")
    return plain != migration.checksum and (not meant or meaning(migration) != meant)


def _refuse_unless_resumable(migration: Migration, row: HistoryRow, meaning: Meaning) -> None:
    settle = (
        "look what is there, then see `migrator repair`, which takes it for done or has it run from the start"
    )
    if row.statements_done is None and row.in_doubt:
        raise PlanError(
            f"cannot go on: undoing {migration.filename} broke off; `migrator down` finishes that, "
            f"or {settle}"
        )
    if row.statements_done is None:
        raise PlanError(
            f"cannot go on: {migration.filename} ended its own transaction on {row.day}, "
            f"so that it may be half done; {settle}"
        )
    if is_changed(migration, row, meaning):
        raise PlanError(
            f"cannot go on: {migration.filename} was applied up to statement {row.statements_done} and "
            f"edited since; restore it to have it finished, or {settle}, or goes on after that statement"
        )


def _missing(migrations: Iterable[Migration], rows: dict[str, HistoryRow]) -> list[str]:
    known = {migration.version for migration in migrations}
    gone = [row for version, row in rows.items() if version not in known and not row.adopted_without_file]
    return [
        f"{row.filename} was applied on {row.day}, but the file is missing; restore it, or see "
        "`migrator repair`"
        for row in sorted(gone, key=lambda row: row.filename)
    ]


def _out_of_order(pending: Sequence[Migration], applied: Sequence[Migration]) -> list[str]:
    if not applied:
        return []
    newest = max(applied, key=lambda migration: migration.version)
    return [
        f"{migration.filename} comes out of order: {newest.filename} is applied already"
        for migration in pending
        if migration.version < newest.version
    ]
