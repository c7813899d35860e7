"""What a job works with: the lease, held, and what can be run under it."""

from __future__ import annotations

import asyncio

from msgspec import Struct

from migrator.errors import MigrationFailed
from migrator.programs import keeping
from migrator.programs.outcome import Ended
from migrator.programs.process import Program, Programs
from migrator.programs.settings import ProgramSettings
from migrator.report import MigrationPhase
from migrator.session import Session
from migrator.store import Lease, Store


class Held(Struct, frozen=True, kw_only=True):
    """A lease of ours.

    Attributes:
        store: Over the connection that took it; not to be used while something runs.
    """

    session: Session
    settings: ProgramSettings
    programs: Programs
    store: Store
    lease: Lease

    def kept(self) -> keeping.Kept:
        """Keep the lease while the body runs."""
        return keeping.kept(
            self.store,
            self.lease,
            ttl_s=self.session.settings.lease_ttl_s,
            grace_s=self.settings.grace_s,
            open_store=self.session.open_store,
            log=self.session.log,
        )

    async def run(self, program: Program) -> Ended:
        """Run a program to its end, keeping the lease.

        Raises:
            MigrationFailed: It took too long, where no supervisor sees to that.
            MigratorError: The lease is lost; the program has been ended.
        """
        log = self.session.log
        log.info("runner.started", program=program.what)
        try:
            async with asyncio.timeout(self.settings.timeout_s), self.kept():
                ended = await self.programs.run(program)
        except TimeoutError:
            raise MigrationFailed(
                f"cannot migrate with {program.what}: it took more than {self.settings.timeout_s:g} s and "
                "was ended; raise MIGRATION_TIMEOUT, or find out what it waits for"
            ) from None
        except asyncio.CancelledError:
            self.tell_stopped(program.what)
            raise
        log.info("runner.exited", program=program.what, exit_code=ended.code, left=ended.left)
        return ended

    def tell_stopped(self, what: str) -> None:
        """We were asked to stop while it was at work."""
        teller = self.session.teller
        teller(
            MigrationPhase.ABORTED,
            current=teller.report.current,
            error=f"stopped while running {what}: it was asked to end, then killed with all that it had "
            "started; how far it came isn't known",
        )
