"""What a program writes, as lines for a log. Pure."""

from __future__ import annotations

import codecs
import re
from collections import deque
from collections.abc import Callable

from migrator import shorten

# Of a longer line, about this much is one line.
MAX_LINE_CHARS = 64 * 1024
# Of what is cut from a longer line, so much stays for the next: more than any secret has, whose end may be
# still to come.
_KEPT_CHARS = 4096
_TAIL_LINES = 8
_TAIL_CHARS = 300

# Colours, cursor movements, titles (ECMA-48 5.4 and 5.6); then what else isn't text.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-~])")
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
# As in `ERROR: no`, `error: no`, `psycopg.Error: no`, `[FATAL] no`.
_ERROR = re.compile(r"(?i)(?:error|fatal|panic|exception)\b\s*[:\]]")
# A progress bar writes over its line again and again.
_END = re.compile(r"\r\n|\n|\r")


class Lines:
    """Cuts one stream into lines."""

    def __init__(self, redact: Callable[[str], str]) -> None:
        """Nothing has come yet. `redact` sees a line before it is cut: half a secret isn't known as one."""
        self._redact = redact
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._rest = ""

    def feed(self, content: bytes, *, final: bool = False) -> list[str]:
        """The lines that are whole now, as `plain` has them, without empty ones."""
        text = self._rest + self._decode(content, final)
        # The other half of \r\n may be still to come.
        held = "\r" if text.endswith("\r") and not final else ""
        *whole, rest = _END.split(text.removesuffix(held) if held else text)
        self._rest = rest + held
        if final:
            whole.append(self._rest)
            self._rest = ""
        elif len(self._rest) > MAX_LINE_CHARS + _KEPT_CHARS:
            masked = self._redact(self._rest)
            whole.append(masked[:-_KEPT_CHARS])
            self._rest = masked[-_KEPT_CHARS:]
        return [line for line in map(plain, whole) if line]


def plain(line: str) -> str:
    """Without what only a terminal understands."""
    return _CONTROLS.sub("", _ESCAPES.sub("", line)).rstrip()


class Tail:
    """The last lines, for an error; before them the last that looks like one, should they be a dump only."""

    def __init__(self) -> None:
        """There are none yet."""
        self._lines: deque[str] = deque(maxlen=_TAIL_LINES)
        self._error: str | None = None

    def add(self, line: str) -> None:
        """One more; secrets are masked already."""
        short = shorten.middle(line, _TAIL_CHARS)
        self._lines.append(short)
        if _ERROR.search(line):
            self._error = short

    def __str__(self) -> str:
        """The lines."""
        beyond = self._error is not None and self._error not in self._lines
        return "\n".join([*([self._error, "..."] if beyond and self._error else []), *self._lines])
