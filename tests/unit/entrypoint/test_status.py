"""How the states of the migrations may follow each other, and what the overseer tells PID 1 of them."""

import json
from datetime import UTC, datetime

import pytest

from entrypoint.record import decode, encode
from entrypoint.status import MIGRATION_NEXT, Status, to_record
from migrator.report import STATUS_OF, MigrationPhase, MigrationStatus, Report

CHECKED = datetime(2025, 8, 13, 15, 30, tzinfo=UTC)
P = MigrationPhase


def record(phase=P.PENDING, *, settled=False, code=0, **report):
    status = Status(
        migration=Report(phase=phase, **report), attempt=1, checked=CHECKED, settled=settled, code=code
    )
    return to_record(status, frozenset({7}))


def test_every_phase_has_its_row():
    assert set(MIGRATION_NEXT) == set(MigrationPhase) == set(STATUS_OF)


@pytest.mark.parametrize("phase", MigrationPhase)
def test_a_phase_doesnt_follow_itself(phase):
    assert phase not in MIGRATION_NEXT[phase]


@pytest.mark.parametrize("end", [P.COMPLETED, P.SKIPPED, P.TIMED_OUT])
def test_an_end_is_an_end(end):
    assert MIGRATION_NEXT[end] == set()


@pytest.mark.parametrize("phase", [P.PENDING, P.CONNECTING, P.WAITING_FOR_LOCK, P.APPLYING, P.RETRYING])
@pytest.mark.parametrize("end", [P.COMPLETED, P.FAILED, P.TIMED_OUT, P.ABORTED])
def test_what_runs_can_end_in_any_way(phase, end):
    assert end in MIGRATION_NEXT[phase]


@pytest.mark.parametrize(
    "phase", [P.PENDING, P.CONNECTING, P.WAITING_FOR_LOCK, P.APPLYING, P.FAILED, P.ABORTED]
)
def test_an_attempt_that_went_wrong_can_be_followed_by_another(phase):
    assert P.RETRYING in MIGRATION_NEXT[phase]


@pytest.mark.parametrize("begin", [P.PENDING, P.RETRYING, P.CONNECTING])
@pytest.mark.parametrize("phase", [P.WAITING_FOR_LOCK, P.APPLYING, P.SKIPPED, P.COMPLETED])
def test_a_lost_report_does_no_harm(begin, phase):
    assert phase in MIGRATION_NEXT[begin]


@pytest.mark.parametrize("phase", MigrationPhase)
def test_nothing_goes_back_to_pending(phase):
    assert P.PENDING not in MIGRATION_NEXT[phase]


def test_the_document_is_the_contracts():
    told = record(P.COMPLETED, settled=True, applied=3, pending=0, duration_ms=412)

    assert told.groups == {7}
    assert json.loads(told.document) == {
        "status": "completed",
        "lastChecked": "2025-08-13T15:30:00.000Z",
        "phase": "completed",
        "applied": 3,
        "pending": 0,
        "current": None,
        "attempt": 1,
        "durationMs": 412,
        "error": None,
        "reason": None,
    }


@pytest.mark.parametrize(
    ("phase", "settled", "said"),
    [
        (P.PENDING, False, "running"),
        (P.CONNECTING, False, "running"),
        (P.WAITING_FOR_LOCK, False, "running"),
        (P.APPLYING, False, "running"),
        (P.RETRYING, False, "running"),
        (P.COMPLETED, True, "completed"),
        (P.FAILED, False, "running"),
        (P.FAILED, True, "failed"),
        (P.TIMED_OUT, True, "failed"),
        (P.ABORTED, True, "unknown"),
        (P.SKIPPED, True, "skipped"),
    ],
)
def test_the_customers_word_for_each_phase(phase, settled, said):
    assert json.loads(record(phase, settled=settled).document)["status"] == said
    assert said in set(MigrationStatus)


@pytest.mark.parametrize(
    ("phase", "failed", "done"),
    [
        (P.PENDING, False, False),
        (P.APPLYING, False, False),
        (P.RETRYING, False, False),
        (P.FAILED, True, False),
        (P.TIMED_OUT, True, False),
        (P.ABORTED, False, False),
        (P.COMPLETED, False, True),
        (P.SKIPPED, False, True),
    ],
)
def test_what_pid_1_must_understand_of_a_phase(phase, failed, done):
    told = record(phase)

    assert (told.failed, told.done) == (failed, done)


@pytest.mark.parametrize(
    ("migrators", "containers"), [(0, 1), (1, 1), (65, 65), (78, 78), (128, 128), (137, 1), (143, 1)]
)
def test_the_code_of_a_container_without_app_is_the_migrators_but_never_one_of_a_signal(
    migrators, containers
):
    assert record(P.FAILED, settled=True, code=migrators).code == containers


def test_the_summary_says_why():
    assert record(P.FAILED, settled=True, error="no route").summary == "migrations failed (no route)"
    assert record(P.COMPLETED, settled=True).summary == "migrations completed"


@pytest.mark.parametrize(
    "text", ["naïve ☂", 'quote " and \\', "line\nend", "\x00\x1b[31m", "tab\t", "lone \udce9"]
)
def test_any_text_crosses_the_border(text):
    line = encode(record(P.FAILED, error=text, reason=text, current=text))

    assert line.count(b"\n") == 1
    assert json.loads(decode(line[:-1]).document)["error"] == text
