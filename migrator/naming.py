"""What a migration file is called: made up for a new one, and found again by what a person types. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from migrator.errors import PlanError
from migrator.migration import Migration
from migrator.plan import HistoryRow

_STAMP = "%Y%m%d%H%M%S"
_STAMP_LENGTH = 14
# With a version and the ends, a name must fit into the 255 bytes that file systems allow.
_NAME_LENGTH = 200
_NOT_PLAIN = re.compile(r"[^\w]+")


def slug(name: str) -> str:
    """The name as a part of a file's name: words of lower case, with `_` between.

    Raises:
        ValueError: Nothing of it is left.
    """
    words = _NOT_PLAIN.sub("_", unicodedata.normalize("NFC", name).lower()).strip("_")
    if not words:
        raise ValueError(f"{name!r} has neither letters nor digits")
    return words[:_NAME_LENGTH]


def next_version(now: datetime, taken: Iterable[str]) -> str:
    """The version of a new file: the time, or the first one after all that are taken in this form.

    Thus it comes last also where somebody's clock is ahead, or two are made within a second.
    """
    version = now.strftime(_STAMP)
    newest = max((one for one in taken if len(one) == _STAMP_LENGTH), default="")
    if newest < version:
        return version
    try:
        return (datetime.strptime(newest, _STAMP) + timedelta(seconds=1)).strftime(_STAMP)  # noqa: DTZ007
    except (ValueError, OverflowError):  # fourteen digits that are no date
        return f"{int(newest) + 1:014}"


def later(version: str, taken: Iterable[str]) -> list[str]:
    """The versions that come after this one, as text."""
    return sorted(one for one in taken if one > version)


def version_of(given: str) -> str:
    """The version that a person means by a version, a file's name or its path."""
    return given.rpartition("/")[2].partition("_")[0]


def typed(given: str) -> str:
    """What an argument of the command line means: as `version_of`.

    Raises:
        ValueError: There is nothing; a script's variable that isn't set must not mean anything.
    """
    if version := version_of(given):
        return version
    raise ValueError(f"{given!r} has no version; `migrator status` lists them")


def find(given: str, migrations: Sequence[Migration]) -> Migration:
    """The file that a person means.

    Raises:
        PlanError: There is none; the message names what there is.
    """
    version = version_of(given)
    for migration in migrations:
        if migration.version == version:
            return migration
    if not migrations:
        raise PlanError(
            f"cannot find a file of version {version}: there are no migration files; see MIGRATIONS_DIR"
        )
    # 20260101 for 20260101090000, or 1 for 0001.
    near = [
        one.filename
        for one in migrations
        if one.version.startswith(version) or one.version.lstrip("0") == version.lstrip("0")
    ]
    hint = f"did you mean {near[0]}?" if near else f"the files are {_ends(migrations)}"
    raise PlanError(f"cannot find a file of version {version}: {hint}")


def find_row(given: str, rows: dict[str, HistoryRow]) -> HistoryRow | None:
    """The history's row that a person means; None if there is none."""
    return rows.get(version_of(given))


def _ends(migrations: Sequence[Migration]) -> str:
    if len(migrations) == 1:
        return migrations[0].filename
    return f"{migrations[0].filename} to {migrations[-1].filename}"
