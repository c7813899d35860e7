"""The whole walk: files, history, lease, apply, report."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Collection
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TYPE_CHECKING

from msgspec import Struct, field

from migrator import lease as leases
from migrator import migration as files
from migrator import plan as plans
from migrator.errors import ConfigError, Crowded, LeaseBusy, Unavailable
from migrator.lease import StoreFactory
from migrator.log import Log
from migrator.migration import AnyPath, Migration
from migrator.plan import HistoryRow, Plan
from migrator.report import MigrationPhase
from migrator.settings import Settings
from migrator.store import Holder, Lease, Store
from migrator.teller import Teller
from migrator.transport import Ended

if TYPE_CHECKING:
    from migrator.passage import Care
    from migrator.runners import SqlRunner

# Pauses between two looks of one who waits for another's migrations, in seconds.
FIRST_PAUSE_S = 0.25
LAST_PAUSE_S = 2.0
# How long a database that has answered before is tried again, within one run, and how often it may go
# away under a migration.
COME_BACK_S = 10.0
MOST_LOSSES = 3


def meaning_of(migration: Migration) -> str | None:
    """See `runners.meaning_of`; a script means what it says."""
    if migration.filename.endswith(".sh"):
        return None
    from migrator import runners  # late: only an edited file needs it

    return runners.meaning_of(migration)


def _load_runner() -> None:
    from migrator import runners  # noqa: F401 - late: 10 ms that a start with nothing to do is spared


def runner_for(store: Store, log: Log, care: Care) -> SqlRunner:
    """Who applies the files: loaded late, 8 ms that a start with nothing to do is spared."""
    if store.transport.by_call:
        from migrator.rest_runner import RestRunner

        return RestRunner(store, log, care)
    from migrator.runners import SqlRunner

    return SqlRunner(store, log, care)


class _Run(Struct, kw_only=True):
    """What a run has to remember from one look to the next.

    Attributes:
        done: How many we applied.
        met: The database has answered us.
        lost: Why it doesn't any more; None while it does.
        losses: How often that was so, since we last had to wait for somebody else.
        give_up_s: When to believe it, by the monotonic clock.
        in_doubt: The migration that was at work then.
        sent_ahead: Those that were on their way behind it.
        waits_for: What was pending when somebody else was found at it.
        has_cli: The database may have a history of the Supabase CLI.
    """

    migrations: tuple[Migration, ...]
    down_paths: tuple[AnyPath, ...]
    warned: set[str] = field(default_factory=set)
    done: int = 0
    met: bool = False
    lost: Unavailable | None = None
    losses: int = 0
    give_up_s: float = 0.0
    in_doubt: str | None = None
    sent_ahead: tuple[str, ...] = ()
    waits_for: Plan | None = None
    has_cli: bool = True


class Engine(Struct, frozen=True, kw_only=True):
    """What a run needs, put together by the command line.

    Attributes:
        open_store: A store over a new connection.
        holder: Who we are, for the lease.
        to: The version to stop after; None: apply all.
    """

    settings: Settings
    open_store: StoreFactory
    holder: str
    tell: Teller
    log: Log
    to: str | None = None

    async def up(self) -> int:
        """Apply what is pending, or wait until somebody else has; how many we applied.

        Raises:
            MigratorError: It can't be done; class and message say why, and what to do.
        """
        found = files.load(self.settings.directories, self.settings.environment, chosen=self.settings.chosen)
        self._warn(found.warnings)
        if self.to is not None:
            plans.require(found.migrations, self.to)
        # Where there may be many of us, we look at longer intervals from the start.
        first_pause_s = pause_s = max(FIRST_PAUSE_S, self.settings.start_spread_s)
        self.tell(MigrationPhase.CONNECTING)
        run = _Run(migrations=found.migrations, down_paths=found.down_paths)
        while True:
            try:
                if await self._look(run):
                    return run.done
                run.losses = 0
            except Unavailable as error:
                if isinstance(error, Crowded):
                    pause_s = LAST_PAUSE_S
                elif run.lost is None:
                    pause_s = first_pause_s
                self._bear(error, run)
            await asyncio.sleep(random.uniform(pause_s / 2, pause_s))  # noqa: S311 - no secret
            pause_s = min(pause_s * 2, LAST_PAUSE_S)

    async def _look(self, run: _Run) -> bool:
        """Apply what is pending if nobody else does; whether nothing is pending any more."""
        # No connection is held between two looks: a hundred waiting replicas need none.
        async with self.open_store() as store:
            if run.waits_for is not None:
                # One query only: a hundred who wait would else keep the server's processors busy.
                holder = await store.holder()
                run.met, run.lost = True, None
                if holder is not None and holder.is_alive:
                    self._tell_waiting(run.waits_for, holder)
                    return False
            history = await store.history()
            # Where no table is, no other tool has been.
            is_bare = await store.is_bare() if history is None else None
            run.has_cli = not is_bare
            plan = await self._plan(store, run, history or [])
            run.met, run.lost, run.waits_for = True, None, None
            self._warn([text for text in plan.warnings if text not in run.warned])
            run.warned.update(plan.warnings)
            if not plan.pending:
                if history:
                    await self._mirror(store)
                self._settle(run, plan)
                self.tell(MigrationPhase.COMPLETED, applied=plan.applied, pending=plan.held)
                return True
            if history is None and not await self._install(store, plan, is_bare=is_bare):
                return False
            lease = await leases.try_acquire(store, self.holder, self.settings.lease_ttl_s)
            if lease is not None:
                await self._apply_all(store, lease, run, was_bare=is_bare)
                return True
            run.waits_for = plan
            self._tell_waiting(plan, await store.holder())
            return False

    async def _install(self, store: Store, plan: Plan, *, is_bare: bool | None) -> bool:
        """Create our tables; whether they are there. One try: who waits for others holds no connection.

        Raises:
            PlanError: Another tool has migrated this database.
        """
        if not is_bare:
            from migrator.foreign import look  # late: only the first run beside other tables needs it

            await look.refuse_foreign(store.transport, self._heard)
        asyncio.get_running_loop().call_soon(_load_runner)  # while the server is at it: 10 ms
        try:
            await store.install(tries=1)
        except LeaseBusy:
            self._tell_waiting(plan, None)
            return False
        return True

    def _bear(self, error: Unavailable, run: _Run) -> None:
        """Go on after the database went away, if it had answered before and isn't away for too long.

        Raises:
            Unavailable: What it was at first, as that tells what isn't known.
        """
        current = self.tell.report.current
        if run.lost is None:
            if not run.met and not isinstance(error, Crowded):
                raise error
            run.losses += 1
            run.lost = error
            run.in_doubt = current or run.in_doubt
            run.give_up_s = time.monotonic() + COME_BACK_S
        if run.losses > MOST_LOSSES or time.monotonic() > run.give_up_s:
            raise run.lost from error
        self.log.warning("migration.retrying", filename=current, reason=str(error).split("\n", 1)[0])
        self.tell(MigrationPhase.RETRYING, current=current, reason=str(error))

    def _settle(self, run: _Run, plan: Plan) -> None:
        """Say what became of a migration under which the connection was lost."""
        if run.in_doubt is None:
            return
        pending = {migration.filename for migration in plan.pending}
        outcome = "not applied" if run.in_doubt in pending else "applied"
        self.log.info("migration.settled", filename=run.in_doubt, outcome=outcome)
        for filename in run.sent_ahead:
            if filename not in pending:
                self.log.info("migration.settled", filename=filename, outcome="applied")
        run.in_doubt, run.sent_ahead = None, ()

    async def _apply_all(self, store: Store, lease: Lease, run: _Run, *, was_bare: bool | None) -> None:
        from migrator import passage  # late: see _load_runner

        self.log.info("lease.acquired", token=lease.token, holder=lease.holder)
        async with (
            leases.keep(
                store,
                lease,
                ttl_s=self.settings.lease_ttl_s,
                open_store=self.open_store,
                log=self.log,
            ),
            self._undoing_on_failure(store, lease, run),
        ):
            # Again, under the lease: what was pending may have been applied in between.
            history = await store.history() or []
            plan = await self._plan(store, run, history)
            self._settle(run, plan)
            if plan.pending and any(row.adopted for row in history):
                from migrator.foreign import again  # late: only who came from another tool needs it

                directories = self.settings.directories
                await again.refuse(store.transport, plan.pending, history, directories, self._heard)
            await self._mirror(store)  # first, so that it isn't refused when something has been applied
            begun = {row.version: row for row in history}
            is_bare = False if history else was_bare
            care = passage.care(self.settings, self.open_store, self._tell_blocked, is_bare=is_bare)
            runner = runner_for(store, self.log, care)
            if store.transport.pooled:
                for migration in plan.pending:
                    await runner.check(migration)  # refuse what can't work here before anything runs
            if self.settings.hazards != "off":
                from migrator.hazards import guard  # late: nothing pending, nothing to look at

                refuse, supabase = self.settings.hazards == "refuse", self.settings.is_supabase
                await guard.look(plan.pending, store.transport, self.log, refuse=refuse, supabase=supabase)
            self.log.info("migration.planned", pending=len(plan.pending), applied=plan.applied)
            for number, migration in enumerate(plan.pending):
                self.tell(
                    MigrationPhase.APPLYING,
                    applied=plan.applied + number,
                    pending=len(plan.pending) - number + plan.held,
                    current=migration.filename,
                )
                # Nothing else can be sent while files are on their way.
                following = () if self._mirrors else plan.pending[number + 1 :]
                try:
                    await self._apply(
                        runner, store, migration, lease, begun.get(migration.version), following=following
                    )
                except Unavailable:
                    run.sent_ahead = runner.sent_ahead
                    raise
                await self._mirror(store)
                run.done += 1
            self.tell(MigrationPhase.COMPLETED, applied=plan.applied + len(plan.pending), pending=plan.held)

    def _undoing_on_failure(self, store: Store, lease: Lease, run: _Run) -> AbstractAsyncContextManager[None]:
        if not self.settings.rollback_on_failure:
            return nullcontext()
        if store.transport.by_call:
            raise ConfigError(
                "cannot use MIGRATION_ROLLBACK_ON_FAILURE over the REST API; set DIRECT_URL to a direct "
                "connection"
            )
        from migrator import passage, rollback  # late: few ask for it

        care = passage.care(self.settings, self.open_store, self._tell_blocked)
        return rollback.on_failure(
            store, lease, care, down_paths=run.down_paths, tell=self.tell, log=self.log
        )

    async def _apply(
        self,
        runner: SqlRunner,
        store: Store,
        migration: Migration,
        lease: Lease,
        begun: HistoryRow | None,
        *,
        following: tuple[Migration, ...],
    ) -> None:
        self.log.info("migration.started", filename=migration.filename, version=migration.version)
        began_s = time.monotonic()
        try:
            await runner.apply(migration, lease, begun, following=following)
        except asyncio.CancelledError:
            current: str | None = migration.filename
            if runner.in_steps:
                said = (
                    f"while applying {current}: some of its statements may be done, which is on record; the "
                    "next start goes on there"
                )
            elif self.tell.report.phase is MigrationPhase.WAITING_FOR_LOCK:
                said = f"before {current}: nothing of it was applied; {self.tell.report.reason}"
                current = None  # it isn't at work, and another attempt is worth while
            elif store.transport.ended is Ended.COMMITTED:
                said = f"after {current}, which is applied"
                current = None  # we hadn't heard of it yet
            elif store.transport.ended is Ended.ROLLED_BACK:
                said = f"while applying {current}: rolled back"
            else:
                said = f"while applying {current}: outcome not known, read at the next start"
            self.tell(MigrationPhase.ABORTED, current=current, error=f"stopped {said}")
            raise
        self.log.info(
            "migration.applied",
            filename=migration.filename,
            version=migration.version,
            duration_ms=int((time.monotonic() - began_s) * 1000),
        )

    @property
    def _heard(self) -> Collection[str]:
        """The tools whose own history counts as it is."""
        from migrator.supabase_history import HEARD  # late: most starts without it

        return HEARD if self.settings.supabase_history != "off" else ()

    async def _plan(self, store: Store, run: _Run, history: list[HistoryRow]) -> Plan:
        """What is to be done; the Supabase CLI's history is asked only if ours doesn't know all files."""
        elsewhere: Collection[str] = ()
        ours = {row.version for row in history}
        unknown = any(one.version not in ours for one in run.migrations)
        if unknown and run.has_cli and self.settings.supabase_history != "off":
            from migrator import supabase_history  # late: nothing to do is the usual case

            known = await supabase_history.versions(store)
            run.has_cli = known is not None
            elsewhere = known or ()
        plan = plans.make(
            run.migrations,
            history,
            refuse_changed=self.settings.changed_files == "refuse",
            meaning=meaning_of,
            out_of_order=self.settings.out_of_order,
            elsewhere=elsewhere,
        )
        return plan if self.to is None else plan.up_to(self.to)

    @property
    def _mirrors(self) -> bool:
        """What we apply is to be on the Supabase CLI's record."""
        return self.settings.supabase_history == "sync"

    async def _mirror(self, store: Store) -> None:
        """Have it there."""
        if self._mirrors:
            from migrator import supabase_history  # late, as above

            await supabase_history.mirror(store)

    def _tell_blocked(self, reason: str | None) -> None:
        """For whom a migration waits; None: it goes on."""
        phase = MigrationPhase.APPLYING if reason is None else MigrationPhase.WAITING_FOR_LOCK
        self.tell(phase, current=self.tell.report.current, reason=reason)

    def _tell_waiting(self, plan: Plan, holder: Holder | None) -> None:
        reason = "somebody else is about to migrate"
        if holder is not None:
            reason = f"{holder.name} has been migrating for {holder.held_s:.0f} s"
            if holder.name == self.holder:
                reason = "the connection that we lost still holds the lock"
        if self.tell.report.phase is not MigrationPhase.WAITING_FOR_LOCK:
            self.log.info("lease.busy", reason=f"{reason}; `migrator unlock` tells more")
        self.tell(
            MigrationPhase.WAITING_FOR_LOCK,
            applied=plan.applied,
            pending=len(plan.pending) + plan.held,
            reason=reason,
        )

    def _warn(self, texts: tuple[str, ...] | list[str]) -> None:
        for text in texts:
            self.log.warning("migration.odd", reason=text)
