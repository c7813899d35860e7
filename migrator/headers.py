"""What a file asks for itself, in the comments before its first statement. Pure.

-- migrator: no-transaction, timeout=10min
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from msgspec import Struct

from migrator.comments import end_of_block
from migrator.errors import PlanError

_ALLOWED = (
    "no-transaction, transaction, allow-blocking, timeout=10min, lock-timeout=2s, role=name, "
    "allow=rule because ... (times in us, ms, s, min, h, d; ms if it isn't said; 0 is none)"
)
_HEADER = re.compile(r"[ \t]*--[ \t]*migrator:(?P<items>.*)", re.IGNORECASE)
_ITEM = re.compile(
    r"""[\s,]*(?P<name>[^\s,="']+)(?:[ \t]*=[ \t]*(?P<value>"(?:[^"]|"")*"|'[^']*'|[^\s,"']*))?(?=[\s,]|$)"""
)
_BLANK_OR_COMMENT = re.compile(r"\s+|--[^\n]*|/\*")
# As PostgreSQL has them (guc.c), in milliseconds.
_UNITS_MS = {"us": 0.001, "ms": 1, "s": 1000, "min": 60_000, "h": 3_600_000, "d": 86_400_000, "": 1}
_RULE = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_ALLOW_EXAMPLE = "-- migrator: allow=set-not-null because the table is small"
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)[ \t]*([a-z]*)")
_MAX_MS = 2**31 - 1


class Headers(Struct, frozen=True, kw_only=True):
    """What a file asks for; None: nothing.

    Attributes:
        transactional: False: run it statement by statement; True: run it in one transaction, come what may.
        timeout_ms: Of each statement; 0: none.
        lock_timeout_ms: How long a statement may wait for a lock; 0: as long as it takes.
        role: Who runs it.
        role_line: Where that stands.
        allow_blocking: It may keep others waiting for as long as it takes.
        allow: Hazards that it is meant to have, as rule and reason; see `migrator.hazards`.
    """

    transactional: bool | None = None
    timeout_ms: int | None = None
    lock_timeout_ms: int | None = None
    role: str | None = None
    role_line: int = 0
    allow_blocking: bool = False
    allow: tuple[tuple[str, str], ...] = ()


NO_HEADERS = Headers()


def parse(text: str, filename: str) -> Headers:
    """The headers of a file.

    Raises:
        PlanError: One isn't known, isn't right, or stands where it doesn't count.
    """
    if "migrator:" not in text.lower():
        return NO_HEADERS
    found: dict[str, object] = {}
    lines: dict[str, int] = {}
    allowed: list[tuple[str, str]] = []
    end = 0
    for line, items, end in _leading(text):  # noqa: B007 - its last value is where the comments end
        if items is None:
            continue
        for name, value in _items(items, line, filename):
            key, meant = _meaning(name, value, line, filename)
            if key == "allow":
                allowed.append((str(meant), _reason(items, str(meant), line, filename)))
                break  # the reason goes on to the end of the line
            if key in lines:
                raise _wrong(filename, line, f"{name!r} comes after line {lines[key]} has said it already")
            found[key], lines[key] = meant, line
    _refuse_late(text, end, filename)
    return Headers(**found, allow=tuple(allowed), role_line=lines.get("role", 0))  # type: ignore[arg-type]  # _meaning has the types


def _leading(text: str) -> Iterator[tuple[int, str | None, int]]:
    """Comments before the first statement: line, what a header says (None: it's none), and where it ends."""
    position, line = 0, 1
    while found := _BLANK_OR_COMMENT.match(text, position):
        end = found.end()
        if found[0] == "/*":
            closed = end_of_block(text, end)
            end = closed if closed >= 0 else len(text)
        header = _HEADER.fullmatch(found[0].rstrip())
        yield line, header["items"] if header else None, end
        line += text.count("\n", position, end)
        position = end


def _items(items: str, line: int, filename: str) -> Iterator[tuple[str, str | None]]:
    position = 0
    while items[position:].strip(" \t\r,"):
        found = _ITEM.match(items, position)
        if found is None:
            raise _wrong(filename, line, f"{items[position:].strip()!r} can't be read")
        yield found["name"], found["value"]
        position = found.end()
    if not position:
        raise _wrong(filename, line, "it says nothing")


def _meaning(name: str, value: str | None, line: int, filename: str) -> tuple[str, object]:
    """What a header sets, and to what."""
    match name, value:
        case "no-transaction", None:
            return "transactional", False
        case "transaction", None:
            return "transactional", True
        case "allow-blocking", None:
            return "allow_blocking", True
        case "timeout" | "lock-timeout", str(given):
            milliseconds = _milliseconds(given.strip("'\""))
            if milliseconds is None:
                raise _wrong(filename, line, f"{name}={given} is no length of time")
            return f"{name.replace('-', '_')}_ms", milliseconds
        case "role", str(given) if given.strip("'\""):
            if given.startswith('"'):
                return "role", given[1:-1].replace('""', '"')
            # As SQL has it: without double quotes upper case doesn't count.
            return "role", given.strip("'").lower() if not given.startswith("'") else given[1:-1]
        case "allow", str(given) if _RULE.fullmatch(given):
            return "allow", given
        case "allow", _:
            raise _wrong(filename, line, f"allow names one rule, and why: {_ALLOW_EXAMPLE}")
        case (("timeout" | "lock-timeout" | "role"), _):
            raise _wrong(filename, line, f"{name} needs a value")
        case (("no-transaction" | "transaction" | "allow-blocking"), _):
            raise _wrong(filename, line, f"{name} has no value")
        case _:
            raise _wrong(filename, line, f"{name!r} isn't known")


def _reason(items: str, rule: str, line: int, filename: str) -> str:
    """Why the file may have that hazard: whoever reads it later can't ask any more."""
    found = re.search(
        rf"allow[ \t]*=[ \t]*{re.escape(rule)}[\s,]+because\b[\s:]*(\S.*)", items, re.IGNORECASE
    )
    if found is None:
        raise _wrong(filename, line, f"allow={rule} doesn't say why; write: allow={rule} because ...")
    return found[1].strip()


def _milliseconds(given: str) -> int | None:
    found = _DURATION.fullmatch(given)
    if found is None or found[2] not in _UNITS_MS:
        return None
    exact = float(found[1]) * _UNITS_MS[found[2]]
    # Rounded, but not to 0, which would be none at all.
    rounded = max(round(exact), 1) if exact else 0
    return rounded if rounded <= _MAX_MS else None


def _refuse_late(text: str, begin: int, filename: str) -> None:
    """A header that comes after a statement would be passed over in silence, if it is one."""
    for found in re.finditer(rf"^{_HEADER.pattern}$", text[begin:], re.IGNORECASE | re.MULTILINE):
        line = text.count("\n", 0, begin + found.start()) + 1
        try:
            for name, value in _items(found["items"], line, filename):
                if _meaning(name, value, line, filename)[0] == "allow":
                    break
        except PlanError:
            continue  # a comment that only begins alike
        raise _wrong(filename, line, "it counts only before the first statement; move it there")


def _wrong(filename: str, line: int, why: str) -> PlanError:
    return PlanError(f"cannot apply {filename}: line {line}: in '-- migrator:' {why}; allowed are {_ALLOWED}")
