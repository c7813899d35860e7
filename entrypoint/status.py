"""What the overseer says of the migrations, and how one state may follow another."""

from __future__ import annotations

import json
from datetime import datetime

from msgspec import Struct

from entrypoint.record import Record, summary
from migrator.report import STATUS_OF, MigrationPhase, MigrationStatus, Report, timestamp

_P = MigrationPhase
_ENDS = frozenset({_P.COMPLETED, _P.FAILED, _P.TIMED_OUT, _P.ABORTED})
_MOVES = frozenset({_P.CONNECTING, _P.WAITING_FOR_LOCK, _P.APPLYING, _P.RETRYING, _P.SKIPPED})
# Which phase may follow which. Anything else is a bug of ours and refused.
MIGRATION_NEXT: dict[MigrationPhase, frozenset[MigrationPhase]] = {
    _P.PENDING: _MOVES | _ENDS,
    _P.CONNECTING: (_MOVES | _ENDS) - {_P.CONNECTING},
    _P.WAITING_FOR_LOCK: _ENDS | {_P.CONNECTING, _P.APPLYING, _P.RETRYING},
    # Waiting: its connection was lost and still holds the lock; that it retries may be the report left out.
    _P.APPLYING: _ENDS | {_P.RETRYING, _P.WAITING_FOR_LOCK},
    # Not by way of `connecting` only: the report that says so may be the one that got lost.
    _P.RETRYING: (_MOVES | _ENDS) - {_P.RETRYING},
    # The migrator's own word that it failed may be followed by the overseer's that it tries again.
    _P.FAILED: frozenset({_P.RETRYING, _P.TIMED_OUT, _P.ABORTED}),
    _P.ABORTED: frozenset({_P.RETRYING, _P.TIMED_OUT, _P.FAILED}),
    _P.COMPLETED: frozenset(),
    _P.TIMED_OUT: frozenset(),
    _P.SKIPPED: frozenset(),
}


class Status(Struct, frozen=True, kw_only=True):
    """One moment of the migrations.

    Attributes:
        migration: The last report, or what the overseer made of it.
        attempt: Which start of the migrator this is about, counted from 1; 0 before the first.
        checked: When the migrations' state was last heard of.
        settled: Nothing about the migrations will change any more.
        code: What the migrator ended with.
    """

    migration: Report
    attempt: int = 0
    checked: datetime
    settled: bool = False
    code: int = 0

    @property
    def migration_status(self) -> MigrationStatus:
        """The customer's word for it: an attempt that failed but will be repeated is `running`."""
        status = STATUS_OF[self.migration.phase]
        if status is MigrationStatus.FAILED and not self.settled:
            return MigrationStatus.RUNNING
        return status


def to_record(status: Status, groups: frozenset[int]) -> Record:
    """What PID 1 gets to know."""
    migration = status.migration
    document = {
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
    }
    return Record(
        settled=status.settled,
        failed=STATUS_OF[migration.phase] is MigrationStatus.FAILED,
        done=migration.phase in (MigrationPhase.COMPLETED, MigrationPhase.SKIPPED),
        # A code above 128 would look as if the container had been stopped from outside.
        code=status.code if 0 < status.code <= 128 else 1,
        groups=groups,
        summary=summary(status.migration_status, migration.phase, migration.error or migration.reason),
        document=json.dumps(document, ensure_ascii=False),
    )
