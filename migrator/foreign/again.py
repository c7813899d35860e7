"""Another tool that went on after its history was adopted."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from migrator import migration as files
from migrator.errors import PlanError
from migrator.foreign import look, matching
from migrator.migration import Migration
from migrator.plan import HistoryRow
from migrator.transport import Transport


async def refuse(
    transport: Transport,
    pending: Sequence[Migration],
    history: Sequence[HistoryRow],
    directories: Sequence[Path],
    heard: Collection[str],
) -> None:
    """Don't apply what a tool has applied whose history was adopted before it did so.

    Args:
        transport: Where to look.
        pending: What is to be applied.
        history: What is on our record.
        directories: Where the files are: some tools have a journal beside them.
        heard: The tools whose history counts as it is.

    Raises:
        PlanError: One has.
        MigratorError: That can't be found out.
    """
    rows = {row.version: row for row in history}
    for source in await look.sources(transport, directories=directories):
        if source.tool.name in heard:
            continue
        found = matching.match(source, pending, rows, files.content).record
        if found:
            names = ", ".join(one.migration.filename for one in found)
            raise PlanError(
                f"cannot go on: {source} has applied {names} since its history was adopted, and it would be "
                "applied a second time; `migrator adopt --yes` takes that over as well"
            )
