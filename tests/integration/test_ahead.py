"""Files that are sent before the server has answered for those before them: nobody can tell from the outcome."""

import asyncio
import signal
import threading
from pathlib import Path

import pytest
from msgspec.structs import replace

from migrator import failure, script
from migrator.ahead import Ready, may_go_ahead
from migrator.attempts import Whole
from migrator.errors import Conflict, Unavailable
from migrator.headers import NO_HEADERS
from migrator.lease import try_acquire
from migrator.messages import Messages
from migrator.migration import Migration
from migrator.store import Lease, Token
from migrator.transport import DatabaseError, Ended
from migrator.wants import Mode, Want
from tests.support.faults import faulty_proxy
from tests.support.postgres import UNTIL_GATE_OPENS, Blocker, fetch, open_gate, shut_gate
from tests.support.processes import log_lines, run_migrator, start_migrator
from tests.support.stores import held, migration_of, runner_on, store_on
from tests.support.waiting import wait_until

MANY = 20  # more than are on their way at once


def numbered(**others):
    """Files that each insert their number, but for `others`."""
    files = {f"_{n:02}_a": f"insert into done values ({n});" for n in range(2, MANY + 1)}
    return {"_01_a": "create table done (n int primary key);", **files, **others}


def done(url):
    return [n for (n,) in fetch(url, "select n from done order by n")]


def on_record(url):
    rows = fetch(url, "select version from migrator.migration_history where finished order by version")
    return [int(version) for (version,) in rows]


def told(err, event):
    return [line["filename"] for line in log_lines(err) if line["event"] == event]


def hear_of(migrator, filename):
    """What it says until it has heard of all files before this one; the server may be further."""
    lines = []
    for line in migrator.stderr:
        lines.append(line)
        if "migration.started" in line and filename in line:
            return "".join(lines)
    raise AssertionError("".join(lines))


def at_work(url, words):
    """What the server shows to be running, and to hold these words."""
    return fetch(
        url,
        "select pid, query from pg_stat_activity where state = 'active' and query like '%' || $1 || '%'"
        " and datname = current_database() and pid <> pg_backend_pid()",
        words,
    )


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        pytest.param(
            "insert into done values (10);\nselect 1 / 0;",
            1,
            "line 2, column 1: division by zero (22012)\n  select 1 / 0",
            id="in the middle",
        ),
        pytest.param(
            "insert into done values (10);\nselect from where;",
            1,
            'line 2, column 13: syntax error at or near "where" (42601)\n  select from where',
            id="before anything of it runs",
        ),
        pytest.param(
            "insert into done values (10);\ncreate table c (n int references done deferrable initially deferred);"
            "\ninsert into c values (99);",
            1,
            'insert or update on table "c" violates foreign key constraint',
            id="at its end",
        ),
        pytest.param("/* no end", 1, "has no end: add */ (42601)", id="for want of an end"),
        pytest.param("commit;", 65, "would end the transaction", id="before it is sent"),
    ],
)
def test_nothing_after_a_file_that_fails_is_applied(database, migrations, text, code, said):
    run = run_migrator(database, migrations(**numbered(_10_a=text)))

    assert run.returncode == code, run.stderr
    (failed,) = [line for line in log_lines(run.stderr) if line["event"] == "migration.failed"]
    assert "cannot apply 10_a.sql: " in failed["reason"]
    assert said in failed["reason"]
    if code == 1:
        assert failed["reason"].endswith("rolled back: nothing of this file was applied")
    assert done(database) == list(range(2, 10))
    assert on_record(database) == list(range(1, 10))
    assert told(run.stderr, "migration.applied") == [f"{n:02}_a.sql" for n in range(1, 10)]


def test_each_file_is_told_in_its_turn_and_applied_once(database, migrations):
    noisy = "do $$ begin raise notice 'hello'; end $$; set timezone = 'Asia/Tokyo'; select generate_series(1, 9999);"
    run = run_migrator(database, migrations(**numbered(_05_a=noisy, _12_a="vacuum done;")))

    assert run.returncode == 0, run.stderr
    assert run.stdout == f"{MANY} applied, {MANY} in all, nothing pending\n"
    lines = [(one["event"], one["filename"]) for one in log_lines(run.stderr) if "filename" in one]
    assert lines == [
        (event, f"{n:02}_a.sql")
        for n in range(1, MANY + 1)
        for event in ("migration.started", "migration.applied")
    ]
    assert on_record(database) == list(range(1, MANY + 1))
    assert done(database) == [n for n in range(2, MANY + 1) if n not in (5, 12)]


def test_the_server_goes_on_to_the_next_file_while_we_are_frozen_and_shows_which(database, migrations):
    directory = migrations(**numbered(_02_a="select pg_sleep(1);", _03_a="select pg_sleep(60);"))
    migrator = start_migrator(database, directory)
    try:
        wait_until(lambda: at_work(database, "02_a.sql"), what="the second file")
        migrator.send_signal(signal.SIGSTOP)
        wait_until(lambda: at_work(database, "03_a.sql"), what="the third file")
        (pid, _) = at_work(database, "03_a.sql")[0]
        fetch(database, "select pg_cancel_backend($1)", pid)
    finally:
        migrator.send_signal(signal.SIGCONT)
        _, err = migrator.communicate(timeout=30)

    assert migrator.returncode == 1, err
    assert told(err, "migration.applied") == ["01_a.sql", "02_a.sql"]
    assert on_record(database) == [1, 2]
    assert done(database) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_stop_rolls_back_the_file_at_work_and_applies_none_after_it(database, migrations, number):
    directory = migrations(**numbered(_03_a="insert into done values (3); select pg_sleep(60);"))
    migrator = start_migrator(database, directory)
    hear_of(migrator, "03_a.sql")
    wait_until(lambda: at_work(database, "pg_sleep"), what="the third file")
    migrator.send_signal(number)
    _, err = migrator.communicate(timeout=30)

    assert migrator.returncode != 0
    wait_until(lambda: not at_work(database, "migrator:"), what="the end of its session")
    assert done(database) == [2]
    assert on_record(database) == [1, 2]
    if number == signal.SIGTERM:
        (aborted,) = [line for line in log_lines(err) if line["event"] == "migration.aborted"]
        assert aborted["reason"] == "stopped while applying 03_a.sql: rolled back"
    assert run_migrator(database, migrations(**numbered())).returncode == 0
    assert done(database) == list(range(2, MANY + 1))


def test_a_stop_before_the_answer_is_heard_tells_what_the_server_has_done(database, migrations):
    slow = {"_02_a": "insert into done values (2); select pg_sleep(1);", "_03_a": "select pg_sleep(60);"}
    migrator = start_migrator(database, migrations(**numbered(**slow)))
    try:
        wait_until(lambda: at_work(database, "02_a.sql"), what="the second file")
        migrator.send_signal(signal.SIGSTOP)
        wait_until(lambda: at_work(database, "03_a.sql"), what="the third file")
        migrator.send_signal(signal.SIGTERM)
    finally:
        migrator.send_signal(signal.SIGCONT)
        _, err = migrator.communicate(timeout=30)

    assert migrator.returncode == 143
    (aborted,) = [line for line in log_lines(err) if line["event"] == "migration.aborted"]
    assert aborted["reason"] == "stopped after 02_a.sql, which is applied"
    assert on_record(database) == [1, 2]
    assert done(database) == [2]


def test_a_file_that_waits_for_a_row_is_tried_again_and_the_others_after_it(database, migrations):
    assert run_migrator(database, migrations(**numbered())).returncode == 0
    more = {f"_{n}_a": f"insert into done values ({n});" for n in range(31, 40)}
    blocker = Blocker(database, "begin; select from done where n = 2 for update")
    try:
        migrator = start_migrator(database, migrations(**more, _30_a="update done set n = n where n = 2;"))
        assert migrator.stderr is not None
        for line in migrator.stderr:
            if "migration.retrying" in line:
                break
    finally:
        blocker.close()
    _, err = migrator.communicate(timeout=60)

    assert migrator.returncode == 0, err
    assert told(err, "migration.applied") == [f"{n}_a.sql" for n in range(30, 40)]
    assert done(database) == [*range(2, MANY + 1), *range(31, 40)]


def test_a_file_that_locks_what_others_may_use_waits_for_its_turn(database, migrations):
    """It is looked at first who is in the way."""
    assert run_migrator(database, migrations(**numbered())).returncode == 0
    more = {
        "_30_a": "insert into done values (30); select pg_sleep(1);",
        "_31_a": "alter table done add note text;",
    }
    migrator = start_migrator(database, migrations(**more, _32_a="insert into done values (32);"))
    wait_until(lambda: at_work(database, "pg_sleep"), what="the first of them")
    with held(database, "select from done where n = 2 for update"):
        for line in migrator.stderr or ():
            assert "migration.retrying" not in line
            if "lock.awaited" in line:
                break
    _, err = migrator.communicate(timeout=60)

    assert migrator.returncode == 0, err
    assert done(database) == [*range(2, MANY + 1), 30, 32]


def test_what_is_on_its_way_is_refused_without_the_lock(database, migrations):
    # From within, as the lock's row waits for whoever changes it from outside.
    taken_over = "update migrator.migration_locks set token = default;"
    migrator = run_migrator(database, migrations(**numbered(_03_a=taken_over)))

    assert migrator.returncode == 75, migrator.stderr
    assert "the migration lock was taken over or removed" in migrator.stderr
    assert on_record(database) == [1, 2, 3]
    assert done(database) == [2]


def test_what_was_applied_behind_a_lost_answer_is_told_when_it_is_known(database, migrations):
    shut_gate(database)
    directory = migrations(**numbered(_03_a=f"insert into done values (3); {UNTIL_GATE_OPENS}"))
    with faulty_proxy(database) as proxy:
        migrator = start_migrator(proxy.url, directory)
        # What is on its way then has been sent, be it through the proxy already or not.
        err = hear_of(migrator, "03_a.sql")
        proxy.hold_answers()
        open_gate(database)
        wait_until(lambda: 10 in on_record(database), what="those that were on their way")
        proxy.cut()
        proxy.heal()
        err += migrator.stderr.read()
        migrator.communicate(timeout=30)

    assert migrator.returncode == 0, err
    settled = [line for line in log_lines(err) if line["event"] == "migration.settled"]
    assert {line["outcome"] for line in settled} == {"applied"}
    assert [line["filename"] for line in settled][:8] == [f"{n:02}_a.sql" for n in range(3, 11)]
    each = [f"{n:02}_a.sql" for n in range(1, MANY + 1)]
    assert sorted(told(err, "migration.applied") + told(err, "migration.settled")) == each
    assert done(database) == list(range(2, MANY + 1))


async def test_a_message_is_refused_unless_the_file_before_it_was_committed(database, tmp_path):
    async with store_on(database) as store:
        await store.install()
        lease = await try_acquire(store, "me", 30)
        assert lease is not None
        migration = migration_of(tmp_path, "2_b.sql", "create table b ();")
        understood = script.understand("create table b ();", "2_b.sql")
        messages = Messages(
            store.schema,
            migration,
            lease,
            headers=NO_HEADERS,
            meaning=None,
            lock_key=store.lock_key,
            pooled=False,
            local_settings={},
        )
        message, _ = messages.whole(understood.text, ends_nothing=True, durable=True, after="1")
        with pytest.raises(DatabaseError) as refused:
            await store.transport.execute(message)

    said = failure.failure(migration, refused.value, None, "")
    assert isinstance(said, Conflict)
    assert str(said) == (
        "cannot apply 2_b.sql: the file before it isn't what this session committed last; trying again"
    )


async def test_answers_come_in_the_order_of_what_was_sent(database):
    async with store_on(database) as store:
        sent = [f"begin; select {n}; commit" for n in range(3)]
        for message in sent:
            store.transport.send_ahead(message)
        for message in sent:
            await store.transport.execute(message)

        assert (await store.transport.fetch("select 1 as one"))[0]["one"] == 1


async def test_an_error_of_one_leaves_nothing_of_what_comes_after_it(database):
    async with store_on(database) as store:
        await store.transport.execute("create table t (n int primary key)")
        sent = ["begin; insert into t values (1); select 1 / 0; commit"]
        sent += [f"begin; insert into t values ({n}); commit" for n in (1, 2)]
        for message in sent:
            store.transport.send_ahead(message)
        with pytest.raises(DatabaseError, match="division by zero") as refused:
            await store.transport.execute(sent[0])

        assert (refused.value.ended, refused.value.completed) == (Ended.ROLLED_BACK, 2)
        assert await store.transport.fetch("select n from t") == []
        await store.transport.execute("insert into t values (5)")


@pytest.mark.parametrize("at", [0, 1])
async def test_a_cancellation_tells_what_became_of_the_one_that_was_awaited(database, at):
    """Not of the one after it, which is rolled back in any case."""
    async with store_on(database) as store:
        await store.transport.execute("create table t (n int)")
        slow = " select pg_sleep(60);"
        sent = [f"begin; insert into t values ({n});{slow if n == at else ''} commit" for n in range(3)]
        for message in sent:
            store.transport.send_ahead(message)
        waiting = asyncio.create_task(store.transport.execute(sent[0]))
        await asyncio.sleep(0)
        # In a thread that this one waits for: nobody hears the answer before the cancellation.
        looking = threading.Thread(target=wait_until, args=(lambda: at_work(database, f"({at});{slow}"),))
        looking.start()
        looking.join()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

        assert store.transport.ended is (Ended.COMMITTED if at else Ended.ROLLED_BACK)
        assert [row["n"] for row in await store.transport.fetch("select n from t")] == [0] * at


async def test_the_loss_of_the_connection_is_told_to_whoever_waits(database):
    async with store_on(database) as store:
        sent = ["begin; select pg_sleep(60); commit", "begin; select 1; commit"]
        for message in sent:
            store.transport.send_ahead(message)
        waiting = asyncio.create_task(store.transport.execute(sent[0]))
        await asyncio.to_thread(wait_until, lambda: at_work(database, "pg_sleep"), what="the statement")
        await asyncio.to_thread(
            fetch, database, f"select pg_terminate_backend({store.transport.session_pid})"
        )
        with pytest.raises(Unavailable, match="terminating connection due to administrator command"):
            await waiting
        with pytest.raises(Unavailable):
            await store.transport.execute("select 1")


async def test_a_pooler_gets_each_file_in_its_turn(database, tmp_path):
    async with store_on(database, pooled=True) as store:
        await store.install()
        lease = await store.acquire("me", 30, session=False)
        assert lease is not None
        files = [migration_of(tmp_path, f"{n}_a.sql", "select 1;") for n in range(3)]
        runner = runner_on(store, database)
        await runner.apply(files[0], lease, None, following=files[1:])

        assert not store.transport._ahead


@pytest.mark.parametrize(
    ("text", "may"),
    [
        pytest.param("create table a ();", True, id="plain SQL"),
        pytest.param("do $$ begin end $$;", True, id="what only looks like more"),
        pytest.param("-- migrator: timeout=1min\nselect 1;", False, id="what asks for something"),
        pytest.param("vacuum;", False, id="what can't be in a transaction"),
        pytest.param("begin; select 1; commit;", False, id="what controls its transaction"),
        pytest.param("copy a to stdout;", False, id="what answers with data"),
    ],
)
def test_only_plain_files_go_ahead(text, may):
    understood = script.understand(text, "1_a.sql")
    migration = Migration(version="1", name="a", path=Path("1_a.sql"), checksum="c")
    messages = Messages(
        "migrator",
        migration,
        Lease(token=Token(1), holder="me"),
        headers=understood.headers,
        meaning=None,
        lock_key=1,
        pooled=False,
        local_settings={},
    )
    whole = None if understood.steps else Whole(None, messages, understood, last=True, on_error=list)
    ready = Ready(migration=migration, understood=understood, messages=messages, whole=whole)
    wanted = replace(ready, wants=(Want(name="a", mode=Mode.ACCESS_EXCLUSIVE),))

    assert may_go_ahead(ready) is may
    assert not may_go_ahead(wanted)
