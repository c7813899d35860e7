"""The history changed by hand: fenced, whole or not at all, and only if it still says what the person was shown."""

from contextlib import asynccontextmanager

import pytest

from migrator import ledger
from migrator.errors import Conflict, LeaseLost
from migrator.plan import HistoryRow
from tests.support.stores import migration_of, quiet_log, session, store_on

TTL_S = 30.0


@asynccontextmanager
async def opened(url):
    """The history as a command has it."""
    async with ledger.opened(
        lambda: store_on(url), holder="desk/1/abcdef", ttl_s=TTL_S, log=quiet_log()
    ) as book:
        yield book


def no_meaning(_migration):
    return None


@pytest.fixture
def first(tmp_path):
    return migration_of(tmp_path, "1_a.sql", "select 1;")


@pytest.fixture
def second(tmp_path):
    return migration_of(tmp_path, "2_b.sql", "select 2;")


async def rows(url):
    async with session(url) as connection:
        return await connection.fetch(
            "select filename, checksum from migrator.migration_history order by version"
        )


async def test_who_has_lost_the_lock_changes_nothing(database, first):
    async with session(database) as other, opened(database) as book:
        await other.execute("delete from migrator.migration_locks")
        with pytest.raises(LeaseLost, match="taken over or removed; try again"):
            await book.write([ledger.record_file(first, no_meaning)], by="test")

    assert await rows(database) == []


async def test_what_was_recorded_meanwhile_is_not_recorded_again(database, first, second):
    async with session(database) as other, opened(database) as book:
        await other.execute(
            "insert into migrator.migration_history (filename, version, name, checksum) values ('x', '2', 'x', 'x')"
        )
        with pytest.raises(Conflict, match="somebody else has just changed it; nothing was changed here"):
            await book.write([ledger.record_file(one, no_meaning) for one in (first, second)], by="test")

    assert await rows(database) == [("x", "x")]


CHANGES = [
    pytest.param(lambda migration, row: ledger.amend(migration, row, no_meaning, finished=True), id="amend"),
    pytest.param(lambda migration, row: ledger.forget(row), id="forget"),
]
MEANWHILE = ["checksum = 'edited'", "finished = false", "statements_done = 3"]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("meanwhile", MEANWHILE)
async def test_a_row_that_says_something_else_by_now_is_left_alone(
    database, first, second, change, meanwhile
):
    async with opened(database) as book:
        await book.write([ledger.record_file(first, no_meaning)], by="test")
    async with session(database) as other, opened(database) as book:
        await other.execute(f"update migrator.migration_history set {meanwhile}")
        before = await rows(database)
        with pytest.raises(Conflict, match="nothing was changed here"):
            await book.write(
                [ledger.record_file(second, no_meaning), change(first, book.rows["1"])], by="test"
            )

    assert await rows(database) == before


@pytest.mark.parametrize("change", CHANGES)
async def test_a_row_that_still_says_the_same_is_changed(database, tmp_path, first, change):
    async with opened(database) as book:
        await book.write([ledger.record_file(first, no_meaning)], by="test")
    edited = migration_of(tmp_path, "1_new_name.sql", "select 1, 1;")
    async with opened(database) as book:
        await book.write([change(edited, book.rows["1"])], by="test")

    assert await rows(database) in ([("1_new_name.sql", edited.checksum)], [])


async def test_names_and_times_of_other_tools_are_no_sql(database):
    evil = "x'); drop schema migrator cascade; -- $fence$ \\"
    async with opened(database) as book:
        await book.write([ledger.record("1", filename=evil, name=evil, checksum=evil)], by=evil)
        row = HistoryRow(version="1", filename=evil, checksum=evil, executed_at=book.rows.get("1"))
        await book.write([ledger.forget(row)], by=evil)

    assert await rows(database) == []
