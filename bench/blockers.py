"""Who is in a migration's way: other people's transactions, readers, autovacuum.

Each is a context manager for a database that has the tables of `load.tables()`. Its body begins once the
blocker holds what it is to hold; when the body ends, so does the blocker, and its locks are gone.

    with blockers.long_reader(url):
        ...

Needs asyncpg; imports nothing of the benches. For programs without a running event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Self

import asyncpg

Blocker = Callable[[str], AbstractContextManager[None]]
# Three at a time, each so long: there is never a moment without one.
SHORT_READS_S = (0.03, 0.045, 0.06)
_AUTOVACUUM_STARTS_S = 20.0
_PREPARED = "a_prepared_one"


class Session:
    """A connection for callers that aren't coroutines."""

    def __init__(self, url: str, application: str = "someone") -> None:
        self._loop = asyncio.new_event_loop()
        settings = {"application_name": application}
        self._connection = self._loop.run_until_complete(asyncpg.connect(url, server_settings=settings))

    def execute(self, query: str) -> None:
        self._loop.run_until_complete(self._connection.execute(query))

    def value(self, query: str) -> object:
        """The first column of the first row."""
        return self._loop.run_until_complete(self._connection.fetchval(query))

    def close(self) -> None:
        self._loop.run_until_complete(self._connection.close())
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextlib.contextmanager
def nobody(url: str) -> Iterator[None]:  # noqa: ARG001
    """Nothing but the app is in the way."""
    yield


def long_reader(url: str) -> AbstractContextManager[None]:
    """Idle in a transaction that has read `busy`."""
    return idle_in_transaction(url, "begin; select count(*) from busy where id = 0")


def long_writer(url: str) -> AbstractContextManager[None]:
    """Idle in a transaction that has written a row of `busy`, which nobody else writes."""
    return idle_in_transaction(url, "begin; update busy set note = 'written' where id = 0")


def old_snapshot(url: str) -> AbstractContextManager[None]:
    """An old transaction elsewhere: it has a snapshot, and no lock on `busy`."""
    return idle_in_transaction(url, "begin isolation level repeatable read; select count(*) from other")


def dump(url: str) -> AbstractContextManager[None]:
    """What pg_dump does: one snapshot, and ACCESS SHARE on all tables to the end."""
    lock = (
        "do $$ begin execute (select format('lock table %s in access share mode', "
        "string_agg(oid::regclass::text, ', ')) "
        "from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace); end $$"
    )
    return idle_in_transaction(
        url, f"begin isolation level repeatable read, read only; {lock}", application="pg_dump"
    )


@contextlib.contextmanager
def idle_in_transaction(url: str, query: str, *, application: str = "someone") -> Iterator[None]:
    """Do `query`, which begins a transaction, and stay in it."""
    with Session(url, application) as session:
        session.execute(query)
        yield
        session.execute("rollback")


@contextlib.contextmanager
def prepared_transaction(url: str) -> Iterator[None]:
    """A two-phase commit in its middle: its locks belong to no session. Needs max_prepared_transactions."""
    with Session(url) as session:
        write = "begin; update busy set note = 'prepared' where id = 0"
        session.execute(f"{write}; prepare transaction '{_PREPARED}'")
        try:
            yield
        finally:  # it would outlast the session, and the server
            session.execute(f"rollback prepared '{_PREPARED}'")


@contextlib.contextmanager
def short_readers(url: str) -> Iterator[None]:
    """Readers of `busy` that are soon done, and of whom there is always one."""
    ended = threading.Event()
    threads = [threading.Thread(target=_read_on, args=(url, one_s, ended)) for one_s in SHORT_READS_S]
    for thread in threads:
        thread.start()
    try:
        with Session(url) as session:
            there = (
                "select count(distinct pid) = 3 from pg_locks join pg_stat_activity using (pid) "
                "where relation = 'busy'::regclass and application_name = 'short reader'"
            )
            _wait_until(lambda: session.value(there) is True, "three readers at a time", 10)
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def _read_on(url: str, one_s: float, ended: threading.Event) -> None:
    with Session(url, "short reader") as session:
        while not ended.is_set():
            session.execute(f"select pg_sleep({one_s}) from busy where id = 0")


@contextlib.contextmanager
def autovacuum(url: str) -> Iterator[None]:
    """A real autovacuum worker on `busy`, slow enough to last for half a minute with 50,000 rows.

    Not `vacuum` by hand, which Postgres doesn't cancel when somebody waits behind it. Needs a server with
    autovacuum on and an autovacuum_naptime of a second. One that was cancelled comes back a second later.
    """
    with Session(url) as session:
        if session.value("show autovacuum") != "on":
            raise RuntimeError("cannot have an autovacuum in the way: the server's setting autovacuum is off")
        session.execute(
            "alter table busy set (autovacuum_enabled = true, autovacuum_vacuum_threshold = 0, "
            "autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_cost_delay = 100, "
            "autovacuum_vacuum_cost_limit = 1)"
        )
        with Session(url) as another:  # at whose end the statistics hear of the dead row
            another.execute("update busy set note = 'dead' where id = 0")
        workers = (
            "from pg_stat_activity join pg_locks using (pid) "
            "where backend_type = 'autovacuum worker' and relation = 'busy'::regclass and granted"
        )
        count = f"select count(*) {workers}"
        _wait_until(lambda: bool(session.value(count)), "an autovacuum of busy", _AUTOVACUUM_STARTS_S)
        try:
            yield
        finally:  # the ALTER would wait for a worker
            session.execute(f"select pg_terminate_backend(pid) {workers}")
            session.execute("alter table busy set (autovacuum_enabled = false)")


def _wait_until(condition: Callable[[], bool], what: str, timeout_s: float) -> None:
    give_up_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > give_up_s:
            raise RuntimeError(f"cannot have {what} in the way: it didn't come within {timeout_s:g} s")
        time.sleep(0.01)
