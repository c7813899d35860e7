"""The board with a real directory, a real clock and the real log."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from datetime import UTC, datetime, timedelta

import pytest

from entrypoint import board as boards
from entrypoint.board import Board
from entrypoint.status import AppPhase, Status
from migrator import log as logs
from migrator.report import MigrationPhase, Report


@pytest.fixture
def log():
    return logs.configure(component="test", level="debug", console=False, to_stdout=False, mask=str)


class Clock:
    def __init__(self):
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def new_board(directory, log, clock):
    status = Status(
        service="shop",
        environment=None,
        version=None,
        started=clock(),
        migration=Report(phase=MigrationPhase.PENDING),
        checked=clock(),
    )
    return Board(status, directory and str(directory), log, clock)


def events(capfd):
    return [json.loads(line) for line in capfd.readouterr().err.splitlines()]


def marker(directory):
    return json.loads((directory / "status.json").read_bytes())


def test_every_change_is_in_the_marker_at_once_and_logged(tmp_path, log, clock, capfd):
    board = new_board(tmp_path, log, clock)
    assert marker(tmp_path)["migrations"]["phase"] == "pending"
    board.report(Report(phase=MigrationPhase.APPLYING, current="1_a.sql"), attempt=2)

    assert marker(tmp_path)["migrations"]["current"] == "1_a.sql"
    assert marker(tmp_path)["migrations"]["attempt"] == 2
    (line,) = events(capfd)
    assert (line["event"], line["previous"], line["phase"], line["filename"]) == (
        "status.changed",
        "pending",
        "applying",
        "1_a.sql",
    )


def test_progress_within_a_phase_is_published_and_not_logged(tmp_path, log, clock, capfd):
    board = new_board(tmp_path, log, clock)
    board.report(Report(phase=MigrationPhase.APPLYING, applied=1))
    board.report(Report(phase=MigrationPhase.APPLYING, applied=2))

    assert marker(tmp_path)["migrations"]["applied"] == 2
    assert len(events(capfd)) == 1


def test_what_may_not_follow_is_refused_aloud(tmp_path, log, clock, capfd):
    board = new_board(tmp_path, log, clock)
    board.report(Report(phase=MigrationPhase.COMPLETED), settled=True)
    board.report(Report(phase=MigrationPhase.APPLYING))
    board.app(AppPhase.EXITED, exit_code=1)
    board.app(AppPhase.RUNNING, pid=1)

    assert marker(tmp_path)["migrations"]["phase"] == "completed"
    assert marker(tmp_path)["app"]["status"] == "exited"
    assert [line["event"] for line in events(capfd)].count("status.refused") == 2


def test_a_failure_is_an_error_in_the_log_and_a_retry_a_warning(tmp_path, log, clock, capfd):
    board = new_board(tmp_path, log, clock)
    board.report(Report(phase=MigrationPhase.RETRYING, error="no"))
    board.report(Report(phase=MigrationPhase.FAILED, error="never"), settled=True)

    assert [(line["level"], line["error"]) for line in events(capfd)] == [
        ("warning", "no"),
        ("error", "never"),
    ]


def test_a_document_is_served_as_published_until_it_is_a_second_old(tmp_path, log, clock):
    board = new_board(tmp_path, log, clock)
    first = board.document()
    clock.now += timedelta(seconds=0.9)
    assert board.document() == first
    clock.now += timedelta(seconds=5)

    assert json.loads(board.document())["uptime"] == 5
    assert (tmp_path / "status.json").read_bytes() == board.document()


def test_a_clock_that_was_set_back_makes_a_new_document_and_no_negative_uptime(tmp_path, log, clock):
    board = new_board(tmp_path, log, clock)
    clock.now -= timedelta(hours=1)

    assert json.loads(board.document())["uptime"] == 0
    assert json.loads(board.document())["timestamp"] == "2025-12-31T23:00:00.000Z"


async def test_who_waits_for_the_end_is_told(tmp_path, log, clock):
    board = new_board(tmp_path, log, clock)
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(board.settled()) for _ in range(3)]
        await asyncio.sleep(0)
        board.report(Report(phase=MigrationPhase.FAILED))
        await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)  # an attempt that failed isn't the end
        board.report(Report(phase=MigrationPhase.FAILED), settled=True)

    assert [task.result().phase for task in waiting] == [MigrationPhase.FAILED] * 3


def test_a_directory_that_went_away_is_one_warning_and_recovers(tmp_path, log, clock, capfd):
    where = tmp_path / "state"
    where.mkdir()
    board = new_board(where, log, clock)
    (where / "status.json").unlink()
    where.rmdir()
    for number in range(5):
        board.report(Report(phase=MigrationPhase.APPLYING, applied=number))
    where.mkdir()
    board.report(Report(phase=MigrationPhase.APPLYING, applied=9))

    assert marker(where)["migrations"]["applied"] == 9
    assert [line["event"] for line in events(capfd)].count("marker.failed") == 1


def test_nowhere_to_write_is_no_failure(log, clock):
    board = new_board(None, log, clock)

    assert json.loads(board.document())["service"] == "shop"


def test_a_link_in_place_of_the_marker_is_replaced_and_not_followed(tmp_path, log, clock):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "status.json").symlink_to(victim)
    new_board(tmp_path, log, clock)

    assert victim.read_text() == "precious"
    assert not (tmp_path / "status.json").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["status.json", "victim"]


def test_the_marker_is_readable_to_all_whatever_the_umask(tmp_path, log, clock):
    before = os.umask(0o077)
    try:
        new_board(tmp_path, log, clock)
    finally:
        os.umask(before)

    assert stat.S_IMODE((tmp_path / "status.json").stat().st_mode) == 0o644


def test_the_state_directory_is_made_with_its_parents(tmp_path):
    boards.prepare_state_dir(str(tmp_path / "a" / "b"))

    assert (tmp_path / "a" / "b").is_dir()


def test_a_link_is_no_state_directory(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)

    with pytest.raises(PermissionError):
        boards.prepare_state_dir(str(tmp_path / "link"))


def test_a_pipe_in_the_place_of_the_new_marker_doesnt_stop_us(tmp_path, log, clock):
    # The app may write there too; opening a pipe that nobody reads would be the end of PID 1's loop.
    os.mkfifo(tmp_path / f"status.json.{os.getpid()}")

    new_board(tmp_path, log, clock)

    assert marker(tmp_path)["service"] == "shop"
