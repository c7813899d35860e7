"""The lease: who has it, who gets it next, and when."""

import asyncio
import signal

import pytest

from migrator import lease as leases
from migrator.errors import LeaseLost
from tests.support.postgres import UNTIL_GATE_OPENS, fetch, open_gate, shut_gate
from tests.support.processes import run_migrator, start_migrator
from tests.support.stores import quiet_log, session, store_on
from tests.support.waiting import wait_until

TTL_S = 30.0


def holder_of(url):
    rows = fetch(url, "select holder, token from migrator.migration_locks where holder is not null")
    return rows[0] if rows else None


def is_sleeping(url):
    return fetch(
        url,
        "select 1 from pg_stat_activity where query like '%pg_sleep%' and state = 'active'"
        " and datname = current_database() and pid <> pg_backend_pid()",
    )


def has_history(url, version):
    try:
        return fetch(url, "select 1 from migrator.migration_history where version = $1 and finished", version)
    except Exception:  # noqa: BLE001 - not installed yet
        return []


def hear(process, text):
    """Read what the process says until it says this."""
    assert any(text in line for line in process.stderr)


def finish(process, timeout_s=40):
    out, err = process.communicate(timeout=timeout_s)
    return process.returncode, out, err


async def test_only_one_of_two_gets_the_lease_and_the_other_gets_it_once_released(database):
    async with store_on(database) as first, store_on(database) as second:
        await first.install()
        lease = await leases.try_acquire(first, "first", TTL_S)
        assert lease is not None
        assert await leases.try_acquire(second, "second", TTL_S) is None

        holder = await second.holder()
        await first.release(lease)
        assert await second.holder() is None
    async with store_on(database) as third:
        later = await leases.try_acquire(third, "third", TTL_S)

    assert holder is not None
    assert holder.name == "first"
    assert later is not None
    assert later.token > lease.token


async def test_a_dead_sessions_lease_is_taken_at_once(database):
    async with store_on(database) as first:
        await first.install()
        lost = await leases.try_acquire(first, "first", 3600)
        assert lost is not None
    async with store_on(database) as second:
        taken = await leases.try_acquire(second, "second", TTL_S)

        assert taken is not None
        assert taken.token > lost.token
        assert not await second.renew(lost, TTL_S)


async def test_through_a_pooler_a_lease_is_taken_when_it_has_expired(database):
    async with store_on(database, pooled=True) as first, store_on(database, pooled=True) as second:
        await first.install()
        lost = await leases.try_acquire(first, "first", TTL_S)
        assert lost is not None
        assert await leases.try_acquire(second, "second", TTL_S) is None

        await first.renew(lost, 0.0)
        taken = await leases.try_acquire(second, "second", TTL_S)
        assert taken is not None
        assert taken.token > lost.token


async def test_a_pooled_and_a_direct_contender_respect_each_other(database):
    async with store_on(database, pooled=True) as pooled, store_on(database) as direct:
        await direct.install()
        lease = await leases.try_acquire(pooled, "pooled", TTL_S)
        assert lease is not None
        assert await leases.try_acquire(direct, "direct", TTL_S) is None
    async with store_on(database, pooled=True) as pooled, store_on(database) as direct:
        await pooled.release(lease)
        assert await leases.try_acquire(direct, "direct", 0.0) is not None
        assert await leases.try_acquire(pooled, "pooled", TTL_S) is None  # late, but its session lives


async def test_no_takeover_while_a_transaction_of_the_old_holder_lives(database):
    async with (
        store_on(database, pooled=True) as first,
        store_on(database, pooled=True) as second,
        session(database) as old_transaction,
    ):
        await first.install()
        assert await leases.try_acquire(first, "first", 0.0) is not None
        await old_transaction.execute("begin; select 1 from migrator.migration_locks for key share")
        for _ in range(3):
            assert await leases.try_acquire(second, "second", TTL_S) is None
        await old_transaction.execute("commit")

        assert await leases.try_acquire(second, "second", TTL_S) is not None


async def test_heartbeats_pass_and_keep_the_lease_alive_during_a_running_migration(database):
    async with store_on(database) as store, session(database) as migration:
        await store.install()
        lease = await leases.try_acquire(store, "first", 0.3)
        assert lease is not None
        await migration.execute("begin; select 1 from migrator.migration_locks for key share")
        async with leases.keep(
            store, lease, ttl_s=0.3, open_store=lambda: store_on(database), log=quiet_log()
        ):
            begun = await migration.fetchval("select clock_timestamp()")
            async with asyncio.timeout(5):
                async with session(database) as onlooker:
                    while not await onlooker.fetchval(
                        "select heartbeat_at > $1::timestamptz + interval '0.3 s' and expires_at > clock_timestamp()"
                        " from migrator.migration_locks",
                        begun,
                    ):
                        await asyncio.sleep(0.02)
        assert await store.holder() is None  # released, although the transaction is still open


async def test_a_holder_whose_row_was_deleted_is_stopped(database):
    async with store_on(database) as store, session(database) as operator:
        await store.install()
        lease = await leases.try_acquire(store, "first", 0.3)
        assert lease is not None
        await operator.execute("delete from migrator.migration_locks")

        with pytest.raises(LeaseLost):
            await _work_under(store, lease, database)


async def _work_under(store, lease, url):
    async with leases.keep(store, lease, ttl_s=0.3, open_store=lambda: store_on(url), log=quiet_log()):
        await asyncio.sleep(10)


async def test_a_contender_between_two_steps_is_not_mistaken_for_a_frozen_holder(database):
    """The lease of a dead holder has expired; one contender has its session lock already, another looks on."""
    async with store_on(database) as first:
        await first.install()
        assert await leases.try_acquire(first, "dead", 0.0) is not None
    async with store_on(database) as contender, store_on(database) as other:
        assert await contender.lock_session()
        assert await leases.try_acquire(other, "other", TTL_S) is None

        assert await contender.acquire("contender", TTL_S, session=True) is not None


def test_a_killed_migrators_work_is_rolled_back_and_taken_over(database, migrations):
    directory = migrations(
        _1_a="create table a (id int);", _2_b="create table b (id int); select pg_sleep(60);"
    )
    killed = start_migrator(database, directory)
    wait_until(lambda: is_sleeping(database), what="the slow migration")
    old = holder_of(database)
    killed.kill()
    killed.communicate()
    (directory / "2_b.sql").write_text("create table b (id int);")

    done = run_migrator(database, directory)

    assert (done.returncode, done.stdout) == (0, "1 applied, 2 in all, nothing pending\n")
    rows = fetch(database, "select token, executed_by from migrator.migration_history order by version")
    assert rows[0] == (old[1], old[0])
    assert rows[1][0] > old[1]


def test_a_frozen_migrator_is_evicted_and_changes_nothing_when_it_wakes(database, migrations):
    shut_gate(database)
    slow = f"insert into log values (1); {UNTIL_GATE_OPENS}"
    directory = migrations(
        _1_a="create table log (version int);",
        _2_b=slow,
        # With a header it isn't sent before the server has answered for the second.
        _3_c="-- migrator: timeout=1min\ninsert into log values (3);",
    )
    frozen = start_migrator(database, directory, MIGRATION_LEASE_TTL="1")
    wait_until(lambda: is_sleeping(database), what="the slow migration")
    frozen.send_signal(signal.SIGSTOP)
    open_gate(database)
    try:
        other = run_migrator(database, directory, MIGRATION_LEASE_TTL="1")
        assert other.returncode == 0, other.stderr
    finally:
        frozen.send_signal(signal.SIGCONT)
    code, out, err = finish(frozen)

    # It has read the history again, and found that others have done the rest; or met the end of its time first,
    # which is worth another attempt.
    if code == 75:
        assert "lease.lost" in err
    else:
        assert (code, out) == (0, "2 applied, 3 in all, nothing pending\n"), err
    assert fetch(database, "select version from log order by 1") == [(1,), (3,)]
    assert fetch(database, "select count(*), count(distinct token) from migrator.migration_history") == [
        (3, 2)
    ]


def test_deleting_the_lock_row_makes_a_running_holder_stop(database, migrations):
    directory = migrations(
        _1_a="create table a (id int);",
        _2_b="create table b (id int); select pg_sleep(1.5);",
        # With a header it isn't sent before the server has answered for the second, and can't overtake us.
        _3_c="-- migrator: timeout=1min\ncreate table c ();",
    )
    holder = start_migrator(database, directory)
    wait_until(lambda: is_sleeping(database), what="the slow migration")
    # It waits for the running migration, whose transaction holds the row.
    fetch(database, "delete from migrator.migration_locks; select 1")
    code, _, err = finish(holder)

    assert code == 75
    assert "lock was taken over or removed" in err
    assert fetch(database, "select to_regclass('b') is not null, to_regclass('c') is null") == [(True, True)]
    assert run_migrator(database, directory).returncode == 0


def test_deleting_a_history_row_makes_that_file_pending_again(database, migrations):
    directory = migrations(_1_a="create table if not exists a (id int);", _2_b="insert into a values (2);")
    run_migrator(database, directory)
    fetch(database, "delete from migrator.migration_history where version = '2'; select 1")

    again = run_migrator(database, directory)

    assert again.stdout == "1 applied, 2 in all, nothing pending\n"
    assert fetch(database, "select id from a") == [(2,), (2,)]


def test_who_waits_holds_no_connection_and_ends_completed(database, migrations):
    shut_gate(database)
    directory = migrations(_1_a=UNTIL_GATE_OPENS, _2_b="create table b ();")
    # Not watched for whom it keeps waiting, which takes a connection of its own.
    holder = start_migrator(database, directory, MIGRATION_MAX_BLOCKING_MS="0")
    wait_until(lambda: is_sleeping(database), what="the slow migration")
    waiter = start_migrator(database, directory)
    connected = "select count(*) from pg_stat_activity where application_name like 'migrator/%' and datname = current_database()"
    hear(waiter, "lease.busy")
    samples = [fetch(database, connected)[0][0] for _ in range(60)]
    open_gate(database)
    first, second = finish(holder), finish(waiter)

    assert (first[0], first[1]) == (0, "2 applied, 2 in all, nothing pending\n")
    assert (second[0], second[1]) == (0, "0 applied, 2 in all, nothing pending\n")
    # The holder's, and for moments only the waiter's.
    assert samples.count(1) > len(samples) / 2, samples


async def test_a_heartbeat_that_fails_when_the_work_is_done_changes_nothing():
    async def late():
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise LeaseLost("found out too late") from None

    async with leases.beside(late()):
        await asyncio.sleep(0)

    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
