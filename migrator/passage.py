"""A file's way into the database: tried until nobody is in its way, without being in anybody else's."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from migrator import errors
from migrator.attempts import Attempt
from migrator.errors import Conflict, MigrationFailed, Unavailable
from migrator.gate import Gate, Restraint, StoreFactory, Tell, Watch
from migrator.log import Log
from migrator.messages import ROW_TIMEOUT_MS, Messages
from migrator.settings import Settings
from migrator.store import Store
from migrator.transport import DatabaseError, Ended
from migrator.wants import Want

# A file that met a serialization failure is tried again so often. Locks are tried for without an end: who
# wants one has MIGRATION_TIMEOUT.
_CONFLICT_TRIES = 12
# After so many tries the status says so, too.
_TELL_AFTER_TRIES = 4
_LOCK_CONFLICTS = frozenset({"55P03", "40P01"})
_LOCK_TIMEOUT = "55P03"


class Care(Struct, frozen=True, kw_only=True):
    """What keeps us out of the app's way.

    Attributes:
        restraint: How much we may be in it.
        open_store: A store over a new connection.
        tell: Told for whom we wait.
        is_bare: When we began there was no table but ours, so that nobody can be in the way; None: ask.
    """

    restraint: Restraint
    open_store: StoreFactory
    tell: Tell
    is_bare: bool | None = False


def care(
    settings: Settings,
    open_store: StoreFactory,
    tell: Tell = lambda _reason: None,
    *,
    is_bare: bool | None = False,
) -> Care:
    """The care that the settings ask for; see there for the others."""
    restraint = Restraint(
        freeze_budget_ms=settings.freeze_budget_ms,
        max_blocking_ms=settings.max_blocking_ms,
        end_idle_s=settings.terminate_idle_s,
    )
    return Care(restraint=restraint, open_store=open_store, tell=tell, is_bare=is_bare)


class Passage:
    """One file's way through."""

    def __init__(self, store: Store, log: Log, care: Care, messages: Messages, filename: str) -> None:
        """For the file `filename`, whose `messages` go over the connection of `store`."""
        self._store = store
        self._log = log
        self._care = care
        self._messages = messages
        self._filename = filename

    async def through(
        self,
        attempt: Attempt,
        wants: Sequence[Want],
        *,
        waits_for_rows: bool = False,
        state: str = errors.ROLLED_BACK,
    ) -> None:
        """Send it, again and again if others are in its way.

        Args:
            attempt: What to do.
            wants: What it will lock.
            waits_for_rows: It does nothing but change rows.
            state: What state the file is in if this is cancelled.

        Raises:
            DatabaseError: The server refused it for good.
            MigrationFailed: It kept others waiting for too long, and was cancelled.
            Unavailable: The connection broke; the outcome is unknown.
        """
        gate = Gate(self._store, self._care.restraint, self._log, self._care.tell, self._filename)
        tries = 0
        while True:
            locks = await gate.open(wants, self._messages.lock_timeout_ms)
            only_rows = waits_for_rows and not gate.was_surprised
            self._messages.limit_waits(ROW_TIMEOUT_MS if only_rows else gate.limit_ms)
            watch = self._watch()
            tries += 1
            try:
                async with watch.over(closely=gate.is_surprised):
                    await attempt(locks)
            except TimeoutError as error:
                raise self._kept_waiting(watch, state) from error
            except Unavailable as error:
                raise Unavailable(f"cannot apply {self._filename}: {error}\n{errors.NOT_KNOWN}") from error
            except DatabaseError as error:
                if error.ended is Ended.UNKNOWN:
                    raise
                if gate.refused(error, attempt.head):
                    continue
                if not self._is_worth_a_retry(error, tries):
                    raise
                gate.waited(watch.surprise, in_file=_is_surprise(error, attempt))
                if tries.bit_count() == 1:  # the 1st, 2nd, 4th ...: there may be hundreds
                    self._log.warning(
                        "migration.retrying",
                        filename=self._filename,
                        attempt=tries,
                        reason=f"{error.text.splitlines()[0]} ({error.sqlstate})",
                    )
                if tries >= _TELL_AFTER_TRIES:
                    self._care.tell(f"others were in its way {tries} times: {error.text.splitlines()[0]}")
                await gate.pause()
                if tries >= _TELL_AFTER_TRIES:
                    self._care.tell(None)
            else:
                return

    def _watch(self) -> Watch:
        limit_ms = None if self._messages.allows_blocking else self._care.restraint.max_blocking_ms
        return Watch(self._care.open_store, self._messages.label, self._log, limit_ms=limit_ms)

    def _kept_waiting(self, watch: Watch, state: str) -> MigrationFailed | Unavailable:
        limit_ms = self._care.restraint.max_blocking_ms
        who = "a session" if watch.kept_waiting == 1 else f"{watch.kept_waiting} sessions"
        said = (
            f"cannot apply {self._filename}: cancelled, as it had kept {who} waiting for {limit_ms} ms for "
            "what it holds locked (MIGRATION_MAX_BLOCKING_MS)"
        )
        remedy = (
            "remedy: do it in steps that block nobody for long (migrator lint shows them), or begin the file "
            "with the line -- migrator: allow-blocking"
        )
        ended = self._store.transport.ended
        # Ended already: its commit may have come before our cancellation.
        is_over = ended in (Ended.ALREADY, Ended.COMMITTED)
        if ended is Ended.UNKNOWN or (is_over and state == errors.ROLLED_BACK):
            return Unavailable(f"{said}\n{errors.NOT_KNOWN}")
        return MigrationFailed(f"{said}\n{remedy}\n{state}")

    def _is_worth_a_retry(self, error: DatabaseError, tries: int) -> bool:
        if error.sqlstate in _LOCK_CONFLICTS:
            return True
        return errors.from_sqlstate(error.sqlstate) is Conflict and tries < _CONFLICT_TRIES


def _is_surprise(error: DatabaseError, attempt: Attempt) -> bool:
    """Whether it waited for something in the file, which we hadn't looked at."""
    return error.sqlstate == _LOCK_TIMEOUT and error.completed >= attempt.head
