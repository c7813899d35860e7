"""Our own log lines: one JSON object a line, never in the way of anybody.

Read by both packages. The vocabulary of events is `docs/reference/logs.md`, checked against the code.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from migrator import shorten
from migrator.report import MAX_TEXT_CHARS, timestamp
from migrator.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Mapping

Masker = Callable[[str], str]
Fields = dict[str, Any]

# Fields whose words are ours: a password `info` must not make a puzzle of every line.
_OURS = frozenset({"timestamp", "level", "event", "component", "phase", "previous", "cause", "signal"})
# Docker splits lines of more than 16 KiB, and takes the parts for lines.
MAX_FIELD_CHARS = 4000
# Whatever others print comes as these, many a second.
_CHATTY = frozenset({"migrator.said", "runner.output"})
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "warn": 30, "error": 40}


class Log:
    """Writes one line per fact: the event, and what belongs to it."""

    __slots__ = ("_bound", "_level", "_mask", "_render", "writer")

    def __init__(
        self, writer: Writer, level: int, mask: Masker, render: Callable[[Fields], str], bound: Fields
    ) -> None:
        """See `configure`; `bound` is said in each line."""
        self.writer = writer
        self._level = level
        self._mask = mask
        self._render = render
        self._bound = bound

    def debug(self, event: str, **fields: object) -> None:
        """Anything per poll."""
        if self._level <= 10:
            self._write("debug", event, fields)

    def info(self, event: str, **fields: object) -> None:
        """A change of state."""
        if self._level <= 20:
            self._write("info", event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """Handled; to be looked at later."""
        if self._level <= 30:
            self._write("warning", event, fields)

    def error(self, event: str, **fields: object) -> None:
        """Somebody must act."""
        self._write("error", event, fields)

    def _write(self, level: str, event: str, fields: Fields) -> None:
        said = {
            **self._bound,
            **fields,
            "event": event,
            "level": level,
            "timestamp": timestamp(datetime.now(UTC)),
        }
        self.writer.msg(self._render(_masked(said, self._mask)))


def configure(
    *,
    component: str,
    level: str,
    console: bool,
    to_stdout: bool,
    mask: Masker,
) -> Log:
    """The logger that everything here uses.

    Args:
        component: What speaks, e.g. "entrypoint".
        level: The least important level that is written.
        console: For eyes instead of machines.
        to_stdout: Write to standard output instead of standard error.
        mask: Applied to every text, so that no secret leaves.
    """
    fd = 1 if to_stdout else 2
    render = _console(fd) if console else _json
    bound: Fields = {"component": component, "instanceId": f"{os.uname().nodename}/{os.getpid()}"}
    return Log(Writer(fd), _LEVELS[level], mask, render, bound)


def destination(environ: Mapping[str, str], *, log_format: str | None, output: str | None) -> dict[str, bool]:
    """Where lines go and how they look where that isn't said: the last two arguments of `configure`."""
    # Railway shows everything on stderr in red (docs, observability/logs).
    to_stdout = output == "stdout" or (output is None and "RAILWAY_DEPLOYMENT_ID" in environ)
    stream = sys.stdout if to_stdout else sys.stderr
    on_terminal = stream is not None and stream.isatty()
    console = log_format == "console" or (log_format is None and on_terminal)
    return {"console": console, "to_stdout": to_stdout}


def _masked(fields: Fields, mask: Masker) -> Fields:
    # Shortened after they are masked: half a secret would not be known as one.
    return {
        key: shorten.middle(mask(value), _limit(fields))
        if isinstance(value, str) and key not in _OURS
        else value
        for key, value in fields.items()
    }


def _limit(fields: Fields) -> int:
    return MAX_TEXT_CHARS if fields["event"] in _CHATTY else MAX_FIELD_CHARS


def _json(fields: Fields) -> str:
    event = str(fields.pop("event"))
    ordered = {
        "timestamp": fields.pop("timestamp"),
        "level": fields.pop("level"),
        "message": _sentence(event),
        "component": fields.pop("component", None),
        "instanceId": fields.pop("instanceId", None),
        "event": event,
    }
    if "duration_ms" in fields:  # the customer's dashboards call it so
        fields["duration"] = fields.pop("duration_ms")
    return json.dumps({**ordered, **fields}, ensure_ascii=False, default=repr)


def _console(fd: int) -> Callable[[Fields], str]:
    # Late, and for eyes only: structlog is a tenth of what a migrator's start takes. It imports `rich` where
    # it finds it, for tracebacks that we never print: 5 MiB and 50 ms.
    rich = sys.modules.get("rich")
    sys.modules["rich"] = None  # type: ignore[assignment]  # the import system's word for "not there"
    import structlog

    if rich is None:
        del sys.modules["rich"]
    else:
        sys.modules["rich"] = rich
    # FORCE_COLOR: a supervisor with a terminal reads us through a pipe (force-color.org).
    seen = os.isatty(fd) and os.environ.get("TERM") != "dumb"
    colors = bool(seen or os.environ.get("FORCE_COLOR")) and not os.environ.get("NO_COLOR")
    paint = structlog.dev.ConsoleRenderer(colors=colors)

    def render(fields: Fields) -> str:
        fields.pop("instanceId", None)
        fields["event"] = f"{fields.pop('component', '')}: {_sentence(str(fields['event']))}"
        # A reason of several lines goes below, as it is: a mark in one is under a place in another.
        reason, *more = str(fields.get("reason", "")).split("\n")
        if more:
            fields["reason"] = reason
        return "\n    ".join([str(paint(None, str(fields["level"]), fields)), *more])

    return render


def _sentence(event: str) -> str:
    return event.replace(".", " ").replace("_", " ").capitalize()
