"""Why a host can't be reached, where more can be told than the system says."""

from __future__ import annotations

import asyncio
import errno
import re
import socket
from collections.abc import Sequence

# No route, no address of our own of that kind, or a kernel without it.
_NO_WAY = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
# What a resolver says that leaves out addresses of a kind that we have none of.
_NO_ADDRESS = frozenset(
    getattr(socket, name) for name in ("EAI_ADDRFAMILY", "EAI_NODATA") if hasattr(socket, name)
)
# Supabase's direct hosts have no IPv4 address, but for those who buy one.
_SUPABASE = re.compile(r"db\.(?P<project>[a-z0-9]+)\.supabase\.(co|in|red)")
_RESOLVE_S = 2.0


async def without_ipv6(hosts: Sequence[str], error: OSError) -> str | None:
    """What to say if it was for want of IPv6 that none of the hosts could be reached; else None."""
    if isinstance(error, socket.gaierror):
        mute = [host for host in hosts if _SUPABASE.fullmatch(host)]
        return _told(mute[0]) if mute and error.errno in _NO_ADDRESS else None
    # Of several addresses asyncio tells but the text.
    if error.errno not in _NO_WAY and "unreachable" not in str(error) and "Cannot assign" not in str(error):
        return None
    for host in hosts:
        if await _has_only_ipv6(host):
            return _told(host)
    return None


async def _has_only_ipv6(host: str) -> bool:
    try:
        async with asyncio.timeout(_RESOLVE_S):
            found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError):
        return False
    return bool(found) and all(family == socket.AF_INET6 for family, *_ in found)


def _told(host: str) -> str:
    supabase = _SUPABASE.fullmatch(host)
    remedy = "use a host with an IPv4 address, or give this network IPv6"
    if supabase:
        remedy = (
            f"use the session pooler URL, postgresql://postgres.{supabase['project']}@aws-...pooler"
            ".supabase.com:5432/postgres (in the dashboard: Connect), or give this network IPv6 "
            "(on Railway: railway outbound-network ipv6 enable)"
        )
    return f"{host} has only an IPv6 address, and this network has no IPv6; {remedy}"
