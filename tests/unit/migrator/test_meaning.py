"""What a file means, whatever it looks like."""

import pytest

from migrator import meaning

TEXT = "create table a (id int, b text default 'x;  y');\ninsert into a values (-1, 2), (3, E'a\\'b');\n"


def of(text):
    return meaning.of(text, "1_a.sql")


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(TEXT.replace("\n", "\r\n"), id="line ends"),
        pytest.param("\n\n" + TEXT.replace(", ", " ,\n\t"), id="white space"),
        pytest.param(TEXT.replace("(", " ( ").replace(")", " ) "), id="white space around parentheses"),
        pytest.param(
            "-- it's new\n/* a /* nested */ ; */\n" + TEXT.replace(" values", "--;\nvalues"), id="comments"
        ),
        pytest.param(TEXT.replace("create table", "CREATE/**/Table"), id="case, and a comment for a blank"),
        pytest.param(TEXT.rstrip(";\n"), id="no semicolon at the end"),
        pytest.param(TEXT + ";;\n", id="empty statements"),
        pytest.param("\\restrict abc\n" + TEXT + "\\unrestrict abc\n", id="what pg_dump writes for psql"),
        pytest.param("-- migrator: timeout=1min\n" + TEXT, id="a header that changes no result"),
    ],
)
def test_what_looks_otherwise_means_the_same(other):
    assert of(other) == of(TEXT)


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("select 1", "select 2"),
        ("select a b", "select ab"),
        ("select 'a  b'", "select 'a b'"),
        ("select 'A'", "select 'a'"),
        ("select 'a'", 'select "a"'),
        ('select "A"', 'select "a"'),
        ("select 'a' 'b'", "select 'a''b'"),
        ("select 'a -- b'", "select 'a'"),
        ("select e'a'", "select e 'a'"),
        ("select E'a\\n'", "select 'a\\n'"),
        ("select E'a\\';  b'", "select E'a\\'; b'"),
        ("select - -1", "select --1"),
        ("select a - -1", "select a -- 1"),
        ("select @ -5", "select @-5"),
        ("select 1; select 2", "select 1 select 2"),
        ("do $$ begin  null; end $$", "do $$ begin null; end $$"),
        ("do $$ -- a\n$$", "do $$ $$"),
        ("do $$ BEGIN END $$", "do $$ begin end $$"),
        ("do $a$ x $a$", "do $a$ X $a$"),
        ("copy a from stdin;\n1\t\n\\.\n", "copy a from stdin;\n1\n\\.\n"),
        ("copy a from stdin;\n-- 1\n\\.\n", "copy a from stdin;\n-- 2\n\\.\n"),
        ("copy a from stdin;\nA\n\\.\n", "copy a from stdin;\na\n\\.\n"),
        (
            'COPY "a" (b) FROM STDIN WITH (format csv);\n1  \n\\.\n',
            'COPY "a" (b) FROM STDIN WITH (format csv);\n1\n\\.\n',
        ),
        ("-- migrator: role=a\nselect 1", "-- migrator: role=b\nselect 1"),
        ("-- migrator: role=a\nselect 1", "select 1"),
        ("begin atomic", "begin  atomic;x"),
    ],
)
def test_what_means_something_else_is_told_apart(text, other):
    assert of(text) != of(other)


def test_what_comes_around_copy_data_does_not_count():
    assert of("copy a from stdin; -- x\n1\t\n\\.\n  select 1;") == of(
        "COPY a  FROM stdin;\n1\t\n\\.\nselect 1"
    )


def test_a_meaning_stays_what_it_was():
    """Rows in people's histories hold it."""
    assert of("select 1;") == ("meaning:21f6040596e4730b81fa8c173244154b0517deec8e96dd3cf16071a3f6bb8027")


def test_what_cannot_be_told_has_none():
    assert of("set standard_conforming_strings = off; select 1;") is None
    assert of("-- migrator: nonsense\nselect 1;") is None
