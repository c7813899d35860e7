"""Database URLs as people have them, made into what asyncpg accepts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from migrator import env, variables
from migrator.errors import ConfigError

DEFAULT_CONNECT_TIMEOUT_S = 10.0
_POOLER_PORT = 6543  # Supavisor in transaction mode; in front of a project's own host, PgBouncer
_SUPAVISOR = ".pooler.supabase.com"

# Understood by asyncpg itself.
_KEPT = frozenset(
    "host port dbname database user password passfile service servicefile sslmode sslcert sslkey sslrootcert "
    "sslcrl sslpassword sslnegotiation ssl_min_protocol_version ssl_max_protocol_version krbsrvname gsslib "
    "target_session_attrs application_name options".split()
)
# Server settings. A transaction pooler refuses them for a session, so that each transaction sets them.
_SERVER_SETTINGS = frozenset(
    "search_path statement_timeout lock_timeout idle_in_transaction_session_timeout timezone datestyle role "
    "work_mem maintenance_work_mem".split()
)
# Of other clients (Prisma, libpq, node-postgres, Vercel): without meaning here, or dealt with below.
_DROPPED = frozenset(
    "pgbouncer schema connection_limit pool_timeout socket_timeout statement_cache_size connect_timeout "
    "channel_binding gssencmode keepalives keepalives_idle keepalives_interval keepalives_count "
    "tcp_user_timeout fallback_application_name sslaccept sslidentity sslcompression sslsni requiressl "
    "ssl uselibpqcompat supa workaround pool_mode prepared_statements preparethreshold "
    "max_idle_connection_lifetime single_use_connections requirepeer require_auth replication "
    "load_balance_hosts client_encoding".split()  # we speak UTF-8, whatever the app does
)
_SSLMODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
# What `ssl` holds in the URLs of node-postgres, postgres.js and JDBC.
_SSL = {"true": "require", "1": "require", "no-verify": "require", "false": None, "0": None, "": None}
_TLS_VERSIONS = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
# In libpq's spelling, which is asyncpg's; it takes any case, asyncpg doesn't.
_WORDS = {
    "target_session_attrs": ("any", "primary", "standby", "prefer-standby", "read-write", "read-only"),
    "sslnegotiation": ("postgres", "direct"),
    "ssl_min_protocol_version": _TLS_VERSIONS,
    "ssl_max_protocol_version": _TLS_VERSIONS,
    "gsslib": ("gssapi", "sspi"),
}
_MAX_CONNECT_TIMEOUT_S = 3600
# In the parameter: a path, an IPv6 address, or a name, with which asyncpg takes a port, too.
_HOST = re.compile(r"/.*|\[[0-9a-fA-F:.%]+\]|[^/\[\]:@\s]+(:\d{1,5})?")


class Kind(StrEnum):
    """What a URL leads to, as far as it says so itself."""

    DIRECT = "direct"
    SESSION_POOLER = "session pooler"
    TRANSACTION_POOLER = "transaction pooler"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dsn:
    """Where the database is. Its text form names host and database, not the login.

    Attributes:
        url: For asyncpg; holds the password.
        place: "host:port/database", for people.
        hosts: Their names or addresses; none if it is a socket.
        kind: What answers there.
        system_ca: Verify the server against the system's certificates.
        connect_timeout_s: For one attempt to connect.
        server_settings: What the session, or each transaction through a pooler, is to have set.
        files: Certificates and keys, which must exist.
        ignored: Parameters that mean nothing to us, for a warning.
    """

    url: str = field(repr=False)
    place: str
    hosts: tuple[str, ...]
    kind: Kind
    system_ca: bool
    connect_timeout_s: float
    files: tuple[str, ...]
    server_settings: Mapping[str, str]
    ignored: tuple[str, ...]

    @property
    def pooled(self) -> bool:
        """The URL says that a transaction pooler answers."""
        return self.kind is Kind.TRANSACTION_POOLER

    @property
    def is_local(self) -> bool:
        """It is on this machine."""
        return self.place.startswith(("/", "localhost", "127.0.0.1", "[::1]"))

    @property
    def requires_tls(self) -> bool:
        """Without TLS there is to be no connection."""
        return bool(re.search(r"[?&]sslmode=(require|verify-ca|verify-full)\b", self.url))

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
        _ports(parts.netloc)
        if "@" not in parts.netloc and "@" in url:
            raise ValueError("a / ? or # in the password cuts it off, and what is left looks like a port")
    except ValueError:
        # Docker's --env-file and Kubernetes take them for a part of the value.
        quoted = "; it begins with a quote: leave those out" if url[:1] in ("'", '"') else ""
        raise ConfigError(
            f"cannot use {name}: it must be a URL like postgresql://user:password@host:5432/database "
            f"(special characters in the password percent-encoded), or `embedded`{quoted}"
        ) from None
    given = {key.lower(): value for key, value in parse_qsl(parts.query, keep_blank_values=True)}
    netloc = _host_from_parameter(parts.netloc, given)
    given, problems = _checked(given)
    if problems:
        raise ConfigError(f"cannot use {name}: its {'; its '.join(problems)}")
    ports = _ports(netloc) + [int(port) for port in given.get("port", "").split(",") if port]
    hosts = _hosts(netloc, given)
    kind = _kind(hosts, ports, prisma_says=given.get("pgbouncer", "").lower() in ("true", "1"))
    pooled = kind is Kind.TRANSACTION_POOLER
    wanted = _KEPT - {"options"} if pooled else _KEPT
    kept = [(key, value) for key, value in given.items() if key in wanted - {"sslmode", "sslrootcert"}]
    system_ca = given.get("sslrootcert") == "system"
    sslmode = _sslmode(given)
    if system_ca:
        sslmode = "verify-full"
    elif given.get("sslrootcert"):
        kept.append(("sslrootcert", given["sslrootcert"]))
    if sslmode:
        kept.append(("sslmode", sslmode))
    ignored = set(given) - _KEPT - _SERVER_SETTINGS - _DROPPED
    server_settings = {key: value for key, value in given.items() if key in _SERVER_SETTINGS}
    schema = given.get("schema", "public")
    if schema != "public":
        server_settings["search_path"] = '"' + schema.replace('"', '""') + '",public'
    if pooled:
        ignored |= given.keys() & {"role", "options"}
    place = _place(netloc, given, parts.path)
    query_text = urlencode(kept, quote_via=quote)
    return Dsn(
        url=urlunsplit((parts.scheme, _quoted(netloc), parts.path, query_text, "")),
        place=place,
        hosts=hosts,
        kind=kind,
        system_ca=system_ca,
        connect_timeout_s=_connect_timeout_s(given),
        files=tuple(value for key, value in kept if key in ("sslrootcert", "sslcert", "sslkey", "sslcrl")),
        server_settings=server_settings,
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
    hosts = netloc.rpartition("@")[2].split(",")
    if len(hosts) > 1 and not all(hosts):
        raise ValueError("a host without a name among several")
    written = [host.rpartition("]")[2].rpartition(":") for host in hosts]
    ports = [int(port) for _, colon, port in written if colon and port]
    if not all(0 < port < 2**16 for port in ports):
        raise ValueError("no such port")
    return ports


def _hosts(netloc: str, given: Mapping[str, str]) -> tuple[str, ...]:
    written = (netloc.rpartition("@")[2] or given.get("host", "")).split(",")
    names = [one[1:].partition("]")[0] if one.startswith("[") else one.partition(":")[0] for one in written]
    return tuple(name for name in map(unquote, names) if name and not name.startswith("/"))


def _kind(hosts: Sequence[str], ports: Sequence[int], *, prisma_says: bool) -> Kind:
    """By host and port. Supavisor's two ports are two modes; that of a project's own host is PgBouncer's."""
    if _POOLER_PORT in ports:
        return Kind.TRANSACTION_POOLER
    if any(host.endswith(_SUPAVISOR) for host in hosts):
        return Kind.SESSION_POOLER
    # `?pgbouncer=true` is meant for the transaction mode, whatever the port.
    return Kind.TRANSACTION_POOLER if prisma_says else Kind.DIRECT


def _quoted(netloc: str) -> str:
    """With user and password percent-encoded: asyncpg takes the first `@` for their end, we the last."""
    login, at, hosts = netloc.rpartition("@")
    parts = [quote(unquote(part), safe="") for part in login.split(":", 1)]
    return ":".join(parts) + at + hosts


def _host_from_parameter(netloc: str, given: dict[str, str]) -> str:
    """Without hosts where the parameter `host` names others: libpq and Prisma prefer it, asyncpg doesn't.

    So it is in every URL for a socket of Cloud SQL. A port of the URL stays, in `given`.
    """
    login, at, _ = netloc.rpartition("@")
    if not given.get("host"):
        return netloc
    ports = _ports(netloc)
    if ports and not given.get("port"):
        given["port"] = str(ports[0])
    return login + at


def _checked(given: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    """The parameters as asyncpg spells them, and what is wrong with them: it would say so in odd ways."""
    found = {key: value for key, value in given.items() if value or key not in ("host", "port", *_WORDS)}
    problems = []
    for key, words in _WORDS.items():
        if key in found:
            spelt = {word.lower(): word for word in words}.get(found[key].lower())
            if spelt is None:
                problems.append(_must_be(key, words))
            found[key] = spelt or words[0]
    least, most = (found.get(f"ssl_{end}_protocol_version") for end in ("min", "max"))
    if not problems and least and most and _TLS_VERSIONS.index(least) > _TLS_VERSIONS.index(most):
        problems.append("ssl_min_protocol_version must not be above its ssl_max_protocol_version")
    if "sslmode" in found and found["sslmode"] not in (*_SSLMODES, "no-verify"):
        problems.append(_must_be("sslmode", (*_SSLMODES, "no-verify")))
    ssl = found.get("ssl", "").lower()
    if ssl not in (*_SSL, *_SSLMODES):
        problems.append(_must_be("ssl", ("true", "false", "no-verify")))
    certain = found.get("sslrootcert") == "system" or _sslmode(found) in _SSLMODES[3:]
    if not problems and found.get("sslnegotiation") == "direct" and not certain:
        problems.append("sslnegotiation=direct needs an sslmode of require, verify-ca or verify-full")
    hosts = [_bracketed(host.strip()) for host in found.get("host", "").split(",")]
    if "host" in found and not all(_HOST.fullmatch(host) for host in hosts):
        problems.append(
            "host must be one name or path, or several separated by commas, ports being in `port`"
        )
    elif "host" in found:
        found["host"] = ",".join(hosts)
    ports = found.get("port", "").split(",")
    if "port" in found and not all(port.isdecimal() and 0 < int(port) < 2**16 for port in ports):
        problems.append("port must be a number from 1 to 65535, or one for each host")
    elif "port" in found and "host" in found and len(ports) not in (1, len(hosts)):
        problems.append(f"port must be one number, or one for each of its {len(hosts)} hosts")
    if _is_wrong_timeout(found.get("connect_timeout", "")):
        problems.append(f"connect_timeout must be a number of seconds up to {_MAX_CONNECT_TIMEOUT_S}")
    return found, problems


def _bracketed(host: str) -> str:
    """An IPv6 address as asyncpg wants it."""
    return f"[{host}]" if host.count(":") > 1 and host[0] not in "[/" else host


def _must_be(key: str, words: Sequence[str]) -> str:
    return f"{key} must be one of {', '.join(words)}"


def _is_wrong_timeout(raw: str) -> bool:
    try:
        return bool(raw) and not float(raw) <= _MAX_CONNECT_TIMEOUT_S  # nan isn't
    except ValueError:
        return True


def _sslmode(given: dict[str, str]) -> str | None:
    mode = given.get("sslmode")
    if mode is None:
        truth = given.get("ssl", "").lower()
        return _SSL.get(truth, truth)
    # node-postgres: encrypted, not verified, which libpq calls require
    return "require" if mode == "no-verify" else mode


def _connect_timeout_s(given: dict[str, str]) -> float:
    timeout_s = float(given.get("connect_timeout") or 0)
    return timeout_s if timeout_s > 0 else DEFAULT_CONNECT_TIMEOUT_S  # libpq: 0 is no limit


def _place(netloc: str, given: dict[str, str], path: str) -> str:
    host = netloc.rpartition("@")[2] or given.get("host", "localhost")
    database = path.lstrip("/") or given.get("dbname") or given.get("database") or ""
    return f"{host}/{database}" if database else host
