"""What the overseer reads from its environment."""

import pytest
from msgspec.structs import replace

from entrypoint.settings import Settings

FILES = {"/run/url": "postgresql://a:b@c/d\n", "/run/empty": "\n", "/run/embedded": "embedded\n"}


def read_text(path):
    if path == "/run/latin1":
        return b"\xff".decode()
    if path not in FILES:
        raise FileNotFoundError(2, "No such file or directory")
    return FILES[path]


def settings(**environ):
    return Settings.from_env(environ, read_text)


@pytest.mark.parametrize(
    ("name", "raw", "field", "value"),
    [
        ("MIGRATION_TIMEOUT", "1.5", "timeout_s", 1.5),
        ("MIGRATION_RETRY_COUNT", "0", "attempts", 1),
        ("MIGRATION_RETRY_COUNT", "9", "attempts", 10),
        ("MIGRATION_RETRY_DELAY", "0", "retry_delay_s", 0),
        ("MIGRATION_MAX_MEMORY_MB", "64", "memory_limit_bytes", 64 * 1024 * 1024),
        ("ENTRYPOINT_STATE_DIR", "/run/x/../y", "state_dir", "/run/y"),
        ("LOG_LEVEL", "WARN", "log_level", "warn"),
        ("LOG_FORMAT", "console", "log_format", "console"),
        ("LOG_OUTPUT", "stdout", "log_output", "stdout"),
        ("DATABASE_URL", "embedded", "embedded", True),
        ("DIRECT_URL", "embedded", "embedded", True),
        ("DATABASE_URL_FILE", "/run/embedded", "embedded", True),
        ("DATABASE_URL", "postgresql://a:b@c/d", "embedded", False),
    ],
)
def test_each_variable_sets_its_field(name, raw, field, value):
    found = settings(**{name: raw})

    assert getattr(found, field) == value
    assert found.problems == ()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("timeout_s", 300),
        ("attempts", 4),
        ("retry_delay_s", 5),
        ("memory_limit_bytes", 256 * 1024 * 1024),
        ("state_dir", "/tmp/entrypoint"),
        ("embedded", False),
        ("log_level", "info"),
        ("secrets", ()),
        ("problems", ()),
    ],
)
def test_the_default_is_the_contracts(field, value):
    assert getattr(settings(), field) == value
    assert (
        getattr(settings(ENTRYPOINT_STATE_DIR="", MIGRATION_TIMEOUT=""), field) == value
    )  # empty is not set


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("MIGRATION_ENABLED", "maybe"),
        ("SKIP_MIGRATIONS", "2"),
        ("MIGRATION_ENVIRONMENTS", ","),
        ("MIGRATION_MODE", "gated"),
        ("MIGRATION_TIMEOUT", "soon"),
        ("MIGRATION_TIMEOUT", "nan"),
        ("MIGRATION_TIMEOUT", "0"),
        ("MIGRATION_TIMEOUT", "inf"),
        ("MIGRATION_RETRY_COUNT", "-1"),
        ("MIGRATION_RETRY_COUNT", "1.5"),
        ("MIGRATION_RETRY_DELAY", "-0.1"),
        ("MIGRATION_MAX_MEMORY_MB", "8"),
        ("ENTRYPOINT_HTTP_PORT", "0"),
        ("ENTRYPOINT_HTTP_PORT", "65536"),
        ("ENTRYPOINT_STOP_GRACE", "long"),
        ("ENTRYPOINT_STOP_DELAY", "-1"),
        ("ENTRYPOINT_STOP_SIGNAL", "NOPE"),
        ("ENTRYPOINT_SIGNAL_GROUP", "everyone"),
        ("ENTRYPOINT_REWRITE_SIGNALS", "TERM"),
        ("ENTRYPOINT_REMAP_EXIT", "x=0"),
        ("ENTRYPOINT_PDEATHSIG", "0"),
        ("LOG_LEVEL", "loud"),
        ("LOG_FORMAT", "xml"),
        ("LOG_OUTPUT", "file"),
    ],
)
def test_a_wrong_value_is_named_with_what_it_holds_and_what_is_allowed_and_takes_the_default(name, raw):
    found = settings(**{name: raw})

    (told,) = found.problems + found.complaints
    assert told.startswith(f"cannot use {name}={raw!r}: must ")
    assert replace(found, problems=(), complaints=()) == settings()


@pytest.mark.parametrize(
    "name", ["MIGRATION_TIMEOUT", "MIGRATION_ENABLED", "MIGRATION_SCHEMA", "DATABASE_URL"]
)
def test_a_wrong_value_that_decides_about_migrations_is_a_problem(name):
    found = settings(**{name: "%"})

    assert len(found.problems) == 1
    assert found.complaints == ()


@pytest.mark.parametrize("name", ["LOG_LEVEL", "LOG_FORMAT", "ENTRYPOINT_STOP_GRACE", "ENTRYPOINT_HTTP_PORT"])
def test_any_other_wrong_value_is_only_complained_about(name):
    found = settings(**{name: "trace"})

    assert found.problems == ()
    assert len(found.complaints) == 1


def test_the_password_of_the_url_is_among_the_secrets_as_written_and_decoded():
    found = settings(DATABASE_URL="postgresql://bob:p%40ss@h/d")

    assert {"p%40ss", "p@ss"} <= set(found.secrets)


def test_all_wrong_values_are_told_at_once():
    found = settings(MIGRATION_TIMEOUT="a", MIGRATION_MODE="b", LOG_LEVEL="c", ENTRYPOINT_HTTP_PORT="d")

    assert (len(found.problems), len(found.complaints)) == (2, 2)


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        (
            {"DATABASE_URL": "postgresql://h/d", "DATABASE_URL_FILE": "/run/url"},
            "cannot use both DATABASE_URL and DATABASE_URL_FILE: unset one of them",
        ),
        (
            {"DATABASE_URL_FILE": "/run/nothing"},
            "cannot read DATABASE_URL_FILE='/run/nothing': No such file or directory",
        ),
        ({"DATABASE_URL_FILE": "/run/empty"}, "cannot use DATABASE_URL_FILE='/run/empty': the file is empty"),
        (
            {"DATABASE_URL_FILE": "/run/latin1"},
            "cannot read DATABASE_URL_FILE='/run/latin1': it isn't UTF-8 text",
        ),
        (
            {"SUPABASE_SERVICE_ROLE_KEY": "x", "SUPABASE_SERVICE_ROLE_KEY_FILE": "/run/url"},
            "cannot use both SUPABASE_SERVICE_ROLE_KEY and SUPABASE_SERVICE_ROLE_KEY_FILE: unset one of them",
        ),
    ],
)
def test_a_secret_from_a_file_goes_wrong_aloud(environ, problem):
    assert settings(**environ).problems == (problem,)


def test_secrets_are_known_wherever_they_come_from_so_that_they_can_be_masked():
    found = settings(DATABASE_URL_FILE="/run/url", SUPABASE_SECRET_KEY="k3y")

    assert any("postgresql://a:b@c/d" in secret or secret == "b" for secret in found.secrets)
    assert "k3y" in found.secrets


@pytest.mark.parametrize(
    ("environ", "reason"),
    [
        ({"NODE_ENV": "production"}, None),
        ({"NODE_ENV": "PRODUCTION"}, None),
        ({"NODE_ENV": "staging"}, None),
        ({"ENTRYPOINT_ENV": "production", "NODE_ENV": "development"}, None),
        ({"NODE_ENV": "qa", "MIGRATION_ENVIRONMENTS": "qa, Prod"}, None),
        ({"NODE_ENV": "prod", "MIGRATION_ENVIRONMENTS": "qa, Prod"}, None),
        ({"NODE_ENV": "production", "MIGRATION_ENABLED": "true", "SKIP_MIGRATIONS": "no"}, None),
        ({}, "NODE_ENV is not set; migrations run where it is production or staging"),
        ({"NODE_ENV": "test"}, "NODE_ENV=test; migrations run where it is production or staging"),
        ({"APP_ENV": "test"}, "APP_ENV=test; migrations run where it is production or staging"),
        (
            {"NODE_ENV": "production", "MIGRATION_ENVIRONMENTS": "qa"},
            "NODE_ENV=production; migrations run where it is qa",
        ),
        ({"NODE_ENV": "production", "MIGRATION_ENABLED": "0"}, "MIGRATION_ENABLED=0"),
        ({"NODE_ENV": "production", "SKIP_MIGRATIONS": "yes"}, "SKIP_MIGRATIONS=yes"),
        ({"MIGRATION_ENABLED": "true", "SKIP_MIGRATIONS": "true"}, "SKIP_MIGRATIONS=true"),
        (
            {"NODE_ENV": "production", "RELEASE_COMMAND": "1"},
            "RELEASE_COMMAND=1: a release command runs, and nothing beside it",
        ),
        (
            {"NODE_ENV": "production", "RELEASE_COMMAND": " 1\n", "MIGRATION_MODE": "gate"},
            "RELEASE_COMMAND=1: a release command runs, and nothing beside it",
        ),
        ({"NODE_ENV": "production", "RELEASE_COMMAND": "1", "MIGRATION_MODE": "only"}, None),
        ({"NODE_ENV": "production", "RELEASE_COMMAND": "python manage.py migrate"}, None),
        ({"NODE_ENV": "production", "RELEASE_COMMAND": "0"}, None),
    ],
)
def test_migrations_run_only_where_they_are_switched_on(environ, reason):
    assert settings(**environ).skip_reason == reason


def test_the_reason_to_skip_is_one_line():
    assert settings(SKIP_MIGRATIONS="true\n").skip_reason == "SKIP_MIGRATIONS=true"
    assert settings(MIGRATION_ENABLED=" no\n").skip_reason == "MIGRATION_ENABLED=no"
