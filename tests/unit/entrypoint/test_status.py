"""The states, how they may follow each other, and the health document."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from entrypoint.status import APP_NEXT, MIGRATION_NEXT, AppPhase, Status, http_status, to_json
from migrator.report import STATUS_OF, MigrationPhase, MigrationStatus, Report

STARTED = datetime(2025, 8, 13, 14, 30, tzinfo=UTC)
P = MigrationPhase


def status(phase=P.PENDING, app=AppPhase.RUNNING, *, settled=False, **report):
    return Status(
        service="shop",
        environment="production",
        version="1.0.0",
        started=STARTED,
        app=app,
        app_pid=7,
        app_started=STARTED,
        migration=Report(phase=phase, **report),
        attempt=1,
        checked=STARTED + timedelta(hours=1),
        settled=settled,
    )


def test_every_phase_has_its_row():
    assert set(MIGRATION_NEXT) == set(MigrationPhase) == set(STATUS_OF)
    assert set(APP_NEXT) == set(AppPhase)


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


@pytest.mark.parametrize(
    ("phase", "follows"),
    [
        (AppPhase.STARTING, {AppPhase.RUNNING, AppPhase.STOPPING, AppPhase.EXITED}),
        (AppPhase.RUNNING, {AppPhase.STOPPING, AppPhase.EXITED}),
        (AppPhase.STOPPING, {AppPhase.EXITED}),
        (AppPhase.EXITED, set()),
    ],
)
def test_the_app_lives_once(phase, follows):
    assert APP_NEXT[phase] == follows


def test_the_document_is_the_contracts():
    completed = status(P.COMPLETED, settled=True, applied=3, pending=0, duration_ms=412)
    raw = to_json(completed, STARTED + timedelta(hours=1, seconds=0.5))

    assert raw.endswith(b"}\n")
    assert raw.count(b"\n") == 1
    assert json.loads(raw) == {
        "status": "ok",
        "timestamp": "2025-08-13T15:30:00.500Z",
        "service": "shop",
        "environment": "production",
        "version": "1.0.0",
        "uptime": 3600,
        "migrations": {
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
        },
        "app": {"status": "running", "pid": 7, "uptime": 3600, "exitCode": None},
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
    assert json.loads(to_json(status(phase, settled=settled), STARTED))["migrations"]["status"] == said
    assert said in set(MigrationStatus)


ROWS = [
    # phase, settled, app, health, live, ready
    (P.PENDING, False, AppPhase.STARTING, 200, 200, 503),
    (P.PENDING, False, AppPhase.RUNNING, 200, 200, 503),
    (P.CONNECTING, False, AppPhase.RUNNING, 200, 200, 503),
    (P.WAITING_FOR_LOCK, False, AppPhase.RUNNING, 200, 200, 503),
    (P.APPLYING, False, AppPhase.RUNNING, 200, 200, 503),
    (P.RETRYING, False, AppPhase.RUNNING, 200, 200, 503),
    (P.FAILED, False, AppPhase.RUNNING, 200, 200, 503),
    (P.FAILED, True, AppPhase.RUNNING, 503, 200, 503),
    (P.TIMED_OUT, True, AppPhase.RUNNING, 503, 200, 503),
    (P.ABORTED, True, AppPhase.STOPPING, 200, 200, 503),
    (P.COMPLETED, True, AppPhase.STARTING, 200, 200, 503),
    (P.COMPLETED, True, AppPhase.RUNNING, 200, 200, 200),
    (P.COMPLETED, True, AppPhase.STOPPING, 200, 200, 503),
    (P.COMPLETED, True, AppPhase.EXITED, 503, 503, 503),
    (P.SKIPPED, True, AppPhase.RUNNING, 200, 200, 200),
]


@pytest.mark.parametrize("row", ROWS)
def test_what_each_path_answers(row):
    phase, settled, app, health, live, ready = row
    now = status(phase, app, settled=settled)

    assert [http_status(path, now) for path in ("/api/health", "/live", "/ready")] == [health, live, ready]
    assert json.loads(to_json(now, STARTED))["status"] == ("ok" if health == 200 else "error")


@pytest.mark.parametrize("path", ["/", "", "/api/health/", "/API/HEALTH", "/livez", "/ready/x"])
def test_any_other_path_is_not_found(path):
    assert http_status(path, status()) == 404


def test_before_its_start_the_app_has_no_uptime_and_none_is_negative():
    unborn = replace(status(), app=AppPhase.STARTING, app_started=None, app_pid=None)

    assert json.loads(to_json(unborn, STARTED - timedelta(days=1)))["uptime"] == 0
    assert json.loads(to_json(unborn, STARTED))["app"] == {
        "status": "starting",
        "pid": None,
        "uptime": 0,
        "exitCode": None,
    }


@pytest.mark.parametrize("text", ["naïve ☂", 'quote " and \\', "line\nend", "\x00\x1b[31m", "lone \udce9"])
def test_any_text_makes_one_line_of_json(text):
    raw = to_json(replace(status(error=text, reason=text, current=text), service=text), STARTED)

    assert raw.count(b"\n") == 1
    assert json.loads(raw)["service"] == json.loads(raw)["migrations"]["error"] == text
