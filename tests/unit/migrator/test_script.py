"""What the text of a file means."""

import pytest

from migrator import script, statements
from migrator.errors import PlanError
from migrator.script import understand
from migrator.statements import Way


def steps(text):
    return [way is Way.IN_TRANSACTION for _, way in understand(text, "1_a.sql").steps]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("create table a (id int);", id="plain SQL"),
        pytest.param("-- create index concurrently\ncreate index i on a (b);", id="in a comment"),
        pytest.param("/* /* concurrently */ vacuum; */ select 1;", id="in a nested comment"),
        pytest.param("insert into a values ('create index concurrently i; vacuum');", id="in a string"),
        pytest.param("select E'it\\'s concurrently';", id="in an escape string"),
        pytest.param('create table "concurrently" ("vacuum" int);', id="in quoted names"),
        pytest.param('create index "concurrently" on a (b);', id="as an index name"),
        pytest.param(
            "create function f() returns void language plpgsql as $$ begin execute 'vacuum a'; end $$;",
            id="in a function body",
        ),
        pytest.param(
            "create function f() returns void language plpgsql as $x$ begin\n"
            "  execute 'create index concurrently i on a (b)';\nend; $x$;",
            id="in a tagged dollar quote",
        ),
        pytest.param(
            "create function f() returns int begin atomic\n select 1; -- concurrently\n select 2; end;",
            id="in a BEGIN ATOMIC body",
        ),
        pytest.param("do $$ begin perform 1; commit; exception when others then null; end $$;", id="in DO"),
        pytest.param("analyze a;", id="ANALYZE"),
        pytest.param("analyze; -- not vacuum", id="ANALYZE of everything"),
        pytest.param("reindex table a;", id="REINDEX of a table"),
        pytest.param("reindex index i;", id="REINDEX of an index"),
        pytest.param("cluster a using i;", id="CLUSTER of a table"),
        pytest.param("alter table p detach partition q;", id="DETACH PARTITION"),
        pytest.param("refresh materialized view concurrently m;", id="REFRESH ... CONCURRENTLY"),
        pytest.param("alter system_settings set x = 1;", id="words that only begin alike"),
        pytest.param("alter database d set timezone = 'UTC';", id="ALTER DATABASE ... SET"),
        pytest.param("prepare p as select 1; execute p; deallocate p;", id="PREPARE"),
        pytest.param("discard temp; discard plans; discard sequences;", id="DISCARD of something"),
        pytest.param("alter subscription s disable;", id="ALTER SUBSCRIPTION ... DISABLE"),
        pytest.param("alter subscription s set publication p with (refresh = off);", id="without a refresh"),
        pytest.param("alter database d connection limit 3;", id="ALTER DATABASE ... CONNECTION LIMIT"),
        pytest.param("comment on database d is 'vacuum';", id="COMMENT ON DATABASE"),
        pytest.param("alter type t add value 'commit';", id="ALTER TYPE ADD VALUE"),
    ],
)
def test_such_a_file_runs_whole_in_one_transaction(text):
    understood = understand(text, "1_a.sql")

    assert (understood.steps, understood.text, understood.understood) == ((), text, True)


@pytest.mark.parametrize(
    "text",
    [
        "create index concurrently i on a (b);",
        "create unique index concurrently if not exists i on a (b) where c;",
        "CREATE\n INDEX -- really\n CONCURRENTLY i ON a (b)",
        "/* first */ create index /* now */ concurrently i on a (b);",
        "drop index concurrently i;",
        "reindex table concurrently a;",
        "reindex (concurrently, verbose) index i;",
        "reindex schema public;",
        "reindex database d;",
        "vacuum;",
        "vacuum full a;",
        "vacuum (analyze) a;",
        "cluster;",
        "alter system set work_mem = '1MB';",
        "create database d;",
        "drop database if exists d;",
        "create tablespace t location '/x';",
        "alter table p detach partition q concurrently;",
        "drop subscription s;",
        "alter subscription s refresh publication;",
        "alter subscription s add publication p;",
        "alter database d set tablespace t;",
    ],
)
def test_such_a_statement_runs_on_its_own(text):
    assert steps(text) == [False]


def test_statements_around_one_that_runs_alone_have_transactions_of_their_own():
    text = "create table a (id int);\n\ncreate index concurrently i on a (id);\ninsert into a values (1);\n"
    understood = understand(text, "1_a.sql")

    assert [(one.text, way) for one, way in understood.steps] == [
        ("create table a (id int)", Way.IN_TRANSACTION),
        ("create index concurrently i on a (id)", Way.CONCURRENT),
        ("insert into a values (1)", Way.IN_TRANSACTION),
    ]
    assert [text[one.offset :].startswith(one.text) for one, _ in understood.steps] == [True] * 3


@pytest.mark.parametrize(
    "text",
    [
        "begin;\ncreate table a (id int);\ncommit;\n",
        "BEGIN TRANSACTION; create table a (id int); END;",
        "start transaction;\ncreate table a (id int);\ncommit work;",
        "create table z (); begin; create table a (id int); commit; create table b ();",
        "begin; create table a (id int); commit; begin; create table b (id int); commit;",
        "begin\n/* over\nlines */ work;\ncreate table größe (id int);\ncommit\nwork;\nselect 1;",
    ],
)
def test_begin_and_commit_in_pairs_are_blanked_out(text):
    understood = understand(text, "1_a.sql").text
    left = statements.split(understood)

    assert len(understood) == len(text)
    assert understood.count("\n") == text.count("\n")
    assert left is not None
    assert [understood[one.offset :].startswith(one.text) for one in left] == [True] * len(left)
    assert not any(one.text.lower().startswith(("begin", "start", "commit", "end")) for one in left)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param("create table a ();\nbegin;\n", "last BEGIN has no COMMIT", id="no COMMIT"),
        pytest.param("select 1;\n  commit;", "line 2, column 3: 'commit' would end", id="no BEGIN"),
        pytest.param("begin; begin; commit;", "line 1, column 8: 'begin'", id="BEGIN twice"),
        pytest.param(
            "select 1;\ndiscard all;", "line 2, column 1: 'discard all' would give up", id="DISCARD ALL"
        ),
        pytest.param(
            "vacuum;\nDISCARD ALL;",
            "line 2, column 1: 'DISCARD ALL' would give up",
            id="DISCARD ALL in steps",
        ),
        pytest.param("begin;\nrollback;", "line 2, column 1: 'rollback'", id="ROLLBACK"),
        pytest.param(
            "begin isolation level serializable; commit;", "'begin isolation", id="BEGIN with options"
        ),
        pytest.param("begin; commit and chain; commit;", "'commit and chain'", id="COMMIT AND CHAIN"),
        pytest.param(
            "begin; prepare transaction 'x';", 'column 8: "prepare transaction', id="PREPARE TRANSACTION"
        ),
        pytest.param(
            "begin; create table a (); commit;\ncreate index concurrently i on a (b);",
            "line 1, column 1: 'begin' in a file with statements that can't run in a transaction",
            id="a transaction beside a statement that can't run in one",
        ),
        pytest.param(
            "begin;\ncreate index concurrently i on a (b);\ncommit;",
            "line 1, column 1: 'begin' in a file with statements that can't",
            id="a transaction around a statement that can't run in one",
        ),
    ],
)
def test_transactions_that_would_tear_the_file_apart_are_refused(text, told):
    with pytest.raises(PlanError, match=r"cannot apply 1_a\.sql") as caught:
        understand(text, "1_a.sql")
    assert told in str(caught.value)


def test_savepoints_are_the_files_own_business():
    text = "begin; savepoint s; select 1; rollback to savepoint s; release s; commit;"

    assert "savepoint s; select 1; rollback to savepoint s; release s;" in understand(text, "1_a.sql").text


def test_what_pg_dump_writes_for_psql_alone_is_blanked_out():
    text = "\\restrict aB3xY\n\nselect 1;\r\n\\unrestrict aB3xY\r\n"

    assert understand(text, "1_a.sql").text.split() == ["select", "1;"]
    assert len(understand(text, "1_a.sql").text) == len(text)


@pytest.mark.parametrize(
    "command", ["\\i other.sql", "\\connect d", "\\set x 1", "\\echo hi", "\\! rm -rf /"]
)
def test_another_command_of_psql_is_refused_by_line(command):
    with pytest.raises(PlanError, match=r"line 2, column 1: .* is a command of psql, not SQL; remove it"):
        understand(f"select 1;\n{command}\n", "1_a.sql")


@pytest.mark.parametrize(
    ("command", "remedy"),
    [
        (
            "  \\ir other.sql",
            r"\ir is a command of psql, not SQL; remove it, and put the SQL of that file here",
        ),
        ("\\set x 1", r"\set is a command of psql, not SQL; remove it, and write the value where it is used"),
        ("\\if true", r"\if is a command of psql, not SQL; remove it"),
        ("\\.", r"\. is a command of psql, not SQL; remove it"),
    ],
)
def test_what_to_do_about_a_command_of_psql_is_told(command, remedy):
    with pytest.raises(PlanError) as caught:
        understand(f"select 1;\n{command}\n", "1_a.sql")

    assert str(caught.value).endswith(f": {remedy}")


def test_what_a_forgotten_quote_turns_inside_out_is_no_command():
    assert not understand("begin; select 'it's \\n'; commit;", "1_a.sql").understood


def test_a_backslash_in_a_text_is_no_command():
    text = "insert into a values ('\n\\restrict abc\n\\i other');"

    assert understand(text, "1_a.sql").text == text


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("select 1;\nCOPY a (x, y) FROM stdin;\n1\tb\n\\.\n", id="with data"),
        pytest.param("select 1;\ncopy a from stdin;\n", id="without data"),
        pytest.param("select 1;\ncopy a\n  from STDIN with (format csv);\n1,2\n\\.\n", id="over two lines"),
        pytest.param('select 1;\ncopy "a;b" from stdin;\n1\n\\.\n', id="a name with a semicolon"),
        pytest.param("select 1;\ncopy a from stdin;\nit's\n\\.\n\\i x", id="before another command"),
        pytest.param("select 1;\n/**/copy a\nfrom\nstdin;\n1\n\\.\n", id="after a comment"),
    ],
)
def test_copy_from_stdin_is_more_than_one_message(text):
    assert script.needs_parts(text)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("select 'copy a from stdin;';", id="in a text"),
        pytest.param("-- copy a from stdin;\nselect 1;", id="in a comment"),
        pytest.param("do $$ begin copy a from stdin; end $$;", id="in a body"),
        pytest.param("copy a from '/x'; copy a to stdout; -- stdin", id="a COPY from elsewhere"),
        pytest.param("\\copy a from stdin\n1\n\\.\n", id="a command of psql"),
        pytest.param("set standard_conforming_strings = on;", id="strings as they are anyway"),
        pytest.param("SET standard_conforming_strings TO 'on';", id="also in quotes"),
    ],
)
def test_what_only_looks_like_it_is_one_message(text):
    assert not script.needs_parts(text)


@pytest.mark.parametrize("value", ["off", "'off'", "false", "0"])
def test_strings_with_another_meaning_from_some_statement_on_are_more_than_one_message(value):
    text = f"set standard_conforming_strings = {value};"
    (statement,) = statements.split(text) or []

    assert script.needs_parts(text)
    assert statements.kind(statement) == "strings_off"


@pytest.mark.parametrize(
    "text",
    [
        "set standard_conforming_strings = 'on'",
        "reset standard_conforming_strings",
        "set standard_conforming_strings to default",
    ],
)
def test_strings_can_get_their_meaning_back(text):
    (statement,) = statements.split(text) or []

    assert statements.kind(statement) == "strings_on"


def test_copy_from_elsewhere_is_plain():
    text = "copy a from '/x'; copy a to stdout; -- from stdin"

    assert understand(text, "1_a.sql").text == text


def test_what_the_parser_does_not_know_is_left_to_the_server():
    understood = understand("creat table a (); -- commit", "1_a.sql")

    assert not understood.understood


def test_offsets_are_in_characters_whatever_the_bytes():
    text = "-- größe 🐘\ninsert into a values ('ü');\n/* é */ insert into b values ('🐘🐘');\nselect 'ß'"
    found = statements.split(text)

    assert found is not None
    assert [text[one.offset : one.offset + len(one.text)] for one in found] == [
        "insert into a values ('ü')",
        "insert into b values ('🐘🐘')",
        "select 'ß'",
    ]


def test_comments_before_a_statement_do_not_belong_to_it():
    text = "/* a /* nested; */ comment; */ -- and; one more\n  select 1; -- trailing"
    found = statements.split(text)

    assert found is not None
    assert [(one.text, one.offset) for one in found] == [("select 1", text.index("select"))]


@pytest.mark.parametrize("text", ["", "  \n", "-- nothing\n", "/* a */ /* b */", ";;;"])
def test_a_file_may_hold_no_statement_at_all(text):
    assert statements.split(text) == []
    assert understand(text, "1_a.sql").steps == ()


@pytest.mark.parametrize(
    ("offset", "where"), [(0, (1, 1)), (2, (1, 3)), (3, (2, 1)), (6, (3, 2)), (99, (3, 3)), (-1, (1, 1))]
)
def test_lines_and_columns_count_from_one(offset, where):
    assert script.line_and_column("ab\nc\nde", offset) == where


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("create index concurrently i on a (b)", statements.Index(schema=None, name="i", table='"a"')),
        (
            'create index concurrently "I x" on s.a (b)',
            statements.Index(schema="s", name="I x", table='"s"."a"'),
        ),
        ("create index concurrently on a (b)", None),
        ("vacuum a", None),
    ],
)
def test_an_index_is_known_by_name(text, named):
    (statement,) = statements.split(text) or []

    assert statements.index_of(statement) == named


def test_a_set_local_in_a_transaction_of_the_files_own_is_refused_if_more_follows():
    with pytest.raises(PlanError, match=r"line 2, column 1: .set local.* split it there"):
        understand("begin;\nset local search_path = x;\ncommit;\ncreate table a ();", "1_a.sql")

    understand("begin;\nset local search_path = x;\ncreate table a ();\ncommit;", "1_a.sql")


@pytest.mark.parametrize(
    "text",
    [
        "SET lock_timeout = 0;",
        "set local lock_timeout to '1h';",
        "SET idle_in_transaction_session_timeout = 0;",
    ],
)
def test_a_file_cannot_make_the_app_wait_longer_behind_its_locks(text):
    assert understand(f"{text}\nselect 1;", "1_a.sql").text == " " * (len(text) - 1) + ";\nselect 1;"
    assert understand("-- SET lock_timeout = 0\nselect 'SET lock_timeout = 0';", "1_a.sql").text.endswith(
        "0';"
    )


def test_what_waits_in_nobodys_way_is_told_from_what_stands_in_it():
    text = "vacuum full a; reindex index concurrently i; drop index concurrently i;"

    assert [way for _, way in understand(text, "1_a.sql").steps] == [
        Way.ALONE,
        Way.CONCURRENT,
        Way.CONCURRENT,
    ]


@pytest.mark.parametrize(
    ("text", "ways"),
    [
        ("insert into a values (1);", [Way.IN_TRANSACTION]),
        ("call p(); do $$ begin end $$; reindex table t;", [Way.ALONE] * 3),
        (
            "create table a (); vacuum; drop index concurrently i;",
            [Way.IN_TRANSACTION, Way.ALONE, Way.CONCURRENT],
        ),
        ("creat table a (); select 1", [Way.ALONE, Way.IN_TRANSACTION]),
    ],
)
def test_without_a_transaction_only_what_must_be_is_without_one(text, ways):
    understood = understand(f"-- migrator: no-transaction\n{text}", "1_a.sql")

    assert [way for _, way in understood.steps] == ways


def test_a_transaction_that_is_asked_for_overrules_what_is_recognised():
    assert understand("-- migrator: transaction\nvacuum;", "1_a.sql").steps == ()


def test_a_long_line_is_shown_in_part_and_never_half_a_word():
    word = "eyJhbGciOiJIUzI1NiJ9" * 10
    (statement,) = statements.split(f"select '{word}', 'Bearer {word}' as {'b' * 20};") or []

    assert statement.first_line == f"select [...] as {'b' * 20}"


@pytest.mark.parametrize(
    ("text", "ends_nothing"),
    [
        pytest.param("create table a (id int);", True, id="plain SQL"),
        pytest.param("do $$ begin perform 1; end $$;", True, id="a word that the parser explains"),
        pytest.param("call p();", True, id="a procedure: refused if it tries"),
        pytest.param("savepoint s; rollback to s; release s;", True, id="savepoints"),
        pytest.param("begin; create table a (id int); commit;", False, id="its own transaction"),
        pytest.param("select commit from;", False, id="what the parser refuses"),
    ],
)
def test_it_is_known_whether_a_file_could_end_its_transaction(text, ends_nothing):
    assert understand(text, "1_a.sql").ends_nothing is ends_nothing
