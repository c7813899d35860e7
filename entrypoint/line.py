"""Log lines of PID 1, the same as structlog's of our other processes, without its 2 MiB."""

from __future__ import annotations

import os
import time

from migrator.writer import Writer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

try:
    from _json import encode_basestring as quote
except ImportError:  # an interpreter without json's accelerator

    def quote(text: str, /) -> str:
        """A JSON string."""
        import json

        return json.dumps(text, ensure_ascii=False)


_LEVELS = {"debug": 10, "info": 20, "warning": 30, "warn": 30, "error": 40}
# As structlog quotes and paints, for lines that stand among its own.
_QUOTED = frozenset(" \t=\r\n\"'")
_BRIGHT, _DIM, _MAGENTA, _CYAN = "\x1b[1m", "\x1b[2m", "\x1b[35m", "\x1b[36m"
_COLOURS = {"debug": "\x1b[32m", "info": "\x1b[32m", "warning": "\x1b[33m", "error": "\x1b[31m"}


class Log:
    """Writes one line a fact."""

    def __init__(self, *, level: str, console: bool, fd: int, colours: bool = False) -> None:
        """Write lines from `level` up to `fd`; `console`: for eyes instead of machines."""
        self._level = _LEVELS[level]
        self._console = console
        self._colours = colours
        self._writer = Writer(fd)
        self._instance = f"{os.uname().nodename}/{os.getpid()}"

    def debug(self, event: str, **fields: object) -> None:
        """Anything per poll or per signal."""
        self._write("debug", event, fields)

    def info(self, event: str, **fields: object) -> None:
        """A change of state."""
        self._write("info", event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """Dealt with, deserves a look."""
        self._write("warning", event, fields)

    def error(self, event: str, **fields: object) -> None:
        """Somebody must act."""
        self._write("error", event, fields)

    def _write(self, level: str, event: str, fields: dict[str, object]) -> None:
        if _LEVELS[level] < self._level:
            return
        render = self._for_eyes if self._console else self._for_machines
        self._writer.msg(render(level, event, fields))

    def _for_machines(self, level: str, event: str, fields: dict[str, object]) -> str:
        line = {
            "timestamp": stamp(time.time()),
            "level": level,
            "message": _sentence(event),
            "component": "entrypoint",
            "instanceId": self._instance,
            "event": event,
            **fields,
        }
        return dumps(line)

    def _for_eyes(self, level: str, event: str, fields: dict[str, object]) -> str:
        paint = _paint if self._colours else _plain
        parts = [
            paint(stamp(time.time()), _DIM),
            f"[{paint(f'{level:9}', _COLOURS[level])}]",
            paint(f"entrypoint: {_sentence(event)}".ljust(30), _BRIGHT),
        ]
        for name, value in sorted(fields.items()):
            plain = isinstance(value, str) and not set(value) & _QUOTED
            shown = str(value) if plain else repr(value)
            parts.append(f"{paint(name, _CYAN)}={paint(shown, _MAGENTA)}")
        return " ".join(parts).rstrip()


def from_environ(environ: Mapping[str, str], *, level: str, form: str | None, output: str | None) -> Log:
    """A log that goes where the settings say, or where it is best seen; as `migrator.log.destination`."""
    # Railway shows everything on stderr in red (docs, observability/logs).
    to_stdout = output == "stdout" or (output is None and "RAILWAY_DEPLOYMENT_ID" in environ)
    fd = 1 if to_stdout else 2
    on_terminal = os.isatty(fd)
    console = form == "console" or (form is None and on_terminal)
    return Log(level=level, console=console, fd=fd, colours=on_terminal and not environ.get("NO_COLOR"))


def stamp(moment_s: float) -> str:
    """A Unix time as ISO 8601 in UTC with milliseconds, as JavaScript writes it."""
    moment_ms = int(moment_s * 1000)
    when = time.gmtime(moment_ms // 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', when)}.{moment_ms % 1000:03d}Z"


def dumps(value: object) -> str:
    """JSON of what log lines and the health document are made of; `json` itself would load `re`."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float() if value - value == 0:  # finite: JSON has no other
            return repr(value)
        case str():
            return quote(value)
        case dict():
            return "{" + ", ".join(f"{quote(str(key))}: {dumps(held)}" for key, held in value.items()) + "}"
        case list() | tuple():
            return "[" + ", ".join(dumps(held) for held in value) + "]"
        case _:
            return quote(str(value))


def _paint(text: str, code: str) -> str:
    return f"{code}{text}\x1b[0m"


def _plain(text: str, _code: str) -> str:
    return text


def _sentence(event: str) -> str:
    return event.replace(".", " ").replace("_", " ").capitalize()
