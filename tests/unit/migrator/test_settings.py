"""The migrator's settings."""

import pytest

from migrator.errors import ConfigError
from migrator.settings import Settings

URL = "postgresql://bob:s3cret@h/d"


def settings(directories=(), **environ):
    return Settings.from_env(environ, lambda path: URL + "\n", lambda path: path in directories)


def test_nothing_set_means_the_defaults():
    found = settings()

    assert (found.database, found.directories, found.schema) == (None, (), "migrator")
    assert (found.changed_files, found.lease_ttl_s, found.connect_wait_s) == ("refuse", 30.0, 0.0)


@pytest.mark.parametrize(
    "environ",
    [
        {"SUPABASE_DB_URL": URL, "DIRECT_URL": "postgresql://x/y", "DATABASE_URL": "postgresql://x/z"},
        {"DIRECT_URL": URL, "DATABASE_UNPOOLED_URL": "postgresql://x/y", "DATABASE_URL": "postgresql://x/z"},
        {"DATABASE_UNPOOLED_URL": URL, "DATABASE_URL": "postgresql://x/z"},
        {"DATABASE_URL": URL},
        {"DATABASE_URL_FILE": "/run/secrets/url"},
    ],
    ids=lambda environ: next(iter(environ)),
)
def test_the_first_url_that_is_set_is_the_database(environ):
    assert settings(**environ).require_database().place == "h/d"


def test_no_database_is_an_error_only_when_one_is_needed():
    with pytest.raises(ConfigError, match="set SUPABASE_DB_URL, DIRECT_URL or DATABASE_URL"):
        settings(NEXT_PUBLIC_SUPABASE_URL="https://x.supabase.co").require_database()


PROJECT = {"NEXT_PUBLIC_SUPABASE_URL": "https://x.supabase.co", "SUPABASE_SERVICE_ROLE_KEY": "sb_secret_k3y"}


@pytest.mark.parametrize(
    ("environ", "place"),
    [
        (PROJECT, "x.supabase.co:443"),
        (
            {"SUPABASE_URL": "https://y.supabase.co", "SUPABASE_SECRET_KEY": "sb_secret_k"},
            "y.supabase.co:443",
        ),
        ({**PROJECT, "DATABASE_URL": URL}, "h/d"),
        ({**PROJECT, "DATABASE_URL": URL, "MIGRATION_RUNNER": "direct"}, "h/d"),
        ({**PROJECT, "DATABASE_URL": URL, "MIGRATION_RUNNER": "rest"}, "x.supabase.co:443"),
        ({**PROJECT, "DATABASE_URL": "embedded", "MIGRATION_RUNNER": "rest"}, "x.supabase.co:443"),
    ],
    ids=["project", "other names", "a database URL wins", "direct", "rest", "rest and embedded"],
)
def test_a_project_is_the_way_where_no_database_url_is_set_or_it_is_asked_for(environ, place):
    found = settings(**environ)

    assert str(found.require_database()) == place
    assert (found.rest is None) is (found.database is not None)
    assert not found.embedded


@pytest.mark.parametrize(
    ("environ", "missing"),
    [
        ({}, "set NEXT_PUBLIC_SUPABASE_URL or SUPABASE_URL and SUPABASE_SERVICE_ROLE_KEY or"),
        ({"SUPABASE_URL": "https://x"}, "set SUPABASE_SERVICE_ROLE_KEY or SUPABASE_SECRET_KEY$"),
        ({"SUPABASE_SECRET_KEY": "k"}, "set NEXT_PUBLIC_SUPABASE_URL or SUPABASE_URL$"),
    ],
)
def test_rest_without_url_or_key_is_an_error_that_names_what_is_missing(environ, missing):
    with pytest.raises(ConfigError, match=f"^cannot use MIGRATION_RUNNER=rest: {missing}"):
        settings(MIGRATION_RUNNER="rest", **environ)


@pytest.mark.parametrize(
    ("environ", "lacking"),
    [
        ({}, "both SUPABASE_URL and SUPABASE_SERVICE_ROLE_KEY to those of a project"),
        (
            {"NEXT_PUBLIC_SUPABASE_URL": "https://x"},
            "SUPABASE_SERVICE_ROLE_KEY to a key of the project that NEXT_PUBLIC_SUPABASE_URL names",
        ),
        (
            {"SUPABASE_SECRET_KEY": "s3cret"},
            "SUPABASE_URL to that of the project that SUPABASE_SECRET_KEY is a key of",
        ),
    ],
)
def test_without_a_database_the_error_names_what_is_missing_for_a_project(environ, lacking):
    with pytest.raises(ConfigError, match=f" to a postgresql:// URL, or {lacking}$"):
        settings(**environ).require_database()


def test_direct_without_a_database_url_does_not_fall_back_to_the_project():
    with pytest.raises(ConfigError, match="cannot migrate without a database"):
        settings(MIGRATION_RUNNER="direct", **PROJECT).require_database()


@pytest.mark.parametrize(
    ("there", "environ", "directories"),
    [
        (("supabase/migrations", "migrations"), {}, ["supabase/migrations"]),
        (("migrations",), {}, ["migrations"]),
        ((), {"MIGRATIONS_DIR": "a:b"}, ["a", "b"]),
    ],
)
def test_directories_are_looked_up_or_named(there, environ, directories):
    found = settings(there, **environ)

    assert [str(path) for path in found.directories] == directories
    assert found.chosen is bool(environ)


def test_embedded_is_a_socket_in_the_state_directory():
    found = settings(DATABASE_URL="embedded", ENTRYPOINT_STATE_DIR="/run/e")

    assert found.embedded
    assert found.require_database().place == "/run/e/postgres/postgres"


def test_everything_that_is_wrong_is_in_one_message():
    with pytest.raises(ConfigError) as caught:
        settings(
            DATABASE_URL="mysql://bob:s3cret@h/d",
            MIGRATION_SCHEMA='x"; drop schema public',
            MIGRATION_LEASE_TTL="0",
            MIGRATION_CHANGED_FILES="maybe",
            MIGRATION_RETRY_COUNT="-1",
            MIGRATION_RUNNER="node",
        )

    told = str(caught.value)
    for name in (
        "DATABASE_URL",
        "MIGRATION_SCHEMA",
        "MIGRATION_LEASE_TTL",
        "MIGRATION_CHANGED_FILES",
        "MIGRATION_RETRY_COUNT",
        "MIGRATION_RUNNER",
    ):
        assert f"cannot use {name}" in told
    assert "s3cret" not in told


@pytest.mark.parametrize("schema", ["pg_mine", "Upper", "with space", "a.b", "1a", "x" * 64])
def test_a_schema_that_would_need_quotes_is_refused(schema):
    with pytest.raises(ConfigError, match="cannot use MIGRATION_SCHEMA"):
        settings(MIGRATION_SCHEMA=schema)


def test_secrets_do_not_show_in_the_settings():
    found = settings(DATABASE_URL=URL, SUPABASE_SERVICE_ROLE_KEY="k3y")

    assert "s3cret" not in repr(found)
    assert "k3y" not in repr(found)
    assert set(found.secrets) == {"s3cret", "k3y"}


def test_a_supervised_migrator_knocks_for_a_while():
    assert settings(MIGRATOR_REPORT_FD="5").connect_wait_s > 0
    assert settings(MIGRATOR_REPORT_FD="5").report_fd == 5


def test_white_space_around_secrets_and_old_names_does_not_hide_them():
    found = settings(
        DATABASE_URL=" embedded\n",
        SUPABASE_SERVICE_ROLE_KEY="k3y\n",
        PGPASSWORD="s3cret\n",
        USE_NODE_MIGRATIONS="false\n",
        MIGRATION_SCHEMA=" mine\n",
        SUPABASE_DB_URL=" \n",
    )

    assert found.embedded
    assert found.runner == "shell"
    assert found.schema == "mine"
    assert {"k3y", "s3cret"} <= set(found.secrets)


@pytest.mark.parametrize(
    ("environ", "runner"),
    [
        ({}, "direct"),
        ({"MIGRATION_RUNNER": "direct", "MIGRATION_COMMAND": "x"}, "direct"),
        ({"MIGRATION_COMMAND": "alembic upgrade head"}, "command"),
        ({"MIGRATION_RUNNER": "auto", "USE_NODE_MIGRATIONS": "false"}, "shell"),
        ({"USE_NODE_MIGRATIONS": "true"}, "direct"),
        ({"MIGRATION_RUNNER": "SHELL"}, "shell"),
        ({"MIGRATION_RUNNER": "direct", "USE_NODE_MIGRATIONS": "0"}, "direct"),
        ({"MIGRATION_RUNNER": "exec"}, "exec"),
        ({"MIGRATION_RUNNER": "Exec: Mine "}, "exec:Mine"),
    ],
)
def test_what_migrates(environ, runner):
    assert settings(**environ).runner == runner


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (
            {"MIGRATION_RUNNER": "node"},
            "must be one of auto, direct, rest, shell, command, exec, or exec:NAME",
        ),
        ({"MIGRATION_RUNNER": "shell:x"}, "must be one of"),
        ({"MIGRATION_RUNNER": "exec:"}, "must be one of"),
        ({"MIGRATION_RUNNER": "command"}, "set MIGRATION_COMMAND, for instance to"),
        ({"MIGRATION_RUNNER": "command", "MIGRATION_NICE": "x"}, "set MIGRATION_COMMAND, for instance to"),
        ({"MIGRATION_COMMAND": "a | b"}, r"cannot use MIGRATION_COMMAND=\(hidden\): it has |"),
        ({"USE_NODE_MIGRATIONS": "maybe"}, "must be true or false"),
        ({"MIGRATION_RETRY_EXITS": "0"}, "must be exit codes from 1 to 255"),
        ({"MIGRATION_RETRY_EXITS": "1,x"}, "must be exit codes from 1 to 255"),
    ],
)
def test_a_runner_that_makes_no_sense_is_refused(environ, message):
    with pytest.raises(ConfigError, match=message):
        settings(**environ)
