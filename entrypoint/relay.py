"""What the migrator and its steps write, passed on as log lines, at a rate that hurts nobody."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import NoReturn

from migrator.log import Log
from migrator.report import MAX_TEXT_CHARS
from migrator.writer import Writer

LINES_PER_S = 200
BURST_LINES = 1000
# Of a longer line only the beginning is passed on, as text.
MAX_LINE_BYTES = 64 * 1024
TELL_INTERVAL_S = 1.0
# By these a log line of ours is known. Somebody else's JSON is text, so that secrets in it are masked.
_OWN_KEYS = frozenset({"timestamp", "level", "component", "event"})


class Bucket:
    """So many at once, and so many a second: a token bucket."""

    def __init__(self, per_s: float, burst: int, now_s: float) -> None:
        """Start with a full one."""
        self._per_s = per_s
        self._burst = burst
        self._tokens = float(burst)
        self._at_s = now_s

    def take(self, wanted: int, now_s: float) -> int:
        """How many of those wanted may pass now."""
        self._tokens = min(self._burst, self._tokens + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        allowed = min(wanted, int(self._tokens))
        self._tokens -= allowed
        return allowed


class Relay:
    """Passes lines on: our own as they are, anything else as an event, too many of either as a count."""

    def __init__(self, log: Log, *, for_eyes: bool) -> None:
        """For both streams of one child; `for_eyes`: the lines are text, and nothing is made of them."""
        self._log = log
        self._for_eyes = for_eyes
        self._loop = asyncio.get_running_loop()
        self._bucket = Bucket(LINES_PER_S, BURST_LINES, self._loop.time())
        self._dropped = 0
        self._writers: list[Writer] = []
        self._telling: asyncio.TimerHandle | None = None

    def to(self, fd: int) -> Callable[[list[bytes]], None]:
        """What takes the lines of one stream and writes them to `fd`."""
        writer = Writer(fd)
        self._writers.append(writer)
        return lambda lines: self._pass(lines, writer)

    def close(self) -> None:
        """Tell what was left out, and let go of the descriptors."""
        if self._telling is not None:
            self._telling.cancel()
        self._tell()
        for writer in self._writers:
            writer.close()

    def _pass(self, lines: Sequence[bytes], writer: Writer) -> None:
        allowed = self._bucket.take(len(lines), self._loop.time())
        for line in lines[:allowed]:
            if self._for_eyes:
                writer.msg(line.decode(errors="replace"))
                continue
            passed = _json_object(line)
            if passed is not None:
                writer.msg(passed)
            elif said := line.decode(errors="replace").strip():
                if len(line) >= MAX_LINE_BYTES:  # cut there, maybe in the middle of a secret
                    said = said[:-MAX_TEXT_CHARS]
                self._log.info("migrator.said", text=said)
        if allowed < len(lines):
            self._dropped += len(lines) - allowed
            if self._telling is None:
                self._telling = self._loop.call_later(TELL_INTERVAL_S, self._tell)

    def _tell(self) -> None:
        self._telling = None
        if self._dropped:
            self._log.warning("log.dropped", count=self._dropped)
            self._dropped = 0


def _json_object(line: bytes) -> str | None:
    """The line as text if it is a log line of ours, which has been masked; None otherwise."""
    if not line.startswith(b"{"):
        return None
    try:
        text = line.decode()
        # Python reads NaN as well, which isn't JSON.
        found = json.loads(text, parse_constant=_refuse)
        return text if isinstance(found, dict) and found.keys() >= _OWN_KEYS else None
    except (ValueError, RecursionError):
        return None


def _refuse(name: str) -> NoReturn:
    raise ValueError(name)
