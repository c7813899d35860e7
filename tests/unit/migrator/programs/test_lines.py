"""A program's output as lines."""

import pytest

from migrator.errors import Redactor
from migrator.programs.lines import MAX_LINE_CHARS, Lines, Tail


@pytest.mark.parametrize(
    ("pieces", "lines"),
    [
        pytest.param([b"one\ntwo\n"], ["one", "two"], id="whole lines"),
        pytest.param([b"o", b"ne\nt", b"wo"], ["one", "two"], id="in pieces, without an end"),
        pytest.param([b"one\r", b"\ntwo\r\n"], ["one", "two"], id="a line end that comes in halves"),
        pytest.param([b" 1%\r 50%\r100%\n"], [" 1%", " 50%", "100%"], id="a progress bar"),
        pytest.param([b"\n\n  \nx\n"], ["x"], id="no empty ones"),
        pytest.param([b"\x1b[1;32mok\x1b[0m \x1b]0;title\x07done\n"], ["ok done"], id="colours and titles"),
        pytest.param([b"\xc3", b"\xa4\n\xff\n"], ["ä", "\ufffd"], id="UTF-8 in halves, and none"),
        pytest.param([b"a\x00b\x08\n"], ["ab"], id="controls"),
        pytest.param([b"last\r"], ["last"], id="a carriage return at the end"),
    ],
)
def test_lines(pieces, lines):
    cut = Lines(Redactor([]))
    found = [line for piece in pieces for line in cut.feed(piece)] + cut.feed(b"", final=True)

    assert found == lines


def test_a_line_without_end_is_cut_and_nothing_of_it_lost():
    cut = Lines(Redactor([]))
    found = [line for _ in range(10) for line in cut.feed(b"x" * 40_000)]
    found += cut.feed(b"y", final=True)

    assert len(found) > 4
    assert max(len(line) for line in found) < 2 * MAX_LINE_CHARS
    assert "".join(found) == "x" * 400_000 + "y"


@pytest.mark.parametrize("before", [*range(MAX_LINE_CHARS - 2, MAX_LINE_CHARS + 2), 69_627, 69_631, 69_632])
def test_a_secret_is_never_cut_with_its_line(before):
    cut = Lines(redact := Redactor(["sk_live_0123456789"]))
    found = cut.feed(b"x" * before + b"sk_live_0")
    found += cut.feed(b"123456789" + b"y" * 100_000) + cut.feed(b"", final=True)

    assert [line for line in found if "sk_live" in redact(line) or "456789" in redact(line)] == []
    assert sum(line.count("***") for line in map(redact, found)) == 1


def test_the_tail_is_the_last_lines_and_short():
    tail = Tail()
    for number in range(20):
        tail.add(f"{number} " + "x" * 1000)

    assert str(tail).splitlines()[-1].startswith("19 ")
    assert len(str(tail).splitlines()) == 8
    assert len(str(tail)) < 2500


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("error: division by zero", True),
        ("2026 [ERROR] no", True),
        ("django.db.utils.ProgrammingError: no", True),
        ("FATAL: no", True),
        ("0 errors, all fine", False),
    ],
)
def test_an_error_stays_in_the_tail_when_a_dump_follows(line, kept):
    tail = Tail()
    for one in [line, *("  code: 1" for _ in range(20))]:
        tail.add(one)

    assert (line in str(tail).splitlines()) is kept
    assert ("..." in str(tail)) is kept
