"""Files that are more than one message: of which parts they consist, and how they run."""

import asyncio
import io

import pytest

from migrator import parts
from migrator.errors import PlanError
from migrator.parts import Copy
from migrator.statements import Way
from tests.support.stores import migration_of

COPY = "copy t from stdin;\n1\n\\.\n"
INDEX = "create index concurrently i on t (a);"
MANY = "insert into t values (1);\n" * 20_000


async def cut(text):
    return await parts.cut(io.BytesIO(text.encode()), "1_a.sql")


def shown(part):
    """A part in short: the table of a COPY, or how many statements, with a mark if they run in no transaction."""
    if isinstance(part, Copy):
        return part.table
    return {Way.IN_TRANSACTION: "", Way.ALONE: "alone ", Way.CONCURRENT: "concurrent "}[part.way] + str(
        part.count
    )


@pytest.mark.parametrize(
    ("text", "found", "total"),
    [
        pytest.param("select 1; select 2;", ["2"], 0, id="one transaction"),
        pytest.param(f"select 1; {COPY}select 2; select 3", ["1", "t", "2"], 0, id="with data"),
        pytest.param(
            f"select 1; {INDEX} select 2;", ["1", "concurrent 1", "1"], 3, id="what can't be in one, apart"
        ),
        pytest.param(f"{COPY}{INDEX}vacuum t", ["t", "concurrent 1", "alone 1"], 3, id="several of them"),
        pytest.param(
            f"set lock_timeout = 1; {INDEX} set lock_timeout = 1;", ["concurrent 1"], 1, id="limits don't count"
        ),
        pytest.param(f"-- migrator: transaction\nselect 1;{INDEX}{COPY}", ["2", "t"], 0, id="a header against it"),
        pytest.param(
            f"-- migrator: no-transaction\n{COPY}select 1; call f(); insert into t values (1);",
            ["t", "1", "alone 1", "1"],
            4,
            id="a header for it",
        ),
        pytest.param("-- migrator: no-transaction\n/* nothing */;", [], 0, id="nothing at all"),
        pytest.param(
            "set standard_conforming_strings = off; select '\\';'; vacuum; select '\\'';",
            ["1", "1", "alone 1", "1"],
            4,
            id="quotes that change their meaning",
        ),
        pytest.param(MANY + INDEX, ["10083", "9917", "concurrent 1"], 20_001, id="a large one"),
    ],
)  # fmt: skip
async def test_a_file_is_cut_into_what_can_be_sent_at_once(text, found, total):
    understood = await cut(text)

    assert [shown(part) for part in understood.parts] == found
    assert understood.total == total


async def test_what_cannot_run_in_a_transaction_is_named():
    assert (await cut(f"{COPY}{INDEX}\nvacuum\n t;")).alone == (INDEX[:-1], "vacuum")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"begin; {COPY}commit; {INDEX}", "line 1, column 1: 'begin' in a file with statements that can't run in"),
        (f"{COPY}{INDEX}\n rollback;", "line 5, column 2: 'rollback' in a file with statements that can't run in"),
        (f"-- migrator: no-transaction\n{COPY}start transaction;", "line 5, column 1: 'start transaction' in a file"),
        (f"{COPY}discard all;", "line 4, column 1: 'discard all' would give up the migration lock"),
        (f"{COPY}vacuum; \\i x\n", "line 4, column 9: \\i is a command of psql"),
    ],
)  # fmt: skip
async def test_what_means_something_else_outside_of_a_transaction_is_refused_by_its_place(text, told):
    with pytest.raises(PlanError) as caught:
        await cut(text)

    assert f"cannot apply 1_a.sql: {told}" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "total"),
    [
        ("select 1;", 0),
        (f"select 1; {INDEX}", 2),
        (f"{COPY}{INDEX}", 2),
        (COPY, 0),
        (MANY * 3, 0),
        (MANY * 3 + INDEX, 60_001),
    ],
    ids=["whole", "held whole", "with data", "data alone", "large", "large, with an index"],
)
def test_how_many_statements_are_sent_one_by_one_is_known_of_every_file(tmp_path, text, total):
    assert parts.total(migration_of(tmp_path, "1_a.sql", text)) == total


async def test_others_get_their_turns_while_the_data_of_a_copy_is_read():
    turns = 0

    async def count():
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.create_task(count(), name="another")
    await cut(COPY.replace("1\n", "1\n" * 2 * 1024 * 1024))
    counting.cancel()

    assert turns > 10
