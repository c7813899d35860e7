"""The overseer's decisions: what an attempt came to, whether to try again, what to say of it."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

from entrypoint import launch
from migrator import shorten
from migrator.errors import RETRYABLE_EXITS, LeaseBusy
from migrator.report import MAX_TEXT_CHARS, STATUS_OF, MigrationPhase, MigrationStatus, Report

# Seconds from SIGTERM to SIGKILL for the migrator: a cancelled statement rolls back in well under one.
MIGRATOR_GRACE_S = 5.0
MAX_RETRY_DELAY_S = 60.0

# A migration tool and its helpers are a handful; more is a mistake that multiplies.
MAX_PROCESSES = 64
# Threads of them all. One node process alone has a dozen.
MAX_TASKS = 8 * MAX_PROCESSES
# In less the migrator couldn't even say what is wrong: the least that MIGRATION_MAX_MEMORY_MB may be.
LEAST_MEMORY_BYTES = 48 * 1024 * 1024

_SIGKILL = 9
_STARVED = "the container's memory was used up; give it more"


class Cause(StrEnum):
    """Why an attempt ended."""

    EXITED = "exited"
    DEADLINE = "deadline"
    MEMORY = "memory"
    PROCESSES = "processes"
    STOPPING = "stopping"
    NOT_STARTED = "not started"


class Outcome(Struct, frozen=True, kw_only=True):
    """What one attempt came to.

    Attributes:
        code: The migrator's exit code, 128 + n for a signal.
        last: Its last report; None if there was none.
        detail: What else is known, e.g. why it could not be started.
        memory_limit_bytes: What it was allowed, if that was less than the settings say.
        starved: The kernel killed in the container meanwhile, because its memory was used up.
        before_end: Its last report before we asked it to end; None if we didn't.
    """

    cause: Cause
    code: int
    last: Report | None
    detail: str = ""
    memory_limit_bytes: int | None = None
    starved: bool = False
    before_end: Report | None = None


class Limits(Struct, frozen=True, kw_only=True):
    """What an attempt may use; the part of the settings that decisions depend on."""

    attempts: int
    retry_delay_s: float
    timeout_s: float
    memory_limit_bytes: int


def memory_limit_bytes(wanted_bytes: int, container_bytes: int | None) -> int:
    """What the migrator may use: as set, but at most half of what the container has.

    Beyond the container's limit the kernel chooses who dies. Where memory.oom.group is set, as in
    Kubernetes since 1.28, that is everybody, the app included.
    """
    if container_bytes is None:
        return wanted_bytes
    return min(wanted_bytes, max(LEAST_MEMORY_BYTES, container_bytes // 2))


def retry_delay_s(outcome: Outcome, attempt: int, limits: Limits) -> float | None:
    """Seconds to wait before the next attempt; None if this one is final."""
    if attempt >= limits.attempts or not _is_worth_a_retry(outcome):
        return None
    return float(min(limits.retry_delay_s * 2 ** min(attempt - 1, 30), MAX_RETRY_DELAY_S))


def exit_code(outcome: Outcome) -> int:
    """What the container ends with where no app runs: whether to try once more is all that it can say."""
    if outcome.cause is Cause.DEADLINE and _is_worth_a_retry(outcome):
        return LeaseBusy.exit_code
    return outcome.code


def conclude(outcome: Outcome, delay_s: float | None, limits: Limits) -> Report:
    """What to publish after an attempt: the truth, and what a person can do about it."""
    last = outcome.last or Report(phase=MigrationPhase.PENDING)
    if _is_done(outcome):
        return last
    if outcome.cause is Cause.EXITED and outcome.code == 0:
        # Exit code 0 without the last report: the pipe was cut, the work was done.
        return replace(last, phase=MigrationPhase.COMPLETED, current=None, error=None, reason=None)

    phase, error = _verdict(outcome, last, limits)
    error = shorten.middle(error, MAX_TEXT_CHARS)  # it quotes the migrator, whose words may be as long
    if delay_s is not None:
        reason = f"next attempt in {delay_s:g} s"
        return replace(last, phase=MigrationPhase.RETRYING, error=error, reason=reason)
    return replace(last, phase=phase, error=error, reason=None)


def _is_done(outcome: Outcome) -> bool:
    """The migrator says so after the last commit; how it ended then changes nothing about it."""
    done = (MigrationPhase.COMPLETED, MigrationPhase.SKIPPED)
    return outcome.last is not None and outcome.last.phase in done


def _is_worth_a_retry(outcome: Outcome) -> bool:
    if _is_done(outcome):
        return False
    match outcome.cause:
        case Cause.EXITED:
            # Death by a signal that isn't ours: somebody's kill, or the kernel's. Safe to repeat.
            return outcome.code in RETRYABLE_EXITS or outcome.code > launch.SIGNAL_BASE
        case Cause.DEADLINE:
            # The same statements would take as long again; waiting for others may end. Not by the phase:
            # asked to stop, the migrator's last word is `aborted`, whatever it was at.
            return outcome.last is None or _was_waiting(outcome.last)
        case Cause.MEMORY | Cause.PROCESSES | Cause.STOPPING | Cause.NOT_STARTED:
            return False


def _was_waiting(last: Report) -> bool:
    """Whether it waited for others, and wasn't at work itself."""
    return last.current is None or last.phase is MigrationPhase.WAITING_FOR_LOCK


def _verdict(outcome: Outcome, last: Report, limits: Limits) -> tuple[MigrationPhase, str]:
    where = f" while applying {last.current}" if last.current else ""
    match outcome.cause:
        case Cause.DEADLINE:
            before = outcome.before_end
            if before is not None and before.phase is MigrationPhase.CONNECTING and last.current is None:
                # Its last word would be that nothing was being applied, which tells nobody what to do.
                why = before.reason or "there was no answer from the database"
                return MigrationPhase.TIMED_OUT, f"timed out after {limits.timeout_s:g} s: {why}"
            remedy = (
                "have those end who were waited for" if _was_waiting(last) else "make the migration smaller"
            )
            return MigrationPhase.TIMED_OUT, (
                f"timed out after {limits.timeout_s:g} s{where or ('' if last.error else f' ({last.phase})')}"
                f"{_what_it_said(last)}; raise MIGRATION_TIMEOUT or {remedy}"
            )
        case Cause.MEMORY:
            own = outcome.memory_limit_bytes
            mib = (own or limits.memory_limit_bytes) // (1024 * 1024)
            remedy = (
                "; raise MIGRATION_MAX_MEMORY_MB"
                if own is None
                else f", all that it gets of the container's {outcome.detail}; give the container more memory"
            )
            return MigrationPhase.FAILED, (
                f"stopped{where}: the migrator used more than {mib} MiB{remedy}{_what_it_said(last)}"
            )
        case Cause.PROCESSES:
            return MigrationPhase.FAILED, (
                f"stopped{where}: the migrator and what it started were more than {MAX_PROCESSES} processes; "
                f"look for a step that starts itself or doesn't wait for what it starts{_what_it_said(last)}"
            )
        case Cause.STOPPING:
            return MigrationPhase.ABORTED, (
                last.error or f"stopped with the app{where}; the next start takes it from there"
            )
        case Cause.NOT_STARTED:
            return MigrationPhase.FAILED, f"cannot start the migrator: {outcome.detail}"
        case Cause.EXITED:
            # Whom the kernel killed isn't known, but for SIGKILL, which is what it kills with.
            also = f"\n(the kernel killed in this container meanwhile: {_STARVED})" if outcome.starved else ""
            if outcome.code > launch.SIGNAL_BASE:
                number = outcome.code - launch.SIGNAL_BASE
                hint = "; out of memory?" if number in (6, 9, 11) else ""
                if outcome.starved and number == _SIGKILL:
                    hint, also = f": {_STARVED}", ""
                said = (
                    f"the migrator was killed by signal {number}{where}{hint}"
                    "; whatever it had not committed, the server rolls back"
                )
            elif last.error and STATUS_OF[last.phase] is not MigrationStatus.RUNNING:
                said = last.error
            else:
                said = f"the migrator ended with exit code {outcome.code}{where}; see its log"
            return MigrationPhase.FAILED, said + also


def _what_it_said(last: Report) -> str:
    """The migrator's own last words, if it had the time for some."""
    said = last.error or (last.reason if last.phase is MigrationPhase.WAITING_FOR_LOCK else None)
    return f" ({said})" if said else ""
