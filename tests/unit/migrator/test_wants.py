"""Which locks a file will ask for."""

import pytest

from migrator import statements, wants
from migrator.wants import Mode, Want

M = Mode


def asked(text):
    """Name, mode, kind and part of each lock."""
    found = statements.split(text)
    assert found is not None
    trees = [statements.tree(one) for one in found if wants.may_lock(one.text)]
    return [(one.name, one.mode, one.kind, one.part) for one in wants.of(trees, set())]


def relation(name, mode):
    return (name, mode, "relation", "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("alter table a add column x int", [relation('"a"', M.ACCESS_EXCLUSIVE)]),
        ('alter table "S".a add x int', [relation('"S"."a"', M.ACCESS_EXCLUSIVE)]),
        (
            "alter table a add x int references p",
            [relation('"p"', M.SHARE_ROW_EXCLUSIVE), relation('"a"', M.ACCESS_EXCLUSIVE)],
        ),
        (
            "alter table a add foreign key (x) references p not valid",
            [relation('"p"', M.SHARE_ROW_EXCLUSIVE), relation('"a"', M.SHARE_ROW_EXCLUSIVE)],
        ),
        ("alter table a validate constraint c", [relation('"a"', M.SHARE_UPDATE_EXCLUSIVE)]),
        ("alter table a alter x set statistics 9", [relation('"a"', M.SHARE_UPDATE_EXCLUSIVE)]),
        ("alter table a set (fillfactor = 70)", [relation('"a"', M.SHARE_UPDATE_EXCLUSIVE)]),
        ("alter table a disable trigger user", [relation('"a"', M.SHARE_ROW_EXCLUSIVE)]),
        (
            "alter table a drop constraint k",
            [('"a"', M.ACCESS_EXCLUSIVE, "constraint", "k"), relation('"a"', M.ACCESS_EXCLUSIVE)],
        ),
        (
            "alter table a drop column x",
            [('"a"', M.ACCESS_EXCLUSIVE, "column", "x"), relation('"a"', M.ACCESS_EXCLUSIVE)],
        ),
        (
            "alter table a attach partition p for values in (1)",
            [relation('"p"', M.ACCESS_EXCLUSIVE), ('"a"', M.SHARE_UPDATE_EXCLUSIVE, "partitioned", "")],
        ),
        ("alter table a detach partition p concurrently", []),
        ("alter index i set (fillfactor = 70)", [('"i"', M.SHARE_UPDATE_EXCLUSIVE, "index", "")]),
        ("alter table a rename to b", [relation('"a"', M.ACCESS_EXCLUSIVE)]),
        ("alter index i rename to j", [relation('"i"', M.SHARE_UPDATE_EXCLUSIVE)]),
        ("alter table a set schema s", [relation('"a"', M.ACCESS_EXCLUSIVE)]),
        ("alter domain d add check (value > 0)", [('"d"', M.SHARE, "domain", "")]),
        ("create index on a (x)", [relation('"a"', M.SHARE)]),
        ("create index concurrently on a (x)", []),
        ("create table a (id int)", []),
        ("create table a (id int references p)", [relation('"p"', M.SHARE_ROW_EXCLUSIVE)]),
        ("create table a partition of p default", [('"p"', M.ACCESS_EXCLUSIVE, "partitioned", "")]),
        ("create table a () inherits (p)", [relation('"p"', M.SHARE_UPDATE_EXCLUSIVE)]),
        ("create table a (id int); alter table a add x int", []),
        ("create table if not exists a (id int); drop table a", [('"a"', M.ACCESS_EXCLUSIVE, "drop", "")]),
        (
            "drop table a, s.b",
            [('"a"', M.ACCESS_EXCLUSIVE, "drop", ""), ('"s"."b"', M.ACCESS_EXCLUSIVE, "drop", "")],
        ),
        ("drop index i", [('"i"', M.ACCESS_EXCLUSIVE, "index", "")]),
        ("drop index concurrently i", []),
        ("drop policy p on s.a", [relation('"s"."a"', M.ACCESS_EXCLUSIVE)]),
        ("drop schema s cascade", [('"s"', M.ACCESS_EXCLUSIVE, "schema", "")]),
        ("create trigger t after insert on a execute function f()", [relation('"a"', M.SHARE_ROW_EXCLUSIVE)]),
        ("create policy p on a", [relation('"a"', M.ACCESS_EXCLUSIVE)]),
        ("create rule r as on insert to a do nothing", [relation('"a"', M.ACCESS_EXCLUSIVE)]),
        ("truncate a, b", [relation('"a"', M.ACCESS_EXCLUSIVE), relation('"b"', M.ACCESS_EXCLUSIVE)]),
        ("truncate a cascade", [('"a"', M.ACCESS_EXCLUSIVE, "truncate", "")]),
        ("lock table a in share mode", [relation('"a"', M.SHARE)]),
        ("vacuum full a", [relation('"a"', M.ACCESS_EXCLUSIVE)]),
        ("analyze a", [relation('"a"', M.SHARE_UPDATE_EXCLUSIVE)]),
        ("cluster a", [relation('"a"', M.ACCESS_EXCLUSIVE)]),
        ("reindex index i", [('"i"', M.ACCESS_EXCLUSIVE, "index", "")]),
        ("reindex table concurrently a", []),
        ("refresh materialized view concurrently a", [relation('"a"', M.EXCLUSIVE)]),
        ("create or replace view v as select 1", [relation('"v"', M.ACCESS_EXCLUSIVE)]),
        ("comment on column s.a.x is 'x'", [relation('"s"."a"', M.SHARE_UPDATE_EXCLUSIVE)]),
        ("insert into a values (1); update a set x = 1; grant select on a to public", []),
        ("analyze a; alter table a add x int", [relation('"a"', M.ACCESS_EXCLUSIVE)]),
    ],
)
def test_each_statement_asks_for_the_locks_of_the_manual(text, expected):
    assert asked(text) == expected
    assert wants.is_worth_a_look(text) or not expected


def test_what_an_earlier_file_of_the_run_has_made_is_used_by_nobody_yet():
    made: set[str] = set()
    wants.of([statements.tree(one) for one in statements.split("create table a (id int)") or []], made)

    later = statements.split("alter table a add x int; alter table b add x int") or []

    assert wants.of([statements.tree(one) for one in later], made) == [
        Want(name='"b"', mode=Mode.ACCESS_EXCLUSIVE)
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("insert into a values (1); update a set x = 1", True),
        ("update a set x = 1; alter table a add y int", False),
        (
            "select set_config('search_path', '', false); SELECT pg_catalog.setval('s', 3); insert into a values (1)",
            True,
        ),
        ("insert into a values (1); select migrate()", False),
        ("call migrate()", False),
    ],
)
def test_files_that_only_change_rows_are_told_apart(text, expected):
    assert wants.is_data_only(one.text for one in statements.split(text) or []) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("select migrate()", True),
        ("call migrate()", True),
        ("do $$ begin perform migrate(); end $$", True),
        ("do $$ begin update a set x = 1; end $$", False),
        ("select pg_catalog.setval('s', 3)", False),
        ("insert into a select * from b on conflict do nothing", False),
    ],
)
def test_code_that_may_lock_anything_is_told_from_what_changes_rows(text, expected):
    assert wants.may_run_code(text) is expected
    assert wants.mentions_code(text) or not expected


def test_a_temporary_table_makes_nobody_forget_the_one_behind_it():
    text = (
        "create temp table a (id int); create temp table b as select 1; alter table a add x int; drop table b"
    )
    found = wants.of([statements.tree(one) for one in statements.split(text) or []], set())

    assert {one.name for one in found} == {'"a"', '"b"'}
