"""One thing to say about a container."""

from __future__ import annotations

from msgspec import Struct


class Finding(Struct, frozen=True, kw_only=True):
    """One line of the answer. `status` is ok, warn or fail; `remedy` is None where nothing is to be done."""

    name: str
    status: str
    message: str
    remedy: str | None


Verdict = tuple[str, str, str | None]


def ok(message: str) -> Verdict:
    """Nothing to do."""
    return "ok", message, None


def warn(message: str, remedy: str) -> Verdict:
    """It works, but."""
    return "warn", message, remedy


def fail(message: str, remedy: str) -> Verdict:
    """It can't work like this."""
    return "fail", message, remedy
