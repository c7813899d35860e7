"""The current status: each change is checked, logged, written to the marker file and told to waiters."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

from entrypoint import launch
from entrypoint.status import APP_NEXT, MIGRATION_NEXT, AppPhase, Status, to_json
from migrator.log import Log
from migrator.report import MigrationPhase, Report

# A document younger than this is served as it was published.
FRESH_S = 1.0

_LEVEL_OF = {
    MigrationPhase.FAILED: "error",
    MigrationPhase.TIMED_OUT: "error",
    MigrationPhase.ABORTED: "warning",
    MigrationPhase.RETRYING: "warning",
}


class Board:
    """The only writer of the status. What is published is always one and the same document."""

    def __init__(
        self, status: Status, state_dir: str | None, log: Log, clock: Callable[[], datetime]
    ) -> None:
        """Start with `status`; publish to `state_dir` (None: there is nowhere to write to)."""
        self.status = status
        self._directory = state_dir
        self._log = log
        self._clock = clock
        self._changed = asyncio.Event()
        self._warned = False
        self._document = b""
        self._published: datetime | None = None
        self._publish()

    def report(self, report: Report, *, attempt: int | None = None, settled: bool = False) -> None:
        """Take over what is known of the migrations."""
        before = self.status.migration
        if report.phase is not before.phase:
            if report.phase not in MIGRATION_NEXT[before.phase]:
                self._log.error("status.refused", phase=before.phase, refused=report.phase)
                return
            level = _LEVEL_OF.get(report.phase, "info")
            getattr(self._log, level)(
                "status.changed",
                phase=report.phase,
                previous=before.phase,
                **_said(report),
            )
        self._set(
            migration=report,
            attempt=self.status.attempt if attempt is None else attempt,
            checked=self._clock(),
            settled=settled,
        )

    def app(
        self,
        phase: AppPhase,
        *,
        pid: int | None = None,
        exit_code: int | None = None,
    ) -> None:
        """Take over what is known of the app."""
        before = self.status
        if phase not in APP_NEXT[before.app]:
            if phase is not before.app:
                self._log.error("status.refused", app=before.app, refused=phase)
            return
        started = self._clock() if phase is AppPhase.RUNNING else before.app_started
        self._set(
            app=phase,
            app_pid=pid if pid is not None else before.app_pid,
            app_started=started,
            app_exit_code=exit_code,
        )

    def document(self) -> bytes:
        """The health document. What the marker file holds and what is served are the same bytes."""
        age = self._clock() - self._published if self._published else None
        if age is None or not 0 <= age.total_seconds() < FRESH_S:
            self._publish()
        return self._document

    async def settled(self) -> Report:
        """Wait until nothing about the migrations will change any more."""
        while not self.status.settled:
            self._changed.clear()
            await self._changed.wait()
        return self.status.migration

    def _set(self, **changes: Any) -> None:
        after = replace(self.status, **changes)
        if after == self.status:
            return
        self.status = after
        self._publish()
        self._changed.set()

    def _publish(self) -> None:
        self._published = self._clock()
        self._document = to_json(self.status, self._published)
        if self._directory is None:
            return
        try:
            _replace(os.path.join(self._directory, launch.STATUS_FILE), self._document)
            self._warned = False
        except OSError as error:  # a full disk, a directory that went away: said once
            if not self._warned:
                self._log.warning("marker.failed", reason=error.strerror, path=self._directory)
                self._warned = True


def prepare_state_dir(path: str) -> None:
    """Make the state directory, or see that the one that is there can be trusted.

    Raises:
        OSError: It can't be made or used; `strerror` says why.
    """
    os.makedirs(path, mode=0o755, exist_ok=True)
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (os.geteuid(), 0):
        # /tmp is everybody's: a directory or link planted there could redirect what we write.
        raise PermissionError(1, "it belongs to another user; set ENTRYPOINT_STATE_DIR")
    if not os.access(path, os.W_OK | os.X_OK):
        raise PermissionError(13, "it isn't writable; set ENTRYPOINT_STATE_DIR")


def _replace(path: str, content: bytes) -> None:
    """Write beside, then rename, so that a reader sees the old or the new document, whole."""
    beside = f"{path}.{os.getpid()}"
    # Made anew each time: the app may write here too, and opening a pipe of that name would stop us.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with contextlib.suppress(FileNotFoundError):
        os.unlink(beside)
    try:
        with os.fdopen(os.open(beside, flags, 0o644), "wb") as file:
            os.fchmod(file.fileno(), 0o644)  # whatever the umask: the app may be another user
            file.write(content)
        os.replace(beside, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise


def _said(report: Report) -> dict[str, str]:
    words = {"error": report.error, "reason": report.reason, "filename": report.current}
    return {name: value for name, value in words.items() if value}
