"""What is shown of a file where the server refused it."""

import pytest

from migrator import failure
from migrator.transport import DatabaseError


def located(text, at, head="begin; "):
    """As for an error at the first `^` of `at`, which is `text` with one."""
    position = len(head) + at.index("^") + 1
    error = DatabaseError(sqlstate="42601", text="no", position=position, completed=1)
    return failure.locate(error, text, len(head), 1)


@pytest.mark.parametrize(
    ("at", "lines"),
    [
        pytest.param("select ^nmae from users;", ["select nmae from users", "       ^"], id="the first line"),
        pytest.param("selec 1^", ["selec 1", "       ^"], id="the end"),
        pytest.param("select 1; select ^x;", ["select x", "       ^"], id="the second statement of a line"),
        pytest.param(
            "select 1,\n    ^x\nfrom t;",
            ["select 1,", "x", "^"],
            id="another line than the statement's first",
        ),
        pytest.param("select 1;\n\n  creat ^x;", ["creat x;", "      ^"], id="what the parser doesn't know"),
        pytest.param("select\t^x;", ["select\tx", "      \t^"], id="a tab"),
        pytest.param(
            "select '日本' ^x y z;", ["select '日本' x y z;", "              ^"], id="wide characters"
        ),
    ],
)
def test_the_line_is_shown_with_a_mark_under_the_place(at, lines):
    found = located(at.replace("^", ""), at)

    assert [line[2:] for line in found.lines] == lines


@pytest.mark.parametrize(
    ("at", "lines"),
    [
        pytest.param("select " + "1, " * 100 + "^x;", 1, id="too long a line has no mark"),
        pytest.param("alter role a\npassword\n'hunter2' ^x y z;", 0, id="not parsed"),
        pytest.param("alter role a\npassword\n'hunter2' ^createdb;", 1, id="parsed"),
        pytest.param("alter role a password $$hunter1\nhunter2$$ ^createdb;", 1, id="over two lines"),
    ],
)
def test_a_line_that_could_tell_a_password_has_no_mark(at, lines):
    found = located(at.replace("^", ""), at)

    assert len(found.lines) == lines
    assert "hunter2" not in "".join(found.lines)
