"""`migrator lint --fix`: what it writes means the same, and is no hazard any more."""

import json

import pytest

from tests.integration.test_lint import lint
from tests.support.postgres import fetch, new_database, private_server
from tests.support.processes import log_lines, run_migrator

SETUP = """
create table shops (id int primary key, name text, "Odd name" text);
insert into shops select n, 'shop ' || n from generate_series(1, 1000) n;
create table orders (id bigint, shop_id int default 1, note text default 'x', total int, ref text, "Odd name" int);
insert into orders select n, 1, 'x', n, 'ref ' || n, n from generate_series(1, 40000) n;
alter table orders add constraint orders_total_check check (total > -5);
alter table orders alter column id set not null;
create schema shop;
create table shop.items (id int, note text default repeat('x', 100));
insert into shop.items select n from generate_series(1, 40000) n;
analyze;
"""
FILES = {
    "an index": "create index orders_note_idx on orders (note);",
    "an index among others": "-- first\ninsert into shops values (5000, 'x');\n/* an\n index */\n"
    "create unique index orders_ref_idx on orders (ref) where total > 0; -- behind\n"
    "insert into shops values (5001, 'y'); -- last\n-- the end\n",
    "an index without a name": "create index on shop.items using btree (id desc);\n",
    "two indexes": "create index a on orders (note);\ncreate index b on orders (total);\n",
    "a check": "alter table orders add constraint positive check (total > 0);\n",
    "checks without names": "alter table orders add check (total > 0), add check (total < 1000000), add check (id > total - 1);\n",
    "a foreign key": "alter table only orders add foreign key (shop_id) references shops (id) on delete cascade;\n",
    "a deferrable foreign key": "alter table orders add constraint fk foreign key (shop_id) references shops deferrable initially deferred;\n",
    "set not null": "alter table orders alter column total set not null;\nalter table orders rename column total to sum;\n",
    "set not null of odd names": 'alter table public.orders alter "Odd name" set not null, add column z int;\n',
    "a unique constraint": "alter table orders add constraint u unique (ref, id);\n",
    "a unique constraint without a name": "alter table shop.items add unique (id);\ncomment on table orders is 'x';\n",
    "a deferrable unique constraint": "alter table orders add unique (ref) deferrable initially deferred;\n",
    "a primary key": "alter table orders add primary key (id);\n",
    "all at once": "alter table orders add column extra int;\n"
    "alter table orders\n  add constraint tot check (total >= 0), -- really, must\n  alter column total set not null,\n"
    "  add foreign key (shop_id) references shops (id);\nalter table orders add unique (ref);\n"
    "create index on orders (extra);\nalter table orders drop constraint tot;\n",
    "not valid and validate": "alter table orders add constraint c check (total > 0) not valid;\nalter table orders validate constraint c;\n",
    "statement by statement": "-- migrator: no-transaction\ncreate index x on orders (note);\nalter table orders add check (total > 0);\nselect 1;\n",
    "reindex": "create index concurrently i on orders (note);\nreindex index i;\nreindex table orders;\n",
    "no semicolon, line ends of windows": "-- x\r\nalter table orders\r\n  add check (total > 0)",
    "with headers": "-- migrator: timeout=10min, lock-timeout=2s\n-- migrator: role=postgres\ncreate index a on orders (note);\nselect 1;\n",
}
CATALOG = """
select 'column', c.relname || '.' || a.attname, format('%s %s', format_type(a.atttypid, a.atttypmod), a.attnotnull)
  from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace
 where n.nspname in ('public', 'shop') and a.attnum > 0 and not a.attisdropped and c.relkind = 'r'
union all
select 'constraint', r.relname || '.' || k.conname, format('%s %s', pg_get_constraintdef(k.oid), k.convalidated)
  from pg_constraint k join pg_class r on r.oid = k.conrelid
 where k.connamespace in ('public'::regnamespace, 'shop'::regnamespace)
union all
select 'index', i.indexrelid::regclass::text, format('%s %s', pg_get_indexdef(i.indexrelid), i.indisvalid)
  from pg_index i join pg_class c on c.oid = i.indrelid join pg_namespace n on n.oid = c.relnamespace
 where n.nspname in ('public', 'shop')
union all
select 'comment', objoid::regclass::text, description from pg_description where classoid = 'pg_class'::regclass
   and objoid > 16384
order by 1, 2, 3
"""


@pytest.fixture(scope="module")
def postgres():
    """One of our own: roles belong to a whole server, tests of Supabase leave some, and rules look for them."""
    with private_server() as server:
        yield server


@pytest.fixture
def two(postgres):
    """Two databases that are alike."""
    with new_database(postgres) as one, new_database(postgres) as other:
        fetch(one, SETUP)
        fetch(other, SETUP)
        yield one, other


# What only the catalogs know: which names are taken, and what can't be null.
NEEDS_CATALOGS = {
    "checks without names",
    "a primary key",
    "statement by statement",
    "no semicolon, line ends of windows",
}
RUNS = [
    pytest.param(text, how, id=f"{name}, {how}")
    for name, text in FILES.items()
    for how in ("with the catalogs", *(("offline",) if name not in NEEDS_CATALOGS else ()))
]


@pytest.mark.parametrize(("text", "how"), RUNS)
def test_the_fixed_files_make_the_same_schema_and_are_clean(two, migrations, text, how):
    one, other = two
    directory = migrations(_0001_before="select 1;")
    (directory / "0002_things.sql").write_bytes(text.encode())
    migrations(_0003_after="select 3;")
    assert run_migrator(one, directory).returncode == 0
    env = {"MIGRATIONS_DIR": str(directory)}
    if how != "offline":
        env["DATABASE_URL"] = other

    fixed = lint("--fix", **env)
    clean = lint("--json", **env)

    assert f"changed {directory / '0002_things.sql'}" in fixed.stdout, fixed.stdout + fixed.stderr
    assert [
        (one["rule"], one["file"]) for one in json.loads(clean.stdout)["findings"] if one["fixable"]
    ] == []
    names = sorted(path.name for path in directory.iterdir())
    assert (names[0], names[1], names[-1]) == (
        "0001_before.sql",
        "0002_things.sql" if len(names) == 3 else names[1],
        "0003_after.sql",
    )
    done = run_migrator(other, directory)
    assert done.returncode == 0, log_lines(done.stderr)[-1]
    assert fetch(other, CATALOG) == fetch(one, CATALOG)
    together = "".join(path.read_text() for path in directory.iterdir())
    for comment in ("-- first", "/* an\n index */", "-- behind", "-- last", "-- the end", "-- really, must"):
        assert (comment in text) <= (comment in together), comment


def test_headers_are_repeated_in_every_file(migrations):
    directory = migrations(_20260101090000_a=FILES["with headers"])

    lint("--fix", MIGRATIONS_DIR=str(directory))

    written = sorted(path.name for path in directory.iterdir())
    assert written == ["20260101090000_a.sql", "20260101090001_a_part_2.sql"]
    for name in written:
        assert (
            (directory / name)
            .read_text()
            .startswith("-- migrator: timeout=10min, lock-timeout=2s\n-- migrator: role=postgres\n")
        )


def test_what_is_applied_already_is_left_alone(two, migrations):
    text = FILES["an index"]
    directory = migrations(_1_a=text)
    assert run_migrator(two[0], directory).returncode == 0

    done = lint("--fix", directory / "1_a.sql", DATABASE_URL=two[0], MIGRATIONS_DIR=str(directory))

    assert (directory / "1_a.sql").read_text() == text
    assert "changed" not in done.stdout


def test_a_file_on_record_that_was_never_applied_here_is_left_alone(two, migrations):
    directory = migrations(_1_a="select 1;")
    assert run_migrator(two[0], directory).returncode == 0
    text = FILES["an index"]
    migrations(_1_a=text)

    done = lint("--fix", directory / "1_a.sql", DATABASE_URL=two[0], MIGRATIONS_DIR=str(directory))

    assert "cannot fix 1_a.sql: it is applied already" in done.stdout
    assert (directory / "1_a.sql").read_text() == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (
            f"set search_path = shop;\n{FILES['two indexes']}",
            "'set search_path = shop' would count for only one",
        ),
        (f"begin;\n{FILES['two indexes']}commit;\n", "'begin' would count"),
        (f"-- migrator: transaction\n{FILES['an index']}", "asks for one transaction"),
        (f"copy shops from stdin;\n1\n\\.\n{FILES['two indexes']}", "COPY data"),
    ],
)
def test_what_cannot_be_cut_is_left_alone(migrations, text, why):
    directory = migrations(_1_a=text)

    done = lint("--fix", MIGRATIONS_DIR=str(directory))

    assert why in done.stdout
    assert (directory / "1_a.sql").read_text() == text
    assert len(list(directory.iterdir())) == 1


def test_no_version_that_is_free_is_told(migrations):
    directory = migrations(_1_a=FILES["two indexes"], _10_b="select 1;")

    done = lint("--fix", MIGRATIONS_DIR=str(directory))

    assert "no version is left between it and the next file" in done.stdout
    assert (directory / "1_a.sql").read_text() == FILES["two indexes"]
