"""What crosses the border between the overseer and PID 1."""

import json

import pytest

from entrypoint import record
from entrypoint.record import Record

WHOLE = Record(
    settled=True,
    failed=False,
    done=True,
    code=65,
    groups=frozenset({12, 7}),
    summary="migrations\tfailed\n(é)",
    document=json.dumps({"error": "a\tb\nc"}),
)


def test_a_record_comes_back_as_it_was_sent_on_one_line():
    line = record.encode(WHOLE)

    assert line.count(b"\n") == 1
    back = record.decode(line[:-1])
    assert (back.settled, back.failed, back.done, back.code) == (True, False, True, 65)
    assert back.groups == {7, 12}
    assert back.summary == "migrations failed (é)"
    assert json.loads(back.document) == {"error": "a\tb\nc"}


def test_text_that_isnt_utf8_still_makes_valid_json():
    odd = Record(
        settled=False,
        failed=False,
        done=False,
        code=0,
        groups=frozenset(),
        summary="\udce9",
        document=json.dumps({"current": "\udce9"}, ensure_ascii=False),
    )

    assert json.loads(record.decode(record.encode(odd)[:-1]).document) == {"current": "\udce9"}


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"nonsense",
        b"\xff",
        b"1\t0\t0\t0\t\tx\t[]",
        b"1\t0\t0\tcode\t\tx\t{}",
        b"1\t0\t0\t0\tgroup\tx\t{}",
        b"1\t0\t0\t0\t\tx\t{",
        b"1\t0\t0\t0\t\tx\ty\t{}",
    ],
)
def test_what_is_no_record_is_refused(line):
    with pytest.raises(ValueError):
        record.decode(line)
