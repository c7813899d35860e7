"""The checker must be able to fail: each kind of damage is found."""

import random

import pytest

from tests.chaos import checker, scripts
from tests.chaos.scripts import Kind, Script, Trouble
from tests.support.postgres import new_database
from tests.support.processes import run_migrator


@pytest.fixture(scope="module")
def template(postgres, tmp_path_factory):
    """A database in which all is well, and its files."""
    directory = tmp_path_factory.mktemp("files")
    made = [
        Script(
            number=0,
            kind=Kind.PLAIN,
            text="create table marks (n int, place text, token bigint, holder text, xact text, at timestamptz);\n"
            + scripts.mark(0, "a")
            + scripts.mark(0, "b"),
        ),
        Script(number=1, kind=Kind.PLAIN, text=scripts.mark(1, "a") + scripts.mark(1, "b")),
        Script(
            number=2,
            kind=Kind.ALONE,
            text=scripts.mark(2, "a")
            + "create table t (id int);\ncreate index concurrently i on t (id);\n"
            + scripts.mark(2, "b"),
        ),
    ]
    for script in made:
        script.write(directory)
    with new_database(postgres) as url:
        done = run_migrator(url, directory)
        assert done.returncode == 0, done.stderr
        yield url, made, checker.truth(url)


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        ("select 1", ""),
        ("insert into marks select * from marks where n = 1 and place = 'a'", "exactly once"),
        ("delete from marks where n = 1 and place = 'b'", "exactly once"),
        ("update marks set xact = '1' where n = 1 and place = 'b'", "in the transactions"),
        ("update marks set at = now() + interval '1 h' where n = 0", "out of order"),
        ("update marks set token = token + 1 where n = 0", "an older holder"),
        ("update migrator.migration_history set finished = false where version = '001'", "history differs"),
        ("update migrator.migration_history set checksum = 'x' where version = '001'", "history differs"),
        ("delete from migrator.migration_history where version = '001'", "history differs"),
        ("drop index i", "the schema differs"),
        ("update pg_index set indisvalid = false where indexrelid = 'i'::regclass", "INVALID"),
        (
            "update migrator.migration_locks set holder = 'dead', expires_at = now() + interval '1 h'",
            "longer than its lease",
        ),
    ],
    ids=lambda value: value[:60] if isinstance(value, str) else None,
)
def test_damage_is_found(template, postgres, damage, found):
    url, made, truth = template
    name = url.rsplit("/", 1)[1]
    with new_database(postgres) as copy:
        copy_name = copy.rsplit("/", 1)[1]
        checker.psql(postgres.url, f"drop database {copy_name}")
        checker.psql(postgres.url, f"create database {copy_name} template {name}")
        checker.psql(copy, damage)
        violations = checker.violations(copy, made, truth, ttl_s=1, pooled=False)

    assert bool(violations) == bool(found), violations
    assert found in str(violations)


@pytest.mark.parametrize("trouble", list(Trouble))
def test_a_seed_makes_the_same_files_again(trouble):
    first, second = (scripts.make(random.Random(7), alone=True, trouble=trouble) for _ in range(2))

    assert first == second
    assert sum(one.fails for one in first) == (trouble is not Trouble.NONE)
