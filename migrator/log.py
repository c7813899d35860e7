"""Our own log lines: one JSON object a line, never in the way of anybody.

Read by both packages. The vocabulary of events is `docs/reference/logs.md`, checked against the code.
"""

from __future__ import annotations

import os
import select
import stat
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

from migrator.report import timestamp  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Mapping

    from structlog.typing import EventDict, Processor, WrappedLogger

Log = structlog.typing.FilteringBoundLogger
Masker = Callable[[str], str]

# Fields whose words are ours: a password `info` must not make a puzzle of every line.
_OURS = frozenset({"timestamp", "level", "event", "component", "phase", "previous", "cause", "signal"})
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "warn": 30, "error": 40}


class Writer:
    """Writes whole lines to a descriptor that others use too, and drops what it can't write at once.

    A reader that doesn't read would stop PID 1, but the descriptor is the app's as well and can't be
    made non-blocking. A pipe can be opened once more, for ourselves; elsewhere a look whether there
    is room must do.
    """

    def __init__(self, fd: int) -> None:
        """Write to what `fd` is open for; `fd` itself is never closed here."""
        self._fd = _own_descriptor(fd)
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLOUT)
        self._torn = False
        self.dropped = 0

    def msg(self, line: str) -> None:
        """Write one line, or drop it if nobody reads."""
        try:
            ready = self._poll.poll(0)
            if not ready or not ready[0][1] & select.POLLOUT:
                self.dropped += 1
                return
            text = line.encode(errors="backslashreplace") + b"\n"
            if self._torn:  # the last line had room for its beginning only
                text = b"\n" + text
            self._torn = os.write(self._fd, text) < len(text)
        except OSError:  # a closed pipe, a full disk: our words matter less than the app
            self.dropped += 1

    log = debug = info = warning = error = critical = exception = msg


def _own_descriptor(fd: int) -> int:
    """For a pipe, a descriptor that doesn't block and is ours alone; else `fd`."""
    try:
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # no /proc, or a pipe that another user made
        pass
    return fd


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
        colors = os.isatty(fd) and not os.environ.get("NO_COLOR")
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
        return {
            key: mask(value) if isinstance(value, str) and key not in _OURS else value
            for key, value in fields.items()
        }

    return process


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
