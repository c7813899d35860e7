"""Whether the files fit what is on record."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from msgspec.structs import asdict

from migrator import plan as plans
from migrator.commands import known
from migrator.errors import PlanError
from migrator.migrate import meaning_of
from migrator.plan import Kind

if TYPE_CHECKING:
    import argparse

    from migrator.session import Session

_EPILOG = """\
What is found: applied files that were changed or are missing, pending ones that are older than
an applied one (not with MIGRATION_OUT_OF_ORDER=allow), and files that are half done.

exit codes: 0 nothing is found, 65 something is
example:    migrator verify --json"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """What it takes."""
    parser.description = "Compare the files with what is on record in the database. Nothing is changed."
    parser.epilog = _EPILOG
    parser.add_argument("--json", action="store_true", help="for machines")


async def run(session: Session, options: argparse.Namespace) -> int:
    """Show what doesn't fit; 65 if something doesn't.

    Raises:
        MigratorError: It can't be told.
    """
    settings = session.settings
    dsn = settings.require_database()
    found = known.load(settings, "verify", takes_scripts=True)
    async with session.database(), session.open_store() as store:
        history = await store.history() or []
    findings = [
        finding
        for finding in plans.findings(found.migrations, history, meaning=meaning_of)
        if finding.kind is not Kind.OUT_OF_ORDER or settings.out_of_order != "allow"
    ]
    if options.json:
        document = {"database": str(dsn), "findings": [asdict(finding) for finding in findings]}
        session.answer(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        for finding in findings:
            session.answer(f"{finding.kind:12} {finding.text}")
        files, wrong = len(found.migrations), len(findings)
        session.answer(
            f"{files} file{'s' * (files != 1)}, {wrong or 'no'} finding{'s' * (wrong != 1)}, on {dsn}"
        )
    return PlanError.exit_code if findings else 0
