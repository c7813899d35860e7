"""Values in our own SQL."""

import pytest

from migrator import sql


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (None, "null"),
        (True, "true"),
        (False, "false"),
        (7, "7"),
        (-1.5, "-1.5"),
        ("", "E''"),
        ("it's", "E'it''s'"),
        ("back\\slash\\'", "E'back\\\\slash\\\\'''"),
        ("größe\n", "E'größe\n'"),
        ("$fence$", "E'\\x24fence\\x24'"),
    ],
)
def test_a_value_becomes_a_literal(value, written):
    assert sql.literal(value) == written


def test_a_name_is_quoted():
    assert sql.identifier('we"ird') == '"we""ird"'


def message(**values):
    usual = {
        "name": "migrations",
        "token": 1,
        "holder": "h",
        "version": "1",
        "filename": "1_a.sql",
        "title": "a",
        "checksum": "c",
        "lock_timeout_ms": 1,
    }
    return sql.message("apply.sql", ("fence", "record"), "migrator", {**usual, **values})


@pytest.mark.parametrize(
    "hostile",
    ["1_:token.sql", "1_{schema}.sql", "1_'; drop table x; --.sql", "1_\\1\\g<0>.sql", "1_$1.sql", "$fence$"],
)
def test_a_value_stays_what_it_is(hostile):
    assert sql.literal(hostile) in message(filename=hostile)


def test_no_place_is_left_unfilled():
    for name, found in sql.pieces("apply.sql").items():
        text = sql.message("apply.sql", (name,), "migrator", dict.fromkeys(found.names, 1))

        assert "{" not in text
        assert not sql._NAME.search(text)


def test_every_query_names_exactly_what_it_uses():
    for name, piece in sql.pieces("queries.sql").items():
        assert set(sql._NAME.findall(piece.text)) == set(piece.names), name
