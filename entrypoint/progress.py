"""How far the migrations are: each change is checked, logged, and told to PID 1."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime

from msgspec.structs import replace

from entrypoint import record
from entrypoint.status import MIGRATION_NEXT, Status, to_record
from migrator.log import Log
from migrator.report import MigrationPhase, Report

_LEVEL_OF = {
    MigrationPhase.FAILED: "error",
    MigrationPhase.TIMED_OUT: "error",
    MigrationPhase.ABORTED: "warning",
    MigrationPhase.RETRYING: "warning",
}


class Progress:
    """The overseer's only word to PID 1."""

    def __init__(self, send: Callable[[bytes], None], log: Log, clock: Callable[[], datetime]) -> None:
        """Begin with migrations that nothing is known of; hand each line for PID 1 to `send`."""
        self.status = Status(migration=Report(phase=MigrationPhase.PENDING), checked=clock())
        # Process groups that PID 1 must end, should it have to end us.
        self.groups: set[int] = set()
        self._send = send
        self._log = log
        self._clock = clock

    def report(
        self, report: Report, *, attempt: int | None = None, settled: bool = False, code: int = 0
    ) -> None:
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
        self.status = replace(
            self.status,
            migration=report,
            attempt=self.status.attempt if attempt is None else attempt,
            checked=self._clock(),
            settled=settled,
            code=code,
        )
        self.tell()

    def tell(self) -> None:
        """Say it again, with the process groups as they are now."""
        self._send(record.encode(to_record(self.status, frozenset(self.groups))))


def to_descriptor(fd: int) -> Callable[[bytes], None]:
    """A sender into a pipe that never waits: a snapshot that finds no room is followed by others.

    While PID 1 lives it reads at once; if only its fall-back is left, nobody does.
    """
    os.set_blocking(fd, False)

    def send(line: bytes) -> None:
        try:
            os.write(fd, line)
        except OSError:
            pass

    return send


def _said(report: Report) -> dict[str, str]:
    words = {"error": report.error, "reason": report.reason, "filename": report.current}
    return {name: value for name, value in words.items() if value}
