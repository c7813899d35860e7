"""How far a run is, on the last line of a person's terminal: a bar, the file at work, and for how long."""

from __future__ import annotations

import asyncio
import os
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from migrator.report import MigrationPhase, Report
from migrator.writer import Writer

# Seconds between two looks.
_TICK_S = 0.1
_BAR_COLUMNS = 20
_WIDTH_UNKNOWN = 80


def is_wanted(environ: Mapping[str, str], *, console: bool, to_stdout: bool) -> bool:
    """Whether somebody looks who can see it: at a terminal that takes our log lines, too."""
    return console and not to_stdout and os.isatty(2) and environ.get("TERM") != "dumb"


@contextmanager
def shown(writer: Writer, mask: Callable[[str], str]) -> Iterator[Callable[[Report], None]]:
    """Show how far it is below what `writer` writes, as long as the body runs; it gets where to report.

    What is shown goes through `mask`, so that no secret is.
    """
    loop = asyncio.get_running_loop()
    view = View()
    timer: asyncio.TimerHandle

    def tick() -> None:
        nonlocal timer
        writer.keep_below(fit(mask(view.line(time.monotonic())), _columns()))
        timer = loop.call_later(_TICK_S, tick)

    timer = loop.call_later(_TICK_S, tick)
    try:
        yield lambda report: view.hear(report, time.monotonic())
    finally:
        timer.cancel()
        writer.keep_below("")


class View:
    """What is known of a run."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._report = Report(phase=MigrationPhase.PENDING)
        # How many were applied when this run began to.
        self._before: int | None = None
        # Since when this file has been at work.
        self._since_s = 0.0

    def hear(self, report: Report, now_s: float) -> None:
        """Take it over."""
        if report.phase is MigrationPhase.APPLYING and self._before is None:
            self._before = report.applied
        if report.current != self._report.current:
            self._since_s = now_s
        self._report = report

    def line(self, now_s: float) -> str:
        """The line for this moment; empty if there is nothing to tell."""
        report = self._report
        if report.reason and report.phase is not MigrationPhase.APPLYING:
            return f"{report.phase.value.replace('_', ' ')}: {report.reason}"
        if report.phase is not MigrationPhase.APPLYING or report.applied is None or report.pending is None:
            return ""
        done = max(report.applied - (self._before or 0), 0)
        total = max(done + report.pending, 1)
        full = _BAR_COLUMNS * done // total
        bar = "#" * full + "-" * (_BAR_COLUMNS - full)
        # The time before the name: where that is too long for the terminal, its end is what is missed least.
        return f"[{bar}] {done}/{total} {now_s - self._since_s:.0f} s {report.current or ''}"


def fit(line: str, columns: int) -> str:
    """The line in less than so many columns, and nothing in it that moves the cursor: it stays one line."""
    plain = "".join(one if _is_narrow(one) else "?" for one in line)
    return plain if len(plain) < columns else plain[: max(columns - 4, 0)] + "..."


def _is_narrow(character: str) -> bool:
    return character.isprintable() and unicodedata.east_asian_width(character) not in "WF"


def _columns() -> int:
    try:
        return os.get_terminal_size(2).columns or _WIDTH_UNKNOWN
    except OSError:
        return _WIDTH_UNKNOWN
