"""Harmless files are told by words, and only in this direction."""

import pytest

from migrator.hazards.quick import Quick


@pytest.mark.parametrize(
    "texts",
    [
        ["create table t (id int)"],
        ["create table t (id int)", "alter table t add x int; create index on t (x)"],
        ['create table "T" (id int)', 'alter table "T" alter id type bigint'],
        ["create table a.t (id int); alter table a.t drop column id"],
        ["create table t (a int references u on delete cascade on update set null)"],
        ["create table t (a text default 'x; drop table t')"],
        ["insert into t values (1), (2) on conflict do nothing"],
        ["-- drop table t;\nselect 1"],
        ["comment on table t is 'don''t update'"],
        ["create function f() returns int language sql as $$ delete from t; $$; grant select on t to x"],
        ["create type e as enum ('a'); create schema s; create extension x; set lock_timeout = 5"],
        ["create table if not exists t (id int)"],
        [""],
    ],
)
def test_harmless(texts):
    quick = Quick()

    assert all(quick.is_harmless(text) for text in texts)


@pytest.mark.parametrize(
    "text",
    [
        "alter table t add x int",
        "create index on t (x)",
        "create table if not exists t (id int); alter table t add x int",
        "create temp table t (id int); alter table t add x int",
        "create table t (id int); alter table t rename to u",
        "create table t (id int); alter table t set schema s",
        "create table p partition of t for values in (1)",
        "create table t (id int); alter table t attach partition u default",
        "update t set x = 1",
        "delete from t",
        "insert into t select * from u",
        "with x as (delete from t returning *) insert into u select * from x",
        "with x as (delete from t returning *) select * from x",
        "truncate t",
        "drop table t",
        "drop index i",
        "reindex table t",
        "vacuum full t",
        "refresh materialized view v",
        "create materialized view v as select 1",
        "create or replace function f() returns int language sql as 'select 1'",
        "do $$ begin execute 'x'; end $$",
        "call p()",
        "set search_path = s; create table t (id int)",
        "select set_config('search_path', '', false)",
        "select * into x from t",
        "copy t from stdin;\n1\n\\.\n",
        "revoke select on t from x",
        "alter type e rename value 'a' to 'b'",
        "/* */ select 1",
        "select E'\\''; update t set x = 1; select E'\\''",
        "comment on table t is 'open; update t set x = 1",
        "create policy p on t; alter domain d add check (value > 0)",
        "create table t (id int) $$",
        "merge into t using u on true when matched then delete",
    ],
)
def test_everything_else_is_parsed(text):
    assert not Quick().is_harmless(text)


def test_what_a_file_makes_only_counts_from_there_on():
    quick = Quick()

    assert not quick.is_harmless("alter table t add x int; create table t (id int)")
