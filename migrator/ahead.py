"""Which files may be sent before the server has answered for those before them.

Between two files the server would wait until we have heard of the first and sent the second, as long as a
small file takes it to run. So a few are on their way at any time. Each is still a message and a transaction
of its own, with its own fence and history row, and is refused unless the one before it is on record as
finished: what isn't to be run comes to nothing by itself. We hear of each as if it had been sent in its turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Sequence
from typing import Protocol

from msgspec import Struct

from migrator import migration as files
from migrator.attempts import Whole
from migrator.errors import PlanError
from migrator.headers import NO_HEADERS
from migrator.messages import Messages
from migrator.migration import Migration
from migrator.parts import Parts
from migrator.script import Script
from migrator.transport import Transport
from migrator.wants import Want

# How many are on their way besides the one that the server is at, and how large they may be together. A
# server reads nothing while it runs a statement: what doesn't fit into its socket's buffer (64 KiB at least)
# would look like a connection that is cut.
_MOST_FILES = 8
_MOST_BYTES = 32 * 1024
# What we put around a file, about.
_OURS_BYTES = 2048


class Ready(Struct, frozen=True, kw_only=True):
    """A file that was read and understood.

    Attributes:
        whole: Its one message; None: it is more than one.
        wants: What that will lock of what there was before this run.
        waits_for_rows: It does nothing but change rows.
    """

    migration: Migration
    understood: Script | Parts
    messages: Messages
    whole: Whole | None = None
    wants: Sequence[Want] = ()
    waits_for_rows: bool = False


class Prepare(Protocol):
    """Reads and understands a file; `last` if no other follows in this run."""

    def __call__(self, migration: Migration, *, last: bool) -> Awaitable[Ready]:
        """The file, ready to be sent.

        Raises:
            PlanError: It can't be applied.
        """


def may_go_ahead(ready: Ready) -> bool:
    """Whether a file may be sent before the server has answered for the one before it.

    Not what locks anything that others may use, as we look who is in the way before we send that. Nor what
    asks for anything itself, might end its transaction, or might answer with data that we would have to take.
    """
    understood = ready.understood
    return (
        ready.whole is not None
        and not ready.wants
        and isinstance(understood, Script)
        and understood.ends_nothing
        and understood.headers == NO_HEADERS
        and "stdout" not in understood.text.lower()
    )


class Ahead:
    """The files on their way, in the order in which they are answered."""

    def __init__(self, transport: Transport) -> None:
        """Send over `transport`."""
        self._transport = transport
        self._sent: deque[tuple[Ready, int]] = deque()
        # One that has to wait for its turn: it needn't be read again then.
        self._waiting: Ready | None = None
        # File names of what was on its way when last something went wrong.
        self.forgotten: tuple[str, ...] = ()

    @property
    def is_under_way(self) -> bool:
        """Whether the server has something still to answer."""
        return bool(self._sent)

    def forget(self) -> None:
        """All that was sent, after an error or a cancellation: see `Transport.send_ahead`."""
        self.forgotten = tuple(one.migration.filename for one, _ in self._sent)
        self._sent.clear()

    async def take(self, migration: Migration, following: Sequence[Migration], prepare: Prepare) -> Ready:
        """The file whose turn it is: sent, if it may be, and with it some of those that follow it.

        Raises:
            PlanError: It can't be applied.
            Unavailable: See Transport.
        """
        if not self._sent:
            ready = await self._ready(migration, prepare, last=not following)
            # A pooler might give each transaction to another session, and so let them overtake each other.
            if self._transport.pooled or not may_go_ahead(ready):
                return ready
            self._send(ready, None)
        taken, _ = self._sent.popleft()
        assert taken.migration is migration
        await self._send_some(taken, following, prepare)
        return taken

    async def _send_some(self, taken: Ready, following: Sequence[Migration], prepare: Prepare) -> None:
        room = _MOST_BYTES - sum(size for _, size in self._sent)
        before = self._sent[-1][0] if self._sent else taken
        for migration in following[len(self._sent) : _MOST_FILES]:
            try:
                if files.size_bytes(migration.path) + _OURS_BYTES > room:
                    return
                ready = await self._ready(migration, prepare, last=migration is following[-1])
            except PlanError:  # told when its turn comes
                return
            if not may_go_ahead(ready):
                self._waiting = ready
                return
            room -= self._send(ready, before.migration.version)
            before = ready

    def _send(self, ready: Ready, after: str | None) -> int:
        assert ready.whole is not None
        size = ready.whole.send_ahead(after)
        self._sent.append((ready, size))
        return size

    async def _ready(self, migration: Migration, prepare: Prepare, *, last: bool) -> Ready:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and waiting.migration is migration:
            return waiting
        return await prepare(migration, last=last)
