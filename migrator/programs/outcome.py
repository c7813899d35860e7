"""How a program ended, and what that means. Pure."""

from __future__ import annotations

import errno
import os

from msgspec import Struct

from migrator.errors import ConfigError, Conflict, MigrationFailed, MigratorError, Unavailable
from migrator.signals import name

_EX_UNAVAILABLE = 69
_NOT_EXECUTABLE, _NOT_FOUND = 126, 127
_SIGNAL_BASE = 128
_SIGKILL, _SIGABRT, _SIGSEGV = 9, 6, 11


class Ended(Struct, frozen=True, kw_only=True):
    """How a program ended.

    Attributes:
        code: Its exit code; None if it didn't come to one.
        signal: What killed it.
        error: The number of the system's error, if it could not be started.
        left: How many processes it had left behind, which were killed.
        tail: Its last lines, secrets masked.
    """

    code: int | None = None
    signal: int | None = None
    error: int | None = None
    left: int = 0
    tail: str = ""

    @property
    def succeeded(self) -> bool:
        """It says that all is done."""
        return self.code == 0

    @property
    def described(self) -> str:
        """In words that follow the program's name."""
        if self.error is not None:
            return f"could not be started: {os.strerror(self.error)}"
        if self.signal is not None:
            return f"was killed by {name(self.signal)}"
        if self.code is None:
            return "ended, and how isn't known"
        return f"ended with exit code {self.code}"


def parse(said: str, tail: str) -> Ended:
    """What the guard wrote of it; nothing, if the guard was killed."""
    # Of a program that couldn't be started, the guard says as well how the attempt ended.
    for line in said.splitlines():
        word, _, rest = line.partition(" ")
        number, _, left = rest.partition(" ")
        if word in ("exit", "signal", "error") and number.isdecimal() and left.isdecimal():
            value = int(number)
            match word:
                case "exit":
                    return Ended(code=value, left=int(left), tail=tail)
                case "signal":
                    return Ended(signal=value, left=int(left), tail=tail)
                case _:
                    return Ended(error=value, tail=tail)
    return Ended(tail=tail)


def is_worth_a_retry(ended: Ended, retry_exits: frozenset[int]) -> bool:
    """Whether it says itself that it may be run again."""
    return ended.code in retry_exits


def failure(what: str, ended: Ended, retry_exits: frozenset[int]) -> MigratorError:
    """The error for a program that didn't succeed; `what` it is to people."""
    kind: type[MigratorError] = MigrationFailed
    if is_worth_a_retry(ended, retry_exits):
        kind = Unavailable if ended.code == _EX_UNAVAILABLE else Conflict
    elif ended.error is not None:
        kind = ConfigError
    said = f"\n{ended.tail}" if ended.tail else ""
    return kind(f"cannot migrate with {what}: it {ended.described}{_hint(ended)}{said}")


def _hint(ended: Ended) -> str:
    number = ended.signal
    if number is None and ended.code is not None and ended.code > _SIGNAL_BASE:
        number = ended.code - _SIGNAL_BASE  # as a shell tells the death of what it ran
    if number in (_SIGKILL, _SIGABRT, _SIGSEGV):
        return "; out of memory? then raise MIGRATION_MAX_MEMORY_MB or the container's memory"
    if ended.error == errno.ENOENT:  # it is there, as we have looked: what runs it isn't
        return (
            "; what its first line (#!) names isn't in this image, or that line ends as on Windows (CR LF), "
            "or it was made for another C library"
        )
    if ended.error == errno.ENOEXEC:
        return (
            "; a script begins with #!/bin/sh or its kind, and another program is made for this machine's "
            "architecture"
        )
    if ended.code == _NOT_FOUND:
        return "; it, or something that it calls, isn't installed in this image"
    if ended.error == errno.EACCES or ended.code == _NOT_EXECUTABLE:
        return "; make it executable (chmod +x), for this machine's architecture"
    return ""
