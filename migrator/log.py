"""Our own log lines: one JSON object a line, never in the way of anybody.

Read by both packages. The vocabulary of events is `docs/reference/logs.md`, checked against the code.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

# structlog imports `rich` where it finds it, for tracebacks that we never print: 5 MiB and 50 ms.
_rich = sys.modules.get("rich")
sys.modules["rich"] = None  # type: ignore[assignment]  # the import system's word for "not there"
import structlog  # noqa: E402

if _rich is None:
    del sys.modules["rich"]
else:
    sys.modules["rich"] = _rich

from migrator import shorten  # noqa: E402
from migrator.report import MAX_TEXT_CHARS, timestamp  # noqa: E402
from migrator.writer import Writer  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Mapping

    from structlog.typing import EventDict, Processor, WrappedLogger

Log = structlog.typing.FilteringBoundLogger
Masker = Callable[[str], str]

# Fields whose words are ours: a password `info` must not make a puzzle of every line.
_OURS = frozenset({"timestamp", "level", "event", "component", "phase", "previous", "cause", "signal"})
# Docker splits lines of more than 16 KiB, and takes the parts for lines.
MAX_FIELD_CHARS = 4000
# Whatever others print comes as these, many a second.
_CHATTY = frozenset({"migrator.said"})
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "warn": 30, "error": 40}


def configure(
    *,
    component: str,
    level: str,
    console: bool,
    to_stdout: bool,
    mask: Masker,
) -> Log:
    """Set up structlog for this process; the logger that everything here uses.

    Args:
        component: What speaks, e.g. "entrypoint".
        level: The least important level that is written.
        console: For eyes instead of machines.
        to_stdout: Write to standard output instead of standard error.
        mask: Applied to every text, so that no secret leaves.
    """
    fd = 1 if to_stdout else 2
    render: list[Processor]
    if console:
        # FORCE_COLOR: a supervisor with a terminal reads us through a pipe (force-color.org).
        colors = bool(os.isatty(fd) or os.environ.get("FORCE_COLOR")) and not os.environ.get("NO_COLOR")
        render = [_console_order, structlog.dev.ConsoleRenderer(colors=colors)]
    else:
        render = [_json_order, structlog.processors.JSONRenderer(ensure_ascii=False)]
    writer = Writer(fd)
    structlog.configure(
        processors=[structlog.processors.add_log_level, _stamp, _masking(mask), *render],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=lambda: writer,
        cache_logger_on_first_use=True,
    )
    log: Log = structlog.get_logger()
    return log.bind(component=component, instanceId=f"{os.uname().nodename}/{os.getpid()}")


def destination(environ: Mapping[str, str], *, log_format: str | None, output: str | None) -> dict[str, bool]:
    """Where lines go and how they look where that isn't said: the last two arguments of `configure`."""
    # Railway shows everything on stderr in red (docs, observability/logs).
    to_stdout = output == "stdout" or (output is None and "RAILWAY_DEPLOYMENT_ID" in environ)
    stream = sys.stdout if to_stdout else sys.stderr
    on_terminal = stream is not None and stream.isatty()
    console = log_format == "console" or (log_format is None and on_terminal)
    return {"console": console, "to_stdout": to_stdout}


def _stamp(_logger: WrappedLogger, _method: str, fields: EventDict) -> EventDict:
    fields["timestamp"] = timestamp(datetime.now(UTC))
    return fields


def _masking(mask: Masker) -> Processor:
    def process(_logger: WrappedLogger, _method: str, fields: EventDict) -> EventDict:
        # Shortened after they are masked: half a secret would not be known as one.
        return {
            key: shorten.middle(mask(value), _limit(fields))
            if isinstance(value, str) and key not in _OURS
            else value
            for key, value in fields.items()
        }

    return process


def _limit(fields: EventDict) -> int:
    return MAX_TEXT_CHARS if fields["event"] in _CHATTY else MAX_FIELD_CHARS


def _json_order(_logger: WrappedLogger, _method: str, fields: EventDict) -> EventDict:
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
    return {**ordered, **fields}


def _console_order(_logger: WrappedLogger, _method: str, fields: EventDict) -> EventDict:
    fields.pop("instanceId", None)
    fields["event"] = f"{fields.pop('component', '')}: {_sentence(str(fields['event']))}"
    return fields


def _sentence(event: str) -> str:
    return event.replace(".", " ").replace("_", " ").capitalize()
