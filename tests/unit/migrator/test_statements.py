"""What a statement is to us, beyond what test_script.py shows of whole files."""

from migrator import statements


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
