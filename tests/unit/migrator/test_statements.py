"""What a statement is to us, beyond what test_script.py shows of whole files."""

import pytest

from migrator import statements
from migrator.statements import Statement


@pytest.mark.parametrize(
    ("text", "lasts"),
    [
        ("set search_path = ''", True),
        ("SET SESSION work_mem TO '1MB'", True),
        ("set role owner", True),
        ("set time zone 'UTC'", True),
        ("reset all", True),
        ("select set_config('search_path', '', false)", True),
        ("SELECT pg_catalog.set_config('search_path', '', false)", True),
        ("select set_config('a.b', 'true, false', 'off')", True),
        ("set local search_path = ''", False),
        ("set constraints all deferred", False),
        ("set transaction read only", False),
        ("select set_config('search_path', '', true)", False),
        ("select set_config('search_path', '', false), count_up()", False),
        ("select set_config('a.b', count_up(), false)", False),
        ("select set_config('a.b', 'x', false) from t", False),
        ("settle", False),
    ],
)
def test_what_only_sets_something_for_its_session_is_known(text, lasts):
    assert statements.lasts(Statement(text=text, offset=0)) is lasts


def test_what_the_parser_does_not_know_is_cut_as_psql_does_it():
    found = statements.cut("/* ö */ selec 'ö;';\n select '🐘' ; select '\\';")

    assert [(one.text, one.offset) for one in found] == [
        ("selec 'ö;'", 8),
        ("select '🐘'", 21),
        ("select '\\'", 34),
    ]


def test_quotes_may_mean_something_else():
    assert [one.text for one in statements.cut("select '\\';'; select 1", standard_strings=False)] == [
        "select '\\';'",
        "select 1",
    ]
