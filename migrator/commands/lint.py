"""Which statements of the files would stop or break the running app."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from migrator import migration as files
from migrator import plan as plans
from migrator.errors import MigratorError, PlanError, Redactor, Unavailable
from migrator.hazards import check, parsed, reading, show, warn
from migrator.hazards.facts import Facts
from migrator.hazards.finding import Finding, Severity
from migrator.hazards.parsed import Parsed
from migrator.migrate import meaning_of
from migrator.output import write
from migrator.plan import HistoryRow
from migrator.transport import DatabaseError

if TYPE_CHECKING:
    import argparse

    from migrator.migration import AnyPath, Migration
    from migrator.session import Session
    from migrator.store import Store

HAZARDS_FOUND = 65

_EPILOG = """\
With a database it knows how large the tables are, and leaves out what is harmless there. Only --fix
changes anything: the files.

exit codes: 0 nothing is found, 65 something that would stop or break the running app
example:    migrator lint
            migrator lint --offline migrations/20260101090000_create_visits.sql"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """What it takes."""
    parser.description = "Show which statements would stop or break the running app, and the safe SQL."
    parser.epilog = _EPILOG
    parser.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        type=Path,
        help="these; else what is pending, or without a database, all",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="for machines")
    form.add_argument("--sarif", action="store_true", help="for GitHub's code scanning")
    form.add_argument("--fix", action="store_true", help="write the safe form where it means the same")
    parser.add_argument("--all", action="store_true", help="notices, too")
    parser.add_argument("--offline", action="store_true", help="don't ask the database")


async def run(session: Session, options: argparse.Namespace) -> int:
    """Tell what was found; 65 if any of it stops or breaks the app, else 0.

    Raises:
        MigratorError: It can't be done.
    """
    settings = session.settings
    known = files.load(settings.directories, settings.environment, chosen=settings.chosen)
    history: list[HistoryRow] = []
    chosen = list(options.files)
    facts: Facts | None = None
    # The private Postgres would have to be made first, and a look changes nothing.
    use_database = (
        (settings.database or settings.rest) is not None and not settings.embedded and not options.offline
    )
    if use_database:
        try:
            async with session.open_store() as store:
                history = await store.history() or []
                chosen = chosen or [Path(one.path) for one in _pending(known.migrations, history)]
                read = _read(chosen)
                facts = await _facts(store, read)
        except Unavailable as error:
            # Not an error: what the files show can be told without it.
            session.log.warning("hazard.unknown", reason=f"{error}; told from the files alone")
            use_database = False
    if not use_database:
        chosen = chosen or [Path(one.path) for one in known.migrations]
        read = _read(chosen)
    unknown = warn.unknown_allowances(read)
    if unknown:
        raise PlanError("cannot check: " + "; ".join(unknown))
    found = [one for one in check.check(read, facts) if options.all or one.severity is not Severity.NOTICE]
    paths = {one.path.name: one.path for one in read}
    _tell_unknown(session, read)
    mask = Redactor(settings.secrets)
    for line in _lines(found, paths, options, database=use_database):
        write(mask(line))
    if options.fix:
        from migrator.hazards import fix  # late: only who asks for it

        for line in fix.fix(read, found, known.migrations, {row.version for row in history}):
            write(mask(line))
    return HAZARDS_FOUND if any(one.severity is not Severity.NOTICE for one in found) else 0


def _tell_unknown(session: Session, read: Sequence[Parsed]) -> None:
    for one in read:
        if one.unknown:
            line, statement = one.unknown[0]
            more = f", and {len(one.unknown) - 1} more" if len(one.unknown) > 1 else ""
            reason = (
                f"cannot look at what the parser doesn't know: {one.path.name}:{line}: {statement!r}{more}"
            )
            session.log.warning("hazard.unknown", filename=one.path.name, line=line, reason=reason)


def _lines(
    found: list[Finding], paths: dict[str, Path], options: argparse.Namespace, *, database: bool
) -> list[str]:
    count = sum(one.severity is not Severity.NOTICE for one in found)
    if options.json:
        return [show.as_json(found, paths, {"database": database, "files": len(paths), "hazards": count})]
    if options.sarif:
        return [show.as_sarif(found, paths, metadata.version("entrypoint"))]
    by = "" if database else ", by the files alone"
    return [
        *show.for_eyes(found, paths, colors=sys.stdout.isatty()),
        f"{_counted(len(paths), 'file')}{by}: {_counted(count, 'hazard')}",
    ]


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _pending(migrations: tuple[Migration, ...], history: list[HistoryRow]) -> tuple[Migration, ...]:
    return plans.make(migrations, history, refuse_changed=False, meaning=meaning_of).pending


def _read(paths: Sequence[AnyPath]) -> list[Parsed]:
    return [parsed.parse(path) for path in paths]


async def _facts(store: Store, read: list[Parsed]) -> Facts:
    try:
        return await reading.read(store.transport, parsed.names(read))
    except DatabaseError as error:
        raise MigratorError(f"cannot read the catalogs: {error.text}; --offline does without them") from error
