"""The fingerprint that other tests compare databases by: it sees what changes a schema, and nothing else."""

import pytest

from tests.support.fingerprint import difference, objects
from tests.support.postgres import fetch

_BEFORE = """
create schema shop;
create table a (id int generated always as identity primary key, n int, t text);
create table b (id int primary key, a_id int);
create index a_n on a (n);
create view v as select id from a;
create sequence s;
create type mood as enum ('sad', 'glad');
create domain age as int;
create function f() returns int language sql as 'select 1';
create function g() returns trigger language plpgsql as 'begin return new; end';
create trigger tr before insert on a for each row execute function g();
insert into a (n) values (1);
"""


@pytest.mark.parametrize(
    "change",
    [
        "create schema other",
        "create table c ()",
        "drop table b",
        "alter table a add m int",
        "alter table a drop t",
        "alter table a alter n type bigint",
        "alter table a alter n set not null",
        "alter table a alter n set default 3",
        "alter table a alter t set storage external",
        "alter table a alter n set statistics 7",
        "alter table a rename n to m",
        "alter table a set (fillfactor = 70)",
        "alter table a add unique (n)",
        "alter table b add foreign key (a_id) references a not valid",
        "alter table a add check (n > 0)",
        "alter table a set unlogged",
        "alter table a enable row level security",
        "create policy p on a using (true)",
        "grant select on a to public",
        "grant select (n) on a to public",
        "create index a_t on a (t)",
        "drop index a_n",
        "create or replace view v as select id from a where id > 1",
        "create materialized view w as select 1 as one",
        "alter sequence s increment 2",
        "alter type mood add value 'mad'",
        "alter domain age set default 3",
        "create or replace function f() returns int language sql as 'select 2'",
        "alter function f() security definer",
        "alter table a disable trigger tr",
        "drop trigger tr on a",
        "create rule r as on delete to a do nothing",
        "comment on table a is 'x'",
        "comment on column a.n is 'x'",
        "create statistics st on n, t from a",
        "create publication pu for table a",
        "alter default privileges in schema shop grant select on tables to public",
        "create aggregate ag(int) (sfunc = int4pl, stype = int)",
        "create cast (text as mood) with inout",
        "update pg_index set indisvalid = false where indexrelid = 'a_n'::regclass",
    ],
)
def test_a_change_of_the_schema_is_seen(database, change):
    fetch(database, _BEFORE)
    before = objects(database)

    fetch(database, change + ";")

    assert difference(before, objects(database)) != []


@pytest.mark.parametrize(
    "change",
    [
        "insert into a (n) values (2)",
        "select nextval('s')",
        "analyze a",
        "reindex table a",
        "create schema migrator; create table migrator.x ()",
        "create table c (); drop table c",
        "alter table b add c int; alter table b drop c",
        "create temp table tt ()",
    ],
)
def test_what_leaves_the_schema_as_it_was_is_not(database, change):
    fetch(database, _BEFORE)
    before = objects(database)

    fetch(database, change + ";")

    assert difference(before, objects(database)) == []
