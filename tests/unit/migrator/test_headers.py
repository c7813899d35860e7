"""What a file asks for itself in its first comments."""

import pytest

from migrator import headers
from migrator.errors import PlanError
from migrator.headers import NO_HEADERS, Headers


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        pytest.param("select 1;", NO_HEADERS, id="nothing"),
        pytest.param("-- migrator is our tool\nselect 1;", NO_HEADERS, id="another comment"),
        pytest.param(
            "-- migrator: no-transaction\nvacuum;", Headers(transactional=False), id="no transaction"
        ),
        pytest.param("\n  --migrator:transaction", Headers(transactional=True), id="without blanks"),
        pytest.param("-- Migrator: timeout=10min\r\nselect 1;", Headers(timeout_ms=600_000), id="CRLF"),
        pytest.param(
            "/* a /* b */\n*/ -- x\n\n-- migrator: timeout=0, lock-timeout = 1.5s\n-- migrator: role=Owner\nselect 1",
            Headers(timeout_ms=0, lock_timeout_ms=1500, role="owner", role_line=5),
            id="several on several lines",
        ),
        pytest.param(
            "-- migrator: timeout=250 no-transaction",
            Headers(timeout_ms=250, transactional=False),
            id="by blanks",
        ),
        pytest.param("-- migrator: timeout='2h'", Headers(timeout_ms=7_200_000), id="in quotes"),
        pytest.param(
            "-- migrator: timeout=10us", Headers(timeout_ms=1), id="less than a millisecond isn't none"
        ),
        pytest.param(
            '-- migrator: role="My ""Role, x"',
            Headers(role='My "Role, x', role_line=1),
            id="a role in quotes",
        ),
        pytest.param(
            "-- migrator: timeout=1s, allow=set-not-null because it, too, is small\n-- migrator: allow=drop-table because x ",
            Headers(
                timeout_ms=1000,
                allow=(("set-not-null", "it, too, is small"), ("drop-table", "x")),
            ),
            id="what it is allowed, and why",
        ),
        pytest.param(
            "do $$\n-- migrator: by Ann\n$$", NO_HEADERS, id="a comment later that only begins alike"
        ),
    ],
)
def test_what_is_asked_for_is_understood(text, asked):
    assert headers.parse(text, "1_a.sql") == asked


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("-- migrator: no-transactions", "line 1: in '-- migrator:' 'no-transactions' isn't known"),
        ("\n\n-- migrator: timeout", "line 3: in '-- migrator:' timeout needs a value"),
        ("-- migrator: timeout=", "timeout= is no length of time"),
        ("-- migrator: timeout=10 min", "'min' isn't known"),
        ("-- migrator: timeout=10 minutes", "'minutes' isn't known"),
        ("-- migrator: timeout=10minutes", "timeout=10minutes is no length of time"),
        ("-- migrator: timeout=10MIN", "timeout=10MIN is no length of time"),
        ("-- migrator: lock-timeout=-1", "lock-timeout=-1 is no length of time"),
        ("-- migrator: timeout=25d", "timeout=25d is no length of time"),
        ("-- migrator: role=", "role needs a value"),
        ('-- migrator: role="', "'role=\"' can't be read"),
        ("-- migrator: transaction=off", "transaction has no value"),
        ("-- migrator:", "it says nothing"),
        ("-- migrator: allow", "allow names one rule, and why: -- migrator: allow=set-not-null because"),
        ("-- migrator: allow='all of it' because x", "allow names one rule"),
        (
            "-- migrator: allow=set-not-null",
            "allow=set-not-null doesn't say why; write: allow=set-not-null because",
        ),
        ("-- migrator: allow=set-not-null because", "allow=set-not-null doesn't say why"),
        ("-- migrator: allow=a allow=b because x", "allow=a doesn't say why"),
        ("select 1;\n-- migrator: allow=a because x\n", "it counts only before the first statement"),
        (
            "-- migrator: transaction\n-- migrator: no-transaction",
            "line 2: in '-- migrator:' 'no-transaction' comes after line 1",
        ),
        (
            "select 1;\n-- migrator: role=x\n",
            "line 2: in '-- migrator:' it counts only before the first statement",
        ),
    ],
)
def test_what_is_not_right_is_told_with_its_line_and_what_is_allowed(text, told):
    with pytest.raises(PlanError) as caught:
        headers.parse(text, "1_a.sql")

    assert str(caught.value).startswith("cannot apply 1_a.sql: line ")
    assert told in str(caught.value)
    assert "allowed are no-transaction, transaction, allow-blocking, timeout=10min" in str(caught.value)
