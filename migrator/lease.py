"""The lease: taken without waiting, kept alive while the work lasts, given back at its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from migrator.errors import LeaseLost, MigratorError, SessionGone, Unavailable
from migrator.log import Log
from migrator.store import Lease, Store
from migrator.transport import Transport

# The heartbeat comes three times in a lease's lifetime: two may be late.
_BEATS_PER_TTL = 3
_RELEASE_S = 2.0

StoreFactory = Callable[[], AbstractAsyncContextManager[Store]]


async def try_acquire(store: Store, holder: str, ttl_s: float) -> Lease | None:
    """Take the lease if nobody living has it; None if somebody does.

    On a direct connection the session advisory lock comes first. The server frees it when the
    session ends, however it ends, so that a dead holder's lease can be taken at once.
    """
    got = None if store.transport.pooled else await store.lock_session()
    if got is None:
        store.transport.found_pooled()
    elif not got:
        # Somebody has it. One whose lease ran out and who executes nothing is frozen: end it.
        await store.evict()
        return None
    return await store.acquire(holder, ttl_s, session=got is not None)


@asynccontextmanager
async def keep(
    store: Store, lease: Lease, *, ttl_s: float, open_store: StoreFactory, log: Log
) -> AsyncIterator[None]:
    """Keep the lease while the body runs, and give it back afterwards.

    Heartbeats have a connection of their own, opened for the first of them: the working one is
    busy for as long as a migration takes.

    Raises:
        LeaseLost: Somebody else has it, or its row was deleted; the body is cancelled.
        SessionGone: The connection that works has ended, or no answer will ever come; the body is cancelled.
    """
    try:
        async with beside(_beat(lease, ttl_s, store.transport, open_store, log)):
            yield
    finally:
        await release(store, lease, log)


@asynccontextmanager
async def beside(*heartbeats: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Let the heartbeats run while the body does; what ends one of them ends the body, and is raised."""
    is_over = False

    async def until_over(heartbeat: Coroutine[None, None, None]) -> None:
        try:
            await heartbeat
        except Exception:
            # Too late to matter. And the task group of Python 3.11 would leave us cancelled by nobody.
            if not is_over:
                raise

    try:
        async with asyncio.TaskGroup() as tasks:
            beats = [tasks.create_task(until_over(heartbeat), name="heartbeat") for heartbeat in heartbeats]
            try:
                yield
            finally:
                is_over = True
                for beat in beats:
                    beat.cancel()
    except BaseExceptionGroup as group:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            # We were asked to stop as well, which a task group forgets over an error.
            raise asyncio.CancelledError from None
        # One of the two ended and cancelled the other; what it ended with is the news.
        raise group.exceptions[0] from None


async def _beat(lease: Lease, ttl_s: float, working: Transport, open_store: StoreFactory, log: Log) -> None:
    pause_s = ttl_s / _BEATS_PER_TTL
    await asyncio.sleep(pause_s)
    while True:
        try:
            async with open_store() as store:
                while True:
                    # On a connection that was cut without a word, no answer ever comes.
                    awaiting_s = working.awaiting_s()
                    try:
                        async with asyncio.timeout(ttl_s):
                            renewed = await store.renew(lease, ttl_s, awaiting_s=awaiting_s)
                    except SessionGone:
                        if working.awaiting_s() >= awaiting_s:
                            raise
                        renewed = True  # the answer came between our two looks
                    if not renewed:
                        log.error("lease.lost", holder=lease.holder, token=lease.token)
                        raise LeaseLost(
                            "cannot go on: the migration lock was taken over or removed; trying again"
                        )
                    await asyncio.sleep(pause_s)
        except (LeaseLost, SessionGone):
            raise
        except (MigratorError, TimeoutError) as error:
            # A late heartbeat can't break a running migration: its transaction holds the row.
            log.warning("lease.unrenewed", reason=str(error) or f"no answer within {ttl_s:g} s")
            await asyncio.sleep(pause_s)


async def release(store: Store, lease: Lease, log: Log, *, open_store: StoreFactory | None = None) -> None:
    """Give it back, or say that we couldn't.

    `open_store` opens another where the connection that took it is gone: a pooler frees nothing then.
    """
    try:
        async with asyncio.timeout(_RELEASE_S):
            try:
                await store.release(lease)
            except Unavailable:
                if open_store is None or not store.transport.pooled:
                    raise
                async with open_store() as another:
                    await another.release(lease)
    except (MigratorError, TimeoutError) as error:
        # It frees itself when the session ends, or else when it expires.
        log.warning("lease.unreleased", reason=str(error))
    else:
        log.debug("lease.released", token=lease.token)
