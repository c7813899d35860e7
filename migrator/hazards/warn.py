"""Pending files under all rules: a log line for each hazard, or no run at all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

from migrator.errors import HazardRefused, MigratorError
from migrator.hazards import check, parsed, reading
from migrator.hazards.finding import Finding, Severity
from migrator.hazards.parsed import Parsed
from migrator.hazards.table import RULES
from migrator.log import Log
from migrator.migration import Migration
from migrator.transport import DatabaseError, Transport

# How many hazards are told one by one.
_MOST_TOLD = 20
_REFUSED_SHOWN = 3


async def look(pending: Sequence[Migration], transport: Transport, log: Log, give_up_s: float | None) -> None:
    """Tell the hazards of what is pending; see `guard.look`.

    Args:
        pending: The files.
        transport: To the database.
        log: Gets a warning for each.
        give_up_s: When to stop looking, by the monotonic clock; None: never, and then hazards are refused.

    Raises:
        HazardRefused: There are some, and they are to be refused; nothing was changed.
        MigratorError: It is to refuse, and can't look.
    """
    try:
        found, left_out, odd = await _find(pending, transport, give_up_s)
    except Exception as error:
        if give_up_s is not None:
            _tell_failure(log, error)
            return
        if isinstance(error, MigratorError):
            raise
        why = error.text if isinstance(error, DatabaseError) else repr(error)
        raise HazardRefused(
            f"cannot look for hazards, as MIGRATION_HAZARDS=refuse asks for: {why}; nothing was changed"
        ) from error
    for reason in odd:
        log.warning("hazard.unknown", reason=reason)
    for one in found[:_MOST_TOLD]:
        log.warning(
            "hazard.found",
            rule=one.rule,
            severity=str(one.severity),
            filename=one.filename,
            line=one.line,
            reason=one.why,
            safe=one.safe,
            page=RULES[one.rule].page,
        )
    if len(found) > _MOST_TOLD:
        reason = f"and {len(found) - _MOST_TOLD} more hazards; migrator lint shows them all"
        log.warning("hazard.unshown", reason=reason)
    if left_out:
        reason = (
            f"{left_out} of {len(pending)} files were left out to save time; migrator lint looks at them all"
        )
        log.warning("hazard.unknown", reason=reason)
    if found and give_up_s is None:
        raise HazardRefused(refusal(found))


def refusal(found: Sequence[Finding]) -> str:
    """Why nothing is applied, and what to do."""
    told = [
        f"{one.filename}, line {one.line}: {one.rule}: {one.why}; instead:\n{one.safe}"
        for one in found[:_REFUSED_SHOWN]
    ]
    more = len(found) - _REFUSED_SHOWN
    if more > 0:
        told.append(f"and {more} more, which migrator lint shows")
    return (
        "cannot apply what is pending without harm to the running app, and MIGRATION_HAZARDS=refuse; nothing was "
        "changed:\n" + "\n".join(told) + "\nchange the file, or say at its top why it may: "
        f"-- migrator: allow={found[0].rule} because ..."
    )


def unknown_allowances(read: Sequence[Parsed]) -> list[str]:
    """What files allow that no rule is called."""
    return [
        f"{one.path.name}: allow={rule}: there is no such rule; see {RULES['create-index'].page.split('#')[0]}"
        for one in read
        for rule in one.allowed
        if rule not in RULES
    ]


def _tell_failure(log: Log, error: Exception) -> None:
    """A look that only warns never fails the run."""
    if isinstance(error, MigratorError):  # whoever applies the file, or uses the connection next, tells it
        log.debug("hazard.unknown", reason=str(error))
    else:
        log.warning("hazard.unknown", reason=f"cannot look for hazards: {error!r}")


async def _find(
    pending: Sequence[Migration], transport: Transport, give_up_s: float | None
) -> tuple[list[Finding], int, list[str]]:
    """The hazards, how many files weren't looked at to their end, and what is odd."""

    def go_on() -> bool:
        return give_up_s is None or time.monotonic() < give_up_s

    read: list[Parsed] = []
    # All of them: one makes what a later one alters.
    for one in pending:
        if not go_on():
            break
        read.append(parsed.parse(Path(one.path), go_on))
        await asyncio.sleep(0)  # the heartbeat has its turn
    facts = await reading.read(transport, parsed.names(read))
    left_out = len(pending) - sum(one.whole for one in read)
    found = [one for one in check.check(read, facts) if one.severity is not Severity.NOTICE]
    return found, left_out, unknown_allowances(read)
