"""The line that tells a person how far a run is."""

import pytest

from migrator.progress import View, fit
from migrator.report import MigrationPhase, Report

APPLYING, WAITING = MigrationPhase.APPLYING, MigrationPhase.WAITING_FOR_LOCK


def test_the_bar_counts_the_files_of_this_run_and_the_time_of_the_file_at_work():
    view = View()
    reports = [
        (Report(phase=MigrationPhase.CONNECTING), 0.0),
        (Report(phase=WAITING, reason="web-1/7 has been migrating for 3 s", applied=5, pending=4), 1.0),
        (Report(phase=APPLYING, applied=5, pending=4, current="6_a.sql"), 10.0),
        (Report(phase=APPLYING, applied=5, pending=4, current="6_a.sql"), 12.4),
        (Report(phase=APPLYING, applied=7, pending=2, current="8_c.sql"), 13.0),
        (Report(phase=MigrationPhase.COMPLETED, applied=9, pending=0), 14.0),
    ]

    def line(report, now_s):
        view.hear(report, now_s)
        return view.line(now_s)

    assert [line(*one) for one in reports] == [
        "",
        "waiting for lock: web-1/7 has been migrating for 3 s",
        "[--------------------] 0/4 0 s 6_a.sql",
        "[--------------------] 0/4 2 s 6_a.sql",
        "[##########----------] 2/4 0 s 8_c.sql",
        "",
    ]


def test_the_time_is_seen_however_long_the_name_and_narrow_the_terminal():
    view = View()
    view.hear(Report(phase=APPLYING, applied=0, pending=3, current="20260101090000_" + "a" * 200), 0.0)

    assert fit(view.line(71.0), 50) == "[--------------------] 0/3 71 s 20260101090000..."


@pytest.mark.parametrize(
    ("line", "columns", "shown"),
    [
        ("abcdef", 7, "abcdef"),
        ("abcdef", 6, "ab..."),
        ("ab\r\ncd\x1b[2J", 80, "ab??cd?[2J"),
        ("größe 日本", 80, "größe ??"),
    ],
    ids=["it fits", "too long", "what moves the cursor", "wide characters"],
)
def test_it_stays_one_line(line, columns, shown):
    assert fit(line, columns) == shown
