"""What is sent to get something applied, at each try once more."""

from __future__ import annotations

from typing import Protocol

from migrator import statements
from migrator.log import Log
from migrator.messages import Messages
from migrator.sql import identifier
from migrator.statements import Statement, Way
from migrator.store import Store
from migrator.transport import DatabaseError, Ended, Transport


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

    def __init__(self, transport: Transport, messages: Messages, text: str, *, last: bool) -> None:
        """Send the file's `text`; `last` if no other follows."""
        super().__init__(transport, messages)
        self._text = text
        self._last = last

    async def __call__(self, locks: str) -> None:
        """See Attempt."""
        self.message, self.start = self._messages.whole(self._text, durable=self._last, locks=locks)
        await self._transport.execute(self.message)


class Step(_Headed):
    """A statement that can run in a transaction, of a file that as a whole can't."""

    def __init__(
        self, transport: Transport, messages: Messages, statement: Statement, *, done: int, finished: bool
    ) -> None:
        """Send `statement`, after which `done` of the file's are, and all if it is `finished`."""
        super().__init__(transport, messages)
        self._statement = statement
        self._done = done
        self._finished = finished

    async def __call__(self, locks: str) -> None:
        """See Attempt."""
        self.message, self.start = self._messages.step(
            self._statement.text, done=self._done, finished=self._finished, locks=locks
        )
        await self._transport.execute(self.message)


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

    async def __call__(self, _locks: str) -> None:
        """See Attempt."""
        execute = self._store.transport.execute
        # Nothing can fence such a statement. The session advisory lock keeps others away while it runs;
        # that the lease is ours is asked right before it.
        await execute(self._messages.announce(done=self._done))
        # Each time: a deadlock, say, leaves an INVALID index, which IF NOT EXISTS takes for done.
        if await self._is_done_already():
            return
        # CONCURRENTLY waits in nobody's way, and a timeout would leave it broken. VACUUM FULL and its kind do
        # stand in the way while they wait.
        await execute(self._messages.limit(0 if self._way is Way.CONCURRENT else None))
        try:
            await execute(self._messages.label + self._statement.text)
        except DatabaseError as error:
            if error.ended is Ended.UNKNOWN:
                raise
            gone = error.sqlstate == "42704" and self._statement.text[:4].lower() == "drop"
            if not (self._in_doubt and gone):
                await execute(self._messages.settle(done=self._done, finished=False))
                raise

    async def _is_done_already(self) -> bool:
        """Clear the way for a CREATE INDEX CONCURRENTLY; True if an earlier run had finished it."""
        index = statements.index_of(self._statement)
        found = await self._store.index_state(index.schema, index.name, index.table) if index else None
        if index is None or found is None:
            return False
        schema, valid = found
        if valid:
            return self._in_doubt
        # What a broken CONCURRENTLY leaves behind: of no use, and in the way of the next try.
        name = f"{identifier(schema)}.{identifier(index.name)}"
        self._log.warning("index.dropped", index=name, reason="left INVALID by an earlier try")
        await self._store.transport.execute(f"drop index concurrently if exists {name}")
        return False
