"""Where new files go."""

import pytest

from migrator.hazards import check, fix, parsed
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


def test_a_file_that_was_edited_since_it_was_read_is_left_alone(tmp_path):
    path = tmp_path / "1_a.sql"
    path.write_text("create index i on t (a);\ncreate index j on t (b);\n")
    read = [parsed.parse(path)]
    found = check.check(read, None)
    path.write_text("select 1;")

    told = fix.fix(read, found, (), ())

    assert told == ["cannot fix 1_a.sql: it was changed meanwhile; run it again"]
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("1_a.sql", "select 1;")]


def test_nothing_is_written_where_a_file_is_in_the_way(tmp_path, monkeypatch):
    text = "create index i on t (a);\ncreate index j on t (b);\n"
    path = tmp_path / "1_a.sql"
    path.write_text(text)
    (tmp_path / "2_a_part_2.sql").mkdir()
    read = [parsed.parse(path)]
    monkeypatch.setattr(fix, "versions_between", lambda *_: ["2"])

    (told,) = fix.fix(read, check.check(read, None), (), ())

    assert told.startswith("cannot fix 1_a.sql: File exists: ")
    assert path.read_text() == text
    assert sorted(one.name for one in tmp_path.iterdir()) == ["1_a.sql", "2_a_part_2.sql"]
