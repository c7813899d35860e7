"""What the container says about itself: the states, how they may follow each other, the health document."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from migrator.report import STATUS_OF, MigrationPhase, MigrationStatus, Report, timestamp


class AppPhase(StrEnum):
    """The life of the app."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    EXITED = "exited"


# Which phase may follow which. Anything else is a bug of ours and refused by the board.
APP_NEXT: dict[AppPhase, frozenset[AppPhase]] = {
    AppPhase.STARTING: frozenset({AppPhase.RUNNING, AppPhase.STOPPING, AppPhase.EXITED}),
    AppPhase.RUNNING: frozenset({AppPhase.STOPPING, AppPhase.EXITED}),
    AppPhase.STOPPING: frozenset({AppPhase.EXITED}),
    AppPhase.EXITED: frozenset(),
}

_P = MigrationPhase
_ENDS = frozenset({_P.COMPLETED, _P.FAILED, _P.TIMED_OUT, _P.ABORTED})
_MOVES = frozenset({_P.CONNECTING, _P.WAITING_FOR_LOCK, _P.APPLYING, _P.RETRYING, _P.SKIPPED})
MIGRATION_NEXT: dict[MigrationPhase, frozenset[MigrationPhase]] = {
    _P.PENDING: _MOVES | _ENDS,
    _P.CONNECTING: (_MOVES | _ENDS) - {_P.CONNECTING},
    _P.WAITING_FOR_LOCK: _ENDS | {_P.CONNECTING, _P.APPLYING, _P.RETRYING},
    _P.APPLYING: _ENDS | {_P.RETRYING},
    # Not by way of `connecting` only: the report that says so may be the one that got lost.
    _P.RETRYING: (_MOVES | _ENDS) - {_P.RETRYING},
    # The migrator's own word that it failed may be followed by the supervisor's that it tries again.
    _P.FAILED: frozenset({_P.RETRYING, _P.TIMED_OUT, _P.ABORTED}),
    _P.ABORTED: frozenset({_P.RETRYING, _P.TIMED_OUT, _P.FAILED}),
    _P.COMPLETED: frozenset(),
    _P.TIMED_OUT: frozenset(),
    _P.SKIPPED: frozenset(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """One moment of the container.

    Attributes:
        started: When the entrypoint started.
        app_started: When the app started; None before that.
        app_exit_code: As the container will have it; None while the app lives.
        attempt: Which start of the migrator this is about, counted from 1; 0 before the first.
        checked: When the migrations' state was last heard of.
        settled: Nothing about the migrations will change any more.
    """

    service: str
    environment: str | None
    version: str | None
    started: datetime
    app: AppPhase = AppPhase.STARTING
    app_pid: int | None = None
    app_started: datetime | None = None
    app_exit_code: int | None = None
    migration: Report
    attempt: int = 0
    checked: datetime
    settled: bool = False

    @property
    def is_healthy(self) -> bool:
        """The app lives and nothing has failed for good."""
        failed = STATUS_OF[self.migration.phase] is MigrationStatus.FAILED
        return self.app is not AppPhase.EXITED and not (failed and self.settled)

    @property
    def is_ready(self) -> bool:
        """The app runs, isn't asked to stop, and finds the schema it was built for."""
        migrated = self.migration.phase in (MigrationPhase.COMPLETED, MigrationPhase.SKIPPED)
        return self.app is AppPhase.RUNNING and migrated

    @property
    def migration_status(self) -> MigrationStatus:
        """The customer's word for it: an attempt that failed but will be repeated is `running`."""
        status = STATUS_OF[self.migration.phase]
        if status is MigrationStatus.FAILED and not self.settled:
            return MigrationStatus.RUNNING
        return status


def to_json(status: Status, now: datetime) -> bytes:
    """The health document (DESIGN.md section 5), one line."""
    migration = status.migration
    document = {
        "status": "ok" if status.is_healthy else "error",
        "timestamp": timestamp(now),
        "service": status.service,
        "environment": status.environment,
        "version": status.version,
        "uptime": _whole_seconds(status.started, now),
        "migrations": {
            "status": status.migration_status,
            "lastChecked": timestamp(status.checked),
            "phase": migration.phase,
            "applied": migration.applied,
            "pending": migration.pending,
            "current": migration.current,
            "attempt": status.attempt,
            "durationMs": migration.duration_ms,
            "error": migration.error,
            "reason": migration.reason,
        },
        "app": {
            "status": status.app,
            "pid": status.app_pid,
            "uptime": _whole_seconds(status.app_started, now),
            "exitCode": status.app_exit_code,
        },
    }
    return json.dumps(document, ensure_ascii=False).encode(errors="backslashreplace") + b"\n"


def http_status(path: str, status: Status) -> int:
    """200 or 503 for a path of the server; 404 for any other."""
    match path:
        case "/api/health":
            good = status.is_healthy
        case "/live":
            good = status.app is not AppPhase.EXITED
        case "/ready":
            good = status.is_ready
        case _:
            return 404
    return 200 if good else 503


def _whole_seconds(since: datetime | None, now: datetime) -> int:
    return 0 if since is None else max(0, int((now - since).total_seconds()))
