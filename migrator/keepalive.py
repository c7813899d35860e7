"""Noticing within seconds that the host at a connection's other end is gone."""

from __future__ import annotations

import socket

# Seconds of silence, between probes, how many; milliseconds that what we sent may be on its way.
_OPTIONS = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 2, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 15_000}


def keep_alive(sock: socket.socket | None) -> None:
    """Probe `sock` while it is silent, also while an answer is awaited."""
    if sock is None or sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _OPTIONS.items():
        if hasattr(socket, name):  # Linux has them all
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
