"""What is sent to apply a migration: its SQL between our fence and our history."""

from __future__ import annotations

from collections.abc import Mapping

from migrator import sql
from migrator.headers import Headers
from migrator.migration import LABEL, Migration
from migrator.store import LOCK_NAME, Lease
from migrator.transport import DatabaseError, Transport

# How long a file that only changes rows waits for those that somebody else has changed. Few queue behind it.
ROW_TIMEOUT_MS = 1000
# What a file may leave prepared, or forget: by these words, whoever says them.
_PREPARES = ("prepare", "deallocate")


class Prepared:
    """Whether a session holds our own statements prepared, when it gets to what is sent next."""

    def __init__(self) -> None:
        """A new session, or one that may hold anything."""
        self.is_there = False

    async def keep(self, transport: Transport, schema: str) -> None:
        """Have them there, if the server lets us. A message of its own: pg_stat_activity is to show the file.

        Raises:
            Unavailable: See Transport.
        """
        try:
            await transport.execute(sql.message("apply.sql", ("prepare",), schema, {}))
        except DatabaseError:  # the file's own message meets the same, and says what it means
            return
        self.is_there = True


class Messages:
    """The messages for one migration under one lease; each is a transaction, sent at once."""

    def __init__(
        self,
        schema: str,
        migration: Migration,
        lease: Lease,
        *,
        headers: Headers,
        meaning: str | None,
        lock_key: int,
        pooled: bool,
        local_settings: Mapping[str, str],
        limits_transactions: bool = False,
        prepared: Prepared | None = None,
    ) -> None:
        """Write to our tables in `schema`; `pooled` if a transaction pooler gets the session afterwards.

        `headers` are what the file asks for, `meaning` what it means; `local_settings` are set for its own
        transaction. `lock_key` is our own advisory lock's. `prepared` is of the session; None: keep nothing.
        For `limits_transactions` see Transport.
        """
        self._schema = schema
        # pg_stat_activity shows the first 1,024 bytes, which are mostly ours.
        self._label = migration.filename.join(LABEL)
        self._headers = headers
        lock_timeout_ms = headers.lock_timeout_ms
        self._local_settings = local_settings
        self._unlimited = ("unlimited",) if limits_transactions else ()
        self._begin = ("begin", *self._unlimited, *(("begin_pooled",) if pooled else ()))
        self._unlock = "clean_pooled" if pooled else "unlock"
        self._always_unlocks = pooled
        self._keeps = prepared is not None
        self._prepared = prepared or Prepared()
        self._forgets_first = False
        # Nothing is sent ahead to a pooler.
        self._not_last = ("hasty",) if pooled else ("hasty", "chain")
        self._values: dict[str, sql.Value] = {
            "name": LOCK_NAME,
            "token": lease.token,
            "holder": lease.holder,
            "version": migration.version,
            "filename": migration.filename,
            "title": migration.name,
            "checksum": f"{migration.checksum} {meaning}" if meaning else migration.checksum,
            "lock_timeout_ms": ROW_TIMEOUT_MS if lock_timeout_ms is None else lock_timeout_ms,
            "lock_key": lock_key,
            "timeout_ms": headers.timeout_ms or 0,
            "role": headers.role,
        }

    @property
    def label(self) -> str:
        """What the messages begin with, as pg_stat_activity shows it."""
        return self._label

    @property
    def lock_timeout_ms(self) -> int | None:
        """What the file asks for; None: nothing."""
        return self._headers.lock_timeout_ms

    @property
    def allows_blocking(self) -> bool:
        """Whether the file may keep others waiting."""
        return self._headers.allow_blocking

    def limit_waits(self, limit_ms: int) -> None:
        """Let the file's own statements wait so long for a lock, if it doesn't say itself how long."""
        if self._headers.lock_timeout_ms is None:
            self._values["lock_timeout_ms"] = limit_ms

    def forget_first(self) -> None:
        """Have the file find nothing prepared, whoever did that; not where the session isn't ours alone."""
        self._forgets_first = self._keeps

    def whole(
        self, text: str, *, ends_nothing: bool, durable: bool, locks: str = "", after: str | None = None
    ) -> tuple[str, int]:
        """A whole file, and where in the message its text begins.

        `locks`: the statements that take those that it will need. `ends_nothing`: see `Script`. `durable`:
        its commit waits for the disk. True for the last of a run: who sees all applied may rely on it.
        `after`: it is to be refused unless that version is on record.
        """
        lower = text.lower()
        # On a direct connection it takes a look at pg_locks, which most files can do without.
        unlocks = self._always_unlocks or "advisory" in lower
        is_there = self._prepared.is_there and not self._forgets_first
        if is_there and ends_nothing and not any(word in lower for word in _PREPARES):
            head = self._head((*self._begin, "prepared_record"), locks, after)
            tail = self._tail(("prepared_finish", "clean"), unlocks=unlocks, durable=durable)
        else:
            head = self.head(locks, after)
            tail = self.tail(unlocks=unlocks, guards=not ends_nothing, durable=durable)
        return f"{head}{text}\n;\n{tail}", len(head)

    def head(self, locks: str = "", after: str | None = None) -> str:
        """What goes before a file's first statement; `locks`, `after`: see `whole`."""
        record = "record" if after is None else "record_after"
        return self._head((*self._own_forgotten, *self._begin, record), locks, after)

    def tail(self, *, unlocks: bool = True, guards: bool = True, durable: bool = True) -> str:
        """What goes after its last one.

        `unlocks` if it may have left advisory locks behind, `guards` if it may have ended its transaction.
        """
        self._prepared.is_there = False
        finish = ("guard" if guards else "finish", "clean", "forget")
        return self._tail(finish, unlocks=unlocks, durable=durable)

    def _head(self, pieces: tuple[str, ...], locks: str, after: str | None) -> str:
        head = self._label + self._joined(*pieces, after=after) + self._locking(locks)
        for setting, value in self._local_settings.items():
            head += self._joined("setting", setting=setting, value=value)
        return head + self._timeout() + (self._joined("role") if self._headers.role is not None else "")

    def _tail(self, finish: tuple[str, ...], *, unlocks: bool, durable: bool) -> str:
        optional = [*([self._unlock] if unlocks else []), *([] if durable else self._not_last)]
        return self._joined("unrole", *finish, *optional, "commit")

    @property
    def _own_forgotten(self) -> tuple[str, ...]:
        """What has the file find nothing of ours prepared."""
        return ("forget",) if self._prepared.is_there or self._forgets_first else ()

    def first_step(self) -> str:
        """Put a file on record that will run statement by statement."""
        # The session's limit isn't lifted where a pooler ignores our startup parameters.
        pieces = [*self._own_forgotten, *self._begin, "fence", "record_steps", "commit", "session"]
        if self._headers.role is not None:
            pieces.append("session_role")
        return self._joined(*pieces)

    def step(self, text: str, *, done: int, finished: bool, locks: str = "") -> tuple[str, int]:
        """One statement of such a file and that it is done, and where in the message it begins.

        `locks`: see `whole`.
        """
        head = self.begin_step(locks)
        return f"{head}{text}\n;\n{self._progress(done, finished=finished)}", len(head)

    def begin_step(self, locks: str = "") -> str:
        """What goes before such a statement that can't be in one message with it; `locks`: see `whole`."""
        return self._label + self._joined(*self._begin, "fence") + self._locking(locks) + self._timeout()

    def end_step(self, *, done: int, finished: bool) -> str:
        """What goes after it then."""
        return self._label + self._progress(done, finished=finished)

    def limit(self, limit_ms: int | None) -> str:
        """How long a statement outside of a transaction may wait for a lock; None: as long as one within."""
        limited = self._values["lock_timeout_ms"] if limit_ms is None else limit_ms
        unlimited = "; set transaction_timeout = 0" if self._unlimited else ""
        return f"set lock_timeout = {limited}{unlimited}"

    def announce(self, *, done: int) -> str:
        """That the next statement, which can't run in a transaction, is about to be sent: if we may."""
        return self._joined(*self._begin, "fence") + self._progress(done, in_doubt=True)

    def settle(self, *, done: int, finished: bool) -> str:
        """What became of it: done, or refused by the server."""
        return self._joined(*self._begin) + self._progress(done, finished=finished)

    def clean(self) -> str:
        """Leave nothing of the file in the session."""
        self._prepared.is_there = False
        return self._joined("unrole", "clean", "forget", self._unlock)

    def _locking(self, locks: str) -> str:
        """Take locks, and wait for further ones as long as before."""
        return locks and locks + self._joined("limit")

    def _timeout(self) -> str:
        return self._joined("timeout") if self._headers.timeout_ms is not None else ""

    def _progress(self, done: int, *, finished: bool = False, in_doubt: bool = False) -> str:
        return self._joined("progress", "commit", done=done, finished=finished, in_doubt=in_doubt)

    def _joined(self, *names: str, **more: sql.Value) -> str:
        values = {**self._values, **more} if more else self._values
        return sql.message("apply.sql", names, self._schema, values)
