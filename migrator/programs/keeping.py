"""The lease around a program, which knows nothing of it: kept by heartbeat, never outlived by the program.

A migration of our own holds the lock row in its transaction, so that a late heartbeat does no harm. A program
doesn't. So here a lease that can't be renewed in time ends the work.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import NoReturn

from migrator import lease as leases
from migrator.errors import LeaseLost, MigratorError, Unavailable
from migrator.lease import StoreFactory
from migrator.log import Log
from migrator.store import Lease, Store

# Seconds between two heartbeats. On a direct connection the server frees the advisory lock some 11 s after we
# have fallen silent (`direct._SESSION`): one heartbeat, its answer and the grace must fit in.
_PAUSE_S = 2.0
_ANSWER_S = 3.0
# Before another connection is tried, where one was cut.
_RETRY_S = 0.5
_BEATS_PER_TTL = 3


Kept = AbstractAsyncContextManager[None]


@asynccontextmanager
async def kept(
    store: Store, lease: Lease, *, ttl_s: float, grace_s: float, open_store: StoreFactory, log: Log
) -> AsyncIterator[None]:
    """Keep the lease while the body runs. The store is the heartbeat's until then: the program has its own.

    Args:
        store: It has taken the lease. On a direct connection, its session is part of the lease.
        lease: Ours.
        ttl_s: Seconds until others may take it without a renewal.
        grace_s: What the body needs to end once it is cancelled.
        open_store: Opens another, where a pooler is in between and the session means nothing.
        log: Hears of heartbeats that fail.

    Raises:
        LeaseLost: Somebody else has it, its row was deleted, or it is about to expire; the body is cancelled.
        Unavailable: The session that held it is gone; the body is cancelled.
    """
    keeper = _Keeper(store, lease, ttl_s=ttl_s, grace_s=grace_s, log=log)
    await keeper.renew(store)
    async with leases.beside(keeper.beat(open_store), keeper.watch()):
        yield


class _Keeper:
    """One coroutine that renews, and one that sees whether that was in time.

    The first can't do both: a query that is cancelled takes seconds to find out that nobody answers.
    """

    def __init__(self, store: Store, lease: Lease, *, ttl_s: float, grace_s: float, log: Log) -> None:
        self._store = store
        self._lease = lease
        self._ttl_s = ttl_s
        self._grace_s = grace_s
        self._log = log
        self._pause_s = min(_PAUSE_S, ttl_s / _BEATS_PER_TTL)
        self._give_up_s = 0.0

    async def watch(self) -> None:
        """Raise LeaseLost once we can't believe any more that the lease is ours."""
        while (left_s := self._give_up_s - time.monotonic()) > 0:  # noqa: ASYNC110 - it is put off meanwhile
            await asyncio.sleep(left_s)
        self._lost("couldn't be renewed in time")

    async def renew(self, store: Store) -> None:
        """Prolong it; LeaseLost if it isn't ours."""
        asked_s = time.monotonic()
        if not await store.renew(self._lease, self._ttl_s):
            self._lost("was taken over or removed")
        # It was ours when we asked: so long may we believe it.
        self._give_up_s = asked_s + self._ttl_s - self._grace_s
        if not self._store.transport.pooled:
            self._give_up_s = min(self._give_up_s, asked_s + self._pause_s + _ANSWER_S)

    async def beat(self, open_store: StoreFactory) -> None:
        """Renew it again and again; Unavailable if the session is gone that is a part of it."""
        async with AsyncExitStack() as stack:
            using: Store | None = self._store
            pause_s = self._pause_s
            while True:
                await asyncio.sleep(pause_s)
                pause_s = self._pause_s
                try:
                    if using is None:
                        using = await stack.enter_async_context(open_store())
                    await self.renew(using)
                except LeaseLost:
                    raise
                except MigratorError as error:
                    if not self._store.transport.pooled:
                        raise Unavailable(
                            f"lost the connection to the database, and with it the migration lock: {error}"
                        ) from error
                    self._log.warning("lease.unrenewed", reason=str(error))
                    using = None
                    pause_s = min(_RETRY_S, self._pause_s)
                    await stack.aclose()

    def _lost(self, why: str) -> NoReturn:
        self._log.error("lease.lost", holder=self._lease.holder, token=self._lease.token)
        raise LeaseLost(f"cannot go on: the migration lock {why}; trying again")
