"""A job that is one program which knows by itself what is pending: a command, a script, the Supabase CLI."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from migrator.plan import HistoryRow
from migrator.programs import outcome
from migrator.programs.held import Held
from migrator.programs.process import Program
from migrator.report import MigrationPhase


class Whole:
    """Runs one program. How much is applied and pending is its own business, and not known."""

    def __init__(self, name: str, made: Callable[[Held], Awaitable[Program]]) -> None:
        """Run what `made` makes once we hold the lease; `name` it to people."""
        self.name = name
        self._made = made

    def is_settled(self, _history: list[HistoryRow] | None) -> bool:
        """Never: only the program can tell."""
        return False

    async def run(self, held: Held) -> int | None:
        """Run it; how many were applied isn't known.

        Raises:
            MigratorError: It failed.
        """
        held.session.teller(MigrationPhase.APPLYING, current=self.name)
        program = await self._made(held)
        ended = await held.run(program)
        if not ended.succeeded:
            raise outcome.failure(program.what, ended, held.settings.retry_exits)
        held.session.teller(MigrationPhase.COMPLETED)
        return None
