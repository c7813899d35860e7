"""Apply what is pending."""

from __future__ import annotations

import asyncio
import json
import os
import random
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from migrator import log as logs
from migrator.errors import ConfigError
from migrator.migrate import Engine
from migrator.output import write
from migrator.report import MigrationPhase

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from migrator.report import Report
    from migrator.session import Session

_DRY_RUN_S = 30.0

_EPILOG = """\
Each file is applied whole or not at all, by one of any number of replicas; the others wait.

--dry-run runs what is pending in one transaction and rolls it back. It takes no lease, waits at most
50 ms for a lock, and ends at once when somebody waits for one that it holds, or after SECONDS (30).
What can't run in a transaction is left out, and said. Numbers that sequences gave out are used up.

exit codes: 0 nothing is pending any more, or nothing failed that could be tried; 1 a file failed;
            75 a dry run was cut short; the others are in `migrator --help`
example:    migrator up --to 20260101090000
            migrator up --dry-run=10"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """What it takes."""
    parser.description = "Apply what is pending, or wait until somebody else has."
    parser.epilog = _EPILOG
    from migrator.commands.versions import version  # late: a start has no use for it

    parser.add_argument(
        "--to", metavar="VERSION", type=version, help="stop after that one; what comes later stays pending"
    )
    parser.add_argument(
        "--dry-run", metavar="SECONDS", nargs="?", type=_seconds, const=_DRY_RUN_S, help="only try it"
    )
    parser.add_argument("--json", action="store_true", help="for machines")


async def run(session: Session, options: argparse.Namespace | None) -> int:
    """Apply what is pending; 0.

    Raises:
        MigratorError: It can't be done.
    """
    settings = session.settings
    if settings.runner not in ("direct", "rest"):
        _refuse_options(settings.runner, options)
        from migrator.programs import walk  # late: most start without it

        return await walk.up(session)
    # Not there after --run, which is without a command.
    to = getattr(options, "to", None)
    if not settings.directories:
        reason = "there is no migrations directory (looked for supabase/migrations, migrations)"
        session.teller(MigrationPhase.SKIPPED, reason=reason)
        session.say(f"nothing to do: {reason}")
        return 0
    settings.require_database()
    if options is not None and getattr(options, "dry_run", None):
        from migrator.commands import dry_run  # late: a start has no use for it

        return await dry_run.run(session, options)
    # A hundred replicas that start together would take every connection that the app has left.
    await asyncio.sleep(random.uniform(0, settings.start_spread_s))  # noqa: S311 - no secret
    async with session.database():
        engine = Engine(
            settings=settings,
            open_store=session.open_store,
            holder=session.holder,
            tell=session.teller,
            log=session.log,
            to=to,
        )
        with _progress(session) as hear:
            if hear is not None:
                session.teller.also(hear)
            done = await engine.up()
    total, left = session.teller.report.applied, session.teller.report.pending
    session.log.info("migration.completed", applied=total, new=done, duration_ms=session.teller.elapsed_ms)
    if getattr(options, "json", False):
        write(json.dumps({"new": done, "applied": total, "pending": left}))
    else:
        session.say(f"{done} applied, {total} in all, {f'{left} left' if left else 'nothing'} pending")
    return 0


def _refuse_options(runner: str, options: argparse.Namespace | None) -> None:
    """What only our own engine can do: who asks for a dry run mustn't get a real one."""
    for name in ("dry_run", "to", "json"):
        if getattr(options, name, None):
            option = f"--{name.replace('_', '-')}"
            raise ConfigError(
                f"cannot use {option} where MIGRATION_RUNNER is {runner}: only our own engine "
                "(MIGRATION_RUNNER=direct) can do that; nothing was run"
            )


def _progress(session: Session) -> AbstractContextManager[Callable[[Report], None] | None]:
    settings = session.settings
    if settings.report_fd is not None:  # nobody looks at us: the supervisor does
        return nullcontext()
    where = logs.destination(os.environ, log_format=settings.log_format, output=settings.log_output)
    if not where["console"]:
        return nullcontext()
    from migrator import progress  # late: for eyes only

    if not progress.is_wanted(os.environ, **where):
        return nullcontext()
    return progress.shown(session.log.writer, session.redact)


def _seconds(raw: str) -> float:
    from argparse import ArgumentTypeError  # late: a start without options has no use for it

    try:
        seconds = float(raw)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 86400:
        raise ArgumentTypeError(f"must be a number of seconds above 0, not {raw!r}")
    return seconds
