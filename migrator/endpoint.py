"""A Supabase project's REST API, as its URL and key are given. Pure."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import json
import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from migrator.errors import ConfigError

_DEFAULT_PORTS = {"https": 443, "http": 80}
# What a key may consist of, and a URL: what else there is would end the header or line that it is sent in.
_PLAIN = re.compile(r"[\x21-\x7e]+")
_ROLE = "service_role"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where functions of the database are called over HTTP. Its text form names the host, not the key.

    Attributes:
        host: Without brackets.
        path: Of the API, before `/rpc/...`.
        headers: What says who we are; holds the key.
        place: Host and port, for people.
    """

    host: str
    port: int
    is_tls: bool
    path: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    place: str

    @property
    def is_local(self) -> bool:
        """It is on this machine."""
        return self.host in ("localhost", "127.0.0.1", "::1")

    @property
    def authority(self) -> str:
        """The header `Host`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (
            host if self.port == _DEFAULT_PORTS["https" if self.is_tls else "http"] else f"{host}:{self.port}"
        )

    def __str__(self) -> str:
        """Host and port."""
        return self.place


def parse(url: str, url_name: str, key: str, key_name: str) -> Endpoint:
    """What the variables `url_name` and `key_name` hold together.

    Raises:
        ConfigError: The URL is none, would send the key in clear text over the internet, or the key isn't
            one with which anything can be changed. The message holds neither.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    host = parts.hostname or ""
    # urlsplit leaves line breaks out, as if they hadn't been there.
    is_plain = _PLAIN.fullmatch(url) is not None and _is_host(host)
    if (
        parts.scheme not in _DEFAULT_PORTS
        or not is_plain
        or parts.query
        or parts.fragment
        or "@" in parts.netloc
    ):
        raise ConfigError(
            f"cannot use {url_name}: it must be the project's URL, like https://abcdefgh.supabase.co"
        )
    is_tls = parts.scheme == "https"
    if not is_tls and not _is_private(host):
        raise ConfigError(
            f"cannot use {url_name}: it must begin with https://, as the key would be sent in clear text; "
            "http:// is only for hosts of a private network"
        )
    path = parts.path.rstrip("/")
    port = port or _DEFAULT_PORTS[parts.scheme]
    shown = f"[{host}]" if ":" in host else host
    return Endpoint(
        host=host,
        port=port,
        is_tls=is_tls,
        path=path if path.endswith("/rest/v1") else f"{path}/rest/v1",
        headers=_headers(key, key_name),
        place=f"{shown}:{port}",
    )


def _headers(key: str, name: str) -> tuple[tuple[str, str], ...]:
    """A new key isn't a token that the database's API could read: it goes into `apikey` alone."""
    if not _PLAIN.fullmatch(key):
        raise ConfigError(f"cannot use {name}: it must be one word of plain ASCII characters")
    if key.startswith("sb_publishable_"):
        raise ConfigError(f"cannot use {name}: it holds a publishable key; set a secret key (sb_secret_...)")
    if key.startswith("sbp_"):
        raise ConfigError(
            f"cannot use {name}: it holds a personal access token; set a secret key (sb_secret_...)"
        )
    if key.startswith("sb_"):
        return (("apikey", key),)
    role = _role_of(key)
    if role in ("anon", "authenticated"):
        raise ConfigError(
            f"cannot use {name}: it holds the key of {role}; set the service_role key, or a secret key"
        )
    return (("apikey", key), ("Authorization", f"Bearer {key}"))


def _role_of(key: str) -> str | None:
    """The role that a JSON Web Token names; None if it is none. Whether it is genuine, the server tells."""
    parts = key.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        return None
    role = claims.get("role") if isinstance(claims, dict) else None
    return role if isinstance(role, str) else None


def _is_host(host: str) -> bool:
    """Whether it can be looked up, or is an address."""
    return ":" in host or all(0 < len(label) < 64 for label in host.removesuffix(".").split("."))


def _is_private(host: str) -> bool:
    """Whether it is a host that the internet can't have: by its address, or by its name."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        # Names of containers have no dot.
        return "." not in host or host.endswith((".localhost", ".local", ".internal", ".test"))
    return address.is_private or address.is_loopback or address.is_link_local
