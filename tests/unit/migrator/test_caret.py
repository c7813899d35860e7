"""A mark under a place in a line."""

import pytest

from migrator import caret


@pytest.mark.parametrize(
    ("line", "column", "mark"),
    [
        ("select x", 1, "^"),
        ("select x", 8, "       ^"),
        ("select x", 9, "        ^"),
        ("\tselect\tx", 9, "\t      \t^"),
        ("select 'ü', x", 13, "            ^"),
        ("select '日本', x", 14, "               ^"),
        ("select 'u\u0308', x", 14, "            ^"),
    ],
    ids=["begin", "middle", "end", "tabs", "an umlaut", "wide characters", "an accent of its own"],
)
def test_the_mark_is_under_the_column(line, column, mark):
    assert caret.under(line, column) == mark
