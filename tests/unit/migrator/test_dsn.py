"""Database URLs as people have them."""

import asyncpg.connect_utils
import pytest

from migrator import dsn, env
from migrator.errors import ConfigError, Redactor

BASE = "postgresql://bob:s3cret@db.example:5432/shop"


def url_for_asyncpg(text):
    return dsn.parse(text, "DATABASE_URL").url


def understood(text):
    """Host, port, user, password and database, as asyncpg understands the normalised URL."""
    addresses, parameters, *_ = asyncpg.connect_utils._parse_connect_dsn_and_args(
        dsn=url_for_asyncpg(text),
        **dict.fromkeys(
            "host port user password passfile database ssl service servicefile direct_tls "
            "server_settings target_session_attrs krbsrvname gsslib".split()
        ),
    )
    return addresses, parameters.user, parameters.password, parameters.database, parameters


@pytest.mark.parametrize(
    "query",
    [
        "pgbouncer=true",
        "connection_limit=1",
        "connect_timeout=10",
        "channel_binding=require",
        "sslaccept=strict",
        "uselibpqcompat=true",
        "supa=base-pooler.x",
        "made_up_by_a_vendor=1",
        "gssencmode=disable&keepalives=1&pool_timeout=0",
    ],
)
def test_a_parameter_that_asyncpg_would_choke_on_is_left_out(query):
    url = url_for_asyncpg(f"{BASE}?{query}")

    assert "?" not in url
    assert understood(f"{BASE}?{query}")[0] == [("db.example", 5432)]


def test_pgbouncer_true_or_port_6543_tells_a_transaction_pooler():
    assert dsn.parse(f"{BASE}?pgbouncer=true", "X").pooled
    assert dsn.parse(BASE.replace("5432", "6543"), "X").pooled
    assert not dsn.parse(f"{BASE}?pgbouncer=false", "X").pooled
    assert not dsn.parse(BASE, "X").pooled


SUPAVISOR = "aws-0-eu-central-1.pooler.supabase.com"


@pytest.mark.parametrize(
    ("where", "kind"),
    [
        ("db.abcdefgh.supabase.co:5432", "direct"),
        ("db.abcdefgh.supabase.co", "direct"),
        ("db.abcdefgh.supabase.co:6543", "transaction pooler"),
        (f"{SUPAVISOR}:5432", "session pooler"),
        (SUPAVISOR, "session pooler"),
        (f"{SUPAVISOR}:6543", "transaction pooler"),
        ("localhost:54322", "direct"),
        ("h:6543", "transaction pooler"),
        ("pooler.supabase.com.evil.example:5432", "direct"),
    ],
)
def test_host_and_port_tell_what_answers(where, kind):
    found = dsn.parse(f"postgresql://postgres.abcdefgh:x@{where}/postgres", "X")

    assert found.kind == kind
    assert found.pooled is (kind == "transaction pooler")


def test_prismas_flag_means_the_transaction_mode_but_not_on_the_session_poolers_port():
    assert dsn.parse(f"postgresql://u:x@{SUPAVISOR}:5432/d?pgbouncer=true", "X").kind == "session pooler"
    assert dsn.parse(f"postgresql://u:x@{SUPAVISOR}:6543/d?pgbouncer=true", "X").kind == "transaction pooler"


@pytest.mark.parametrize(
    ("where", "hosts"),
    [
        ("u:p@h/d", ("h",)),
        ("u:p@h:5432/d", ("h",)),
        ("u@[2001:db8::1]:5432/d", ("2001:db8::1",)),
        ("u@[::1]/d", ("::1",)),
        ("u@a:1,b:2/d", ("a", "b")),
        ("u@/d?host=/run/postgresql", ()),
        ("u@%2Frun%2Fpostgresql/d", ()),
        ("u@x/d?host=a,b", ("a", "b")),
        ("/d", ()),
    ],
)
def test_hosts_are_names_without_ports(where, hosts):
    assert dsn.parse(f"postgresql://{where}", "X").hosts == hosts


def test_prismas_schema_becomes_the_search_path():
    for query in ("schema=shop", "schema=shop&pgbouncer=true"):
        assert dsn.parse(f"{BASE}?{query}", "X").server_settings == {"search_path": '"shop",public'}
        assert understood(f"{BASE}?{query}")[4].server_settings is None
    assert dsn.parse(f"{BASE}?schema=public", "X").server_settings == {}


def test_a_schema_with_quotes_can_not_break_out_of_the_search_path():
    parsed = dsn.parse(BASE + '?schema=a%22,pg_temp;b"', "X")

    assert parsed.server_settings == {"search_path": '"a"",pg_temp;b""",public'}


def test_what_a_pooler_makes_impossible_is_not_silently_dropped():
    parsed = dsn.parse(f"{BASE}?pgbouncer=true&schema=shop&role=x&options=-cy%3Dz&work_mem=1MB", "X")

    assert parsed.ignored == ("options", "role")


def test_a_parameter_nobody_knows_is_kept_for_a_warning():
    assert dsn.parse(f"{BASE}?colour=blue&pgbouncer=true", "X").ignored == ("colour",)


@pytest.mark.parametrize(
    ("query", "mode"),
    [
        ("sslmode=no-verify", "require"),
        ("sslmode=require", "require"),
        ("sslmode=disable", "disable"),
        ("ssl=true", "require"),
        ("ssl=no-verify", "require"),
        ("sslrootcert=system", "verify-full"),
        ("sslmode=require&sslrootcert=system", "verify-full"),
        ("SSLMODE=verify-ca", "verify-ca"),
    ],
)
def test_every_spelling_of_the_ssl_mode_is_understood(query, mode):
    url = url_for_asyncpg(f"{BASE}?{query}")

    assert url.partition("?")[2] == f"sslmode={mode}"


def test_system_certificates_are_asked_for():
    assert dsn.parse(f"{BASE}?sslrootcert=system", "X").system_ca
    assert not dsn.parse(f"{BASE}?sslrootcert=/ca.crt", "X").system_ca


def test_an_ssl_mode_that_does_not_exist_is_refused():
    with pytest.raises(ConfigError, match="DATABASE_URL: its sslmode must be one of disable"):
        url_for_asyncpg(f"{BASE}?sslmode=on")


def test_target_session_attrs_reach_asyncpg():
    assert understood(f"{BASE}?target_session_attrs=read-write")[4].target_session_attrs.value == "read-write"


@pytest.mark.parametrize(
    ("query", "timeout_s"),
    [("", 10), ("connect_timeout=3", 3), ("connect_timeout=0.5", 0.5), ("connect_timeout=0", 10)],
)
def test_the_connect_timeout_is_ours(query, timeout_s):
    assert dsn.parse(f"{BASE}?{query}", "X").connect_timeout_s == timeout_s


@pytest.mark.parametrize("raw", ["soon", "nan", "inf", "1e99", "10s"])
def test_a_connect_timeout_that_is_no_number_is_refused(raw):
    with pytest.raises(ConfigError, match="its connect_timeout must be a number of seconds up to 3600"):
        url_for_asyncpg(f"{BASE}?connect_timeout={raw}")


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("target_session_attrs=foo", "target_session_attrs must be one of any, primary, standby, prefer-"),
        ("sslnegotiation=foo", "sslnegotiation must be one of postgres, direct"),
        ("sslnegotiation=direct", "sslnegotiation=direct needs an sslmode of require"),
        ("ssl_min_protocol_version=9", "ssl_min_protocol_version must be one of TLSv1, TLSv1.1, TLSv1.2, "),
        ("ssl_max_protocol_version=SSLv3", "ssl_max_protocol_version must be one of TLSv1"),
        (
            "ssl_min_protocol_version=TLSv1.3&ssl_max_protocol_version=TLSv1.2",
            "ssl_min_protocol_version must not be above its ssl_max_protocol_version",
        ),
        ("gsslib=foo", "gsslib must be one of gssapi, sspi"),
        ("ssl=on", "ssl must be one of true, false, no-verify"),
        ("port=abc", "port must be a number from 1 to 65535"),
        ("port=0", "port must be a number from 1 to 65535"),
        ("port=99999", "port must be a number from 1 to 65535"),
        ("host=a,,b", "host must be one name or path, or several separated by commas"),
        ("host=a:x", "host must be one name or path"),
        ("host=a,b,c&port=1,2", "port must be one number, or one for each of its 3 hosts"),
    ],
)
def test_a_parameter_with_a_wrong_value_is_refused_by_name_with_what_is_allowed(query, told):
    with pytest.raises(ConfigError) as caught:
        dsn.parse(f"{BASE}?{query}", "DIRECT_URL")

    assert str(caught.value).startswith(f"cannot use DIRECT_URL: its {told}")
    assert "s3cret" not in str(caught.value)


def test_all_wrong_parameters_are_in_one_message():
    with pytest.raises(
        ConfigError, match=r"its gsslib must be .*; its sslmode must be .*; its port must be "
    ):
        url_for_asyncpg(f"{BASE}?sslmode=on&gsslib=x&port=x")


@pytest.mark.parametrize(
    "query", ["port=", "host=", "target_session_attrs=", "krbsrvname=x", "ssl_min_protocol_version=tlsv1.3",
              "sslnegotiation=direct&sslmode=require", "sslnegotiation=Direct&sslmode=require", "ssl=true&sslnegotiation=direct", "client_encoding=LATIN1"]
)  # fmt: skip
def test_what_asyncpg_would_stumble_over_reaches_it_as_it_wants_it(query):
    assert understood(f"{BASE}?{query}")[0] == [("db.example", 5432)]
    assert understood(f"{BASE}?{query}")[4].server_settings is None


@pytest.mark.parametrize(
    ("text", "addresses", "place"),
    [
        pytest.param(
            "postgresql://bob:s3cret@localhost/d?host=/cloudsql/p:r:i",
            ["/cloudsql/p:r:i/.s.PGSQL.5432"], "/cloudsql/p:r:i/d", id="a socket of Cloud SQL",
        ),
        pytest.param("postgresql://bob@h:6000/d?host=x", [("x", 6000)], "x/d", id="another host"),
        pytest.param("postgresql://bob@/d?host=a,b&port=1,2", [("a", 1), ("b", 2)], "a,b/d", id="several"),
        pytest.param("postgresql://bob@/d?host=a,b&port=7", [("a", 7), ("b", 7)], "a,b/d", id="one port"),
        pytest.param("postgresql://bob@/d?host=::1", [("::1", 5432)], "[::1]/d", id="IPv6"),
        pytest.param("postgresql://bob@/d?host=a:7", [("a", 7)], "a:7/d", id="a port with the host"),
    ],
)  # fmt: skip
def test_the_parameter_host_is_preferred_as_libpq_does(text, addresses, place):
    assert understood(text)[0] == addresses
    assert dsn.parse(text, "X").place == place


def test_the_poolers_port_is_known_as_a_parameter_too():
    assert dsn.parse("postgresql://bob@/d?host=h&port=6543", "X").pooled


def test_the_example_in_the_message_is_itself_a_url_that_is_understood():
    with pytest.raises(ConfigError) as caught:
        dsn.parse("localhost/d", "X")
    masked = Redactor(())(str(caught.value))
    for message in (str(caught.value), masked):
        (example,) = [word for word in message.split() if "://" in word]

        assert understood(example)[0] == [("host", 5432)]


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        pytest.param("postgres://bob@h/d", [("h", 5432)], id="without a port"),
        pytest.param("postgresql://bob@/d?host=/run/pg", ["/run/pg/.s.PGSQL.5432"], id="a unix socket"),
        pytest.param(
            "postgresql://bob@/d?host=/run/pg&port=6000", ["/run/pg/.s.PGSQL.6000"], id="a socket's port"
        ),
        pytest.param("postgresql://bob@%2Frun%2Fpg/d", ["/run/pg/.s.PGSQL.5432"], id="a socket as host"),
        pytest.param("postgresql://bob@[::1]:6000/d", [("::1", 6000)], id="IPv6"),
        pytest.param("postgresql://bob@[::1]/d", [("::1", 5432)], id="IPv6 without a port"),
        pytest.param("postgresql://bob@a:1,b:2/d", [("a", 1), ("b", 2)], id="several hosts"),
        pytest.param("postgresql://bob@a,b:2/d", [("a", 5432), ("b", 2)], id="several, one with a port"),
        pytest.param("postgresql://bob@[::1]:1,b:2/d", [("::1", 1), ("b", 2)], id="several, one IPv6"),
    ],
)
def test_hosts_of_every_kind_are_understood(text, addresses):
    assert understood(text)[0] == addresses


def test_one_of_several_hosts_on_the_poolers_port_makes_it_a_pooler():
    assert dsn.parse("postgresql://bob@a:5432,b:6543/d", "X").pooled


@pytest.mark.parametrize(
    ("written", "password"),
    [
        ("p%40ss%2Fw%3Ard%23%3F", "p@ss/w:rd#?"),
        ("p@ss", "p@ss"),
        ("50%off", "50%off"),
        ("a:b", "a:b"),
        ("gr%C3%B6%C3%9Fe", "größe"),
        ("a+b%20c", "a+b c"),
    ],
)
def test_a_password_arrives_as_it_was_meant(written, password):
    addresses, user, found, database, _ = understood(f"postgresql://bob:{written}@h:1/d")

    assert (addresses, user, found, database) == ([("h", 1)], "bob", password, "d")


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://bob:s3cret@h:1/d?sslmode=require",
        "postgresql://h/d?user=bob&password=s3cret",
        "postgresql://bob:s3cret@h1:1,h2:2/d",
        "postgresql://bob:s3cret@[::1]:1/d",
    ],
)
def test_the_password_is_in_no_text_form(text):
    parsed = dsn.parse(text, "X")

    assert "s3cret" not in f"{parsed} {parsed!r} {parsed.place}"
    assert "s3cret" in parsed.url
    assert "s3cret" in dsn.secrets(text)


def test_secrets_are_known_as_written_and_as_meant():
    found = dsn.secrets("postgresql://bob:a%40b@h/d?sslpassword=c%20d")

    assert set(found) == {"a%40b", "a@b", "c%20d", "c d"}
    assert dsn.secrets(None) == ()
    assert dsn.secrets("postgresql://bob@h/d") == ()


@pytest.mark.parametrize(
    "text",
    [
        "mysql://bob:s3cret@h/d",
        "s3cret",
        "host=h user=bob password=s3cret",
        "postgresql://bob:s3cret/x@h:1/d",
        "postgresql://bob:s3cret@h:port/d",
        "postgresql://bob:s3cret@h:99999/d",
        "postgresql://bob:[s3cret@h/d",
        "postgres:bob:s3cret",
    ],
)
def test_a_url_of_no_use_is_refused_without_being_repeated(text):
    with pytest.raises(ConfigError) as caught:
        dsn.parse(text, "DIRECT_URL")

    assert "cannot use DIRECT_URL: it must be a URL like" in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("text", ['"postgresql://bob:s3cret@h/d"', "'postgresql://bob:s3cret@h/d'"])
def test_quotes_that_an_env_file_has_kept_are_told(text):
    with pytest.raises(ConfigError, match=r"it begins with a quote: leave those out$"):
        dsn.parse(text, "DIRECT_URL")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (BASE, "db.example:5432/shop"),
        ("postgresql://bob@/shop?host=/run/pg", "/run/pg/shop"),
        ("postgresql://bob@h", "h"),
        ("postgresql://bob@h?dbname=shop", "h/shop"),
        ("postgresql://", "localhost"),
    ],
)
def test_the_place_names_host_and_database(text, place):
    assert str(dsn.parse(text, "X")) == place


@pytest.mark.parametrize(
    "url", ["postgresql://u:123/abc@h/d", "postgresql://u:123#abc@h/d", "postgresql://u:123?abc@h/d"]
)
def test_a_password_that_cuts_the_url_off_is_refused_without_being_shown(url):
    with pytest.raises(ConfigError, match="percent-encoded") as caught:
        dsn.parse(url, "DATABASE_URL")

    assert "123" not in str(caught.value)
    assert any("abc" in secret for secret in dsn.secrets(url))


def test_what_every_name_holds_is_secret_not_only_what_the_first_one_does():
    environ = {
        "DIRECT_URL": "postgresql://u:one@h/d",
        "DATABASE_URL": "postgresql://h/d?PASSWORD=two",
        "SUPABASE_SERVICE_ROLE_KEY": "three",
        "SUPABASE_SECRET_KEY": "four",
        "PGPASSWORD": "five",
    }
    read = env.Reader(environ, lambda _: "")

    assert set(dsn.known_secrets(read, environ)) == {"one", "two", "three", "four", "five"}
