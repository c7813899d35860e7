"""The wait for a file's locks, outside of the lock queue, and the watch over those who wait for us."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from msgspec import Struct

from migrator import locks
from migrator.errors import ConfigError, MigrationFailed, MigratorError
from migrator.locks import Blocker, Kept, Target, Watching
from migrator.log import Log
from migrator.store import Store
from migrator.transport import DatabaseError
from migrator.wants import Mode, Want

# Between two looks at those who are in the way, in seconds: at first, and when it takes long.
_FIRST_LOOK_S = 0.03
_LAST_LOOK_S = 0.15
# How often who is in the way is told, if they stay the same.
_TELL_AGAIN_S = 60.0
# Between two tries, in seconds: the app's queries that waited with us are to get through in between.
_FIRST_PAUSE_S = 0.04
_LAST_PAUSE_S = 1.0
# When to look who waits for us, and at which intervals; the second where we want to know what we wait for.
_WATCH_S = 0.25
_WATCH_CLOSELY_S = 0.01
# An autovacuum that wasn't cancelled gets no second long wait before this.
_SPARE_S = 60.0
# A server without our right to set deadlock_timeout has mostly its default of a second; so much over that.
_LONG_WAIT_MS = 1300

_LOCK_REFUSED = frozenset({"42501", "42P01", "42809", "22023"})


class Restraint(Struct, frozen=True, kw_only=True):
    """How much a migration may be in the app's way.

    Attributes:
        freeze_budget_ms: How long a file may stand in a lock queue, with what follows.
        max_blocking_ms: How long others may wait for what a file holds; None: as long as it takes.
        end_idle_s: Sessions that are in our way and idle in a transaction for longer are ended; None: never.
    """

    freeze_budget_ms: int = 100
    max_blocking_ms: int | None = None
    end_idle_s: float | None = None


StoreFactory = Callable[[], AbstractAsyncContextManager[Store]]
# Told whom we wait for; None: for nobody any more.
Tell = Callable[[str | None], None]


class Gate:
    """Lets one file through when nobody holds what it needs."""

    def __init__(self, store: Store, restraint: Restraint, log: Log, tell: Tell, filename: str) -> None:
        """For the file `filename`, which will be applied over the connection of `store`."""
        self._store = store
        self._restraint = restraint
        self._log = log
        self._tell = tell
        self._filename = filename
        self._watching = Watching()
        self._attempt = 0
        self._told: frozenset[tuple[int | None, str]] = frozenset()
        self._told_s = 0.0
        # What we may not do here, or what the server doesn't know.
        self._may_lock = True
        self._takes = False
        self._may_set_deadlock_timeout = True
        # By table.
        self._spared_until_s: dict[int, float] = {}
        # Sessions that we couldn't end.
        self._unended: set[int] = set()
        # Locks that only showed when a try waited for them.
        self._surprises: list[Want] = []
        # The last try waited for something that we hadn't looked at.
        self.is_surprised = False

    @property
    def limit_ms(self) -> int:
        """How long the file's own statements may wait for a lock."""
        return locks.wait_ms(self._restraint.freeze_budget_ms, max(self._attempt, 1))

    @property
    def was_surprised(self) -> bool:
        """Some try waited for a table that the file didn't seem to lock."""
        return bool(self._surprises)

    async def open(self, wants: Sequence[Want], limit_ms: int | None) -> str:
        """Wait until a try is worth it; the statements that take the locks.

        Args:
            wants: What the file will lock.
            limit_ms: What the file itself asks for as its limit of waiting; None: nothing.

        Raises:
            Unavailable: The connection is gone.
        """
        self._attempt += 1
        self._takes = False
        wanted = [*wants, *self._surprises]
        if not wanted:
            return ""
        targets = await self._clear(wanted)
        if not self._may_lock:
            return ""
        patience_ms = self.limit_ms if limit_ms is None else limit_ms
        vacuumed = [target for target in targets if any(held.gives_way for held in target.held)]
        only = None
        if vacuumed and not self._may_set_deadlock_timeout:
            # Once for a while: it is the one case in which we stand in the queue for longer than the budget.
            only = next((one for one in vacuumed if one.lockable and one.oid not in self._spared()), None)
        if only is not None:
            self._spared_until_s[only.oid] = time.monotonic() + _SPARE_S
            patience_ms = patience_ms and max(patience_ms, _LONG_WAIT_MS)
        taking = locks.taking(
            targets,
            patience_ms,
            self._attempt,
            cancels_autovacuum=bool(vacuumed) and self._may_set_deadlock_timeout,
            only=only,
        )
        self._takes = bool(taking)
        return taking

    def waited(self, surprise: Want | None, *, in_file: bool) -> None:
        """A try waited for too long: for `surprise`, if that was seen; `in_file`: in the file itself."""
        self.is_surprised = in_file
        if surprise is not None and surprise not in self._surprises:
            self._surprises.append(surprise)

    async def pause(self) -> None:
        """Let those through who have waited with us."""
        longest_s = min(_FIRST_PAUSE_S * 2 ** min(self._attempt - 1, 8), _LAST_PAUSE_S)
        await asyncio.sleep(random.uniform(longest_s / 2, longest_s))  # noqa: S311 - no secret

    def refused(self, error: DatabaseError, head: int) -> bool:
        """Whether what was refused is a thing of ours that the file can do without.

        `head` is the number of statements of ours before the file's first one.
        """
        if error.sqlstate not in _LOCK_REFUSED or error.completed >= head or not self._takes:
            return False
        if self._may_set_deadlock_timeout and "deadlock_timeout" in error.text:
            self._may_set_deadlock_timeout = False
        else:
            self._may_lock = False
        return True

    def _spared(self) -> frozenset[int]:
        """Tables on which an autovacuum had its chance to give way not long ago."""
        now_s = time.monotonic()
        return frozenset(oid for oid, until_s in self._spared_until_s.items() if now_s < until_s)

    async def _clear(self, wanted: Sequence[Want]) -> tuple[Target, ...]:
        """Wait until nobody holds for long what is wanted; what will be locked."""
        pause_s, waits = _FIRST_LOOK_S, False
        while True:
            try:
                seen = await self._store.look(wanted)
            except (ConfigError, MigrationFailed) as error:
                # A name that can't be looked up, say. The file will tell; its waits are limited anyway.
                self._log.debug("lock.unseen", filename=self._filename, reason=str(error))
                return ()
            targets = self._watching(seen, time.monotonic())
            found = locks.blockers(targets, spared=self._spared())
            if not found:
                if waits:
                    self._tell(None)
                return targets
            waits = True
            self._tell_waiting(found)
            await self._end_idle(found)
            await asyncio.sleep(random.uniform(pause_s / 2, pause_s))  # noqa: S311 - no secret
            pause_s = min(pause_s * 1.5, _LAST_LOOK_S)

    def _tell_waiting(self, found: Sequence[Blocker]) -> None:
        who = frozenset((one.held.pid, one.held.session) for one in found)
        now_s = time.monotonic()
        if who == self._told and now_s - self._told_s < _TELL_AGAIN_S:
            return
        self._told, self._told_s = who, now_s
        reason = f"waiting, in nobody's way, for locks: {locks.described(found)}"
        first = found[0]
        self._log.warning(
            "lock.awaited",
            filename=self._filename,
            reason=reason,
            table=first.target.name.replace('"', ""),
            pid=first.held.pid,
            application=first.held.application,
            state=first.held.state,
            age_s=first.held.age_s and round(first.held.age_s, 1),
        )
        self._tell(reason)

    async def _end_idle(self, found: Sequence[Blocker]) -> None:
        limit_s = self._restraint.end_idle_s
        if limit_s is None:
            return
        for one in found:
            self._tell_hidden(one, limit_s)
            if (
                one.held.pid is None
                or one.held.pid in self._unended
                or not one.held.is_idle
                or (one.held.idle_s or 0.0) < limit_s
            ):
                continue
            try:
                ended = await self._store.end_idle(one.held.pid, limit_s)
            except MigratorError as error:
                self._unended.add(one.held.pid)
                self._log.warning("blocker.unended", pid=one.held.pid, reason=str(error))
                continue
            if ended:
                self._log.warning("blocker.ended", pid=one.held.pid, reason=str(one))

    def _tell_hidden(self, one: Blocker, limit_s: float) -> None:
        """Say so where we aren't shown whether somebody is idle, and so can't end them."""
        held = one.held
        if held.pid is None or held.state or held.is_autovacuum or held.pid in self._unended:
            return
        if (held.age_s or 0.0) >= limit_s:
            self._unended.add(held.pid)
            reason = "we may not see whether it is idle; remedy: grant pg_read_all_stats to our role"
            self._log.warning("blocker.unended", pid=held.pid, reason=f"cannot end pid {held.pid}: {reason}")


class Watch:
    """Looks, over a connection of its own, who waits while a file is applied."""

    def __init__(self, open_store: StoreFactory, label: str, log: Log, *, limit_ms: int | None) -> None:
        """Over what is at work under `label`; it may keep others waiting for `limit_ms`."""
        self._open_store = open_store
        self._label = label
        self._log = log
        self._limit_ms = limit_ms
        # What the file was seen to wait for itself, when asked to look closely.
        self.surprise: Want | None = None
        # Whom it has kept waiting for too long.
        self.kept_waiting: int = 0

    @asynccontextmanager
    async def over(self, *, closely: bool) -> AsyncIterator[None]:
        """Watch while the body runs; `closely`: to find out for what it waits itself.

        Raises:
            TimeoutError: It has kept others waiting for too long, and was cancelled.
        """
        if self._limit_ms is None and not closely:
            yield
            return
        try:
            async with asyncio.timeout(None) as scope, asyncio.TaskGroup() as tasks:
                task = tasks.create_task(self._look(scope, closely=closely), name="watch")
                try:
                    yield
                finally:
                    task.cancel()
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None  # the body's

    async def _look(self, scope: asyncio.Timeout, *, closely: bool) -> None:
        pause_s = _WATCH_CLOSELY_S if closely else min(_WATCH_S, (self._limit_ms or 1000) / 4000)
        kept = Kept()
        if not closely:
            await asyncio.sleep(pause_s)  # most files are done by then
        try:
            async with self._open_store() as store:
                while True:
                    found = await store.waiting(self._label)
                    ours = [one for one in found if one.is_ours and one.table and one.mode]
                    if closely and ours:
                        self.surprise = _surprise(ours[0].table, ours[0].mode)
                    others = len({one.pid for one in found if not one.is_ours})
                    waited_s = kept(others, time.monotonic())
                    if others and self._limit_ms is not None and waited_s * 1000 >= self._limit_ms:
                        self.kept_waiting = others
                        scope.reschedule(asyncio.get_running_loop().time())
                        return
                    await asyncio.sleep(pause_s)
        except MigratorError as error:
            self._log.warning("lock.unwatched", reason=str(error))


def _surprise(table: str | None, mode: str | None) -> Want | None:
    """A lock as pg_locks has it, as something to wait for."""
    words = "".join(f"_{letter}" if letter.isupper() else letter.upper() for letter in mode or "")
    name = words.removesuffix("_LOCK").lstrip("_")
    return Want(name=table, mode=Mode[name], only=True) if table and name in Mode.__members__ else None
