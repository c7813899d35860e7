"""What is quoted in a text, and what has no end."""

import pytest

from migrator import scan


@pytest.mark.parametrize(
    ("text", "begins_with", "told"),
    [
        pytest.param("select 1; insert into a values ('it''s, oops);", "'it''s", "add '", id="a quote"),
        pytest.param("select 'a', '", "'", "add '", id="a quote at the very end"),
        pytest.param("select 'a''", "'a''", "add '", id="a doubled quote is no end"),
        pytest.param("select '''", "'''", "add '", id="nor is one after the first"),
        pytest.param(r"select 'a\', E'b\', 1", r"E'b", "add '", id="a backslash, which counts after E only"),
        pytest.param(r"select e'a\\', E'\'", r"E'\'", "add '", id="two backslashes"),
        pytest.param("select U&'x", "'x", "add '", id="Unicode escapes"),
        pytest.param("select name'x", "'x", "add '", id="not an E of its own"),
        pytest.param('select "a""b, 1', '"a""b', 'add "', id="a name"),
        pytest.param("do $b$ begin $$ null; end $B$;", "$b$", "add $b$", id="a dollar quote"),
        pytest.param("select 1; $$ a $ $", "$$", "add $$", id="one without a tag"),
        pytest.param("select $größe$ a", "$größe$", "add $größe$", id="one with letters of any kind"),
        pytest.param("/* a */ /* b /* c */ ' ", "/* b", "add */", id="a nested comment"),
        pytest.param("a (b, (c), d; (e)", "(b", "add )", id="a parenthesis"),
        pytest.param("a (b, (c), 'd)", "'d)", "add '", id="a quote before a parenthesis"),
    ],
)
def test_what_has_no_end_is_told_by_where_it_begins(text, begins_with, told):
    found = scan.unfinished(text)

    assert found is not None
    assert text[found.offset :].startswith(begins_with)
    assert told in found.what


@pytest.mark.parametrize(
    "text",
    [
        "",
        "select 'it''s', '', \"a\"\"b\", \"'\", '\"', $$'$$, $a$ $$ $a$;",
        r"select 'a\', E'a\'b', e'\\', E''",
        "-- it's (a\nselect 1 /* it's ( /* nested */ $$ */;",
        "select a$b$, $1, $2$3; select a.b (1), ((2)) -- )",
        "select 1) + 2",
        "create rule r as on insert to a do (select 1; select 2);",
        "select 'a' -- '\n 'b'",
        "'" * 100_000,
    ],
)
def test_what_ends_is_nothing_to_tell(text):
    assert scan.unfinished(text) is None


def test_what_is_in_quotes_and_comments_is_blanked_out_and_all_else_stays_in_its_place():
    text = "select 'a;\n', \"b\" -- c\n, $$d$$ /* e\n */ (f) \\g 'h"

    assert scan.bare(text) == "select ___\n_, ___     \n, _____     \n    (f) \\g __"
