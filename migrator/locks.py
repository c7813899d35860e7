"""Who is in the way of a file's locks, and how to take them. Pure.

The reasons are in docs/explanation/locks.md.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from migrator import shorten
from migrator.sql import identifier
from migrator.wants import Mode

# Whoever holds a lock for longer than this isn't waited for in the lock queue, where everybody who comes
# later would wait with us, but outside of it. In seconds.
PATIENT_AFTER_S = 0.15
# How much of the freeze budget each further try may wait for a lock. The rest is for the file itself.
_SHARES = (0.3, 0.5, 0.7)
# So often one table is waited for and the others must be free at once; then each gets its part of the time,
# while those before it are held: two tables that are never free at the same moment can't be had otherwise.
_TRIES_ONE_BY_ONE = 3
# PostgreSQL cancels an autovacuum that is in the way of somebody who has waited for deadlock_timeout, and it
# does so once. By default that is a second; where we may set it, this.
AUTOVACUUM_CANCEL_MS = 10
_MOST_SHOWN = 3
# If nobody has waited for so long, it begins anew.
_FORGIVEN_AFTER_S = 1.0
# What pg_stat_activity has for the query of a session that it hides from us.
_NOT_SHOWN = "<insufficient privilege>"


class Held(Struct, frozen=True, kw_only=True):
    """A lock that somebody has, and all that we may know of them; None: hidden from us.

    Attributes:
        session: The transaction, as pg_locks names it.
        pid: None: a prepared transaction, which belongs to no process.
        age_s: For how long its transaction has been open.
        idle_s: For how long it has been in its `state`.
        gid: The name of a prepared transaction.
    """

    session: str
    pid: int | None
    mode: Mode
    application: str | None = None
    user: str | None = None
    state: str | None = None
    backend: str | None = None
    query: str | None = None
    age_s: float | None = None
    idle_s: float | None = None
    gid: str | None = None

    @property
    def is_autovacuum(self) -> bool:
        """It is an autovacuum, or may be one for all that we are shown: only theirs is no user's."""
        shown = (self.backend, self.state, self.user)
        hidden = self.pid is not None and shown == (None, None, None)
        return self.backend == "autovacuum worker" or (hidden and self.mode is Mode.SHARE_UPDATE_EXCLUSIVE)

    @property
    def gives_way(self) -> bool:
        """The server cancels it for us: an autovacuum, but not one that keeps the server from stopping."""
        return self.is_autovacuum and "to prevent wraparound" not in (self.query or "")

    @property
    def is_idle(self) -> bool:
        """It has a transaction open, and does nothing."""
        return (self.state or "").startswith("idle in transaction")

    def __str__(self) -> str:
        """For people."""
        if self.pid is None:
            return f"prepared transaction {self.gid!r}{_since(self.age_s)}"
        who = [one for one in (self.application or self.user, self.backend) if one]
        if self.backend in (None, "client backend"):
            who = who[:1]
        doing = [f"{self.state}{_since(self.idle_s)}"] if self.is_idle else []
        if self.age_s is not None:
            doing.append(f"transaction open{_since(self.age_s)}")
        if self.query:
            doing.append(shorten.middle(self.query.strip().split("\n", 1)[0], 120, unmasked=True))
        told = ", ".join([*who, *doing])
        return f"pid {self.pid}{f' ({told})' if told else ''}"


class Target(Struct, frozen=True, kw_only=True):
    """A relation that a file will lock: `name` as SQL writes it, and who else has a lock that conflicts."""

    oid: int
    name: str
    mode: Mode
    lockable: bool
    held: tuple[Held, ...] = ()


class Blocker(Struct, frozen=True, kw_only=True):
    """Somebody whom we wait for, and where."""

    held: Held
    target: Target

    def __str__(self) -> str:
        """For people."""
        return f"{self.held} holds {self.held.mode.sql} on {self.target.name.replace(chr(34), '')}"


class Watching:
    """For how long we have seen each lock: what the server tells of a transaction's age may be hidden."""

    def __init__(self) -> None:
        """Nothing is seen yet."""
        self._seen_s: dict[tuple[str, int, int], float] = {}

    def __call__(self, targets: Iterable[Target], now_s: float) -> tuple[Target, ...]:
        """The targets, with an age for each lock; those that are gone are forgotten."""
        seen_s: dict[tuple[str, int, int], float] = {}
        aged = []
        for target in targets:
            held = []
            for one in target.held:
                key = (one.session, target.oid, one.mode)
                seen_s[key] = self._seen_s.get(key, now_s)
                held.append(replace(one, age_s=max(now_s - seen_s[key], one.age_s or 0.0)))
            aged.append(replace(target, held=tuple(held)))
        self._seen_s = seen_s
        return tuple(aged)


class Kept:
    """For how long others have been kept waiting, from looks at them.

    Who waits for what a transaction holds gives up before its end only at a limit of their own, so that a
    moment without anybody doesn't mean that nobody minds.
    """

    def __init__(self) -> None:
        """Nobody has waited yet."""
        self._waited_s = 0.0
        # The last look at which somebody waited, and whether the last of all was one.
        self._last_s: float | None = None
        self._still = False

    def __call__(self, waiting: int, now_s: float) -> float:
        """In seconds; so many wait now."""
        if waiting:
            if self._still and self._last_s is not None:
                self._waited_s += now_s - self._last_s
            self._last_s = now_s
        elif self._last_s is not None and now_s - self._last_s >= _FORGIVEN_AFTER_S:
            self._waited_s, self._last_s = 0.0, None
        self._still = bool(waiting)
        return self._waited_s


def read(rows: Iterable[Mapping[str, Any]]) -> tuple[Target, ...]:
    """The targets, from the rows of the query `look`."""
    found: dict[int, Target] = {}
    for row in rows:
        target = found.get(row["oid"]) or Target(
            oid=row["oid"],
            name=f"{identifier(row['schema_name'])}.{identifier(row['table_name'])}",
            mode=Mode(row["mode"]),
            lockable=bool(row["lockable"]),
        )
        if row["session"] is not None:
            target = replace(target, held=(*target.held, _held(row)))
        found[row["oid"]] = target
    return tuple(found.values())


def blockers(targets: Iterable[Target], *, spared: Container[int]) -> list[Blocker]:
    """Those whom there is no point in queueing for, the oldest first.

    `spared`: tables on which an autovacuum has been given the chance to give way, and didn't.
    """
    found = [
        Blocker(held=held, target=target)
        for target in targets
        for held in target.held
        if (held.pid is None or (held.age_s or 0.0) >= PATIENT_AFTER_S)
        and (target.oid in spared or not held.gives_way)
    ]
    return sorted(found, key=lambda one: -(one.held.age_s or 0.0))


def described(found: Sequence[Blocker]) -> str:
    """Whom we wait for."""
    told = [str(one) for one in found[:_MOST_SHOWN]]
    more = len(found) - len(told)
    return "; ".join(told) + (f"; and {more} more" if more else "")


def wait_ms(budget_ms: int, attempt: int) -> int:
    """How long a try, counted from 1, may wait for locks."""
    return max(1, int(budget_ms * _SHARES[min(attempt, len(_SHARES)) - 1]))


def taking(
    targets: Sequence[Target],
    limit_ms: int,
    attempt: int,
    *,
    cancels_autovacuum: bool = False,
    only: Target | None = None,
) -> str:
    """The statements that take all locks, one after the other in a fixed order; empty if there are none.

    Args:
        targets: What to lock.
        limit_ms: How long they may wait altogether; 0: as long as it takes.
        attempt: The number of this try, from 1.
        cancels_autovacuum: Set deadlock_timeout, so that an autovacuum gives way.
        only: The only one to be waited for; None: those that are busy.
    """
    lockable = [one for one in targets if one.lockable and one.mode >= Mode.SHARE_UPDATE_EXCLUSIVE]
    if not lockable:
        return ""
    busy = [one for one in lockable if one.held] or lockable[:1]
    if only in lockable:
        busy = [only]
    elif attempt <= _TRIES_ONE_BY_ONE:
        busy = [busy[(attempt - 1) % len(busy)]]
    free = [one for one in lockable if one not in busy]
    share_ms = limit_ms and max(1, limit_ms // len(busy))
    pieces = [f"set local lock_timeout = {share_ms};"]
    if cancels_autovacuum:
        pieces.append(f"set local deadlock_timeout = {AUTOVACUUM_CANCEL_MS};")
    pieces += [_lock(one.mode, [one]) for one in busy]
    nowait = " nowait" if limit_ms else ""
    for mode in sorted({one.mode for one in free}, reverse=True):
        pieces.append(_lock(mode, [one for one in free if one.mode is mode], nowait))
    return "\n".join(pieces) + "\n"


def _lock(mode: Mode, targets: Sequence[Target], nowait: str = "") -> str:
    names = ", ".join(f"only {one.name}" for one in targets)
    return f"lock table {names} in {mode.sql} mode{nowait};"


def _held(row: Mapping[str, Any]) -> Held:
    return Held(
        session=row["session"],
        pid=row["pid"],
        mode=Mode(row["held_mode"]),
        application=row["application_name"] or None,
        user=row["usename"],
        state=row["state"],
        backend=row["backend_type"],
        query=None if row["query"] == _NOT_SHOWN else row["query"],
        age_s=row["age_s"],
        idle_s=row["state_age_s"],
        gid=row["gid"],
    )


def _since(age_s: float | None) -> str:
    return "" if age_s is None else f" for {age_s:.{1 if age_s < 10 else 0}f} s"
