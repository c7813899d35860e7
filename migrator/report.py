"""What crosses the border between the migrator and the supervisor: one JSON line is one snapshot."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from enum import StrEnum

from msgspec import Struct
from msgspec.structs import asdict, replace

from migrator import shorten

# A line at most this long is written to a pipe in one piece (PIPE_BUF on Linux, pipe(7)).
MAX_LINE_BYTES = 4096
MAX_TEXT_CHARS = 1000


class MigrationPhase(StrEnum):
    """How far the migrations of this container are."""

    PENDING = "pending"
    CONNECTING = "connecting"
    WAITING_FOR_LOCK = "waiting_for_lock"
    APPLYING = "applying"
    RETRYING = "retrying"
    COMPLETED = "completed"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    ABORTED = "aborted"
    SKIPPED = "skipped"


class MigrationStatus(StrEnum):
    """The few words that the customer's dashboards know."""

    COMPLETED = "completed"
    RUNNING = "running"
    FAILED = "failed"
    UNKNOWN = "unknown"
    SKIPPED = "skipped"


STATUS_OF: dict[MigrationPhase, MigrationStatus] = {
    MigrationPhase.PENDING: MigrationStatus.RUNNING,
    MigrationPhase.CONNECTING: MigrationStatus.RUNNING,
    MigrationPhase.WAITING_FOR_LOCK: MigrationStatus.RUNNING,
    MigrationPhase.APPLYING: MigrationStatus.RUNNING,
    MigrationPhase.RETRYING: MigrationStatus.RUNNING,
    MigrationPhase.COMPLETED: MigrationStatus.COMPLETED,
    MigrationPhase.FAILED: MigrationStatus.FAILED,
    MigrationPhase.TIMED_OUT: MigrationStatus.FAILED,
    # Stopped on request: neither done nor failed; the next start finds out.
    MigrationPhase.ABORTED: MigrationStatus.UNKNOWN,
    MigrationPhase.SKIPPED: MigrationStatus.SKIPPED,
}


class Report(Struct, frozen=True, kw_only=True):
    """A whole snapshot, never a delta: the last line read is the truth.

    Attributes:
        phase: How far the migrator is.
        applied: How many of the files are on record as applied; None while not known.
        pending: How many are not; None while not known.
        current: File name of the migration at work.
        error: What went wrong and what to do, at most 1,000 characters.
        reason: Why nothing moves (skipped, waiting, retrying), at most 1,000 characters.
        duration_ms: Time since the migrator began, in milliseconds.
    """

    phase: MigrationPhase
    applied: int | None = None
    pending: int | None = None
    current: str | None = None
    error: str | None = None
    reason: str | None = None
    duration_ms: int | None = None


def encode(report: Report) -> bytes:
    """One line of at most 4,096 bytes, line end included, so that a pipe takes it whole."""
    limit = MAX_TEXT_CHARS
    while True:
        trimmed = replace(
            report,
            error=_shorten(report.error, limit),
            reason=_shorten(report.reason, limit),
            current=_shorten(report.current, limit),
        )
        line = json.dumps(asdict(trimmed), separators=(",", ":")).encode() + b"\n"
        if len(line) <= MAX_LINE_BYTES:
            return line
        limit //= 2  # text outside ASCII takes up to 12 bytes a character


def decode(line: bytes) -> Report:
    """The report in a line. Unknown keys are ignored, so that old and new versions get along.

    Raises:
        ValueError: The line is no report.
    """
    try:
        fields = json.loads(line)
    except RecursionError:
        raise ValueError("a report isn't nested") from None
    if not isinstance(fields, dict):
        raise ValueError("a report is a JSON object")
    return Report(
        phase=MigrationPhase(str(fields.get("phase"))),
        applied=_number(fields.get("applied")),
        pending=_number(fields.get("pending")),
        current=_text(fields.get("current")),
        error=_text(fields.get("error")),
        reason=_text(fields.get("reason")),
        duration_ms=_number(fields.get("duration_ms")),
    )


def timestamp(moment: datetime) -> str:
    """ISO 8601 in UTC with milliseconds, as JavaScript writes it."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _shorten(value: str | None, limit: int) -> str | None:
    return None if value is None else shorten.middle(value, limit)


def _number(value: object) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise ValueError(f"not a whole number: {value!r}")


def _text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return _shorten(value, MAX_TEXT_CHARS)
    raise ValueError(f"not a text: {value!r}")
