"""The whole walk: files, history, lease, apply, report."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from migrator import lease as leases
from migrator import migration as files
from migrator import plan as plans
from migrator.lease import StoreFactory
from migrator.log import Log
from migrator.migration import Migration
from migrator.plan import HistoryRow, Plan
from migrator.report import MigrationPhase, Report
from migrator.settings import Settings
from migrator.store import Holder, Lease, Store
from migrator.transport import Ended

if TYPE_CHECKING:
    from migrator.runners import SqlRunner

# Pauses between two looks of one who waits for another's migrations, in seconds.
FIRST_PAUSE_S = 0.25
LAST_PAUSE_S = 2.0


class Teller:
    """Keeps the current snapshot and tells it whenever it changes."""

    def __init__(self, tell: Callable[[Report], None]) -> None:
        """Hand each snapshot to `tell`."""
        self._tell = tell
        self._began_s = time.monotonic()
        self.report = Report(phase=MigrationPhase.PENDING)

    def __call__(self, phase: MigrationPhase, **changes: object) -> None:
        """Take over what changed; what belongs to a moment (current, reason) lapses unless given."""
        changes = {"current": None, "reason": None, "error": None, **changes}
        self.report = replace(self.report, phase=phase, duration_ms=self.elapsed_ms, **changes)  # type: ignore[arg-type]  # names are checked by replace
        self._tell(self.report)

    @property
    def elapsed_ms(self) -> int:
        """Milliseconds since the migrator began."""
        return int((time.monotonic() - self._began_s) * 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """What a run needs, put together by the command line.

    Attributes:
        open_store: A store over a new connection.
        holder: Who we are, for the lease.
    """

    settings: Settings
    open_store: StoreFactory
    holder: str
    tell: Teller
    log: Log

    async def up(self) -> int:
        """Apply what is pending, or wait until somebody else has; how many we applied.

        Raises:
            MigratorError: It can't be done; class and message say why, and what to do.
        """
        found = files.load(self.settings.directories, self.settings.environment, chosen=self.settings.chosen)
        self._warn(found.warnings)
        pause_s = FIRST_PAUSE_S
        warned: set[str] = set()
        self.tell(MigrationPhase.CONNECTING)
        while True:
            # No connection is held between two looks: a hundred waiting replicas need none.
            async with self.open_store() as store:
                history = await store.history()
                plan = self._plan(found.migrations, history or [])
                self._warn([text for text in plan.warnings if text not in warned])
                warned.update(plan.warnings)
                if not plan.pending:
                    self.tell(MigrationPhase.COMPLETED, applied=plan.applied, pending=0)
                    return 0
                if history is None:
                    await store.install()
                lease = await leases.try_acquire(store, self.holder, self.settings.lease_ttl_s)
                if lease is not None:
                    return await self._apply_all(store, lease, found.migrations)
                self._tell_waiting(plan, await store.holder())
            await asyncio.sleep(random.uniform(pause_s / 2, pause_s))  # noqa: S311 - no secret
            pause_s = min(pause_s * 2, LAST_PAUSE_S)

    async def _apply_all(self, store: Store, lease: Lease, migrations: tuple[Migration, ...]) -> int:
        from migrator.runners import SqlRunner  # late: 8 ms that a start with nothing to do is spared

        self.log.info("lease.acquired", token=lease.token, holder=lease.holder)
        async with leases.keep(
            store,
            lease,
            ttl_s=self.settings.lease_ttl_s,
            open_store=self.open_store,
            log=self.log,
        ):
            # Again, under the lease: what was pending may have been applied in between.
            history = await store.history() or []
            plan = self._plan(migrations, history)
            begun = {row.version: row for row in history}
            runner = SqlRunner(store, self.log)
            if store.transport.pooled:
                for migration in plan.pending:
                    runner.check(migration)  # refuse what can't work here before anything runs
            self.log.info("migration.planned", pending=len(plan.pending), applied=plan.applied)
            for number, migration in enumerate(plan.pending):
                self.tell(
                    MigrationPhase.APPLYING,
                    applied=plan.applied + number,
                    pending=len(plan.pending) - number,
                    current=migration.filename,
                )
                last = migration is plan.pending[-1]
                await self._apply(runner, store, migration, lease, begun.get(migration.version), last=last)
            done = len(plan.pending)
            self.tell(MigrationPhase.COMPLETED, applied=plan.applied + done, pending=0)
            return done

    async def _apply(
        self,
        runner: SqlRunner,
        store: Store,
        migration: Migration,
        lease: Lease,
        begun: HistoryRow | None,
        *,
        last: bool,
    ) -> None:
        self.log.info("migration.started", filename=migration.filename, version=migration.version)
        began_s = time.monotonic()
        try:
            await runner.apply(migration, lease, begun, last=last)
        except asyncio.CancelledError:
            confirmed = store.transport.ended is Ended.ROLLED_BACK
            outcome = "rolled back" if confirmed else "outcome not known, read at the next start"
            self.tell(
                MigrationPhase.ABORTED,
                current=migration.filename,
                error=f"stopped while applying {migration.filename}: {outcome}",
            )
            raise
        self.log.info(
            "migration.applied",
            filename=migration.filename,
            version=migration.version,
            duration_ms=int((time.monotonic() - began_s) * 1000),
        )

    def _plan(self, migrations: tuple[Migration, ...], history: list[HistoryRow]) -> Plan:
        return plans.make(migrations, history, refuse_changed=self.settings.changed_files == "refuse")

    def _tell_waiting(self, plan: Plan, holder: Holder | None) -> None:
        reason = "somebody else is about to migrate"
        if holder is not None:
            reason = f"{holder.name} has been migrating for {holder.held_s:.0f} s"
        if self.tell.report.phase is not MigrationPhase.WAITING_FOR_LOCK:
            self.log.info("lease.busy", reason=reason)
        self.tell(
            MigrationPhase.WAITING_FOR_LOCK,
            applied=plan.applied,
            pending=len(plan.pending),
            reason=reason,
        )

    def _warn(self, texts: tuple[str, ...] | list[str]) -> None:
        for text in texts:
            self.log.warning("migration.odd", reason=text)
