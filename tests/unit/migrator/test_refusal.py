"""What answers mean that aren't the one we wanted."""

import json

import pytest

from migrator import refusal
from migrator.errors import ConfigError, Crowded, PlanError, Unavailable
from migrator.refusal import NoFunction, NotExecuted, TooLate
from migrator.transport import DatabaseError, Ended


def of(status, body=b"", **headers):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return refusal.of(status, headers, content, "h:443")


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (503, "PGRST000", NotExecuted),
        (503, "PGRST001", Unavailable),
        (500, "57P01", Unavailable),
        (503, "08006", Unavailable),
        (503, "PGRST002", NotExecuted),
        (504, "PGRST003", Crowded),
        (404, "PGRST202", NoFunction),
        (401, "PGRST301", ConfigError),
        (401, "PGRST302", ConfigError),
        (406, "PGRST106", ConfigError),
        (400, "PGRST100", ConfigError),
        (500, "40001", DatabaseError),
        (500, "57014", DatabaseError),
        (409, "23505", DatabaseError),
        (404, "42P01", DatabaseError),
    ],
)
def test_the_code_decides_and_not_the_status(status, code, kind):
    found = of(status, {"code": code, "message": "words", "details": None, "hint": None})

    assert type(found) is kind
    assert "words" in str(found)


@pytest.mark.parametrize(
    ("status", "body", "kind", "told"),
    [
        (401, {"message": "Invalid API key"}, ConfigError, "Invalid API key"),
        (403, b"", ConfigError, "check SUPABASE_SERVICE_ROLE_KEY"),
        (404, b"<html>nothing</html>", ConfigError, "check the URL"),
        (201, b"", ConfigError, "check the URL"),
        (408, b"", TooLate, "time for an answer"),
        (504, b"<html>Gateway</html>", TooLate, "time for an answer"),
        (524, b"", TooLate, "time for an answer"),
        (413, b"<html>", PlanError, "too large"),
        (429, {"msg": "slow down"}, Crowded, "slow down"),
        (540, b"", ConfigError, "paused"),
        (502, b"<html>", Unavailable, "answers 502"),
        (503, b"no healthy upstream", Unavailable, "no healthy upstream"),
    ],
)
def test_without_a_code_it_was_a_gateway_that_answered(status, body, kind, told):
    found = of(status, body)

    assert type(found) is kind
    assert told in str(found)
    assert "<html>" not in str(found)


def test_a_redirect_is_told_and_not_worth_a_retry():
    found = of(308, b"", location="https://elsewhere/")

    assert isinstance(found, ConfigError)
    assert "redirects to https://elsewhere/, which isn't followed" in str(found)


def test_an_error_of_a_file_says_which_statement_it_was():
    details = json.dumps({"statement": 3, "detail": "Key (id)=(1) already exists.", "context": "PL/pgSQL"})
    found = of(409, {"code": "23505", "message": "duplicate key", "details": details, "hint": ""})

    assert isinstance(found, DatabaseError)
    assert (found.sqlstate, found.completed, found.ended) == ("23505", 3, Ended.ROLLED_BACK)
    assert found.text == "duplicate key\ndetail: Key (id)=(1) already exists."


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("22023", 'role "x" does not exist'),
        ("42501", 'permission denied to set role "postgres"'),
        ("42501", "permission denied for function migrator_fetch"),
    ],
)
def test_a_role_that_the_key_names_and_cannot_be_had_is_an_error_of_the_key(code, message):
    found = of(403, {"code": code, "message": message, "details": None, "hint": None})

    assert isinstance(found, ConfigError)
    assert str(found).startswith(f"cannot use the key for h:443: {message}; set the service_role key")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("42501", 'permission denied to set role "postgres"'),
        ("42501", "permission denied for function pg_read_file"),
        ("42883", "function public.migrator_of_mine() does not exist"),
        ("22023", 'role "x" does not exist'),
        ("08006", "could not connect to server"),
        ("57P01", "terminating connection due to administrator command"),
    ],
)
def test_what_a_statement_met_is_not_taken_for_an_error_of_the_way_there(code, message):
    details = json.dumps({"statement": 2, "detail": "", "context": ""})
    found = of(500, {"code": code, "message": message, "details": details, "hint": ""})

    assert isinstance(found, DatabaseError)
    assert (found.completed, found.ended, found.text) == (2, Ended.ROLLED_BACK, message)


def test_an_error_without_a_place_keeps_its_detail_and_hint():
    found = of(400, {"code": "42703", "message": "no column", "details": "d", "hint": "h"})

    assert isinstance(found, DatabaseError)
    assert (found.text, found.completed) == ("no column\ndetail: d\nhint: h", 0)


def test_a_key_that_may_not_call_our_function_is_told_as_such():
    said = {"code": "42501", "message": "permission denied for function migrator_fetch"}

    assert isinstance(of(401, said), ConfigError)
    assert "set the service_role key" in str(of(401, said))
    assert isinstance(of(403, {"code": "42501", "message": "permission denied for table a"}), DatabaseError)


def test_a_key_of_a_role_that_does_not_exist_is_told_as_such():
    said = {"code": "22023", "message": 'role "nobody" does not exist', "details": None, "hint": None}

    assert isinstance(of(400, said), ConfigError)
    assert isinstance(of(400, {**said, "details": '{"statement": 1}'}), DatabaseError)


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"[]", b"null", b"[" * 100_000, b'{"code": 7}'])
def test_whatever_is_answered_is_an_error_of_ours(body):
    assert isinstance(of(500, body), Exception)
