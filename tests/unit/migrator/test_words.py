"""Commands in variables."""

import pytest

from migrator import words


@pytest.mark.parametrize(
    ("raw", "split"),
    [
        ("alembic upgrade head", ("alembic", "upgrade", "head")),
        ("  python  manage.py\tmigrate ", ("python", "manage.py", "migrate")),
        ("'a b' \"c d\" e\\ f", ("a b", "c d", "e f")),
        ("sh -c 'a && b | c > $D; `e`'", ("sh", "-c", "a && b | c > $D; `e`")),
        ('sh -c "a && b"', ("sh", "-c", "a && b")),
        ("echo 'it''s' \\$HOME", ("echo", "its", "$HOME")),
        ("costs 5$ 'x\ny'", ("costs", "5$", "x\ny")),
        ("tool a=b", ("tool", "a=b")),
    ],
)
def test_words_are_a_shells_words(raw, split):
    assert words.split(raw) == split


@pytest.mark.parametrize(
    ("raw", "what"),
    [
        ("a && b", "it has &,"),
        ("a | b", "it has |,"),
        ("a; b", "it has ;,"),
        ("a > b", "it has >,"),
        ("(cd app; a)", "it has (,"),
        ("a\nb", "it has a line break,"),
        ("psql $DATABASE_URL", "it has a $ before a name,"),
        ('psql "${DATABASE_URL}"', "it has a $ before a name,"),
        ("echo $(date)", "it has a $ before a name,"),
        ("echo `date`", "it has a backtick,"),
        ("A=b tool", "it has A=...,"),
    ],
)
def test_what_only_a_shell_understands_is_refused(raw, what):
    with pytest.raises(ValueError) as refused:
        words.split(raw)

    assert str(refused.value).startswith(what)
    assert "write sh -c '...'" in str(refused.value)


def test_a_quote_without_an_end_is_refused():
    with pytest.raises(ValueError, match="a quote that isn't closed"):
        words.split("sh -c 'a")
