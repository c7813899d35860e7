"""Files as the rules read them."""

import pytest

from migrator.hazards import parsed


@pytest.mark.parametrize(
    "statement", ["insert into t values (1);\n" * 100_000, "copy t from stdin;\n" + "1\n" * 2_000_000]
)
def test_a_large_file_is_read_no_further_than_it_may_be(tmp_path, statement):
    asked = 0

    def go_on():
        nonlocal asked
        asked += 1
        return asked < 3

    path = tmp_path / "1_a.sql"
    path.write_text(statement)

    assert not parsed.parse(path, go_on).whole
    assert asked == 3
