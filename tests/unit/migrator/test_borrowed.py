"""Files that were written for another migration tool."""

import pytest

from migrator import borrowed
from migrator.errors import PlanError


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("-- migrate:up\ncreate table a ();\n\n-- migrate:down\ndrop table a;\n", 4),
        ("-- migrate:up\ncreate table a ();\r\n-- migrate:down transaction:false\r\ndrop table a;", 3),
        ("-- +goose Up\ncreate table a ();\n-- +goose Down\ndrop table a;", 3),
        ("-- Up Migration\ncreate table a ();\n-- Down Migration\n-- it goes\ndrop table a;", 3),
    ],
)
def test_a_file_with_the_way_back_is_refused(text, line):
    with pytest.raises(PlanError) as caught:
        borrowed.refuse_way_back(text, "1_a.sql")

    assert f"from line {line} on (" in str(caught.value)
    assert str(caught.value).endswith("move that into 1_a.down.sql")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("create table a ();", id="none"),
        pytest.param("-- migrate:up\ncreate table a ();\n-- migrate:down\n\n", id="an empty one"),
        pytest.param("create table a ();\n-- migrate:down\n-- nothing to do", id="one of comments"),
        pytest.param("select '-- migrate:down'; select 1;", id="the words in the middle of a line"),
        pytest.param("-- migrate:downgrade\nselect 1;", id="other words"),
        pytest.param("-- slow down migration of rows\nselect 1;", id="words of a comment"),
    ],
)
def test_a_file_without_it_is_not(text):
    borrowed.refuse_way_back(text, "1_a.sql")
