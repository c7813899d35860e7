"""An app's load on a database: requests at a fixed rate through a small pool, from a process of its own.

    with load.Load(url) as app:           # its tables: load.tables()
        ...                               # whatever may freeze the app
        print(app.stop().worst_ms)

Half of the requests go to the table `busy`, half to `other`; half read a row by its key, half write one. They
come at the times of a timetable, whether or not earlier ones were answered, and latency counts from there: a
request that waits for the pool waits like any user. Needs asyncpg; imports nothing of the benches.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import json
import math
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import asyncpg

RATE_PER_S = 150.0
POOL = 10
# Rows that requests read and write: 1 to KEYS. Row 0 and those above are for whoever wants to be in the way.
KEYS = 1000
DRAIN_S = 15.0
APPLICATION = "app"
_QUERIES = {
    "read busy": "select counter from busy where id = $1",
    "write busy": "update busy set counter = counter + 1 where id = $1",
    "read other": "select counter from other where id = $1",
    "write other": "update other set counter = counter + 1 where id = $1",
}


def tables(rows: int = KEYS) -> str:
    """SQL for the tables that the requests need; `busy` has so many rows.

    Autovacuum is off for them, so that it is in the way only where it is meant to be.
    """
    return f"""
        create table busy (id int primary key, counter int not null default 0, quantity int, note text)
            with (autovacuum_enabled = false);
        create table other (like busy including all) with (autovacuum_enabled = false);
        insert into busy (id, quantity, note) select n, n, 'note ' || n from generate_series(0, {rows}) n;
        insert into other (id) select n from generate_series(0, {KEYS}) n;
        analyze busy, other;
    """


@dataclasses.dataclass(frozen=True)
class Request:
    """One request; `scheduled_s` is by `time.monotonic()`, which all processes of a machine share."""

    kind: str
    scheduled_s: float
    latency_ms: float
    error: str | None


@dataclasses.dataclass(frozen=True)
class Requests:
    """What became of them."""

    all: Sequence[Request]

    def between(self, from_s: float, to_s: float) -> Requests:
        """Those that came in this time, by `time.monotonic()`."""
        return Requests([one for one in self.all if from_s <= one.scheduled_s <= to_s])

    def of(self, kind: str) -> Requests:
        """Those of a kind: "read busy", "write busy", "read other", "write other"."""
        return Requests([one for one in self.all if one.kind == kind])

    @property
    def worst_ms(self) -> float:
        """How long the slowest took; 0 if there was none."""
        return max((one.latency_ms for one in self.all), default=0.0)

    @property
    def p99_ms(self) -> float:
        """What 99 of 100 stayed within; 0 if there was none."""
        ordered = sorted(one.latency_ms for one in self.all)
        return ordered[math.ceil(len(ordered) * 0.99) - 1] if ordered else 0.0

    @property
    def errors(self) -> list[str]:
        """What the failed ones were told, or "unfinished"."""
        return [one.error for one in self.all if one.error is not None]


class Load:
    """Such a load, as a process."""

    def __init__(
        self, url: str, *, rate_per_s: float = RATE_PER_S, pool: int = POOL, drain_s: float = DRAIN_S
    ) -> None:
        """Of so many requests a second through so many connections.

        Args:
            url: The database.
            rate_per_s: Requests a second.
            pool: Connections.
            drain_s: How long `stop` waits for answers that are still to come.
        """
        self._command = [sys.executable, __file__, url, str(rate_per_s), str(pool), str(drain_s)]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; returns once all connections are there and know their queries."""
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        if self._process.stdout.readline() != b"ready\n":
            self.kill()
            raise RuntimeError("cannot start the load: its process ended; see what it said")

    def stop(self) -> Requests:
        """End it. What isn't answered in time counts as failed, and as late as it is by then."""
        assert self._process is not None
        said, _ = self._process.communicate()
        if self._process.returncode:
            raise RuntimeError(f"cannot tell the load's figures: it ended with {self._process.returncode}")
        return Requests([Request(*one) for one in json.loads(said)])

    def kill(self) -> None:
        """End it at once, if it still runs."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


async def _run(url: str, rate_per_s: float, size: int, drain_s: float) -> list[Request]:
    """Make requests until standard input ends."""
    import asyncpg  # late: whoever only starts the process doesn't need it

    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(0, ended.set)
    settings = {"application_name": APPLICATION}
    pool = await asyncpg.create_pool(url, min_size=size, max_size=size, server_settings=settings)
    try:
        await _warm_up(pool, size)
        gc.collect()
        gc.disable()  # it would be us who are late
        print("ready", flush=True)
        return await _request(pool, rate_per_s, ended, drain_s)
    finally:
        pool.terminate()


async def _warm_up(pool: asyncpg.Pool, size: int) -> None:
    """Each connection prepares each query, as those of a running app have long done."""
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(size):
            connection = await stack.enter_async_context(pool.acquire())
            for query in _QUERIES.values():
                await connection.fetch(query, 1)


async def _request(
    pool: asyncpg.Pool, rate_per_s: float, ended: asyncio.Event, drain_s: float
) -> list[Request]:
    done: list[Request] = []
    running: set[asyncio.Task[None]] = set()
    kinds = list(_QUERIES)
    draw = random.Random(1)
    began_s = time.monotonic()
    number = 0
    while not ended.is_set():
        number += 1
        scheduled_s = began_s + number / rate_per_s
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0, scheduled_s - time.monotonic())):
                await ended.wait()
                break
        one = _one(pool, kinds[number % len(kinds)], draw.randint(1, KEYS), scheduled_s, done.append)
        # No TaskGroup: the first that fails would end it, and all are of interest.
        task = asyncio.create_task(one)
        running.add(task)
        task.add_done_callback(running.discard)
    if running:
        _, late = await asyncio.wait(running, timeout=drain_s)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=1)
    return done


async def _one(
    pool: asyncpg.Pool, kind: str, key: int, scheduled_s: float, tell: Callable[[Request], None]
) -> None:
    error: str | None = "unfinished"
    try:
        async with pool.acquire() as connection:
            await connection.fetch(_QUERIES[kind], key)
            # Here, and not behind the pool's own clean-up: the user has the answer.
            tell(Request(kind, scheduled_s, _since_ms(scheduled_s), None))
            error = None
    except Exception as failed:  # noqa: BLE001 - whatever it is, it is the figure
        if error is not None:
            error = f"{type(failed).__name__}: {failed}"
    finally:
        if error is not None:
            tell(Request(kind, scheduled_s, _since_ms(scheduled_s), error))


def _since_ms(start_s: float) -> float:
    return (time.monotonic() - start_s) * 1000


def main() -> None:
    url, rate_per_s, pool, drain_s = sys.argv[1:]
    # What a busy machine does to the measuring tool would look like what the migration does to the app.
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, -10)
    done = asyncio.run(_run(url, float(rate_per_s), int(pool), float(drain_s)))
    print(json.dumps([dataclasses.astuple(one) for one in done]))


if __name__ == "__main__":
    main()
