"""What is wrong between files and history, and what a person can have done about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

from msgspec import Struct

from migrator import ledger, parts
from migrator.errors import PlanError
from migrator.ledger import Change
from migrator.migration import Migration
from migrator.plan import HistoryRow, Meaning, is_changed


class Wish(StrEnum):
    """What a person asks for."""

    ACCEPT = "accept"
    APPLIED = "applied"
    NOT_APPLIED = "not-applied"


class Finding(Struct, frozen=True, kw_only=True):
    """One thing that is wrong; `ways` are commands, each with what it does."""

    version: str
    filename: str
    state: str
    what: str
    ways: tuple[tuple[str, str], ...]


class Repair(Struct, frozen=True, kw_only=True):
    """One thing to do; `change` is None where it is so already."""

    filename: str
    version: str
    outcome: str
    change: Change | None


def findings(
    migrations: Sequence[Migration], rows: Mapping[str, HistoryRow], meaning: Meaning
) -> list[Finding]:
    """All that is wrong, by version."""
    by_version = {migration.version: migration for migration in migrations}
    newest = max(by_version, default=None)
    found = []
    for version, row in sorted(rows.items()):
        migration = by_version.get(version)
        finding = (
            _missing(row, newest) if migration is None else _changed_or_half_done(migration, row, meaning)
        )
        if finding is not None:
            found.append(finding)
    return found


def _missing(row: HistoryRow, newest: str | None) -> Finding | None:
    if row.adopted_without_file:
        return None
    older_is_back = ("leave it", "if an older release is back: the newer one has the file")
    return Finding(
        version=row.version,
        filename=row.filename,
        state="missing" if row.finished else "half done, missing",
        what=f"applied on {row.day}, but there is no such file any more",
        ways=(
            *([older_is_back] if row.is_newer_than(newest) else []),
            ("restore the file", "so that new databases get it, too"),
            (_command(Wish.NOT_APPLIED, row.version), "forget it: nothing is undone in the database"),
        ),
    )


def _changed_or_half_done(migration: Migration, row: HistoryRow, meaning: Meaning) -> Finding | None:
    version = row.version
    changed = is_changed(migration, row, meaning)
    if row.finished and not changed:
        return None
    if row.finished:
        state, what = "changed", f"edited since it was applied on {row.day}"
        ways = [
            ("restore the file", "and put the change into a new one (migrator new NAME)"),
            (_command(Wish.ACCEPT, version), "take it as it is now; it isn't run again"),
        ]
    else:
        state = "half done"
        whole = row.statements_done is None
        is_script = whole and migration.filename.endswith(".sh")
        undone = whole and row.in_doubt and not is_script
        if is_script:
            what = f"begun on {row.day}, and any part of it may be done"
        elif undone:
            what = "undoing it broke off, so any part of it may be gone"
        elif whole:
            what = f"it ended its own transaction on {row.day}, so any part of it may be applied"
        else:
            what = f"begun on {row.day}, {row.statements_done} of its statements are done"
            what += ", and one more may be" if row.in_doubt else ""
            what += "; edited since" if changed else ""
        ways = [
            (_command(Wish.APPLIED, version), "all of it is there: take it for done"),
            (
                _command(Wish.NOT_APPLIED, version),
                "run it from the start, after you have undone what is there",
            ),
        ]
        if undone:
            ways.insert(0, ("migrator down", "go on with undoing it"))
        if changed and not whole:
            ways.insert(
                0, (_command(Wish.ACCEPT, version), "the statements that are done are as they were: go on")
            )
        if not changed and not whole:
            ways.insert(0, ("migrator up", "go on after those"))
    return Finding(version=version, filename=migration.filename, state=state, what=what, ways=tuple(ways))


def _command(wish: Wish, version: str) -> str:
    return f"migrator repair --{wish} {version}"


def repair(
    wish: Wish, version: str, migration: Migration | None, row: HistoryRow | None, meaning: Meaning
) -> Repair:
    """What a wish comes to.

    Raises:
        PlanError: It makes no sense here; the message says what does.
    """
    if wish is Wish.NOT_APPLIED:
        return _forget(version, migration, row)
    if migration is None:
        raise PlanError(
            f"cannot record version {version} as {wish}: there is no file of it"
            + (f"; to forget {row.filename}: {_command(Wish.NOT_APPLIED, version)}" if row else "")
        )
    if wish is Wish.APPLIED:
        return _apply(migration, row, meaning)
    if row is None:
        raise PlanError(
            f"cannot accept {migration.filename}: it isn't on record, and so pending; `migrator up` applies "
            f"it, or if it is applied already: {_command(Wish.APPLIED, version)}"
        )
    return _accept(migration, row, meaning)


def _forget(version: str, migration: Migration | None, row: HistoryRow | None) -> Repair:
    if row is None:
        if migration is None:
            raise PlanError(f"cannot find version {version}, neither among the files nor on record")
        return Repair(
            filename=migration.filename,
            version=version,
            outcome="isn't on record, and so pending",
            change=None,
        )
    then = (
        "pending: `migrator up` runs it from the start" if migration else "forgotten: there is no file of it"
    )
    return Repair(
        filename=migration.filename if migration else row.filename,
        version=version,
        outcome=f"{then} (was {_was(row)})",
        change=ledger.forget(row),
    )


def _apply(migration: Migration, row: HistoryRow | None, meaning: Meaning) -> Repair:
    if row is None:
        outcome, change = "applied: it isn't run (was pending)", ledger.record_file(migration, meaning)
    elif row.finished:
        return Repair(
            filename=migration.filename,
            version=migration.version,
            outcome=f"is on record already, {_was(row)}",
            change=None,
        )
    else:
        outcome = f"applied: it isn't run again (was {_was(row)})"
        change = ledger.amend(migration, row, meaning, finished=True)
    return Repair(filename=migration.filename, version=migration.version, outcome=outcome, change=change)


def _accept(migration: Migration, row: HistoryRow, meaning: Meaning) -> Repair:
    if not is_changed(migration, row, meaning):
        return Repair(
            filename=migration.filename,
            version=migration.version,
            outcome="is as it was applied" if row.finished else "is as it was begun",
            change=None,
        )
    outcome = f"accepted as it is now ({_short(row.checksum)} -> {_short(migration.checksum)})"
    if not row.finished:
        outcome += f"; `migrator up` goes on with statement {_next_statement(migration, row)}"
    change = ledger.amend(migration, row, meaning, finished=row.finished)
    return Repair(filename=migration.filename, version=migration.version, outcome=outcome, change=change)


def _next_statement(migration: Migration, row: HistoryRow) -> int:
    """Where an edited half-done file goes on.

    Raises:
        PlanError: It can't go on anywhere.
    """
    done = row.statements_done
    applied, again = (_command(wish, row.version) for wish in (Wish.APPLIED, Wish.NOT_APPLIED))
    ways = f"{applied} if all of it is there, {again} to run it from the start"
    if done is None:
        raise PlanError(
            f"cannot accept {migration.filename}: it ended its own transaction, so how far it came isn't "
            f"known; {ways}"
        )
    total = parts.total(migration)
    if not total:
        raise PlanError(
            f"cannot go on in {migration.filename} after {done} statements: as it is now, it runs whole, in "
            f"one transaction; {ways}"
        )
    if total <= done:
        raise PlanError(
            f"cannot go on in {migration.filename}: {done} statements are done, and it has only {total} "
            f"now; {ways}"
        )
    return done + 1


def _was(row: HistoryRow) -> str:
    if row.finished:
        return f"applied on {row.day}"
    done = "" if row.statements_done is None else f", {row.statements_done} statements done"
    return f"half done since {row.day}{done}"


def _short(checksum: str) -> str:
    return checksum.partition(" ")[0].removeprefix("sha256:")[:8]
