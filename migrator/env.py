"""Typed reading of a mapping of environment variables, with all errors told at once.

Pure: the mapping and the function that reads secret files are handed in. PID 1 reads its own settings
with it, so nothing is imported at run time: `dataclasses` and `typing` are 3 MiB.
"""

from __future__ import annotations

from migrator import shorten

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Generic, TypeVar

    T = TypeVar("T")

    class _Typed(Generic[T]):
        """What makes `Variable[int]` mean something to the type checker."""
else:
    T = None

    class _Typed:
        def __class_getitem__(cls, _item):  # noqa: ANN001, ANN204
            return cls


# A wrong value is shown up to this length; somebody may have put a whole file there.
_SHOWN_CHARS = 100


class Variable(_Typed[T]):
    """One setting: under which names it is looked up, what it may hold, and what it means.

    Attributes:
        names: Looked up in this order; the first one that is set wins. Nothing but white space counts
            as not set, and what is around a value doesn't belong to it.
        parse: Turns the text into the value; raises ValueError saying what is allowed.
        default: The value when no name is set or the text is wrong.
        shown_default: The default as the reference shows it.
        help: One sentence for the reference.
        secret: Whether the value must never be shown. Secrets can also come as `NAME_FILE`.
    """

    __slots__ = ("default", "help", "names", "parse", "secret", "shown_default")

    def __init__(
        self,
        *,
        names: tuple[str, ...],
        parse: Callable[[str], T],
        default: T,
        shown_default: str,
        help: str,  # noqa: A002 - as argparse calls it
        secret: bool = False,
    ) -> None:
        """Remember what the attributes say."""
        self.names = names
        self.parse = parse
        self.default = default
        self.shown_default = shown_default
        self.help = help
        self.secret = secret


class Reader:
    """Reads variables from a mapping and collects what is wrong with them in `problems`."""

    def __init__(self, environ: Mapping[str, str], read_text: Callable[[str], str]) -> None:
        """Read from `environ`; `read_text` reads the file that a `NAME_FILE` variable names."""
        self._environ = environ
        self._read_text = read_text
        self.problems: list[str] = []

    def get(self, variable: Variable[T]) -> T:
        """The variable's value, or its default if it isn't set or is wrong."""
        return self.named(variable)[1]

    def named(self, variable: Variable[T]) -> tuple[str | None, T]:
        """Like `get`, with the name that decided (None: not set)."""
        for name in variable.names:
            raw = self._raw(name, secret=variable.secret)
            if not raw:
                continue
            try:
                return name, variable.parse(raw)
            except ValueError as error:
                held = (
                    "(hidden)" if variable.secret else repr(shorten.middle(raw, _SHOWN_CHARS, unmasked=True))
                )
                self._complain(f"cannot use {name}={held}: {error}")
                return name, variable.default
        return None, variable.default

    def every(self, variable: Variable[Any]) -> tuple[str, ...]:
        """What all of its names hold, not only the one that wins."""
        return tuple(raw for name in variable.names if (raw := self._raw(name, secret=variable.secret)))

    def _complain(self, problem: str) -> None:
        """Once, however often the variable is read."""
        if problem not in self.problems:
            self.problems.append(problem)

    def _raw(self, name: str, *, secret: bool) -> str:
        # A secret that was copied, or written to a file by echo, brings white space that nobody means.
        direct = self._environ.get(name, "").strip()
        path = self._environ.get(f"{name}_FILE", "").strip() if secret else ""
        if not path:
            return direct
        if direct:
            self._complain(f"cannot use both {name} and {name}_FILE: unset one of them")
            return direct
        try:
            held = self._read_text(path).strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it isn't UTF-8 text"
            self._complain(f"cannot read {name}_FILE={path!r}: {reason}")
            return ""
        if not held:
            self._complain(f"cannot use {name}_FILE={path!r}: the file is empty")
        return held


def text(raw: str) -> str:
    """Any text, without the white space around it."""
    return raw.strip()


def optional_text(raw: str) -> str | None:
    """Any text, for settings whose default is to have none."""
    return raw.strip() or None


def flag(raw: str) -> bool:
    """A yes or no, in the spellings that people use."""
    match raw.strip().lower():
        case "true" | "1" | "yes" | "on":
            return True
        case "false" | "0" | "no" | "off":
            return False
        case _:
            raise ValueError("must be true or false")


def whole(*, minimum: int, maximum: int) -> Callable[[str], int]:
    """A whole number within bounds."""

    def parse(raw: str) -> int:
        allowed = f"must be a whole number from {minimum} to {maximum}"
        try:
            value = int(raw)
        except ValueError:
            raise ValueError(allowed) from None
        if not minimum <= value <= maximum:
            raise ValueError(allowed)
        return value

    return parse


def optional_whole(*, minimum: int, maximum: int) -> Callable[[str], int | None]:
    """A whole number within bounds, for settings whose default is to have none."""
    return whole(minimum=minimum, maximum=maximum)


def seconds(*, minimum: float, maximum: float = 86_400) -> Callable[[str], float]:
    """A duration in seconds, fractions allowed."""

    def parse(raw: str) -> float:
        allowed = f"must be a number of seconds from {minimum:g} to {maximum:g}"
        try:
            value = float(raw)
        except ValueError:
            raise ValueError(allowed) from None
        if not minimum <= value <= maximum:  # also false for nan
            raise ValueError(allowed)
        return value

    return parse


def choice(*allowed: str) -> Callable[[str], str]:
    """One of a few words, in any case."""

    def parse(raw: str) -> str:
        value = raw.strip().lower()
        if value not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}")
        return value

    return parse


def listed(separator: str) -> Callable[[str], tuple[str, ...]]:
    """Several texts; empty ones don't count."""

    def parse(raw: str) -> tuple[str, ...]:
        values = tuple(part.strip() for part in raw.split(separator) if part.strip())
        if not values:
            raise ValueError(f"must name at least one, separated by {separator!r}")
        return values

    return parse


def exit_codes(raw: str) -> frozenset[int]:
    """Exit codes other than 0, separated by commas."""
    parts = [part.strip() for part in raw.split(",")]
    if not all(part.isdecimal() and len(part) < 4 and 0 < int(part) < 256 for part in parts):
        raise ValueError("must be exit codes from 1 to 255, separated by commas")
    return frozenset(int(part) for part in parts)


def command(raw: str) -> tuple[str, ...]:
    """The words of a command; none of a shell's own."""
    from migrator import words  # late: PID 1 reads this module, but no such variable

    return words.split(raw)
