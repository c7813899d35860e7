"""What is sent to get something applied, at each try once more."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from migrator import statements
from migrator.errors import MigrationFailed
from migrator.log import Log
from migrator.messages import Messages
from migrator.script import Script
from migrator.sql import identifier
from migrator.statements import Statement, Way
from migrator.store import Store
from migrator.transport import DatabaseError, Ended, Transport

# What a file meets if one before it has forgotten what was prepared, or left something prepared, by a
# function that it calls: nothing of it shows in its text.
_PREPARED_BY_OTHERS = frozenset({"26000", "42P05"})

# With what the server refuses what is done already, by the statement's first word.
_AS_IT_IS_TO_BE = {"drop": frozenset({"42704", "3D000"}), "create": frozenset({"42P04", "42710"})}


class Attempt(Protocol):
    """Sends something, at each call once more from its start."""

    async def __call__(self, locks: str, /) -> None:
        """Send it, with the statements `locks` before what is the file's.

        Raises:
            DatabaseError: The server refused it.
            Unavailable: The connection is gone.
        """

    @property
    def head(self) -> int:
        """How many statements of ours came before the file's in the message that was refused."""


class Sent:
    """A message of ours alone."""

    head = 0

    def __init__(self, transport: Transport, message: str) -> None:
        """Send `message`."""
        self._transport = transport
        self._message = message

    async def __call__(self, _locks: str) -> None:
        """See Attempt."""
        await self._transport.execute(self._message)


class _Headed:
    """A message in which something of ours comes first."""

    def __init__(self, transport: Transport, messages: Messages) -> None:
        self._transport = transport
        self._messages = messages
        # What was sent last, and where the file's part begins in it.
        self.message, self.start = "", 0

    @property
    def head(self) -> int:
        """See Attempt."""
        return len(statements.split(self.message[: self.start]) or [])


class Whole(_Headed):
    """A file in one message."""

    def __init__(
        self,
        transport: Transport,
        messages: Messages,
        understood: Script,
        *,
        last: bool,
        on_error: Callable[[], None],
    ) -> None:
        """Send the file's text; `last` if no other follows. `on_error` is called at whatever goes wrong."""
        super().__init__(transport, messages)
        self._script = understood
        self._last = last
        self._on_error = on_error
        self._is_sent = False

    def send_ahead(self, after: str | None) -> int:
        """Send it at once; the next call only waits for the answer. How many bytes it is.

        `after`: the version of the file before it, if the server has that one still to do.
        """
        self._compose("", after)
        self._transport.send_ahead(self.message)
        self._is_sent = True
        return len(self.message.encode())

    async def __call__(self, locks: str) -> None:
        """See Attempt."""
        if not self._is_sent:
            self._compose(locks, None)
        self._is_sent = False
        try:
            await self._transport.execute(self.message)
        except DatabaseError as error:
            self._on_error()
            if error.sqlstate not in _PREPARED_BY_OTHERS:
                raise
            sent = self.message
            self._messages.forget_first()
            self._compose(locks, None)
            if self.message == sent:
                raise
            await self._transport.execute(self.message)
        except BaseException:
            self._on_error()
            raise

    def _compose(self, locks: str, after: str | None) -> None:
        self.message, self.start = self._messages.whole(
            self._script.text,
            ends_nothing=self._script.ends_nothing,
            durable=self._last,
            locks=locks,
            after=after,
        )


class Step(_Headed):
    """What can run in a transaction, of a file that as a whole can't: one statement of it, or several."""

    def __init__(
        self, transport: Transport, messages: Messages, text: str, *, done: int, finished: bool
    ) -> None:
        """Send `text`, after which `done` of the file's statements are, and all if it is `finished`."""
        super().__init__(transport, messages)
        self._text = text
        self._done = done
        self._finished = finished

    async def __call__(self, locks: str) -> None:
        """See Attempt."""
        self.message, self.start = self._messages.step(
            self._text, done=self._done, finished=self._finished, locks=locks
        )
        await self._transport.execute(self.message)


class CopyStep(_Headed):
    """A COPY ... FROM stdin of such a file, in a transaction of its own, which is several messages."""

    def __init__(
        self,
        transport: Transport,
        messages: Messages,
        text: str,
        chunks: Callable[[], Iterable[bytes]],
        *,
        done: int,
        finished: bool,
    ) -> None:
        """Send `text` with the data that `chunks` reads anew each time; see Step for the rest."""
        super().__init__(transport, messages)
        self._text = text
        self._chunks = chunks
        self._done = done
        self._finished = finished

    async def __call__(self, locks: str) -> None:
        """See Attempt.

        Raises:
            PlanError: The data was edited; rolled back.
        """
        self.message = self._messages.begin_step(locks)
        self.start = len(self.message)
        await self._transport.execute(self.message)
        # What is refused from now on is the file's.
        self.message = self._messages.label
        self.start = len(self.message)
        await self._transport.copy(self.message + self._text, self._chunks())
        await self._transport.execute(self._messages.end_step(done=self._done, finished=self._finished))


class Alone:
    """A statement that can't run in a transaction: what is done each time it is tried."""

    # None of ours is in its message.
    head = 0

    def __init__(
        self,
        store: Store,
        log: Log,
        messages: Messages,
        statement: Statement,
        way: Way,
        *,
        done: int,
        in_doubt: bool,
    ) -> None:
        """Send `statement`, before which `done` are.

        `in_doubt`: an earlier run sent it and didn't live to hear what became of it.
        """
        self._store = store
        self._log = log
        self._messages = messages
        self._statement = statement
        self._way = way
        self._done = done
        self._in_doubt = in_doubt
        # Where it begins in its message.
        self.start = len(messages.label)

    async def __call__(self, _locks: str) -> None:
        """See Attempt."""
        execute = self._store.transport.execute
        # Nothing can fence such a statement. The session advisory lock keeps others away while it runs;
        # that the lease is ours is asked right before it.
        await execute(self._messages.announce(done=self._done))
        # CONCURRENTLY waits in nobody's way, and a timeout would leave it broken, also one that the file asks
        # for. VACUUM FULL and its kind do stand in the way while they wait.
        await execute(self._messages.limit(0 if self._way is Way.CONCURRENT else None))
        table = statements.indexed_by(self._statement) if self._way is Way.CONCURRENT else None
        # Each time: a deadlock, say, leaves an INVALID index, which IF NOT EXISTS takes for done.
        if await self._is_done_already() or await self._is_detached_already():
            return
        before = await self._store.broken_indexes(table) if table else []
        if table and self._in_doubt:
            # Its name may be one that the server made up.
            await self._drop(before, "left INVALID by an earlier try")
        # The earlier try may have made it, and the server would give this one another name.
        nameless = self._in_doubt and statements.is_nameless_index(self._statement)
        there = await self._store.valid_indexes(table) if table and nameless else {}
        try:
            await execute(self._messages.label + self._statement.text)
        except DatabaseError as error:
            if error.ended is Ended.UNKNOWN:
                raise
            verb = self._statement.text.split(maxsplit=1)[0].lower()
            if not (self._in_doubt and error.sqlstate in _AS_IT_IS_TO_BE.get(verb, ())):
                if table:
                    await self._drop_new(table, before)
                await execute(self._messages.settle(done=self._done, finished=False))
                raise
        if table and there:
            await self._drop_second(table, there)

    async def _is_done_already(self) -> bool:
        """Clear the way for a CREATE INDEX CONCURRENTLY; True if an earlier run had finished it."""
        index = statements.index_of(self._statement)
        found = await self._store.index_state(index.schema, index.name, index.table) if index else None
        if index is None or found is None:
            return False
        schema, valid = found
        if valid:
            return self._in_doubt
        await self._drop([f"{identifier(schema)}.{identifier(index.name)}"], "left INVALID by an earlier try")
        return False

    async def _is_detached_already(self) -> bool:
        """Finish a DETACH PARTITION CONCURRENTLY that was broken off; True if there is no more to do."""
        names = statements.detached_by(self._statement)
        state = await self._store.partition_state(*names) if names else None
        if names is None or state is None:
            return False
        attached, pending = state
        if pending:
            parent, child = names
            finalize = f"alter table {parent} detach partition {child} finalize"
            await self._store.transport.execute(self._messages.label + finalize)
            return True
        return not attached and self._in_doubt

    async def _drop_new(self, table: str, before: list[str]) -> None:
        """Leave nothing INVALID behind; if that fails as well, the next try does it."""
        try:
            after = await self._store.broken_indexes(table)
            await self._drop([name for name in after if name not in before], "left INVALID by its failure")
        except (DatabaseError, MigrationFailed) as error:
            self._log.warning("index.undropped", reason=str(error))

    async def _drop_second(self, table: str, there: dict[str, str]) -> None:
        """An index that is the same as one that was there."""
        made = await self._store.valid_indexes(table)
        second = [name for name in made.keys() - there.keys() if made[name] in there.values()]
        await self._drop(second, "the same as one that an earlier try has made")

    async def _drop(self, names: list[str], reason: str) -> None:
        """What a broken CONCURRENTLY leaves: of no use, in the way of the next try, and costly."""
        for name in names:
            self._log.warning("index.dropped", index=name, reason=reason)
            await self._store.transport.execute(f"drop index concurrently if exists {name}")
