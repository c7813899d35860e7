"""PID 1's log lines and structlog's must look alike."""

import json
import os
import re

import pytest

from entrypoint import line
from entrypoint.line import Log
from migrator import log as structured


def lines_of(write, **options):
    read_fd, write_fd = os.pipe()
    write(Log(fd=write_fd, **{"level": "debug", "console": False, **options}))
    said = os.read(read_fd, 65536).decode()
    os.close(write_fd)
    os.close(read_fd)
    return said


def test_a_line_has_the_customers_keys_in_their_order():
    text = lines_of(lambda log: log.info("app.exited", exit_code=3, reason='a "quoted"\n\tword é'))

    found = json.loads(text)
    assert list(found) == [
        "timestamp",
        "level",
        "message",
        "component",
        "instanceId",
        "event",
        "exit_code",
        "reason",
    ]
    assert (found["message"], found["event"], found["component"]) == (
        "App exited",
        "app.exited",
        "entrypoint",
    )
    assert found["reason"] == 'a "quoted"\n\tword é'
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found["timestamp"])


@pytest.mark.parametrize("console", [False, True], ids=["for machines", "for eyes"])
@pytest.mark.parametrize("colours", [False, True])
def test_our_lines_and_structlogs_are_the_same_to_the_letter(console, colours, capfd, monkeypatch):
    fields = {"pid": 7, "reason": "a b", "ended": None, "ok": True}
    ours = lines_of(lambda log: log.warning("stop.escalated", **fields), console=console, colours=colours)
    monkeypatch.setattr(structured.os, "isatty", lambda _: colours)
    monkeypatch.delenv("NO_COLOR", raising=False)
    structured.configure(
        component="entrypoint", level="debug", console=console, to_stdout=False, mask=str
    ).warning("stop.escalated", **fields)
    theirs = capfd.readouterr().err

    when = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
    assert _plain(when.sub("", ours)) == _plain(when.sub("", theirs))
    assert ("\x1b" in ours) == (colours and console)


def test_levels_below_the_wanted_one_are_left_out():
    text = lines_of(lambda log: (log.debug("a.b"), log.info("a.b"), log.error("c.d")), level="warning")

    assert [json.loads(one)["event"] for one in text.splitlines()] == ["c.d"]


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -5,
        0.5,
        10.0,
        "",
        "é\u2028\x7f",
        '"\\',
        {"a": [1, {"b": None}]},
        [],
        {},
        ["x", False],
        {"nested": {"deep": [[]]}},
    ],
)
def test_what_we_write_is_what_json_reads(value):
    assert json.loads(line.dumps(value)) == value


def test_a_time_is_written_as_javascript_does():
    assert line.stamp(0.0019) == "1970-01-01T00:00:00.001Z"
    assert line.stamp(1_787_565_600.999999) == "2026-08-24T10:00:00.999Z"


@pytest.mark.parametrize(
    ("environ", "output", "fd"),
    [
        ({}, None, 2),
        ({"RAILWAY_DEPLOYMENT_ID": "x"}, None, 1),
        ({"RAILWAY_DEPLOYMENT_ID": "x"}, "stderr", 2),
        ({}, "stdout", 1),
    ],
)
def test_our_lines_go_where_structlogs_go(environ, output, fd):
    ours = line.from_environ(environ, level="info", form="json", output=output)
    theirs = structured.destination(environ, log_format="json", output=output)

    assert theirs["to_stdout"] is (fd == 1)
    assert os.fstat(ours._writer._fd).st_ino == os.fstat(fd).st_ino


def _plain(text):
    return re.sub(r"\x1b\[\d+m", "", text)
