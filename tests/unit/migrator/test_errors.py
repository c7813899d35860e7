"""Which error says what to do next, and that none shows a secret."""

import pytest

from migrator import errors
from migrator.errors import Redactor


@pytest.mark.parametrize(
    ("sqlstate", "kind"),
    [
        ("MG001", errors.LeaseLost),
        ("08006", errors.Unavailable),
        ("08P01", errors.Unavailable),
        ("53300", errors.Crowded),
        ("57P01", errors.Unavailable),
        ("57P03", errors.Unavailable),
        ("58030", errors.Unavailable),
        ("40001", errors.Conflict),
        ("40P01", errors.Conflict),
        ("55P03", errors.Conflict),
        ("28P01", errors.ConfigError),
        ("28000", errors.ConfigError),
        ("3D000", errors.ConfigError),
        ("42601", errors.MigrationFailed),
        ("23505", errors.MigrationFailed),
        ("57014", errors.MigrationFailed),
        ("53100", errors.MigrationFailed),
        ("", errors.MigrationFailed),
        (None, errors.MigrationFailed),
    ],
)
def test_a_sqlstate_says_what_to_do_next(sqlstate, kind):
    assert errors.from_sqlstate(sqlstate) is kind


@pytest.mark.parametrize(
    ("kind", "exit_code", "retryable"),
    [
        (errors.MigrationFailed, 1, False),
        (errors.PlanError, 65, False),
        (errors.Unavailable, 69, True),
        (errors.LeaseBusy, 75, True),
        (errors.LeaseLost, 75, True),
        (errors.Conflict, 75, True),
        (errors.ConfigError, 78, False),
    ],
)
def test_exit_codes_are_the_contract(kind, exit_code, retryable):
    assert (kind.exit_code, kind.retryable) == (exit_code, retryable)


def test_known_secrets_are_masked_the_longer_first():
    assert Redactor(["abc", "abcdef", ""])("xabcdefx abc") == "x***x ***"


@pytest.mark.parametrize(
    "statement",
    [
        "create role bob password 'hunter2'",
        "ALTER ROLE bob WITH ENCRYPTED PASSWORD 'hunter2'",
        "create role bob password E'hunt\\'hunter2'",
        "create role bob password 'it''s hunter2' login",
        "create user mapping for bob server s options (user 'bob', password 'hunter2')",
        "create role bob password 'hunter2 and the line is cut",
        "create role bob password $$hunter2$$",
        "create role bob password $tag$it's hunter2$tag$ login",
        "create role bob password $$hunter2 and the line is cut",
        "create role bob password U&'hunter2'",
    ],
)
def test_a_password_written_in_sql_is_masked(statement):
    shown = Redactor([])(statement)

    assert "hunter2" not in shown
    assert "***" in shown


def test_what_is_no_secret_is_shown_as_it_is():
    text = "the password column can't be null; see 'hunter2'"

    assert Redactor(["other"])(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "connection 'host=h user=u password=s3cret dbname=x'",
            "connection 'host=h user=u password=*** dbname=x'",
        ),
        ("select 'postgres://u:s3cret@h/d'", "select 'postgres://u:***@h/d'"),
        ("see https://example.org:8080/a@b", "see https://example.org:8080/a@b"),
    ],
)
def test_passwords_of_other_connections_are_masked_too(text, shown):
    assert errors.Redactor(())(text) == shown
