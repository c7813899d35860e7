"""Clauses, names and types as they are written."""

import pytest

from migrator import statements
from migrator.hazards import tree
from migrator.statements import Statement


@pytest.mark.parametrize(
    ("text", "clauses"),
    [
        ("alter table t add a int, add b numeric(10,2)", ["add a int", "add b numeric(10,2)"]),
        ("alter table if exists only s.t drop a", ["drop a"]),
        (
            'alter table "a,b"."c""d" add check (x in (1,2)), drop "e,f"',
            ["add check (x in (1,2))", 'drop "e,f"'],
        ),
        (
            "alter table t add a text default 'x, y' -- b, c\n , drop d -- end",
            ["add a text default 'x, y'", "drop d"],
        ),
        (
            "alter table t add a int[] default array[1,2], drop b",
            ["add a int[] default array[1,2]", "drop b"],
        ),
        ("alter table s . t * drop a", ["drop a"]),
        ("alter table only ( t ) add a int, drop b", ["add a int", "drop b"]),
        ("alter table é add ö int, drop ü", ["add ö int", "drop ü"]),
        ("alter table t /* a, b */ add c int", ["add c int"]),
    ],
)
def test_clauses_are_found_as_they_are_written(text, clauses):
    node = statements.tree(Statement(text=text, offset=0))["AlterTableStmt"]

    _, spans = tree.clauses(text, node["relation"])

    assert [text[begin:end] for begin, end in spans] == clauses
    assert len(node["cmds"]) == len(clauses)


@pytest.mark.parametrize(
    ("name", "shown"),
    [("a1", "a1"), ("A", '"A"'), ("a b", '"a b"'), ('a"b', '"a""b"'), ("order", '"order"'), ("1a", '"1a"')],
)
def test_names_are_quoted_where_they_have_to_be(name, shown):
    assert tree.quoted(name) == shown
