"""What a program gets in its environment."""

import pytest

from migrator import dsn
from migrator.programs import environment

URL = "postgresql://bob:s3cr%40t@h:5433/d?sslmode=require"


def for_program(url=URL, **environ):
    return environment.for_program(environ, url, dsn.parse(url, "DATABASE_URL"))


def test_the_database_is_there_in_every_usual_way():
    made = for_program()

    assert made["DATABASE_URL"] == URL
    assert {name: value for name, value in made.items() if name.startswith("PG")} == {
        "PGHOST": "h",
        "PGPORT": "5433",
        "PGUSER": "bob",
        "PGPASSWORD": "s3cr@t",
        "PGDATABASE": "d",
        "PGSSLMODE": "require",
        "PGAPPNAME": "migrator",
    }


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"DATABASE_URL": "postgresql://pooler/x"}, {"DATABASE_URL": "postgresql://pooler/x"}),
        ({"DATABASE_URL": " "}, {"DATABASE_URL": URL}),
        ({"PGHOST": "other"}, {"PGHOST": "other", "PGUSER": None, "PGPASSWORD": None}),
        ({"PGPASSWORD": "mine"}, {"PGPASSWORD": "mine", "PGHOST": "h"}),
        ({"PGAPPNAME": "mine"}, {"PGAPPNAME": "mine", "PGHOST": "h"}),
    ],
)
def test_the_users_own_stays(given, kept):
    made = for_program(**given)

    assert {name: made.get(name) for name in kept} == kept


def test_ours_does_not_get_in():
    made = for_program(
        MIGRATOR_REPORT_FD="3", MIGRATOR_MARK="m", UV_THREADPOOL_SIZE="1", MALLOC_ARENA_MAX="1", HOME="/"
    )

    assert {name for name in made if name.startswith(("MIGRATOR", "UV", "MALLOC"))} == {
        "MIGRATOR_MARK",  # by which the supervisor finds it
        "MIGRATOR_INSIDE",
    }
    assert for_program(UV_THREADPOOL_SIZE="8")["UV_THREADPOOL_SIZE"] == "8"


def test_embedded_is_a_url_to_others():
    made = for_program(
        "postgresql://postgres@/postgres?host=/run/pg", DATABASE_URL="embedded", DIRECT_URL="embedded"
    )

    assert made["DATABASE_URL"] == made["DIRECT_URL"] == "postgresql://postgres@/postgres?host=/run/pg"
    assert made["PGHOST"] == "/run/pg"


def test_our_own_client_goes_where_we_go():
    environ = {
        "PGHOST": "other",
        "PGPORT": "1",
        "PGSERVICE": "s",
        "PGOPTIONS": "-c x=y",
        "PGPASSWORD": "pw",
        "A": "b",
    }
    made = environment.for_libpq(
        environ, "postgresql://bob@h/d", dsn.parse("postgresql://bob@h/d", "DATABASE_URL")
    )

    assert {name: value for name, value in made.items() if name.startswith("PG")} == {
        "PGHOST": "h",
        "PGUSER": "bob",
        "PGDATABASE": "d",
        "PGPASSWORD": "pw",
        "PGAPPNAME": "migrator",
    }
    assert made["A"] == "b"


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("postgresql://h1:1,h2/d", {"PGHOST": "h1,h2", "PGPORT": "1,5432"}),
        ("postgresql://[::1]:7/d", {"PGHOST": "::1", "PGPORT": "7"}),
        ("postgresql://u@/d?host=/run/pg&port=7", {"PGHOST": "/run/pg", "PGPORT": "7"}),
        ("postgresql://h/d?sslrootcert=system", {"PGSSLROOTCERT": "system", "PGSSLMODE": "verify-full"}),
        ("postgresql://h/my%20db", {"PGDATABASE": "my db"}),
        ("postgresql://h/d?options=-c%20a%3Db", {"PGOPTIONS": "-c a=b"}),
    ],
)
def test_a_url_in_libpqs_variables(url, found):
    made = environment.libpq(dsn.parse(url, "DATABASE_URL"))

    assert {name: made.get(name) for name in found} == found


@pytest.mark.parametrize(
    "url",
    [URL, "postgresql://bob:s3cr%40t@h/d", "postgresql://bob@h/d?password=s3cr@t&sslmode=require"],
)
def test_a_command_line_has_no_password(url):
    shown = environment.without_password(dsn.parse(url, "DATABASE_URL"))

    assert "s3cr" not in shown
    assert shown.startswith("postgresql://bob@h")


def test_what_a_programs_output_must_not_show():
    found = environment.secrets(
        {
            "STRIPE_API_KEY": "sk_live_1",
            "SESSION_SECRET": "abcdefgh",
            "REDIS_URL": "redis://u:p%40ssword@h/0",
            "TLS_PRIVATE_KEY": "-----BEGIN\nMIIabcdef\n-----END",
            "TOKEN_TTL": "300",
            "HOME": "/root/long",
            "NEXT_PUBLIC_URL": "https://example.org",
        }
    )

    assert set(found) == {
        "sk_live_1",
        "abcdefgh",
        "p%40ssword",
        "p@ssword",
        "-----BEGIN",
        "MIIabcdef",
        "-----END",
    }
