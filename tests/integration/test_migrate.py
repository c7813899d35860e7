"""The migrator as people run it, against a real server."""

from tests.support.postgres import fetch
from tests.support.processes import run_migrator


def test_a_first_run_applies_everything_and_a_second_run_finds_nothing_to_do(database, migrations):
    directory = migrations(_1_a="create table a (id int);", _2_b="insert into a values (1);")

    first = run_migrator(database, directory)
    second = run_migrator(database, directory)

    assert (first.returncode, first.stdout) == (0, "2 applied, 2 in all, nothing pending\n")
    assert (second.returncode, second.stdout) == (0, "0 applied, 2 in all, nothing pending\n")
    assert fetch(database, "select count(*) from a") == [(1,)]
