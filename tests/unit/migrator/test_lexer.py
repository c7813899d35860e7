"""A file cut into statements and COPY data as psql cuts it."""

import io
import re
from pathlib import Path

import pytest

from migrator import lexer, statements
from migrator.lexer import Lexer, Place


def cut(text, *, standard_strings=True):
    """What is found: texts of statements, and (begin, end) of COPY data in the manner of a caller."""
    content = text.encode()
    cutting = Lexer(io.BytesIO(content).read)
    cutting.standard_strings = standard_strings
    found = []
    for one in cutting:
        found.append(one.text.decode() if one.kind == "statement" else (one.kind, one.text.decode()))
        if one.kind == "meta":
            break
        if one.text.lower().startswith(b"copy"):
            data = cutting.data()
            found.append(data and content[data.begin.offset : data.end])
    return found


CASES = [
    pytest.param("select 1;select 2", ["select 1", "select 2"], id="a semicolon"),
    pytest.param("\ufeffselect 1;", ["select 1"], id="a byte order mark"),
    pytest.param("", [], id="nothing"),
    pytest.param(" -- a;\n/* b; */;;", [], id="comments and empty statements"),
    pytest.param("/* a /* b; */ ; */ select 1;", ["select 1"], id="nested comments"),
    pytest.param("select ';', 'it''s;' ;", ["select ';', 'it''s;' "], id="quotes"),
    pytest.param("select E'\\';', 1;", ["select E'\\';', 1"], id="a backslash after E"),
    pytest.param("select date'a\\'; select 2;", ["select date'a\\'", "select 2"], id="not an E of its own"),
    pytest.param('select ";", "a"";";', ['select ";", "a"";"'], id="names"),
    pytest.param(
        "select $$;$$, $a$;$$;$a$; 2", ["select $$;$$, $a$;$$;$a$", "2"], id="dollar quotes with tags"
    ),
    pytest.param("select a$b$; select $1;", ["select a$b$", "select $1"], id="dollars that quote nothing"),
    pytest.param("select 1 -- it's;\n; 2", ["select 1 -- it's;\n", "2"], id="a comment in a statement"),
    pytest.param("select 2 - 1 / 3; 4", ["select 2 - 1 / 3", "4"], id="signs that begin no comment"),
    pytest.param(
        "create rule r as on insert to a do (select 1; select 2); 3",
        ["create rule r as on insert to a do (select 1; select 2)", "3"],
        id="parentheses",
    ),
    pytest.param(
        "Create or replace function f() returns int begin atomic select 1; select case when a then 2 end; end; 3",
        [
            "Create or replace function f() returns int begin atomic select 1; select case when a then 2 end; end",
            "3",
        ],
        id="BEGIN ATOMIC",
    ),
    pytest.param(
        "create /* a */ or -- b\n replace/**/function f() returns int begin atomic select 1; end; 3",
        ["create /* a */ or -- b\n replace/**/function f() returns int begin atomic select 1; end", "3"],
        id="comments before BEGIN ATOMIC",
    ),
    pytest.param(
        "create function f() returns int begin atomic select a from endé; select 1 as ende; end; 3",
        ["create function f() returns int begin atomic select a from endé; select 1 as ende; end", "3"],
        id="names that begin like END",
    ),
    pytest.param(
        "create function f() returns int language sql as 'begin'; begin; end;",
        ["create function f() returns int language sql as 'begin'", "begin", "end"],
        id="a body in quotes, and BEGIN as a statement",
    ),
    pytest.param("select 'a; select 2;", ["select 'a; select 2;"], id="a quote without an end"),
    pytest.param("select 1; /* ; ", ["select 1", "/* ; "], id="a comment without an end"),
    pytest.param("select 1; -", ["select 1", "-"], id="a sign at the end"),
    pytest.param(
        "\\restrict aB\nselect 1;\r\n\\unrestrict aB\r\n",
        [("skipped", "\\restrict aB\n"), "select 1", ("skipped", "\\unrestrict aB\r\n")],
        id="what pg_dump writes for psql",
    ),
    pytest.param("select 1 \\g out;\n2;", [("meta", "\\g out;")], id="a command of psql"),
    pytest.param(
        "copy a from stdin;\n1\tx;'\n\\.\nselect 1;",
        ["copy a from stdin", b"1\tx;'\n", "select 1"],
        id="COPY data",
    ),
    pytest.param(
        "copy a from stdin; -- data;\n1\n\\.\n", ["copy a from stdin", b"1\n"], id="a comment before the data"
    ),
    pytest.param(
        "copy a from stdin; /* x */\r\n1\r\n\\.\r\n;2", ["copy a from stdin", b"1\r\n", "2"], id="CRLF"
    ),
    pytest.param(
        "copy a from stdin;\n1\n\\.", ["copy a from stdin", b"1\n"], id="no line end after the data"
    ),
    pytest.param(
        "copy a from stdin;\n1\n2", ["copy a from stdin", b"1\n2"], id="data up to the end of the file"
    ),
    pytest.param("copy a from stdin;", ["copy a from stdin", b""], id="no data"),
    pytest.param("copy a from stdin;\n\\.\n", ["copy a from stdin", b""], id="empty data"),
    pytest.param(
        "copy a from stdin;\n\\.x\n \\.\nx\\.\n\\.\n2",
        ["copy a from stdin", b"\\.x\n \\.\nx\\.\n", "2"],
        id="what only looks like the end",
    ),
    pytest.param(
        "copy a from stdin;\n1\n\\.\ncopy b from stdin;\n2\n\\.\n",
        ["copy a from stdin", b"1\n", "copy b from stdin", b"2\n"],
        id="one after the other",
    ),
    pytest.param(
        "copy a from stdin; select 1;\n1\n",
        ["copy a from stdin", None, "select 1", "1\n"],
        id="something on the same line",
    ),
]


@pytest.mark.parametrize(("text", "found"), CASES)
def test_a_file_is_cut_as_psql_cuts_it(text, found):
    assert cut(text) == found


@pytest.mark.parametrize("window_bytes", [1, 2, 3, 5])
@pytest.mark.parametrize(("text", "found"), CASES)
def test_what_reaches_over_the_end_of_a_window_is_not_cut_through(monkeypatch, text, found, window_bytes):
    monkeypatch.setattr(lexer, "_WINDOW_BYTES", window_bytes)
    monkeypatch.setattr(lexer, "_HEAD_BYTES", 60)

    assert cut(text) == found


CORPUS = sorted((Path(__file__).parents[2] / "support" / "corpus").glob("*.sql"))


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_postgresqls_own_parser_finds_the_same_statements(path):
    text = re.sub(r"(?m)^\\(un)?restrict .*$", "", path.read_text("utf-8-sig"))

    assert [one.text for one in statements.cut(text)] == [one.text for one in statements.split(text) or []]


def test_without_standard_strings_a_backslash_escapes():
    assert cut("select 'a\\'; b'; 2", standard_strings=False) == ["select 'a\\'; b'", "2"]


def test_places_are_bytes_lines_and_characters():
    cutting = Lexer(io.BytesIO("select 'ü🐘'; select 2;\n  -- é\n  select 3".encode()).read)

    assert [cutting.place_of(one.begin) for one in cutting] == [
        Place(offset=0, line=1, column=1),
        Place(offset=17, line=1, column=14),
        Place(offset=37, line=3, column=3),
    ]
