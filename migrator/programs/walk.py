"""The whole walk where something else migrates: the lease, the job under it, and what to say of it."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Mapping

from migrator import lease as leases
from migrator import secret_file
from migrator.errors import Crowded, LeaseBusy
from migrator.programs import choice
from migrator.programs.choice import Job
from migrator.programs.held import Held
from migrator.programs.process import Programs
from migrator.programs.settings import ProgramSettings
from migrator.report import MigrationPhase
from migrator.session import Session
from migrator.store import Holder, Store

# Pauses between two looks of one who waits for another, in seconds.
_FIRST_PAUSE_S = 0.25
_LAST_PAUSE_S = 2.0


async def up(session: Session, environ: Mapping[str, str] = os.environ) -> int:
    """Do what `MIGRATION_RUNNER` means; 0.

    Raises:
        MigratorError: It can't be done.
    """
    settings = ProgramSettings.from_env(environ, secret_file.read, session.settings)
    job = choice.job(session, settings)
    if job is None:
        reason = (
            "there is no migrate.sh and no migrations directory (looked for supabase/migrations, migrations)"
        )
        session.teller(MigrationPhase.SKIPPED, reason=reason)
        session.say(f"nothing to do: {reason}")
        return 0
    await asyncio.sleep(random.uniform(0, session.settings.start_spread_s))  # noqa: S311 - no secret
    async with session.database():
        done = await _Walk(session, settings, job).up()
    applied = session.teller.report.applied
    session.log.info("migration.completed", applied=applied, new=done, duration_ms=session.teller.elapsed_ms)
    session.say(f"{job.name}: done" if done is None else f"{done} applied, {applied} in all, nothing pending")
    return 0


class _Walk:
    """From the first connection to the last."""

    def __init__(self, session: Session, settings: ProgramSettings, job: Job) -> None:
        self._session = session
        self._settings = settings
        self._job = job
        self._waiting = False

    async def up(self) -> int | None:
        """How many were applied; None if only the job knows."""
        self._session.teller(MigrationPhase.CONNECTING)
        pause_s = max(_FIRST_PAUSE_S, self._session.settings.start_spread_s)
        while True:
            try:
                # No connection is held between two looks: a hundred waiting replicas need none.
                async with self._session.open_store() as store:
                    done = await self._look(store)
                if done is not False:
                    return done
            except Crowded as error:
                if not self._waiting:
                    raise
                pause_s = _LAST_PAUSE_S
                self._tell_waiting(str(error))
            await asyncio.sleep(random.uniform(pause_s / 2, pause_s))  # noqa: S311 - no secret
            pause_s = min(pause_s * 2, _LAST_PAUSE_S)

    async def _look(self, store: Store) -> int | bool | None:
        """Do it, unless somebody else is at it: False then."""
        if self._waiting:
            # One query only: a hundred who wait would else keep the server's processors busy.
            holder = await store.holder()
            if holder is not None and holder.is_alive:
                self._tell_holder(holder)
                return False
        history = await store.history()
        if self._job.is_settled(history):
            return 0
        if history is None:
            try:
                await store.install(tries=1)
            except LeaseBusy:
                self._tell_holder(None)
                return False
        lease = await leases.try_acquire(store, self._session.holder, self._session.settings.lease_ttl_s)
        if lease is None:
            self._tell_holder(await store.holder())
            return False
        log = self._session.log
        log.info("lease.acquired", token=lease.token, holder=lease.holder)
        try:
            programs = Programs(log, self._settings.redact, self._settings.grace_s)
            held = Held(
                session=self._session, settings=self._settings, programs=programs, store=store, lease=lease
            )
            return await self._job.run(held)
        finally:
            await leases.release(store, lease, log, open_store=self._session.open_store)

    def _tell_holder(self, holder: Holder | None) -> None:
        reason = "somebody else is about to migrate"
        if holder is not None:
            reason = f"{holder.name} has been migrating for {holder.held_s:.0f} s"
        self._tell_waiting(reason)

    def _tell_waiting(self, reason: str) -> None:
        if not self._waiting:
            self._waiting = True
            self._session.log.info("lease.busy", reason=reason)
        self._session.teller(MigrationPhase.WAITING_FOR_LOCK, reason=reason)
