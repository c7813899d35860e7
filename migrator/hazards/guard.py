"""The look before `migrator up` applies anything: cheap where there is nothing to be found."""

from __future__ import annotations

import time
from collections.abc import Sequence

from migrator import migration as files
from migrator.errors import PlanError
from migrator.hazards.quick import Quick
from migrator.log import Log
from migrator.migration import Migration
from migrator.transport import Transport

# How long a look may take where it only warns, in seconds.
WARN_S = 0.5
_LARGE_BYTES = 256 * 1024


async def look(
    pending: Sequence[Migration], transport: Transport, log: Log, *, refuse: bool, supabase: bool
) -> None:
    """Tell the hazards of what is pending.

    Only to warn, it never fails, and looks no longer than half a second. To refuse, it looks at everything.

    Args:
        pending: The files, in order.
        transport: For what the catalogs know; not used where no file can hold a hazard.
        log: Gets a warning for each.
        refuse: Whether to raise.
        supabase: The database is one of Supabase's: new tables are a matter, too.

    Raises:
        HazardRefused: There are some, and they are to be refused; nothing was changed.
        MigratorError: It is to refuse, and can't look.
    """
    give_up_s = None if refuse else time.monotonic() + WARN_S
    if _are_harmless(pending, supabase=supabase):
        return
    from migrator.hazards import warn  # late: 15 ms and the parser, for files that alter what is there

    await warn.look(pending, transport, log, give_up_s)


def _are_harmless(pending: Sequence[Migration], *, supabase: bool) -> bool:
    quick = Quick()
    try:
        for one in pending:
            if files.size_bytes(one.path) > _LARGE_BYTES or not quick.is_harmless(_text(one)):
                return False
    except (OSError, ValueError, PlanError):  # whoever reads it next says why
        return False
    return not (quick.makes_tables and supabase)


def _text(migration: Migration) -> str:
    """The file's text: checked already when it was found, so that this may be quick."""
    with open(migration.path, encoding="utf-8-sig", newline="") as file:
        return file.read()
