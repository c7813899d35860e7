"""The supervisor's decisions, as tables."""

import pytest

from entrypoint import policy
from entrypoint.policy import Cause, Limits, Outcome
from migrator.report import MigrationPhase, Report

P = MigrationPhase
LIMITS = Limits(attempts=4, retry_delay_s=5, timeout_s=300, memory_limit_bytes=256 * 1024 * 1024)


def outcome(cause=Cause.EXITED, code=0, last=None, detail="", memory=None, **more):
    return Outcome(cause=cause, code=code, last=last, detail=detail, memory_limit_bytes=memory, **more)


@pytest.mark.parametrize(
    ("code", "worth"),
    [
        (0, False),
        (1, False),
        (2, False),
        (65, False),
        (69, True),
        (75, True),
        (78, False),
        (126, False),
        (127, False),
        (128 + 6, True),
        (128 + 9, True),
        (128 + 15, True),
    ],
)
def test_an_exit_code_is_worth_a_retry_or_not(code, worth):
    assert (policy.retry_delay_s(outcome(code=code), 1, LIMITS) is not None) == worth


@pytest.mark.parametrize(
    ("cause", "last", "worth"),
    [
        (Cause.DEADLINE, None, True),
        (Cause.DEADLINE, Report(phase=P.CONNECTING), True),
        (Cause.DEADLINE, Report(phase=P.WAITING_FOR_LOCK), True),
        (Cause.DEADLINE, Report(phase=P.WAITING_FOR_LOCK, current="1_a.sql"), True),
        (
            Cause.DEADLINE,
            Report(phase=P.ABORTED, error="stopped by SIGTERM: nothing was being applied"),
            True,
        ),
        (Cause.DEADLINE, Report(phase=P.APPLYING, current="1_a.sql"), False),
        (Cause.DEADLINE, Report(phase=P.ABORTED, current="1_a.sql", error="rolled back"), False),
        (Cause.DEADLINE, Report(phase=P.COMPLETED), False),
        (Cause.MEMORY, Report(phase=P.APPLYING), False),
        (Cause.PROCESSES, Report(phase=P.APPLYING), False),
        (Cause.STOPPING, Report(phase=P.APPLYING), False),
        (Cause.NOT_STARTED, None, False),
        (Cause.EXITED, Report(phase=P.COMPLETED), False),
    ],
)
def test_a_cause_is_worth_a_retry_or_not(cause, last, worth):
    assert (policy.retry_delay_s(outcome(cause, 137, last), 1, LIMITS) is not None) == worth


@pytest.mark.parametrize(
    ("cause", "code", "last", "told"),
    [
        (Cause.EXITED, 65, Report(phase=P.CONNECTING), 65),
        (Cause.EXITED, 69, None, 69),
        (Cause.DEADLINE, 143, None, 75),
        (Cause.DEADLINE, 143, Report(phase=P.ABORTED), 75),
        (Cause.DEADLINE, 143, Report(phase=P.WAITING_FOR_LOCK, current="1_a.sql"), 75),
        (Cause.DEADLINE, 143, Report(phase=P.ABORTED, current="1_a.sql"), 143),
        (Cause.DEADLINE, 0, Report(phase=P.COMPLETED), 0),
        (Cause.MEMORY, 137, Report(phase=P.CONNECTING), 137),
    ],
)
def test_after_a_wait_in_vain_the_exit_code_says_that_another_try_is_worth_it(cause, code, last, told):
    assert policy.exit_code(outcome(cause, code, last)) == told


@pytest.mark.parametrize(
    ("attempt", "delay_s"),
    [(1, 5), (2, 10), (3, 20), (4, 40), (5, 60), (6, 60), (999, 60), (1000, None), (1001, None)],
)
def test_the_pause_doubles_up_to_a_minute_until_the_attempts_are_used_up(attempt, delay_s):
    many = Limits(attempts=1000, retry_delay_s=5, timeout_s=1, memory_limit_bytes=1)

    assert policy.retry_delay_s(outcome(code=69), attempt, many) == delay_s


def test_without_extra_attempts_the_first_one_is_final():
    one = Limits(attempts=1, retry_delay_s=5, timeout_s=1, memory_limit_bytes=1)

    assert policy.retry_delay_s(outcome(code=69), 1, one) is None


APPLYING = Report(phase=P.APPLYING, applied=1, pending=2, current="2_b.sql", duration_ms=9)
ENDS = [
    (outcome(code=0, last=Report(phase=P.COMPLETED, applied=3)), P.COMPLETED, None),
    (outcome(code=0, last=Report(phase=P.SKIPPED, reason="no directory")), P.SKIPPED, None),
    (outcome(code=0), P.COMPLETED, None),
    (outcome(code=0, last=APPLYING), P.COMPLETED, None),
    # Whatever befell it after its last commit.
    (outcome(Cause.STOPPING, 143, Report(phase=P.COMPLETED, applied=3)), P.COMPLETED, None),
    (outcome(Cause.DEADLINE, 143, Report(phase=P.COMPLETED, applied=3)), P.COMPLETED, None),
    (outcome(code=137, last=Report(phase=P.COMPLETED, applied=3)), P.COMPLETED, None),
    (
        outcome(code=1, last=Report(phase=P.FAILED, error="cannot apply 2_b.sql")),
        P.FAILED,
        "cannot apply 2_b.sql",
    ),
    (outcome(code=1), P.FAILED, "the migrator ended with exit code 1; see its log"),
    (
        # What it ran was killed, and not itself.
        outcome(code=1, last=Report(phase=P.FAILED, error="it was killed by SIGKILL"), starved=True),
        P.FAILED,
        (
            "it was killed by SIGKILL\n(the kernel killed in this container meanwhile: the container's memory was "
            "used up; give it more)"
        ),
    ),
    (
        outcome(code=70, last=APPLYING),
        P.FAILED,
        "the migrator ended with exit code 70 while applying 2_b.sql; see its log",
    ),
    (
        outcome(code=137, last=APPLYING),
        P.FAILED,
        (
            "the migrator was killed by signal 9 while applying 2_b.sql; out of memory?"
            "; whatever it had not committed, the server rolls back"
        ),
    ),
    (
        outcome(code=137, last=APPLYING, starved=True),
        P.FAILED,
        (
            "the migrator was killed by signal 9 while applying 2_b.sql: the container's memory was used up; give "
            "it more; whatever it had not committed, the server rolls back"
        ),
    ),
    (
        # Somebody else's signal.
        outcome(code=143, starved=True),
        P.FAILED,
        (
            "the migrator was killed by signal 15; whatever it had not committed, the server rolls back\n"
            "(the kernel killed in this container meanwhile: the container's memory was used up; give it more)"
        ),
    ),
    (
        outcome(
            Cause.DEADLINE,
            143,
            Report(phase=P.ABORTED, error="stopped by SIGTERM: nothing was being applied"),
            before_end=Report(phase=P.CONNECTING, reason="cannot reach the database at db/shop; check it"),
        ),
        P.TIMED_OUT,
        "timed out after 300 s: cannot reach the database at db/shop; check it",
    ),
    (
        outcome(Cause.DEADLINE, 143, before_end=Report(phase=P.CONNECTING)),
        P.TIMED_OUT,
        "timed out after 300 s: there was no answer from the database",
    ),
    (
        outcome(
            Cause.DEADLINE,
            143,
            Report(phase=P.ABORTED, current="2_b.sql", error="stopped: rolled back"),
            before_end=Report(phase=P.CONNECTING),
        ),
        P.TIMED_OUT,
        (
            "timed out after 300 s while applying 2_b.sql (stopped: rolled back); "
            "raise MIGRATION_TIMEOUT or make the migration smaller"
        ),
    ),
    (
        outcome(code=143),
        P.FAILED,
        "the migrator was killed by signal 15; whatever it had not committed, the server rolls back",
    ),
    (
        outcome(
            Cause.DEADLINE, 143, Report(phase=P.ABORTED, current="2_b.sql", error="stopped: rolled back")
        ),
        P.TIMED_OUT,
        (
            "timed out after 300 s while applying 2_b.sql (stopped: rolled back); "
            "raise MIGRATION_TIMEOUT or make the migration smaller"
        ),
    ),
    (
        outcome(Cause.DEADLINE, 137, APPLYING),
        P.TIMED_OUT,
        "timed out after 300 s while applying 2_b.sql; raise MIGRATION_TIMEOUT or make the migration smaller",
    ),
    (
        outcome(Cause.MEMORY, 137, APPLYING),
        P.FAILED,
        "stopped while applying 2_b.sql: the migrator used more than 256 MiB; raise MIGRATION_MAX_MEMORY_MB",
    ),
    (
        outcome(Cause.MEMORY, 137, APPLYING, "200 MiB", 100 * 1024 * 1024),
        P.FAILED,
        (
            "stopped while applying 2_b.sql: the migrator used more than 100 MiB, all that it gets of the "
            "container's 200 MiB; give the container more memory"
        ),
    ),
    (
        outcome(Cause.PROCESSES, 137, APPLYING),
        P.FAILED,
        (
            "stopped while applying 2_b.sql: the migrator and what it started were more than 64 processes; "
            "look for a step that starts itself or doesn't wait for what it starts"
        ),
    ),
    (
        outcome(
            Cause.STOPPING, 143, Report(phase=P.ABORTED, current="2_b.sql", error="2_b.sql: rolled back")
        ),
        P.ABORTED,
        "2_b.sql: rolled back",
    ),
    (
        outcome(Cause.STOPPING, 137, APPLYING),
        P.ABORTED,
        "stopped with the app while applying 2_b.sql; the next start takes it from there",
    ),
    (outcome(Cause.NOT_STARTED, 126, None, "no fork"), P.FAILED, "cannot start the migrator: no fork"),
]


@pytest.mark.parametrize(("ended", "phase", "error"), ENDS)
def test_the_end_of_an_attempt_is_told_as_far_as_it_is_known(ended, phase, error):
    report = policy.conclude(ended, None, LIMITS)

    assert (report.phase, report.error) == (phase, error)


@pytest.mark.parametrize("ended", [one for one, _, _ in ENDS])
def test_rolled_back_is_only_said_if_the_server_did(ended):
    said = ended.last.error if ended.last else None
    error = policy.conclude(ended, None, LIMITS).error or ""

    assert "rolled back" not in error or "rolled back" in (said or "")


def test_an_attempt_that_will_be_repeated_says_when_and_why():
    report = policy.conclude(outcome(code=69, last=Report(phase=P.FAILED, error="no route")), 2.5, LIMITS)

    assert (report.phase, report.error, report.reason) == (P.RETRYING, "no route", "next attempt in 2.5 s")


@pytest.mark.parametrize(
    ("wanted_mib", "container_mib", "limit_mib"),
    [
        pytest.param(256, None, 256, id="as set where the container has no limit"),
        pytest.param(256, 1024, 256, id="as set where that is less than half"),
        pytest.param(256, 512, 256, id="half of it"),
        pytest.param(256, 200, 100, id="no more than half"),
        pytest.param(256, 64, 48, id="but enough to say what is wrong"),
        pytest.param(48, 64, 48, id="never more than was set"),
    ],
)
def test_the_migrator_gets_at_most_half_of_the_containers_memory(wanted_mib, container_mib, limit_mib):
    mib = 1024 * 1024
    container = None if container_mib is None else container_mib * mib

    assert policy.memory_limit_bytes(wanted_mib * mib, container) == limit_mib * mib


def test_what_the_migrator_said_and_what_we_add_have_their_end_within_the_limit():
    last = Report(phase=P.ABORTED, current="2_b.sql", error="why" * 300 + "; rolled back")

    error = policy.conclude(outcome(Cause.DEADLINE, 143, last), None, LIMITS).error or ""

    assert len(error) <= 1000
    assert error.startswith("timed out after 300 s while applying 2_b.sql (why")
    assert error.endswith("; rolled back); raise MIGRATION_TIMEOUT or make the migration smaller")
