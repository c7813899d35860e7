"""The line that crosses the border between migrator and supervisor."""

import json

import pytest

from migrator import report
from migrator.report import STATUS_OF, MigrationPhase, MigrationStatus, Report, decode, encode

FULL = Report(
    phase=MigrationPhase.APPLYING,
    applied=3,
    pending=2,
    current="2_größe.sql",
    error="e",
    reason="r",
    duration_ms=12,
)


@pytest.mark.parametrize("sent", [FULL, Report(phase=MigrationPhase.PENDING)], ids=["full", "empty"])
def test_a_report_comes_out_as_it_went_in(sent):
    line = encode(sent)

    assert decode(line) == sent
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("x" * 100_000, id="ASCII"),
        pytest.param("ä" * 100_000, id="two bytes a character"),
        pytest.param("🐘" * 100_000, id="twelve bytes a character once escaped"),
        pytest.param("\n\t\x00" * 50_000, id="control characters"),
        pytest.param("\ud800" * 10_000, id="lone surrogates"),
    ],
)
def test_a_line_never_exceeds_what_a_pipe_takes_in_one_piece(text):
    line = encode(Report(phase=MigrationPhase.FAILED, error=text, reason=text, current=text))

    assert len(line) <= 4096
    shown = decode(line).error
    assert shown is not None
    assert "[...]" in shown
    assert len(shown) > 50


def test_a_text_of_usual_length_is_kept_whole():
    text = "e" * report.MAX_TEXT_CHARS

    assert decode(encode(Report(phase=MigrationPhase.FAILED, error=text))).error == text


def test_unknown_keys_are_ignored():
    assert decode(b'{"phase": "completed", "colour": "blue", "applied": 1}') == Report(
        phase=MigrationPhase.COMPLETED, applied=1
    )


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"hello",
        b"[]",
        b"null",
        b"{}",
        b"\xff\xfe",
        b'{"phase": "sleeping"}',
        b'{"phase": "completed", "applied": "3"}',
        b'{"phase": "completed", "applied": true}',
        b'{"phase": "completed", "applied": 1.5}',
        b'{"phase": "completed", "applied": NaN}',
        b'{"phase": "completed", "error": 7}',
        b'{"phase": "completed"',
        b"[" * 4095,
    ],
    ids=lambda line: repr(line[:40]),
)
def test_garbage_is_a_value_error(line):
    with pytest.raises(ValueError):
        decode(line)


def test_a_text_that_is_too_long_is_cut_when_read_too():
    line = json.dumps({"phase": "failed", "error": "x" * 5000}).encode()

    assert len(decode(line).error or "") == report.MAX_TEXT_CHARS


def test_every_phase_has_a_status():
    assert set(STATUS_OF) == set(MigrationPhase)
    assert set(STATUS_OF.values()) == set(MigrationStatus)
