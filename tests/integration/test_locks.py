"""The wait for locks: in nobody's way, with everybody named, and never for long once they are asked for."""

import json
import re
import subprocess
import threading
from contextlib import contextmanager, suppress

import asyncpg
import pytest

from bench import blockers, load
from tests.support.pooler import running_pooler
from tests.support.postgres import Blocker, fetch, new_database, private_server
from tests.support.processes import log_lines, run_migrator, start_migrator
from tests.support.stores import held
from tests.support.waiting import wait_until

ALTER = "alter table busy add column extra int;"
WAITERS = "select count(*) from pg_locks where not granted"


@pytest.fixture(scope="module")
def server():
    """One with prepared transactions and autovacuum."""
    with private_server(
        max_prepared_transactions="2", autovacuum="on", autovacuum_naptime="1s", deadlock_timeout="1s"
    ) as running:
        yield running


@pytest.fixture
def shop(server):
    """A database with the tables `busy` and `other`, in which something was applied before."""
    with new_database(server) as url:
        run(url, load.tables(2000))
        yield url


@contextmanager
def waiting_behind(blocker, url, directory, **extra):
    """What a migrator said that waits for a lock, while the blocker is there and the body runs; it ends well."""
    running = None
    try:
        with blocker:
            running = start_migrator(url, directory, **extra)
            assert running.stderr is not None
            yield json.loads(next(line for line in running.stderr if "lock.awaited" in line))
        _, err = running.communicate(timeout=30)
        assert running.returncode == 0, err
    finally:
        if running is not None:
            running.kill()
            running.communicate()


def run(url, text):
    """Run statements."""
    with blockers.Session(url) as session:
        session.execute(text)


def columns(url):
    return [
        name for (name,) in fetch(url, "select attname from pg_attribute where attrelid = 'busy'::regclass")
    ]


def read_and_write(url):
    """What the app does; at once, or not at all."""
    run(
        url,
        "set statement_timeout = '2s'; select count(*) from busy; update busy set note = 'x' where id = 1",
    )


@pytest.mark.parametrize(
    ("blocker", "named"),
    [
        (
            blockers.long_reader,
            r"pid \d+ \(someone, idle in transaction for .*holds access share on public\.busy",
        ),
        (blockers.long_writer, r"pid \d+ \(someone, .*update busy.*holds row exclusive on public\.busy"),
        (blockers.prepared_transaction, r"prepared transaction 'a_prepared_one' for .*holds row exclusive"),
        (blockers.dump, r"pid \d+ \(pg_dump, idle in transaction for .*holds access share on public\.busy"),
    ],
)
def test_whoever_holds_a_lock_for_long_is_named_and_not_queued_for(shop, migrations, blocker, named):
    with waiting_behind(blocker(shop), shop, migrations(_1_a=ALTER)) as said:
        assert re.search(named, said["reason"])
        assert said["table"] == "public.busy"
        for _ in range(20):
            assert fetch(shop, WAITERS) == [(0,)]
            read_and_write(shop)
        assert "extra" not in columns(shop)

    assert "extra" in columns(shop)


def test_no_table_is_held_while_another_is_waited_for(shop, migrations):
    directory = migrations(_1_a=f"alter table other add column extra int; {ALTER}")
    with waiting_behind(blockers.long_reader(shop), shop, directory):
        for _ in range(20):
            assert fetch(
                shop,
                "select count(*) from pg_locks join pg_stat_activity using (pid)"
                " where application_name like 'migrator/%' and locktype = 'relation' and mode = 'AccessExclusiveLock'",
            ) == [(0,)]

    assert "extra" in columns(shop)


@pytest.mark.parametrize(
    ("before", "text", "named"),
    [
        ("create table child (id int, b int references busy)", "drop table child;", "public.busy"),
        (
            "create table child (id int, b int constraint k references busy)",
            "alter table child drop constraint k;",
            "public.busy",
        ),
        (
            "create table child (id int, b int references busy)",
            "alter table child drop column b;",
            "public.busy",
        ),
        ("create index i on busy (note)", "drop index i;", "public.busy"),
        ("create table child () inherits (busy)", "alter table busy add column extra int;", "public.busy"),
        ("select", "create table child (id int, b int references busy);", None),
        (
            "select",
            "create trigger t after insert on busy execute function suppress_redundant_updates_trigger();",
            None,
        ),
    ],
    ids=[
        "drop table",
        "drop constraint",
        "drop column",
        "drop index",
        "inherited",
        "new reference",
        "trigger",
    ],
)
def test_what_only_the_catalogs_know_is_waited_for_too(shop, migrations, before, text, named):
    fetch(shop, before)
    blocker = blockers.long_reader if named else blockers.long_writer
    with waiting_behind(blocker(shop), shop, migrations(_1_a=text)) as said:
        assert said["table"] in ("public.busy", named, "public.i", "public.child")
        assert fetch(shop, WAITERS) == [(0,)]


@pytest.mark.parametrize(
    "text",
    [
        "do $$ begin execute 'alter table busy add column extra int'; end $$;",
        "do $$ begin perform in_disguise(); end $$;",
        "select in_disguise();",
        "copy other (id) from stdin;\n-7\n\\.\nselect in_disguise();",
    ],
    ids=["built", "called in a block", "called", "called after COPY"],
)
def test_a_statement_in_disguise_is_found_out_by_watching_it(shop, migrations, text):
    run(
        shop,
        "create function in_disguise() returns void language sql as 'alter table busy add column extra int'",
    )
    with waiting_behind(blockers.long_reader(shop), shop, migrations(_1_a=text)) as said:
        assert said["table"] == "public.busy"
        assert fetch(shop, WAITERS) == [(0,)]

    assert "extra" in columns(shop)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("select tell_limit();", "30ms"),
        ("copy other (id) from stdin;\n-7\n\\.\nselect tell_limit();", "30ms"),
        ("insert into limits select current_setting('lock_timeout');", "1s"),
    ],
    ids=["called", "called after COPY", "only rows"],
)
def test_code_that_we_do_not_see_waits_no_longer_than_the_budget(shop, migrations, text, expected):
    run(
        shop,
        "create table limits (setting text); create function tell_limit() returns void language sql as"
        " $$ insert into limits select current_setting('lock_timeout') $$",
    )
    done = run_migrator(shop, migrations(_1_a=text))

    assert done.returncode == 0, done.stderr
    assert fetch(shop, "select setting from limits") == [(expected,)]


def test_readers_that_always_overlap_are_got_past(shop, migrations):
    directory = migrations(_1_a=f"alter table other add column extra int; {ALTER}")
    with blockers.short_readers(shop):
        done = run_migrator(shop, directory)

    assert done.returncode == 0
    assert "extra" in columns(shop)


def test_an_autovacuum_is_cancelled_at_once_where_we_may(shop, migrations):
    with blockers.autovacuum(shop):
        done = run_migrator(shop, migrations(_1_a=ALTER))

    assert done.returncode == 0
    assert "lock.awaited" not in done.stderr
    assert "migration.retrying" not in done.stderr


def test_an_autovacuum_is_waited_for_once_for_longer_where_we_may_not(shop, migrations):
    with modest_owner(shop) as modest, blockers.autovacuum(shop):
        done = run_migrator(modest, migrations(_1_a=ALTER))

    assert (done.returncode, done.stderr.count("lock.awaited")) == (0, 0)


@contextmanager
def modest_owner(url):
    """The URL of somebody who owns the tables, and is shown nothing of other people's sessions."""
    fetch(url, "create role modest login")
    name = fetch(url, "select current_database()")[0][0]
    run(
        url,
        f"grant create on database {name} to modest; grant create on schema public to modest;"
        " alter table busy owner to modest; alter table other owner to modest",
    )
    try:
        yield url.replace("postgres@", "modest@", 1)
    finally:
        fetch(url, "drop owned by modest cascade")
        fetch(url, "drop role modest")


def test_nobody_is_taken_for_an_autovacuum_because_we_are_shown_nothing_of_them(shop, migrations):
    """An autovacuum would be queued for, for more than a second."""
    by_hand = "begin; lock table busy in share update exclusive mode"
    with (
        modest_owner(shop) as modest,
        blockers.idle_in_transaction(shop, by_hand),
        load.Load(shop) as app,
    ):
        running = start_migrator(modest, migrations(_1_a=ALTER))
        assert running.stderr is not None
        said = json.loads(next(line for line in running.stderr if "lock.awaited" in line))
        running.terminate()
        running.communicate(timeout=20)
        requests = app.stop()

    assert "share update exclusive on public.busy" in said["reason"]
    assert "privilege" not in said["reason"]
    assert (requests.worst_ms < 900, requests.errors) == (True, [])


def test_an_autovacuum_is_waited_for_and_not_the_table_that_is_busy_besides(shop, migrations):
    directory = migrations(_1_a=f"alter table other add column extra int; {ALTER}")
    read = "select pg_sleep(0.05) from other where id = 1"
    with modest_owner(shop) as modest, blockers.autovacuum(shop), reading(shop, read):
        done = run_migrator(modest, directory)

    awaited = {line["table"] for line in log_lines(done.stderr) if line["event"] == "lock.awaited"}
    # A reader who doesn't get the processor holds its lock for long, and then is waited for.
    assert (done.returncode, awaited - {"public.other"}) == (0, set())


@contextmanager
def reading(url, query):
    """Three who run a query again and again, so that there is always one at it."""
    ended = threading.Event()

    def read_on():
        with blockers.Session(url) as session:
            while not ended.is_set():
                session.execute(query)

    threads = [threading.Thread(target=read_on) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def test_an_idle_session_in_the_way_is_ended_if_that_is_asked_for(shop, migrations):
    blocker = Blocker(shop, "begin; select count(*) from busy")
    working = Blocker(shop, "begin; select count(*) from other")
    try:
        done = run_migrator(shop, migrations(_1_a=ALTER), MIGRATION_TERMINATE_IDLE_BLOCKERS="1")
    finally:
        blocker.close()
        working.close()

    assert done.returncode == 0
    (ended,) = [line for line in log_lines(done.stderr) if line["event"] == "blocker.ended"]
    assert "idle in transaction" in ended["reason"]
    assert "holds access share on public.busy" in ended["reason"]


def test_it_is_said_where_we_may_not_see_who_is_idle(shop, migrations):
    asked = {"MIGRATION_TERMINATE_IDLE_BLOCKERS": "1"}
    with modest_owner(shop) as modest, blockers.long_reader(shop):
        running = start_migrator(modest, migrations(_1_a=ALTER), **asked)
        assert running.stderr is not None
        said = json.loads(next(line for line in running.stderr if "blocker.unended" in line))
        running.terminate()
        running.communicate(timeout=20)

    assert "grant pg_read_all_stats to our role" in said["reason"]


def test_an_idle_session_is_left_alone_otherwise(shop, migrations):
    with waiting_behind(blockers.long_reader(shop), shop, migrations(_1_a=ALTER)):
        assert fetch(shop, "select count(*) from pg_stat_activity where state = 'idle in transaction'") == [
            (1,)
        ]


@pytest.mark.parametrize("header", ["", "-- migrator: lock-timeout=50ms\n"], ids=["plain", "with a limit"])
def test_concurrently_waits_for_as_long_as_it_takes_and_leaves_nothing_invalid(shop, migrations, header):
    fetch(
        shop,
        "alter database " + fetch(shop, "select current_database()")[0][0] + " set lock_timeout = '100ms'",
    )
    directory = migrations(_1_a=f"{header}create index concurrently i on busy (note);")
    with held(shop, "update busy set note = 'y' where id = 2") as let_go:
        running = start_migrator(shop, directory)
        there = (
            "select count(*) from pg_stat_progress_create_index join pg_stat_activity using (pid)"
            " where phase like 'waiting%' and clock_timestamp() - query_start > '200ms'"
        )
        wait_until(lambda: fetch(shop, there) == [(1,)], what="the wait of CREATE INDEX CONCURRENTLY")
        read_and_write(shop)
        let_go()
        _, err = running.communicate(timeout=30)

    assert running.returncode == 0, err
    assert fetch(shop, "select indisvalid from pg_index where indexrelid = 'i'::regclass") == [(True,)]
    assert "migration.retrying" not in err


@pytest.mark.parametrize(
    "text",
    [
        "create unique index concurrently i on busy (note);",
        "create unique index concurrently on busy (note);",
        "reindex index concurrently whole;",
    ],
    ids=["named", "unnamed", "made anew"],
)
def test_an_index_that_cannot_be_made_leaves_nothing_invalid(shop, migrations, text):
    run(shop, "create unique index whole on busy (note); insert into busy (id, note) values (-1, 'twice')")
    # Twice, behind the unique index's back: what a damaged index, or one with a changed collation, is like.
    run(shop, "update pg_index set indisready = false where indexrelid = 'whole'::regclass")
    run(shop, "insert into busy (id, note) values (-2, 'twice')")
    run(shop, "update pg_index set indisready = true where indexrelid = 'whole'::regclass")
    done = run_migrator(shop, migrations(_1_a=text))

    assert done.returncode == 1
    assert "could not create unique index" in done.stderr
    assert "index.dropped" in done.stderr
    assert fetch(shop, "select count(*) from pg_index where not indisvalid") == [(0,)]


def test_a_step_that_locks_is_waited_for_like_a_file(shop, migrations):
    directory = migrations(_1_a=f"create index concurrently i on other (note); {ALTER} vacuum full busy;")
    with waiting_behind(blockers.long_reader(shop), shop, directory) as said:
        assert said["table"] == "public.busy"
        assert fetch(shop, WAITERS) == [(0,)]

    assert "extra" in columns(shop)


@pytest.mark.parametrize("copied", ["", "copy other (id) from stdin;\n-7\n\\.\n"], ids=["whole", "in parts"])
def test_whoever_is_kept_waiting_for_too_long_has_the_file_cancelled(shop, migrations, copied):
    directory = migrations(_1_a=f"{copied}{ALTER} select pg_sleep(60);")
    running = start_migrator(shop, directory, MIGRATION_MAX_BLOCKING_MS="300")
    asleep = "select count(*) from pg_locks where relation = 'busy'::regclass and mode = 'AccessExclusiveLock' and granted"
    wait_until(lambda: fetch(shop, asleep) == [(1,)], what="the file's lock")
    fetch(shop, "select count(*) from busy")
    _, err = running.communicate(timeout=30)

    assert running.returncode == 1
    reason = log_lines(err)[-1]["reason"]
    assert "cannot apply 1_a.sql: cancelled, as it had kept a session waiting for 300 ms" in reason
    assert "-- migrator: allow-blocking" in reason
    assert reason.endswith("rolled back: nothing of this file was applied")
    assert "extra" not in columns(shop)
    assert fetch(shop, "select count(*) from migrator.migration_history") == [(0,)]


@pytest.mark.parametrize(
    ("header", "extra"),
    [
        ("-- migrator: allow-blocking\n", {}),
        ("", {"MIGRATION_MAX_BLOCKING_MS": "0"}),
        ("", {"MIGRATION_MODE": "gate"}),
    ],
    ids=["the file", "the setting", "the app doesn't run"],
)
def test_a_file_may_keep_others_waiting_if_that_is_asked_for(shop, migrations, header, extra):
    settings = {"MIGRATION_MAX_BLOCKING_MS": "300"} if header else {}
    directory = migrations(_1_a=f"{header}{ALTER} select pg_sleep(3);")
    running = start_migrator(shop, directory, **settings, **extra)
    asleep = "select count(*) from pg_locks where relation = 'busy'::regclass and mode = 'AccessExclusiveLock' and granted"
    wait_until(lambda: fetch(shop, asleep) == [(1,)], what="the file's lock")
    fetch(shop, "select count(*) from busy")
    _, err = running.communicate(timeout=30)

    assert running.returncode == 0, err


def test_those_who_give_up_waiting_count_as_well(shop, migrations):
    """An app with a limit of its own fails again and again, and there are moments without anybody."""
    running = start_migrator(
        shop, migrations(_1_a=f"{ALTER} select pg_sleep(60);"), MIGRATION_MAX_BLOCKING_MS="500"
    )
    asleep = "select count(*) from pg_locks where relation = 'busy'::regclass and mode = 'AccessExclusiveLock' and granted"
    wait_until(lambda: fetch(shop, asleep) == [(1,)], what="the file's lock")
    with blockers.Session(shop) as app:
        app.execute("set lock_timeout = '400ms'")

        def is_cancelled():
            with suppress(asyncpg.LockNotAvailableError):
                app.execute("select count(*) from busy")
            with suppress(subprocess.TimeoutExpired):
                running.wait(0.3)
            return running.returncode is not None

        wait_until(is_cancelled, what="the end of the file")
    _, err = running.communicate()

    assert "MIGRATION_MAX_BLOCKING_MS" in log_lines(err)[-1]["reason"]


def test_a_cancelled_step_is_not_taken_for_the_whole_file(shop, migrations):
    text = f"create index concurrently i on other (note); do $$ begin {ALTER} perform pg_sleep(60); end $$;"
    running = start_migrator(shop, migrations(_1_a=text), MIGRATION_MAX_BLOCKING_MS="300")
    asleep = "select count(*) from pg_locks where relation = 'busy'::regclass and mode = 'AccessExclusiveLock' and granted"
    wait_until(lambda: fetch(shop, asleep) == [(1,)], what="the step's lock")
    fetch(shop, "select count(*) from busy")
    _, err = running.communicate(timeout=30)

    assert log_lines(err)[-1]["reason"].endswith(
        "of 2 statements, statement 1 is done and on record; the next run goes on with statement 2"
    )


def test_a_long_file_that_nobody_waits_for_is_left_alone(shop, migrations):
    directory = migrations(_1_a=f"{ALTER} select pg_sleep(1.5);")

    assert run_migrator(shop, directory, MIGRATION_MAX_BLOCKING_MS="100").returncode == 0


def test_a_right_that_only_locking_needs_is_done_without(shop, migrations):
    """Adding a foreign key needs REFERENCES on the parent, and LOCK TABLE more than that."""
    name = fetch(shop, "select current_database()")[0][0]
    fetch(shop, "create role guest login")
    run(
        shop,
        f"grant create on database {name} to guest; grant create on schema public to guest; grant references, select on busy to guest",
    )
    try:
        done = run_migrator(
            shop.replace("postgres@", "guest@", 1),
            migrations(_1_a="create table child (b int references busy);"),
        )
    finally:
        fetch(shop, "drop owned by guest cascade")
        fetch(shop, "drop role guest")

    assert done.returncode == 0, done.stderr


def test_through_a_pooler_it_is_the_same(server, shop, migrations):
    with running_pooler(server) as pooler:
        pooled = f"{pooler}/{fetch(shop, 'select current_database()')[0][0]}"
        with waiting_behind(blockers.long_reader(shop), pooled, migrations(_1_a=ALTER)) as said:
            assert said["table"] == "public.busy"
            assert fetch(shop, WAITERS) == [(0,)]

    assert "extra" in columns(shop)


def test_while_it_waits_it_can_be_stopped(shop, migrations):
    with blockers.long_reader(shop):
        running = start_migrator(shop, migrations(_1_a=ALTER))
        assert running.stderr is not None
        assert any("lock.awaited" in line for line in running.stderr)
        running.terminate()
        running.communicate(timeout=20)

    assert running.returncode == 128 + 15
    assert fetch(shop, "select holder from migrator.migration_locks") == [(None,)]


def test_a_locks_name_is_quoted(shop, migrations):
    fetch(shop, 'create table "odd ""name" (id int)')
    done = run_migrator(shop, migrations(_1_a='alter table "odd ""name" add column extra int;'))

    assert done.returncode == 0, done.stderr
