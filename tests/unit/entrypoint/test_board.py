"""The board with a real directory, a real clock and the real log."""

import json
import os
import stat

import pytest

from entrypoint import board as boards
from entrypoint.board import Board
from entrypoint.line import Log
from entrypoint.record import Record


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(boards, "clock", made)
    return made


def new_board(directory, *, service="shop"):
    names = {"service": service, "environment": None, "version": "1"}
    return Board(names, directory and str(directory), Log(level="debug", console=False, fd=2))


def migrations(*, settled=True, failed=False, done=False):
    return Record(
        settled=settled,
        failed=failed,
        done=done,
        code=0,
        groups=frozenset(),
        summary="",
        document='{"phase": "applying"}',
    )


def events(capfd):
    return [json.loads(line) for line in capfd.readouterr().err.splitlines()]


def marker(directory):
    return json.loads((directory / "status.json").read_bytes())


def test_the_document_has_the_customers_keys_from_the_first_moment(tmp_path):
    new_board(tmp_path)

    found = marker(tmp_path)
    assert list(found) == [
        "status",
        "timestamp",
        "service",
        "environment",
        "version",
        "uptime",
        "migrations",
        "app",
    ]
    assert (found["status"], found["service"], found["environment"]) == ("ok", "shop", None)
    assert found["migrations"]["status"] == "running"
    assert found["migrations"]["phase"] == "pending"
    assert found["app"] == {"status": "starting", "pid": None, "uptime": 0, "exitCode": None, "reason": None}


def test_every_change_is_in_the_marker_at_once(tmp_path):
    board = new_board(tmp_path)
    board.app_runs(7)
    assert marker(tmp_path)["app"]["pid"] == 7
    board.take(migrations())
    assert marker(tmp_path)["migrations"] == {"phase": "applying"}
    board.app_stops()
    assert marker(tmp_path)["app"]["status"] == "stopping"
    board.app_ended(3, "exited with code 3")

    found = marker(tmp_path)["app"]
    assert (found["status"], found["exitCode"], found["reason"]) == ("exited", 3, "exited with code 3")


@pytest.mark.parametrize(
    ("record", "healthy", "ready"),
    [
        (migrations(done=True), True, True),
        (migrations(failed=True), False, False),
        (migrations(failed=True, settled=False), True, False),
        (migrations(settled=False), True, False),
    ],
    ids=["done", "failed for good", "failed, but tried again", "under way"],
)
def test_health_is_about_failures_for_good_and_readiness_about_the_schema(tmp_path, record, healthy, ready):
    board = new_board(tmp_path)
    board.app_runs(7)
    board.take(record)

    assert (board.is_healthy, board.is_ready) == (healthy, ready)
    assert marker(tmp_path)["status"] == ("ok" if healthy else "error")
    board.app_stops()
    assert not board.is_ready
    board.app_ended(0, "")
    assert not board.is_healthy


def test_what_may_not_follow_is_refused_aloud(tmp_path, capfd):
    board = new_board(tmp_path)
    board.app_ended(1, "exited with code 1")
    board.app_runs(1)
    board.app_stops()

    assert marker(tmp_path)["app"]["status"] == "exited"
    assert [line["event"] for line in events(capfd)] == ["status.refused"] * 2


def test_a_document_is_served_as_published_until_it_is_a_second_old(tmp_path, clock):
    board = new_board(tmp_path)
    first = board.document()
    clock.now += 0.9
    assert board.document() == first
    clock.now += 5

    assert json.loads(board.document())["uptime"] == 5
    assert (tmp_path / "status.json").read_bytes() == board.document()


def test_text_of_any_kind_makes_valid_json(tmp_path):
    board = new_board(tmp_path, service='a"\\\n\x00é\udce9')

    assert json.loads(board.document())["service"] == 'a"\\\n\x00é\udce9'


def test_a_directory_that_went_away_is_one_warning_and_recovers(tmp_path, capfd):
    where = tmp_path / "state"
    where.mkdir()
    board = new_board(where)
    (where / "status.json").unlink()
    where.rmdir()
    for _ in range(5):
        board.publish()
    where.mkdir()
    board.publish()

    assert marker(where)["service"] == "shop"
    assert [line["event"] for line in events(capfd)].count("marker.failed") == 1


def test_nowhere_to_write_is_no_failure():
    assert json.loads(new_board(None).document())["service"] == "shop"


def test_the_marker_can_be_read_by_other_users_whatever_the_umask(tmp_path):
    before = os.umask(0o077)
    try:
        new_board(tmp_path)
    finally:
        os.umask(before)

    assert stat.S_IMODE((tmp_path / "status.json").stat().st_mode) == 0o644
    assert os.listdir(tmp_path) == ["status.json"]


def test_a_pipe_in_the_place_of_the_file_beside_doesnt_stop_us(tmp_path):
    os.mkfifo(tmp_path / f"status.json.{os.getpid()}")
    new_board(tmp_path)

    assert marker(tmp_path)["service"] == "shop"


def test_what_nobody_knows_is_said_so():
    record = boards.unknown_record("failed", "failed", 'internal error: "x"')

    assert record.failed
    assert record.settled
    assert json.loads(record.document)["error"] == 'internal error: "x"'
    assert "internal error" in record.summary
