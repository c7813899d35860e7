"""Every rule is written down, and every hazard that is told has a rule."""

import re

import pytest

from migrator.hazards import check, parsed
from migrator.hazards.table import RULES
from tests.support.processes import REPO

SOURCES = "".join(path.read_text() for path in sorted((REPO / "migrator" / "hazards").glob("*.py")))
PAGE = (REPO / "docs" / "reference" / "hazards.md").read_text()
# Told only of what the catalogs know.
NEED_CATALOGS = {
    "add-column-domain",
    "concurrent-index-corruption",
    "create-index-partitioned",
    "foreign-key-without-index",
    "drop-foreign-key",
    "invalid-index-kept",
    "primary-key-nullable",
    "replace-stored-function",
    "rls-without-policy",
    "table-without-rls",
}


@pytest.mark.parametrize("name", RULES)
def test_a_rule_is_told_somewhere_and_has_its_page(name):
    assert len(re.findall(rf'"{name}"', SOURCES)) >= 2
    assert f"\n## {name}\n" in PAGE


@pytest.mark.parametrize("name", [name for name in RULES if name not in NEED_CATALOGS])
def test_the_example_of_a_rule_has_its_hazard(tmp_path, name):
    path = tmp_path / "1_a.sql"
    path.write_text(RULES[name].example)

    assert name in {one.rule for one in check.check([parsed.parse(path)], None)}


# A later release may well drop: that is a breaking hazard all the same, with a reason to allow it.
LATER = ("-- in a later release", "ALTER TABLE orders RENAME TO", "ALTER TABLE orders SET S")


@pytest.mark.parametrize(
    "name",
    [name for name in RULES if name not in NEED_CATALOGS and not RULES[name].safe_example.startswith(LATER)],
)
def test_the_safe_example_of_a_rule_does_not_have_it(tmp_path, name):
    parts = RULES[name].safe_example.split("-- in the next file:\n")
    read = []
    for number, part in enumerate(parts):
        path = tmp_path / f"{number}_a.sql"
        path.write_text(part)
        read.append(parsed.parse(path))

    assert name not in {one.rule for one in check.check(read, None)}


def test_a_finding_stands_at_its_clause(tmp_path):
    path = tmp_path / "1_a.sql"
    path.write_text("select 1; alter table t add x int, alter y set not null,\n  add check (x > 0);\n")

    found = check.check([parsed.parse(path)], None)

    assert [(one.rule, one.line, one.column) for one in found] == [
        ("set-not-null", 1, 36),
        ("add-check", 2, 3),
    ]


def test_a_file_of_nothing_that_is_known_has_no_hazard(tmp_path):
    path = tmp_path / "1_a.sql"
    path.write_text("frobnicate table t; alter table frobnicate; -- é\n$$ drop table t $$;")

    assert check.check([parsed.parse(path)], None) == []
