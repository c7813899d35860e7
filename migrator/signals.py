"""What the variables about signals and exit codes may hold. Pure, and lean: PID 1 reads it."""

from __future__ import annotations

import _signal

FORWARDED = "forwarded"
# Second names of signals that have better ones.
_OLD_NAMES = ("SIGCLD", "SIGIOT", "SIGPOLL")
_ALLOWED = "must be a signal, by name (TERM, SIGTERM, RTMIN+3) or number"


def number(raw: str) -> int:
    """A signal as people write it.

    Raises:
        ValueError: There is no such signal here.
    """
    word = raw.strip().upper().removeprefix("SIG")
    base, sign, offset = word.partition("-" if "-" in word else "+")
    if word.isdecimal():
        value = int(word)
    else:
        value = int(vars(_signal).get(f"SIG{base}", 0)) if base.isalnum() else 0
        if sign:
            value = value + int(f"{sign}{offset}") if base[:2] == "RT" and offset.isdecimal() else 0
    if value not in _signal.valid_signals():
        raise ValueError(_ALLOWED)
    return value


def name(value: int) -> str:
    """A signal's name as `kill -l` has it, with SIG before it; its number if it has none."""
    # getattr: macOS has no real-time signals.
    low, high = int(getattr(_signal, "SIGRTMIN", 0)), int(getattr(_signal, "SIGRTMAX", -1))
    if low < value < high:
        return f"SIGRTMIN+{value - low}"
    names: dict[str, object] = vars(_signal)
    for known, held in names.items():
        if held == value and known.startswith("SIG") and known[3] != "_" and known not in _OLD_NAMES:
            return known
    return str(value)


def rewriting(raw: str) -> dict[int, int]:
    """Pairs `FROM:TO`, separated by commas, as `dumb-init --rewrite` has them; TO may be 0.

    Raises:
        ValueError: Some part isn't such a pair.
    """
    pairs = {}
    for part in _parts(raw):
        old, colon, new = part.partition(":")
        if not colon:
            raise ValueError("must be pairs like HUP:USR1,WINCH:0, separated by commas")
        pairs[number(old)] = 0 if new.strip() == "0" else number(new)
    return pairs


def remapping(raw: str) -> dict[str, int]:
    """Pairs `CODE=CODE`, separated by commas; the first may be `forwarded`.

    Raises:
        ValueError: Some part isn't such a pair.
    """
    pairs = {}
    for part in _parts(raw):
        old, _, new = (word.strip() for word in part.partition("="))
        good = [word.isdecimal() and len(word) < 4 and int(word) < 256 for word in (old, new)]
        if not good[1] or not (good[0] or old == FORWARDED):
            raise ValueError("must be pairs like 143=0,forwarded=0 of exit codes from 0 to 255")
        pairs[old if old == FORWARDED else str(int(old))] = int(new)
    return pairs


def _parts(raw: str) -> list[str]:
    return [part for part in raw.split(",") if part.strip()]
