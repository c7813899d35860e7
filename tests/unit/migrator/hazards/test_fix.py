"""Where new files go."""

import pytest

from migrator.hazards.fix import versions_between


@pytest.mark.parametrize(
    ("version", "count", "taken", "expected"),
    [
        ("20260101090000", 2, {"20260101090000"}, ["20260101090001", "20260101090002"]),
        ("20260101090000", 2, {"20260101090000", "20260101090002"}, ["202601010900001", "202601010900002"]),
        ("0003", 2, {"0003", "0004"}, ["00031", "00032"]),
        ("0003", 2, {"0003"}, ["0004", "0005"]),
        ("0099", 1, {"0099"}, ["0100"]),
        ("9", 1, {"9"}, ["91"]),
        ("1", 1, {"1", "10"}, None),
        ("1", 11, {"1", "2"}, [f"1{number:02}" for number in range(1, 12)]),
        ("0003", 0, {"0003"}, []),
        ("0003", 1, {"0003", "00030", "0004"}, None),
    ],
)
def test_versions_come_after_the_file_and_before_the_next_one(version, count, taken, expected):
    assert versions_between(version, count, taken) == expected
    if expected:
        assert sorted([version, *expected]) == [version, *expected]
