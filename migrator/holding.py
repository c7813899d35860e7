"""What is known of the one who holds the lock, and whether that is somebody living. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from msgspec import Struct

from migrator import shorten
from migrator.migration import LABEL

_SHOWN_CHARS = 120
# An idle session of a holder whose lease ran out: one that only just became idle may be about to go on.
_FROZEN_S = 3.0


class State(StrEnum):
    """How alive a holder is."""

    # Its heartbeat came in time.
    ALIVE = "alive"
    # It is silent, but the server still executes something for it.
    WORKING = "silent, still at work"
    # It is silent, and its session does nothing, but is there.
    FROZEN = "frozen"
    # It is silent, or its session has ended.
    DEAD = "dead"


class Holding(Struct, frozen=True, kw_only=True):
    """The lock's row, and the session behind it.

    Attributes:
        token: Of this very holding.
        held_s: Seconds since it was taken.
        silent_s: Seconds since the last heartbeat.
        expires_in_s: Seconds until it counts as dead without one; negative: since when it does.
        pid: The server process of its session; None where it has none, be it dead or behind a pooler.
        query: What that one executes, or executed last.
    """

    holder: str
    token: int
    state: State
    held_s: float
    silent_s: float
    expires_in_s: float
    pid: int | None
    query: str | None

    @property
    def doing(self) -> str | None:
        """What its session is at, or was last: the file, or the beginning and the end of the SQL."""
        if not self.query:
            return None
        begin, end = LABEL
        filename, label, _ = self.query.removeprefix(begin).partition(end)
        if self.query.startswith(begin) and label:
            return f"is at {filename}"
        return f"runs: {shorten.middle(' '.join(self.query.split()), _SHOWN_CHARS, unmasked=True)}"

    @property
    def may_be_taken(self) -> bool:
        """Whether nobody living is robbed."""
        return self.state in (State.DEAD, State.FROZEN)

    def __str__(self) -> str:
        """For people, in one line."""
        said = (
            f"{self.holder} took it {_span(self.held_s)} ago and was last heard of {_span(self.silent_s)} ago"
        )
        match self.state:
            case State.ALIVE:
                return f"{said}: alive"
            case State.WORKING:
                return f"{said}; the server (pid {self.pid}) still works for it"
            case State.FROZEN:
                return f"{said}: frozen (server pid {self.pid} is idle)"
            case State.DEAD:
                return f"{said}: dead"


def of(row: Mapping[str, Any]) -> Holding:
    """From a row of `lock_state` in desk.sql."""
    return Holding(
        holder=row["holder"],
        token=row["token"],
        state=_state(row),
        held_s=row["held_s"] or 0.0,
        silent_s=row["silent_s"] or 0.0,
        expires_in_s=row["expires_in_s"] or 0.0,
        pid=row["pid"],
        query=row["query"],
    )


def _state(row: Mapping[str, Any]) -> State:
    if row["session"] and row["pid"] is None:
        return State.DEAD  # the server frees the advisory lock with its session
    if (row["expires_in_s"] or 0.0) > 0:
        return State.ALIVE
    if not row["session"]:
        return State.DEAD
    waits_for_client = row["state"] == "idle" or row["wait_event"] == "ClientRead"
    if waits_for_client and (row["state_s"] or 0.0) > _FROZEN_S:
        return State.FROZEN
    return State.WORKING


def _span(seconds: float) -> str:
    """A length of time, as people say it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    if seconds < 172_800:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / 86_400:.0f} days"
