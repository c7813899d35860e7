"""What gets on record at once of a file that runs statement by statement."""

import io

import pytest

from migrator import parts, script, stages
from migrator.errors import PlanError
from migrator.stages import Walk
from migrator.statements import Way

COPY = "copy t from stdin;\n1\n2\n\\.\n"


async def walk(text):
    """A file, and the way through it."""
    file = io.BytesIO(text.encode())
    file.name = "1_a.sql"
    return file, Walk(file, "1_a.sql", await parts.cut(file, "1_a.sql"))


async def stages_of(text, done=0):
    _, way = await walk(text)
    await way.verify()
    return list(way.stages(done))


def edit(file, old, new):
    content = file.getvalue().replace(old, new)
    file.seek(0)
    file.truncate()
    file.write(content)


ROWS = [f"insert into t values ({n})" for n in range(4)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param(f"{ROWS[0]};\n {ROWS[1]}; vacuum", [(1, 2, f"{ROWS[0]};\n {ROWS[1]}"), (3, 3, "vacuum")], id="rows"),
        pytest.param(
            f"select 1; select 2; vacuum; {ROWS[0]}",
            [(1, 1, "select 1"), (2, 2, "select 2"), (3, 3, "vacuum"), (4, 4, ROWS[0])],
            id="others, each for itself",
        ),
        pytest.param(
            f"{ROWS[0]}; select 1; {ROWS[1]}; {ROWS[2]}; vacuum",
            [(1, 1, ROWS[0]), (2, 2, "select 1"), (3, 4, f"{ROWS[1]}; {ROWS[2]}"), (5, 5, "vacuum")],
            id="rows with something else between",
        ),
        pytest.param(
            f"{ROWS[0]};\n{COPY}{ROWS[1]}; vacuum",
            [(1, 1, ROWS[0]), (2, 2, "copy t from stdin"), (3, 3, ROWS[1]), (4, 4, "vacuum")],
            id="data between",
        ),
        pytest.param(
            f"{ROWS[0]}; set lock_timeout = 1; {ROWS[1]}; vacuum",
            [(1, 2, f"{ROWS[0]};                     ; {ROWS[1]}"), (3, 3, "vacuum")],
            id="with a limit that isn't to be sent",
        ),
        pytest.param(
            "set standard_conforming_strings = off; insert into t values ('\\';'); insert into t values ('x'); vacuum",
            [
                (1, 1, "set standard_conforming_strings = off"),
                (2, 3, "insert into t values ('\\';'); insert into t values ('x')"),
                (4, 4, "vacuum"),
            ],
            id="quotes that mean something else",
        ),
    ],
)  # fmt: skip
async def test_rows_that_follow_each_other_go_together(text, found):
    assert [(one.number, one.last, one.text) for one in await stages_of(text)] == found


@pytest.mark.parametrize(
    ("statement", "joined"),
    [
        ("insert into t values (1)", True),
        ("INSERT INTO public.t (a, b)\n VALUES (1, 'select'), (2, '')", True),
        ('insert into "t" overriding system value values (1) on conflict do nothing', True),
        ("insert into t (a) overriding user value values (1)", True),
        ("insert into t select 1", False),
        ("insert into t (a) select 1 from (values (1)) as v", False),
        ("insert into t (select b from values_of)", False),
        ("insert into t select ' values '", False),
        ("insert into t default values", True),
        ("with x as (select 1) insert into t values (1)", False),
        ("update t set a = 1", False),
    ],
)
async def test_only_rows_that_are_written_out_go_together(statement, joined):
    assert len(await stages_of(f"{statement};{statement};vacuum;")) == (2 if joined else 3)


@pytest.mark.parametrize("done", range(5))
async def test_none_is_torn_by_what_is_done(done):
    """Another version of ours may have put them together otherwise, and a person may have changed the record."""
    found = await stages_of("; ".join([*ROWS, "vacuum"]), done)

    assert [one.last for one in found if one.last <= done][-1:] == ([done] if done else [])
    assert [one.number for one in found if one.last > done][:1] == [done + 1]


async def test_each_has_its_place():
    found = await stages_of(
        f"\ufeff/* ö */ select 1; /* ö */ select 2;\n{COPY} {ROWS[0]};\n   {ROWS[1]};\n/* ö */ vacuum"
    )

    assert [(one.begin.line, one.begin.column) for one in found] == [(1, 9), (1, 27), (2, 1), (6, 2), (8, 9)]
    assert [one.way for one in found[-2:]] == [Way.IN_TRANSACTION, Way.ALONE]


def test_a_file_that_is_held_whole_has_a_stage_for_each_statement():
    found = list(stages.of_script(script.understand(f"{ROWS[0]};\n ö(); {ROWS[1]};\n vacuum", "1_a.sql")))
    assert found == []  # the parser doesn't know it

    found = list(stages.of_script(script.understand(f"{ROWS[0]};\n /* ö */ {ROWS[1]};\n vacuum", "1_a.sql")))

    assert [(one.number, one.begin.line, one.begin.column, one.text) for one in found] == [
        (1, 1, 1, ROWS[0]),
        (2, 2, 10, ROWS[1]),
        (3, 3, 2, "vacuum"),
    ]


async def test_data_is_read_from_its_beginning_each_time():
    (copy, _) = await stages_of(f"{COPY}vacuum")
    assert copy.copy is not None

    assert [b"".join(copy.copy.chunks()) for _ in range(2)] == [b"1\n2\n"] * 2


async def test_data_that_is_done_is_not_read_again():
    assert [one.number for one in await stages_of(f"{ROWS[0]};{COPY}vacuum", 2)] == [1, 3]


EDITED = "cannot apply 1_a.sql: it was edited while we were sending it; restore it and start again"


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"vacuum", b"analyze"), (b"2\n", b"3\n"), (b" from", b"  from"), (b"-- end", b""), (b"-- end", b"-- the end")],
    ids=["a statement", "data", "a COPY", "cut short", "longer"],
)  # fmt: skip
async def test_a_file_that_was_edited_since_it_was_cut_is_noticed_before_it_begins(old, new):
    file, way = await walk(f"{COPY}vacuum t;\n-- end")
    edit(file, old, new)

    with pytest.raises(PlanError, match=EDITED):
        await way.verify()


@pytest.mark.parametrize(
    ("old", "new", "reached"),
    [(b"insert", b"delete", 0), (b" from", b"  from", 1), (b"1\n2", b"1\n3", 2), (b"\n2\n\\.\nvacuum", b"", 2), (b"vacuum", b"analyz", 2)],
    ids=["a statement", "a COPY", "data", "cut short", "what comes last"],
)  # fmt: skip
async def test_of_a_file_that_is_edited_later_nothing_is_given_that_was_not_there(old, new, reached):
    file, way = await walk(f"{ROWS[0]};\n{COPY}vacuum t;")
    await way.verify()
    edit(file, old, new)
    numbers = []

    with pytest.raises(PlanError, match=EDITED):  # noqa: PT012 - it is in one of them
        for stage in way.stages(0):
            numbers.append(stage.number)
            if stage.copy is not None:
                list(stage.copy.chunks())

    assert numbers == list(range(1, reached + 1))
