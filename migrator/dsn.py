"""Database URLs as people have them, made into what asyncpg accepts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from migrator import env, variables
from migrator.errors import ConfigError

DEFAULT_CONNECT_TIMEOUT_S = 10.0
_POOLER_PORT = 6543  # Supavisor in transaction mode

# Understood by asyncpg itself.
_KEPT = frozenset(
    "host port dbname database user password passfile service servicefile sslmode sslcert sslkey sslrootcert "
    "sslcrl sslpassword sslnegotiation ssl_min_protocol_version ssl_max_protocol_version krbsrvname gsslib "
    "target_session_attrs application_name options".split()
)
# Server settings that asyncpg hands on; a transaction pooler refuses them.
_SERVER_SETTINGS = frozenset(
    "search_path statement_timeout lock_timeout idle_in_transaction_session_timeout timezone datestyle role "
    "client_encoding work_mem maintenance_work_mem".split()
)
# Of other clients (Prisma, libpq, node-postgres, Vercel): without meaning here, or dealt with below.
_DROPPED = frozenset(
    "pgbouncer schema connection_limit pool_timeout socket_timeout statement_cache_size connect_timeout "
    "channel_binding gssencmode keepalives keepalives_idle keepalives_interval keepalives_count "
    "tcp_user_timeout fallback_application_name sslaccept sslidentity sslcompression sslsni requiressl "
    "ssl uselibpqcompat supa workaround pool_mode prepared_statements preparethreshold "
    "max_idle_connection_lifetime single_use_connections requirepeer require_auth replication "
    "load_balance_hosts".split()
)
_SSLMODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dsn:
    """Where the database is. Its text form names host and database, not the login.

    Attributes:
        url: For asyncpg; holds the password.
        place: "host:port/database", for people.
        pooled: The URL says that a transaction pooler answers.
        system_ca: Verify the server against the system's certificates.
        connect_timeout_s: For one attempt to connect.
        files: Certificates and keys, which must exist.
        ignored: Parameters that mean nothing to us, for a warning.
    """

    url: str = field(repr=False)
    place: str
    pooled: bool
    system_ca: bool
    connect_timeout_s: float
    files: tuple[str, ...]
    ignored: tuple[str, ...]

    def __str__(self) -> str:
        """Host, port and database."""
        return self.place


def parse(url: str, name: str) -> Dsn:
    """Normalise the URL that the variable `name` holds.

    Raises:
        ConfigError: It is no PostgreSQL URL; the message doesn't repeat it.
    """
    try:
        if not re.match(r"postgres(ql)?://", url):
            raise ValueError("another scheme, or none")
        parts = urlsplit(url)
        ports = _ports(parts.netloc)
        if "@" not in parts.netloc and "@" in url:
            raise ValueError("a / ? or # in the password cuts it off, and what is left looks like a port")
    except ValueError:
        raise ConfigError(
            f"cannot use {name}: it must be a URL like postgresql://user:password@host:5432/database "
            "(special characters in the password percent-encoded), or `embedded`"
        ) from None
    given = {key.lower(): value for key, value in parse_qsl(parts.query, keep_blank_values=True)}
    pooled = _POOLER_PORT in ports or given.get("pgbouncer", "").lower() in ("true", "1")
    wanted = _KEPT - {"options"} if pooled else _KEPT | _SERVER_SETTINGS
    kept = [(key, value) for key, value in given.items() if key in wanted - {"sslmode", "sslrootcert"}]
    system_ca = given.get("sslrootcert") == "system"
    sslmode = _sslmode(given, name)
    if system_ca:
        sslmode = "verify-full"
    elif given.get("sslrootcert"):
        kept.append(("sslrootcert", given["sslrootcert"]))
    if sslmode:
        kept.append(("sslmode", sslmode))
    ignored = set(given) - _KEPT - _SERVER_SETTINGS - _DROPPED
    schema = given.get("schema", "public")
    if schema != "public" and pooled:
        ignored.add("schema")
    elif schema != "public":
        kept.append(("search_path", '"' + schema.replace('"', '""') + '",public'))
    place = _place(parts.netloc, given, parts.path)
    query_text = urlencode(kept, quote_via=quote)
    return Dsn(
        url=urlunsplit((parts.scheme, _quoted(parts.netloc), parts.path, query_text, "")),
        place=place,
        pooled=pooled,
        system_ca=system_ca,
        connect_timeout_s=_connect_timeout_s(given, name),
        files=tuple(value for key, value in kept if key in ("sslrootcert", "sslcert", "sslkey", "sslcrl")),
        ignored=tuple(sorted(ignored)),
    )


def secrets(url: str | None) -> tuple[str, ...]:
    """What must never be shown of a URL: its password, as written and decoded."""
    if not url:
        return ()
    found = [match[1] for match in re.finditer(r"://[^:@]*:(.*)@", url)]  # also where it isn't encoded
    found += re.findall(r"[?&](?:password|sslpassword)=([^&#]*)", url, re.IGNORECASE)
    return tuple({text for one in found for text in (one, unquote(one)) if text})


def known_secrets(read: env.Reader, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Every value in the environment that must not be shown, also of names that another one outdoes."""
    password = environ.get("PGPASSWORD", "")
    passwords = [one for url in read.every(variables.DATABASE) for one in secrets(url)]
    return (
        *passwords,
        *read.every(variables.REST_KEY),
        *{given for given in (password, password.strip()) if given},
    )


def _ports(netloc: str) -> list[int]:
    """The port of each host; ValueError if one isn't a port."""
    written = [host.rpartition("]")[2].rpartition(":") for host in netloc.rpartition("@")[2].split(",")]
    ports = [int(port) for _, colon, port in written if colon and port]
    if not all(0 < port < 2**16 for port in ports):
        raise ValueError("no such port")
    return ports


def _quoted(netloc: str) -> str:
    """With user and password percent-encoded: asyncpg takes the first `@` for their end, we the last."""
    login, at, hosts = netloc.rpartition("@")
    parts = [quote(unquote(part), safe="") for part in login.split(":", 1)]
    return ":".join(parts) + at + hosts


def _sslmode(given: dict[str, str], name: str) -> str | None:
    mode = given.get("sslmode")
    if mode is None:
        truth = given.get("ssl", "").lower()
        return {"true": "require", "1": "require", "no-verify": "require"}.get(truth)
    if mode == "no-verify":  # node-postgres: encrypted, not verified, which libpq calls require
        return "require"
    if mode not in _SSLMODES:
        raise ConfigError(f"cannot use {name}: its sslmode must be one of {', '.join(_SSLMODES)}, no-verify")
    return mode


def _connect_timeout_s(given: dict[str, str], name: str) -> float:
    raw = given.get("connect_timeout")
    if not raw:
        return DEFAULT_CONNECT_TIMEOUT_S
    try:
        timeout_s = float(raw)
    except ValueError:
        raise ConfigError(f"cannot use {name}: its connect_timeout must be a number of seconds") from None
    return timeout_s if timeout_s > 0 else DEFAULT_CONNECT_TIMEOUT_S  # libpq: 0 is no limit


def _place(netloc: str, given: dict[str, str], path: str) -> str:
    host = netloc.rpartition("@")[2] or given.get("host", "localhost")
    database = path.lstrip("/") or given.get("dbname") or given.get("database") or ""
    return f"{host}/{database}" if database else host
