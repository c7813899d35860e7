"""What is to be done: files against history. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime
from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

from migrator.errors import PlanError
from migrator.migration import Migration

# In place of a checksum: what was applied isn't known, as another tool did it and no file of ours was there.
NO_CHECKSUM = "unknown"


class HistoryRow(Struct, frozen=True, kw_only=True):
    """One row of `migration_history`.

    Attributes:
        checksum: Of the file as it was applied: the plain one, and what it means behind a blank, if known.
        finished: False: begun, but not brought to its end.
        statements_done: Of a file that can't run in one transaction: how far it came.
        in_doubt: What became of the statement after those isn't known; without a number of those: of all of
            them, as undoing it broke off.
        adopted: Another tool applied it.
    """

    version: str
    filename: str
    checksum: str
    executed_at: datetime
    finished: bool = True
    statements_done: int | None = None
    in_doubt: bool = False
    adopted: bool = False

    @property
    def day(self) -> str:
        """When it was applied, for people."""
        return self.executed_at.strftime("%Y-%m-%d %H:%M UTC")

    @property
    def adopted_without_file(self) -> bool:
        """Another tool applied it, and there was no file of it here even then."""
        return self.checksum == NO_CHECKSUM

    def is_newer_than(self, newest: str | None) -> bool:
        """Applied, and newer than all files that there are, as where an older release is back."""
        return self.finished and newest is not None and self.version > newest


class Kind(StrEnum):
    """What may be odd about a migration."""

    CHANGED = "changed"
    MISSING = "missing"
    OUT_OF_ORDER = "out of order"
    HALF_DONE = "half done"


class Finding(Struct, frozen=True, kw_only=True):
    """One thing that is odd, as a sentence in `text`."""

    kind: Kind
    version: str
    filename: str
    text: str


class Plan(Struct, frozen=True, kw_only=True):
    """What to apply, in order, and what looks odd.

    Attributes:
        applied: How many of the files are applied.
        held: How many are left for later though they are pending, too.
    """

    pending: tuple[Migration, ...]
    applied: int
    warnings: tuple[str, ...]
    held: int = 0

    def up_to(self, version: str) -> Plan:
        """The same, without what comes after that version."""
        wanted = tuple(one for one in self.pending if one.version <= version)
        return replace(self, pending=wanted, held=self.held + len(self.pending) - len(wanted))


# What a file means, as a checksum; None if it can't be told.
Meaning = Callable[[Migration], str | None]


def make(
    migrations: Sequence[Migration],
    history: Iterable[HistoryRow],
    *,
    refuse_changed: bool,
    meaning: Meaning,
    out_of_order: str = "warn",
    elsewhere: Collection[str] = (),
) -> Plan:
    """Compare the files with the history, by version: a renamed file is still the same migration.

    Args:
        migrations: The files.
        history: What is on record.
        refuse_changed: Whether an edited file keeps us from going on.
        meaning: Asked only about files whose plain checksum isn't that on record.
        out_of_order: What to do about a pending file that is older than an applied one: `allow`, `warn`
            or `refuse`.
        elsewhere: Versions that another tool's history has; what is on our own record comes before that.

    Raises:
        PlanError: An applied file was edited or a pending one comes late (if that is refused), or one was
            left half done in a way that no one can go on from.
    """
    rows = {row.version: row for row in history}
    pending: list[Migration] = []
    applied: list[Migration] = []
    changed: list[Finding] = []
    for migration in migrations:
        row = rows.get(migration.version)
        if row is None:
            (applied if migration.version in elsewhere else pending).append(migration)
        elif not row.finished:
            stuck = _stuck(migration, row, meaning)
            if stuck is not None:
                raise PlanError(f"cannot go on: {stuck}")
            pending.append(migration)
        else:
            applied.append(migration)
            changed += _changed(migration, row, meaning)
    if changed and refuse_changed:
        raise PlanError(
            f"cannot go on: {_listed(changed)}; restore the file and add a new migration instead, "
            "or take it as it is now (`migrator repair` shows how), or set MIGRATION_CHANGED_FILES=warn"
        )
    late = _out_of_order(pending, applied)
    if late and out_of_order == "refuse":
        raise PlanError(
            f"cannot go on: {_listed(late)}; rename what comes late to a version after that, or set "
            "MIGRATION_OUT_OF_ORDER=warn"
        )
    missing = _missing(migrations, rows)
    told = [finding.text for finding in (*changed, *missing, *(late if out_of_order != "allow" else ()))]
    gone = [finding for finding in missing if finding.kind is Kind.MISSING]
    if gone and len(gone) == len(rows) and pending and not applied:
        told = [_strange(gone)]
    return Plan(pending=tuple(pending), applied=len(applied), warnings=tuple(told))


def findings(
    migrations: Sequence[Migration], history: Iterable[HistoryRow], *, meaning: Meaning
) -> list[Finding]:
    """All that is odd, whatever is to be done about it; `meaning` as for `make`."""
    rows = {row.version: row for row in history}
    found: list[Finding] = []
    pending: list[Migration] = []
    applied: list[Migration] = []
    for migration in migrations:
        row = rows.get(migration.version)
        if row is None:
            pending.append(migration)
        elif row.finished:
            applied.append(migration)
            found += _changed(migration, row, meaning)
        else:
            done = row.statements_done
            begun = f"applied up to statement {done}" if done else "begun"
            text = _stuck(migration, row, meaning) or (
                f"{migration.filename} was {begun} on {row.day}; `migrator up` goes on there"
            )
            found.append(_finding(Kind.HALF_DONE, migration, text))
    return [*found, *_missing(migrations, rows), *_out_of_order(pending, applied)]


def require(migrations: Sequence[Migration], version: str) -> None:
    """Go up to a version only if there is a file of it.

    Raises:
        PlanError: There is none.
    """
    if all(one.version != version for one in migrations):
        last = f"; the last one is {migrations[-1].filename}" if migrations else ""
        raise PlanError(f"cannot go up to {version}: there is no migration of that version{last}")


def is_changed(migration: Migration, row: HistoryRow, meaning: Meaning) -> bool:
    """Whether the file means something else than what was applied."""
    if row.adopted_without_file:
        return False
    plain, _, meant = row.checksum.partition(" ")
    return plain != migration.checksum and (not meant or meaning(migration) != meant)


def _changed(migration: Migration, row: HistoryRow, meaning: Meaning) -> list[Finding]:
    if not is_changed(migration, row, meaning):
        return []
    text = f"{migration.filename} differs from what was applied on {row.day}"
    return [_finding(Kind.CHANGED, migration, text)]


def _stuck(migration: Migration, row: HistoryRow, meaning: Meaning) -> str | None:
    """Why nobody can go on with a file that is half done; None if one can."""
    settle = (
        "look what is there, then see `migrator repair`, which takes it for done or has it run from the start"
    )
    if row.statements_done is None and row.in_doubt:
        return f"undoing {migration.filename} broke off; `migrator down` finishes that, or {settle}"
    if row.statements_done is None:
        return (
            f"{migration.filename} ended its own transaction on {row.day}, "
            f"so that it may be half done; {settle}"
        )
    if is_changed(migration, row, meaning):
        return (
            f"{migration.filename} was applied up to statement {row.statements_done} and "
            f"edited since; restore it to have it finished, or {settle}, or goes on after that statement"
        )
    return None


def _missing(migrations: Iterable[Migration], rows: dict[str, HistoryRow]) -> list[Finding]:
    known = {migration.version for migration in migrations}
    newest = max(known, default=None)
    gone = [row for version, row in rows.items() if version not in known and not row.adopted_without_file]
    return [
        _finding(
            Kind.MISSING if row.finished else Kind.HALF_DONE,
            row,
            f"{row.filename} was {'applied' if row.finished else 'begun'} on {row.day}, "
            f"but the file is missing; {_why_missing(row, newest)}",
        )
        for row in sorted(gone, key=lambda row: row.filename)
    ]


def _why_missing(row: HistoryRow, newest: str | None) -> str:
    if row.is_newer_than(newest):
        return "it is newer than all files here, as when an older release is back"
    return "restore it, or see `migrator repair`"


def _strange(missing: Sequence[Finding]) -> str:
    """What to say, once, of a history that knows nothing of these files."""
    count, first = len(missing), missing[0].filename
    named = first if count == 1 else f"{count} migrations, the first one {first}"
    return (
        f"the database has {named} on record, and none of the files here: is it the right one? If it has "
        "several apps, give each a MIGRATION_SCHEMA of its own"
    )


def _out_of_order(pending: Sequence[Migration], applied: Sequence[Migration]) -> list[Finding]:
    if not applied:
        return []
    newest = max(applied, key=lambda migration: migration.version)
    return [
        _finding(
            Kind.OUT_OF_ORDER,
            migration,
            f"{migration.filename} comes out of order: {newest.filename} is applied already",
        )
        for migration in pending
        if migration.version < newest.version
    ]


def _finding(kind: Kind, of: Migration | HistoryRow, text: str) -> Finding:
    return Finding(kind=kind, version=of.version, filename=of.filename, text=text)


def _listed(found: Iterable[Finding]) -> str:
    return "; ".join(finding.text for finding in found)
