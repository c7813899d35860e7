"""Connections that break, with or without a word: nothing is done twice, and nobody waits for ever."""

import asyncio
import contextlib
import signal
import socket
import time

import pytest

from migrator import direct, dsn
from migrator.errors import Unavailable
from tests.support.faults import faulty_proxy
from tests.support.pooler import running_pooler
from tests.support.postgres import Blocker, fetch
from tests.support.processes import log_lines, start_migrator
from tests.support.waiting import wait_until


@pytest.fixture
def proxy(database):
    with faulty_proxy(database) as proxy:
        yield proxy


def works_on(url, words):
    return fetch(
        url,
        "select pid from pg_stat_activity where state = 'active' and query like '%' || $1 || '%'"
        " and datname = current_database() and pid <> pg_backend_pid()",
        words,
    )


def events(err, name):
    return [line for line in log_lines(err) if line["event"] == name]


@pytest.mark.parametrize("answer", ["lost after the commit", "never asked for"])
def test_an_unknown_outcome_is_settled_within_the_run(proxy, database, migrations, answer):
    slow = "" if answer == "lost after the commit" else "select pg_sleep(2);"
    directory = migrations(
        _1_a="create table a (id int);",
        # With a header, so that it isn't sent before the server has answered for the first.
        _2_b=f"-- migrator: timeout=1min\ninsert into a values (2); /* here */ {slow}",
        _3_c="insert into a values (3);",
    )
    if answer == "lost after the commit":
        proxy.deafen_after(b"/* here */")
    migrator = start_migrator(proxy.url, directory)
    if answer == "never asked for":
        wait_until(lambda: works_on(database, "/* here */"), what="the migration")
        proxy.cut()
    out, err = migrator.communicate(timeout=30)

    assert migrator.returncode == 0, err
    assert out.endswith("3 in all, nothing pending\n")
    assert events(err, "migration.settled"), err
    (settled,) = events(err, "migration.settled")
    expected = "applied" if answer == "lost after the commit" else "not applied"
    assert (settled["filename"], settled["outcome"]) == ("2_b.sql", expected)
    assert fetch(database, "select id from a order by 1") == [(2,), (3,)]


@pytest.mark.parametrize("way", ["direct", "pooled"])
def test_a_connection_that_dies_without_a_word_is_found_out_by_the_heartbeat(
    postgres, database, migrations, way
):
    directory = migrations(
        _1_a="create table a (id int);", _2_b="insert into a values (2); select pg_sleep(1);"
    )
    with contextlib.ExitStack() as stack:
        url = database
        if way == "pooled":
            url = f"{stack.enter_context(running_pooler(postgres))}/{database.rsplit('/', 1)[1]}"
        proxy = stack.enter_context(faulty_proxy(url))
        migrator = start_migrator(f"{proxy.url}?connect_timeout=1", directory, MIGRATION_LEASE_TTL="1")
        wait_until(lambda: works_on(database, "pg_sleep"), what="the slow migration")
        proxy.swallow()
        wait_until(lambda: not works_on(database, "pg_sleep"), what="its end")
        proxy.heal()
        out, err = migrator.communicate(timeout=40)

    assert migrator.returncode == 0, err
    assert out.endswith("2 in all, nothing pending\n")
    assert events(err, "migration.settled")
    assert fetch(database, "select id from a") == [(2,)]


async def test_a_query_of_ours_that_gets_no_answer_is_given_up(proxy, monkeypatch):
    monkeypatch.setattr(direct, "_ANSWER_S", 0.3)
    async with direct.connect(dsn.parse(proxy.url, "DATABASE_URL"), "migrator/test") as transport:
        proxy.swallow()
        with pytest.raises(Unavailable, match="no answer within"):
            await transport.fetch("select 1")


async def test_a_server_that_dies_between_two_words_of_its_log_in_is_worth_a_retry():
    """A crash of the postmaster ends a session right after it said no to TLS (found by chaos, seed 307)."""

    async def die(reader, writer):
        await reader.read(8)
        writer.write(b"NE\0\0\0\x12SFATAL\0C57P02\0\0")
        writer.close()

    server = await asyncio.start_server(die, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        with pytest.raises(Unavailable):
            async with direct.connect(dsn.parse(f"postgresql://a@127.0.0.1:{port}/a", "X"), "migrator/test"):
                pass


@pytest.mark.parametrize("heard_s", [0.0, 1.2], ids=["at once", "while the heartbeat finds it out, too"])
def test_sigterm_ends_a_migrator_whose_connection_is_dead_within_the_grace(
    proxy, database, migrations, heard_s
):
    """Five seconds, after which the entrypoint kills it."""
    directory = migrations(
        _1_a="create table a (id int);\ncreate index concurrently i on a (id);\nselect pg_sleep(60);"
    )
    migrator = start_migrator(f"{proxy.url}?connect_timeout=1", directory, MIGRATION_LEASE_TTL="1")
    wait_until(lambda: works_on(database, "pg_sleep"), what="the slow statement")
    proxy.swallow()
    time.sleep(heard_s)  # a moment that no event marks
    began_s = time.monotonic()
    migrator.send_signal(signal.SIGTERM)
    proxy.heal()
    _, err = migrator.communicate(timeout=30)

    assert time.monotonic() - began_s < 5
    assert migrator.returncode == 143
    (aborted,) = events(err, "migration.aborted")
    assert "rolled back" not in aborted["reason"]
    assert "which is on record" in aborted["reason"]


def test_the_work_of_a_migrator_that_was_killed_behind_a_pooler_is_rolled_back_soon(
    postgres, database, migrations
):
    directory = migrations(_1_a="create table a (id int); select pg_sleep(60);")
    with running_pooler(postgres) as url:
        migrator = start_migrator(f"{url}/{database.rsplit('/', 1)[1]}", directory)
        wait_until(lambda: works_on(database, "pg_sleep"), what="the slow migration")
        migrator.kill()
        migrator.communicate()

        wait_until(lambda: not works_on(database, "pg_sleep"), timeout_s=5, what="the end of its work")
    assert fetch(database, "select to_regclass('a')") == [(None,)]


def test_sigterm_cancels_the_statement_through_a_pooler_as_well(postgres, database, migrations):
    directory = migrations(_1_a="create table a (id int); select pg_sleep(60);")
    with running_pooler(postgres) as url:
        migrator = start_migrator(f"{url}/{database.rsplit('/', 1)[1]}", directory)
        wait_until(lambda: works_on(database, "pg_sleep"), what="the slow migration")
        migrator.send_signal(signal.SIGTERM)
        _, err = migrator.communicate(timeout=10)

        assert migrator.returncode == 143
        (aborted,) = events(err, "migration.aborted")
        assert aborted["reason"] == "stopped while applying 1_a.sql: rolled back"
        assert not works_on(database, "pg_sleep")
    assert fetch(database, "select holder from migrator.migration_locks") == [(None,)]


def test_a_lost_lease_cancels_a_statement_without_transaction_on_the_server(database, migrations):
    directory = migrations(
        _1_a="create table a (id int);\ninsert into a values (1);\n"
        "create function slow(int) returns int immutable language plpgsql as $$ begin perform pg_sleep(60); return $1; end $$;\n"
        "create index concurrently i on a (slow(id));"
    )
    migrator = start_migrator(database, directory, MIGRATION_LEASE_TTL="1")
    wait_until(lambda: works_on(database, "concurrently i"), what="the slow index")
    fetch(database, "delete from migrator.migration_locks; select 1")
    _, err = migrator.communicate(timeout=10)

    assert migrator.returncode == 75, err
    assert events(err, "lease.lost")
    wait_until(lambda: not works_on(database, "concurrently i"), timeout_s=3, what="its end on the server")


def test_a_lease_lost_between_two_statements_is_worth_a_retry(database, migrations):
    fetch(database, "create table busy (id int); select 1")
    blocker = Blocker(database, "begin; lock table busy")
    directory = migrations(
        _1_a="create table a (id int);\ninsert into busy values (1);\ncreate index concurrently i on a (id);"
    )
    migrator = start_migrator(database, directory)
    try:
        wait_until(lambda: works_on(database, "into busy"), what="the blocked statement")
        # It waits for the transaction of that statement, which gives up, to try again after a pause.
        fetch(database, "delete from migrator.migration_locks; select 1")
        _, err = migrator.communicate(timeout=20)
    finally:
        blocker.close()

    assert migrator.returncode == 75, err
    assert "lock was taken over or removed" in err


async def test_our_side_of_a_connection_notices_a_host_that_is_gone(database):
    async with direct.connect(dsn.parse(database, "DATABASE_URL"), "migrator/test") as transport:
        sock = transport._connection._transport.get_extra_info("socket")

        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 15_000


def test_a_hold_up_shorter_than_the_keepalives_does_no_harm(proxy, database, migrations):
    directory = migrations(
        _1_a="create table a (id int); select pg_sleep(0.5);", _2_b="insert into a values (2);"
    )
    migrator = start_migrator(proxy.url, directory, MIGRATION_LEASE_TTL="1")
    wait_until(lambda: works_on(database, "pg_sleep"), what="the slow migration")
    proxy.hold()
    wait_until(lambda: not works_on(database, "pg_sleep"), what="its end")
    proxy.heal()
    _, err = migrator.communicate(timeout=40)

    assert migrator.returncode == 0, err
    assert fetch(database, "select id from a") == [(2,)]
