"""Which of our files another tool has applied. Pure.

The rule: a file is taken for applied if the tool's history has its version; or, where that isn't to be
found, its content, or its name, if it is the only one of that name. What the tool applied and we have no
file of is recorded under its version, if it has one, so that a file of that version that turns up later
isn't applied again. All other files are pending.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

from migrator.errors import PlanError
from migrator.foreign.look import Source
from migrator.foreign.tools import Entry, State
from migrator.migration import Migration
from migrator.plan import HistoryRow

_BETWEEN_WORDS = re.compile(r"[^0-9a-zA-Z]+")
_SHOWN = 5


class Match(Struct, frozen=True, kw_only=True):
    """A file that is applied; `edited` since then, as far as the tool's checksum can tell."""

    migration: Migration
    entry: Entry
    edited: bool = False


class Adoption(Struct, frozen=True, kw_only=True):
    """What taking over a history comes to.

    Attributes:
        record: Files to be recorded as applied.
        without_file: What is to be recorded by version alone.
        nameless: What has neither a file here nor a version, and isn't recorded.
        not_applied: What the tool has undone, or never brought to an end and settled.
        already: How many of its migrations are on our record before.
        pending: Files that are neither there nor here.
        refusals: Why it can't be done; empty if it can.
    """

    record: tuple[Match, ...]
    without_file: tuple[Entry, ...]
    nameless: tuple[Entry, ...]
    not_applied: tuple[Entry, ...]
    already: int
    pending: tuple[Migration, ...]
    refusals: tuple[str, ...]

    def refuse(self, tool: str) -> None:
        """Go no further if it can't be done.

        Raises:
            PlanError: It can't; all reasons are in the message.
        """
        if self.refusals:
            raise PlanError(f"cannot adopt the history of {tool}: {'; '.join(self.refusals)}")


def match(
    source: Source,
    migrations: Sequence[Migration],
    rows: Mapping[str, HistoryRow],
    content: Callable[[Migration], bytes],
) -> Adoption:
    """Compare another tool's history with our files and our own history.

    Args:
        source: What it has applied.
        migrations: Our files.
        rows: What is on our own record, by version.
        content: A file's bytes; asked only where the tool has checksums.
    """
    entries = [entry for entry in source.entries if entry.state is State.APPLIED]
    found = _Files(source, migrations, content).match(entries)
    known = {one.migration.version for one in found}
    matched = {id(one.entry) for one in found}
    width = _width(migrations) if source.tool.keeps_numbers else 0
    without, nameless = [], []
    for entry in entries:
        if id(entry) in matched or entry.and_below:
            continue
        if entry.version is None:
            nameless.append(entry)
        elif entry.version.zfill(width) not in rows:
            without.append(_widened(entry, width))
    pending = [one for one in migrations if one.version not in known and one.version not in rows]
    return Adoption(
        record=tuple(one for one in found if one.migration.version not in rows),
        without_file=tuple(without),
        nameless=tuple(nameless),
        not_applied=tuple(entry for entry in source.entries if entry.state is State.NOT_APPLIED),
        already=len([one for one in found if one.migration.version in rows]),
        pending=tuple(pending),
        refusals=(
            *(
                f"{entry.label} failed there; {entry.remedy}"
                for entry in source.entries
                if entry.state is State.FAILED
            ),
            *_half_done(found, rows),
            *_unlike(entries, found, pending, migrations),
        ),
    )


class _Files:
    """Our files, to be found by what another tool calls them."""

    def __init__(
        self, source: Source, migrations: Sequence[Migration], content: Callable[[Migration], bytes]
    ) -> None:
        self._migrations = migrations
        checksums = source.tool.checksums
        self._checksums = {one.version: checksums(content(one)) for one in migrations} if checksums else {}
        self._free = {one.version: one for one in migrations}

    def match(self, entries: Sequence[Entry]) -> list[Match]:
        found: list[Match] = []
        # What is surest comes first, so that nothing less sure takes its file.
        for look in (self._by_version, self._by_number, self._by_content, self._by_name):
            matched = {id(one.entry) for one in found}
            left = [entry for entry in entries if id(entry) not in matched]
            for entry in left:
                migration = look(entry, left)
                if migration is not None:
                    del self._free[migration.version]
                    found.append(
                        Match(migration=migration, entry=entry, edited=self._is_edited(entry, migration))
                    )
        for entry in entries:
            if entry.and_below and entry.version is not None:
                below = [one for one in self._free.values() if int(one.version) <= int(entry.version)]
                found += [Match(migration=one, entry=entry) for one in below]
                for one in below:
                    del self._free[one.version]
        return sorted(found, key=lambda one: one.migration.version)

    def _by_version(self, entry: Entry, _left: Sequence[Entry]) -> Migration | None:
        return self._free.get(entry.version or "")

    def _by_number(self, entry: Entry, _left: Sequence[Entry]) -> Migration | None:
        """Some tools keep numbers, without the zeros before them."""
        if entry.version is None:
            return None
        return _only([one for one in self._free.values() if int(one.version) == int(entry.version)])

    def _by_content(self, entry: Entry, _left: Sequence[Entry]) -> Migration | None:
        if entry.checksum is None:
            return None
        return _only([one for one in self._free.values() if entry.checksum in self._checksums[one.version]])

    def _by_name(self, entry: Entry, left: Sequence[Entry]) -> Migration | None:
        words = _words(entry.name)
        if not words or len([one for one in left if _words(one.name) == words]) != 1:
            return None
        same = [one for one in self._migrations if _words(one.name) == words]
        return same[0] if len(same) == 1 and same[0].version in self._free else None

    def _is_edited(self, entry: Entry, migration: Migration) -> bool:
        sums = self._checksums.get(migration.version)
        return entry.checksum is not None and sums is not None and entry.checksum not in sums


def _only(found: Sequence[Migration]) -> Migration | None:
    return found[0] if len(found) == 1 else None


def _words(name: str | None) -> str:
    """A name, however its words are joined. golang-migrate's files end in .up.sql."""
    return _BETWEEN_WORDS.sub("_", (name or "").removesuffix(".up")).strip("_").lower()


def _width(migrations: Sequence[Migration]) -> int:
    """How many digits our versions have, if all have as many: who keeps numbers has lost the zeros."""
    widths = {len(one.version) for one in migrations}
    return widths.pop() if len(widths) == 1 else 0


def _widened(entry: Entry, width: int) -> Entry:
    version = (entry.version or "").zfill(width)
    return Entry(label=entry.label, version=version, name=entry.name, applied_at=entry.applied_at)


def _half_done(found: Sequence[Match], rows: Mapping[str, HistoryRow]) -> list[str]:
    return [
        f"{one.migration.filename} is half done on our own record; settle it first with `migrator repair`"
        for one in found
        if (row := rows.get(one.migration.version)) is not None and not row.finished
    ]


def _unlike(
    entries: Sequence[Entry],
    found: Sequence[Match],
    pending: Sequence[Migration],
    migrations: Sequence[Migration],
) -> list[str]:
    """Why our files can't be those that the tool applied, unless under other names."""
    for entry in entries:
        number = entry.version
        if entry.and_below and number and not any(int(one.version) == int(number) for one in migrations):
            why = (
                f"it stands for all files up to {number}, and none here has that version; if they were "
                f"renamed: `migrator baseline VERSION`, with that of the last one applied"
            )
            return [why]
    if found or not entries:
        return []
    newest = max(
        (entry.version for entry in entries if entry.version), key=lambda one: (len(one), one), default=""
    )
    suspect = [one for one in pending if len(one.version) != len(newest) or one.version <= newest]
    if not suspect:
        return []
    names = ", ".join(one.filename for one in suspect[:_SHOWN]) + (" ..." if len(suspect) > _SHOWN else "")
    why = (
        f"none of the {len(entries)} migrations there is a file here, by version, content or name, and "
        f"{names} would be applied, maybe a second time; name the files <version>_<name>.sql as they are "
        f"called there, or say which are applied with `migrator baseline VERSION`"
    )
    return [why]
