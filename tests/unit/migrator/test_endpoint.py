"""A project's URL and key."""

import base64
import json

import pytest

from migrator import endpoint
from migrator.errors import ConfigError


def token(**claims):
    encoded = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"eyJhbGciOiJIUzI1NiJ9.{encoded}.c2lnbmF0dXJl"


LEGACY = token(role="service_role")


def parse(url="https://abcdefgh.supabase.co", key=LEGACY):
    return endpoint.parse(url, "SUPABASE_URL", key, "SUPABASE_SECRET_KEY")


@pytest.mark.parametrize(
    ("url", "place", "path", "authority", "is_tls"),
    [
        ("https://a.supabase.co", "a.supabase.co:443", "/rest/v1", "a.supabase.co", True),
        ("https://a.supabase.co/", "a.supabase.co:443", "/rest/v1", "a.supabase.co", True),
        ("https://a.supabase.co/rest/v1/", "a.supabase.co:443", "/rest/v1", "a.supabase.co", True),
        (
            "https://db.example.com:8443/sub",
            "db.example.com:8443",
            "/sub/rest/v1",
            "db.example.com:8443",
            True,
        ),
        ("http://localhost:54321", "localhost:54321", "/rest/v1", "localhost:54321", False),
        ("http://kong:8000", "kong:8000", "/rest/v1", "kong:8000", False),
        ("http://192.168.1.9", "192.168.1.9:80", "/rest/v1", "192.168.1.9", False),
        ("http://[::1]:54321", "[::1]:54321", "/rest/v1", "[::1]:54321", False),
        (
            "http://kong.railway.internal:8000",
            "kong.railway.internal:8000",
            "/rest/v1",
            "kong.railway.internal:8000",
            False,
        ),
    ],
)
def test_a_url_is_a_place_and_a_path(url, place, path, authority, is_tls):
    found = parse(url)

    assert (found.place, found.path, found.authority, found.is_tls) == (place, path, authority, is_tls)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("abcdefgh.supabase.co", "must be the project's URL"),
        ("postgresql://u:s3cret@h/d", "must be the project's URL"),
        ("https://user:s3cret@h", "must be the project's URL"),
        ("https://h?apikey=s3cret", "must be the project's URL"),
        ("https://", "must be the project's URL"),
        ("https://h:99999", "must be the project's URL"),
        ("https://[::1", "must be the project's URL"),
        ("https://a.local\nx", "must be the project's URL"),
        ("https://a.local/a b", "must be the project's URL"),
        ("https://\u00fcn.supabase.co", "must be the project's URL"),
        ("https://a..co", "must be the project's URL"),
        (f"https://{'a' * 64}.co", "must be the project's URL"),
        ("http://abcdefgh.supabase.co", "in clear text"),
        ("http://8.8.8.8", "in clear text"),
    ],
)
def test_what_is_no_url_or_would_show_the_key_is_refused(url, told):
    with pytest.raises(ConfigError, match=f"^cannot use SUPABASE_URL: .*{told}") as caught:
        parse(url)

    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "names"),
    [
        (LEGACY, ["apikey", "Authorization"]),
        (token(role="supabase_admin"), ["apikey", "Authorization"]),
        ("sb_secret_abc", ["apikey"]),
        ("opaque", ["apikey", "Authorization"]),
        ("a.b.c", ["apikey", "Authorization"]),
    ],
)
def test_a_new_key_is_no_token_and_goes_into_one_header_alone(key, names):
    headers = parse(key=key).headers

    assert [name for name, _ in headers] == names
    assert all(key in value for _, value in headers)


@pytest.mark.parametrize(
    ("key", "told"),
    [
        (token(role="anon"), "the key of anon"),
        (token(role="authenticated"), "the key of authenticated"),
        ("sb_publishable_abc", "a publishable key"),
        ("sbp_0123", "a personal access token"),
        ("two words", "one word"),
        ("a\r\nHost: evil", "one word"),
        ("schlüssel", "one word"),
    ],
)
def test_a_key_with_which_nothing_can_be_changed_is_refused_without_showing_it(key, told):
    with pytest.raises(ConfigError, match=f"^cannot use SUPABASE_SECRET_KEY: .*{told}") as caught:
        parse(key=key)

    assert key not in str(caught.value)


def test_the_key_does_not_show():
    assert LEGACY not in repr(parse())
    assert LEGACY not in str(parse())
