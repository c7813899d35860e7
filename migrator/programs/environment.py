"""What a program gets in its environment, and what of it must not be shown. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from migrator import variables
from migrator.dsn import Dsn

# By this, a migrator that a program starts knows that it would wait for its own lease.
INSIDE = "MIGRATOR_INSIDE"
# By this our supervisor knows the processes that are ours, wherever they went.
_MARK = "MIGRATOR_MARK"
# Where one of these is set, somebody has chosen a database for libpq, and it stays so as a whole.
_CHOSEN = ("PGHOST", "PGHOSTADDR", "PGDATABASE", "PGSERVICE")
_LIBPQ = {
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "sslcrl": "PGSSLCRL",
    "sslnegotiation": "PGSSLNEGOTIATION",
    "ssl_min_protocol_version": "PGSSLMINPROTOCOLVERSION",
    "ssl_max_protocol_version": "PGSSLMAXPROTOCOLVERSION",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
    "options": "PGOPTIONS",
    "passfile": "PGPASSFILE",
    "service": "PGSERVICE",
    "servicefile": "PGSERVICEFILE",
    "krbsrvname": "PGKRBSRVNAME",
    "gsslib": "PGGSSLIB",
    "host": "PGHOST",
    "port": "PGPORT",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "dbname": "PGDATABASE",
    "database": "PGDATABASE",
}
_SECRET_NAME = re.compile(
    r"PASSW(OR)?D|PASSPHRASE|SECRET|TOKEN|API_?KEY|PRIVATE_?KEY|ACCESS_?KEY|SERVICE_ROLE|CREDENTIAL"
)
_LEAST_SECRET_CHARS = 6


def for_program(environ: Mapping[str, str], url: str, dsn: Dsn) -> dict[str, str]:
    """The environment of a command or script: the user's own, and the database where they name none."""
    made = {name: value for name, value in environ.items() if not name.startswith("MIGRATOR_")}
    if _MARK in environ:
        made[_MARK] = environ[_MARK]
        # The supervisor's, for us: node would have one thread for all of its files.
        made.pop("UV_THREADPOOL_SIZE", None)
        made.pop("MALLOC_ARENA_MAX", None)
    made[INSIDE] = "1"
    for name in variables.DATABASE.names:
        if made.get(name, "").strip() == "embedded":
            made[name] = url
    if not made.get("DATABASE_URL", "").strip():
        made["DATABASE_URL"] = url
    if not any(made.get(name) for name in _CHOSEN):
        made = {**libpq(dsn), **made}
    return made


def for_libpq(environ: Mapping[str, str], url: str, dsn: Dsn) -> dict[str, str]:
    """The environment of a client that we start ourselves: it goes where we go, whatever else is chosen."""
    made = for_program(environ, url, dsn)
    wanted = libpq(dsn)
    # What the URL doesn't say it may take from there, as we do: a password, for instance.
    kept = {"PGPASSWORD", "PGPASSFILE", "PGUSER", "PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY", *wanted}
    return {name: value for name, value in made.items() if name[:2] != "PG" or name in kept} | wanted


def libpq(dsn: Dsn) -> dict[str, str]:
    """The URL as libpq's variables, so that no password stands on a command line."""
    parts = urlsplit(dsn.url)
    login, _, hosts = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    found = {"PGUSER": unquote(user), "PGPASSWORD": unquote(password), "PGDATABASE": unquote(parts.path[1:])}
    split = [_host_and_port(one) for one in hosts.split(",") if one]
    found["PGHOST"] = ",".join(host for host, _ in split)
    if any(port for _, port in split):
        found["PGPORT"] = ",".join(port or "5432" for _, port in split)
    for key, value in parse_qsl(parts.query):
        if key in _LIBPQ:
            found[_LIBPQ[key]] = value
    if dsn.system_ca:
        found["PGSSLROOTCERT"] = "system"
    found["PGAPPNAME"] = "migrator"
    return {name: value for name, value in found.items() if value}


def without_password(dsn: Dsn) -> str:
    """The URL for a command line, where everybody on this machine can read it (ps)."""
    parts = urlsplit(dsn.url)
    login, at, hosts = parts.netloc.rpartition("@")
    user = login.partition(":")[0]
    kept = [(key, value) for key, value in parse_qsl(parts.query) if key not in ("password", "sslpassword")]
    return urlunsplit((parts.scheme, user + at + hosts, parts.path, urlencode(kept, quote_via=quote), ""))


def secrets(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Values that a program may show (`set -x`, `env`) and that are secrets by their names."""
    found = []
    for name, value in environ.items():
        if name.upper().endswith(("_URL", "_DSN")):
            password = re.search(r"://[^\s/:@]*:([^\s/]+)@", value)
            found += [password[1], unquote(password[1])] if password else []
        elif _SECRET_NAME.search(name.upper()):
            # A key of several lines comes out line by line.
            found += [line.strip() for line in value.split("\n")]
    return tuple(one for one in found if len(one) >= _LEAST_SECRET_CHARS)


def _host_and_port(written: str) -> tuple[str, str]:
    if written.startswith("["):
        host, _, rest = written[1:].partition("]")
        return host, rest.removeprefix(":")
    host, _, port = written.partition(":")
    return unquote(host), port
