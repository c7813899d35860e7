"""Sees the migrations through, beside PID 1: attempts, limits, retries, and the private Postgres."""

from __future__ import annotations

import asyncio
import os
import signal
from datetime import UTC, datetime
from typing import Any

from msgspec.structs import replace

from entrypoint import policy, postgres
from entrypoint.child import Migrator
from entrypoint.policy import Limits, Outcome
from entrypoint.progress import Progress, to_descriptor
from entrypoint.reaper import Reaper, tolerate_full_wakeup_pipe
from entrypoint.record import REPORT_FD
from entrypoint.settings import Settings
from migrator import log as logs
from migrator import secret_file, shorten
from migrator.errors import Redactor
from migrator.log import Log
from migrator.report import MAX_TEXT_CHARS, MigrationPhase, Report

EXIT_CONFIG = 78


def main(*, skip_reason: str | None = None) -> int:
    """See the migrations through; the process's exit code, which means nothing.

    Args:
        skip_reason: Why nothing is to be migrated, if the settings don't say so themselves.
    """
    settings = Settings.from_env(os.environ, secret_file.read)
    settings = replace(settings, skip_reason=settings.skip_reason or skip_reason)
    log = logs.configure(
        component="entrypoint",
        level=settings.log_level,
        mask=Redactor(settings.secrets),
        **logs.destination(os.environ, log_format=settings.log_format, output=settings.log_output),
    )
    if settings.problems or settings.complaints:
        log.error("settings.refused", reason="; ".join((*settings.problems, *settings.complaints)))
    for reason in settings.unread:
        log.warning("settings.ignored", reason=reason)
    # asyncio's own loop: uvloop refuses SIGCHLD handlers (MagicStack/uvloop#409). Never closed: the process
    # ends with it.
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _, context: _log_unexpected(log, context))
    progress = Progress(to_descriptor(REPORT_FD), log, lambda: datetime.now(UTC))
    return loop.run_until_complete(Overseer(settings, progress, log).run())


class Overseer:
    """From the first attempt to the last."""

    def __init__(self, settings: Settings, progress: Progress, log: Log) -> None:
        """Tell `progress` what becomes of the migrations."""
        self._settings = settings
        self._progress = progress
        self._log = log
        self._reaper = Reaper(lambda pid, status: log.debug("orphan.reaped", pid=pid, status=status))
        self._child: Migrator | None = None
        # Why the private Postgres can't run, once that is certain.
        self._without_database: str | None = None
        self._stop = asyncio.Event()
        self._end = asyncio.Event()

    async def run(self) -> int:
        """Migrate; keep the private Postgres running beyond that, if there is one."""
        loop = asyncio.get_running_loop()
        self._reaper.install(loop)
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        loop.add_signal_handler(signal.SIGINT, self._on_end)
        # A pipe that we only write to is "readable" once nobody reads it any more.
        loop.add_reader(REPORT_FD, self._on_orphaned)
        tolerate_full_wakeup_pipe()
        async with asyncio.TaskGroup() as tasks:
            database: asyncio.Task[str] | None = None
            if self._settings.embedded:  # also where migrations are skipped: it is the app's database
                database = tasks.create_task(
                    postgres.keep_running(
                        self._progress.groups, self._settings.state_dir, self._reaper, self._log
                    ),
                    name="postgres",
                )
            migrations = tasks.create_task(self._migrate(), name="migrations")
            stop = tasks.create_task(self._stop.wait(), name="stop")
            ends: set[asyncio.Task[Any]] = {migrations, stop, *filter(None, [database])}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            stop.cancel()
            if database is not None and database.done() and not database.cancelled():
                self._without_database = database.result()
            migrations.cancel()  # once: a second time would cut off what it does to end well
            await asyncio.wait({migrations})
            if database is not None:  # last: the migrator rolls back first
                self._progress.tell()
                await self._end.wait()
                database.cancel()
                await asyncio.wait({database})
        self._progress.tell()
        return 0

    def _on_end(self) -> None:
        self._stop.set()
        self._end.set()

    def _on_orphaned(self) -> None:
        """PID 1 is gone, or nothing but its fall-back is left, which publishes nothing of ours."""
        asyncio.get_running_loop().remove_reader(REPORT_FD)
        self._log.warning("overseer.orphaned")
        self._on_end()

    async def _migrate(self) -> None:
        """See the migrations through: attempts, retries, and what to say at the end."""
        try:
            await self._attempts()
        except asyncio.CancelledError:
            if self._without_database is not None and not self._progress.status.settled:
                reason = shorten.middle(self._without_database, MAX_TEXT_CHARS)
                failed = replace(
                    self._progress.status.migration, phase=MigrationPhase.FAILED, error=reason, reason=None
                )
                self._progress.report(failed, settled=True, code=EXIT_CONFIG)
            elif not self._progress.status.settled:
                said = self._child.last if self._child is not None else None
                last = said or self._progress.status.migration
                stopped = Outcome(cause=policy.Cause.STOPPING, code=0, last=last)
                self._progress.report(policy.conclude(stopped, None, self._limits), settled=True)
            raise
        except Exception as error:  # noqa: BLE001 - a bug of ours here still ends in a truthful status
            self._log.error("migrator.failed", reason=repr(error))
            failed = replace(
                self._progress.status.migration,
                phase=MigrationPhase.FAILED,
                error=f"internal error: {error!r}",
            )
            self._progress.report(failed, settled=True)

    async def _attempts(self) -> None:
        if self._settings.skip_reason is not None:
            reason = self._settings.skip_reason
            self._progress.report(Report(phase=MigrationPhase.SKIPPED, reason=reason), settled=True)
            return
        if self._settings.problems:
            # Who misspelt MIGRATION_ENABLED=false didn't want what its default does.
            error = Redactor(self._settings.secrets)("; ".join(self._settings.problems))
            wrong = Report(phase=MigrationPhase.FAILED, error=shorten.middle(error, MAX_TEXT_CHARS))
            self._progress.report(wrong, settled=True, code=EXIT_CONFIG)
            return
        for attempt in range(1, self._settings.attempts + 1):
            self._progress.report(self._progress.status.migration, attempt=attempt)
            self._child = Migrator(self._progress.groups, self._take, self._log)
            outcome = await self._child.run(self._reaper, self._limits)
            delay_s = policy.retry_delay_s(outcome, attempt, self._limits)
            concluded = policy.conclude(outcome, delay_s, self._limits)
            self._progress.report(concluded, settled=delay_s is None, code=policy.exit_code(outcome))
            if delay_s is None:
                return
            self._log.warning("migration.retrying", attempt=attempt, delay_s=delay_s)
            await asyncio.sleep(delay_s)

    def _take(self, report: Report) -> None:
        # Only we say how an attempt ended: we know whether another follows.
        if report.phase in (
            MigrationPhase.CONNECTING,
            MigrationPhase.WAITING_FOR_LOCK,
            MigrationPhase.APPLYING,
            MigrationPhase.RETRYING,  # within the attempt: it lost the connection, and goes on
        ):
            self._progress.report(report)

    @property
    def _limits(self) -> Limits:
        return Limits(
            attempts=self._settings.attempts,
            retry_delay_s=self._settings.retry_delay_s,
            timeout_s=self._settings.timeout_s,
            memory_limit_bytes=self._settings.memory_limit_bytes,
        )


def _log_unexpected(log: Log, context: dict[str, Any]) -> None:
    """What asyncio would print as text."""
    log.error("loop.failed", reason=f"{context.get('message')}: {context.get('exception')!r}")
