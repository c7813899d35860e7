"""asyncpg's connection, with an ear on what the server says: how far it is, and whether it takes data."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

import asyncpg


class _Counter(asyncio.Protocol):
    """Stands between a connection and its protocol and counts the statements that the server completed.

    An error without a position (a duplicate key, say) doesn't tell which of the statements of a
    message it belongs to, and asyncpg doesn't either. The server does: each completed statement
    ends in a CommandComplete or EmptyQueryResponse (PostgreSQL manual, 55.2.3).
    """

    _TALLIED = frozenset(b"CI")
    # CopyInResponse, ErrorResponse, ReadyForQuery
    _ANSWERS = frozenset(b"GEZ")

    def __init__(self, inner: Any, transport: asyncio.Transport) -> None:
        self._inner = inner
        self._socket = transport.get_extra_info("socket")
        self._head = b""
        self._skip = 0
        self.completed = 0
        # Of a COPY: the server has said whether it takes the data, and does so still.
        self.answered = asyncio.Event()
        self.is_copying = False

    def set_linger(self, *, enabled: bool) -> None:
        """Whether what isn't sent yet is thrown away when the socket is closed."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", enabled, 0))

    def connection_lost(self, error: Exception | None) -> None:
        self._answer(takes_data=False)
        self._inner.resume_writing()  # asyncpg's COPY waits for that, and for nothing else
        self._inner.connection_lost(error)

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def eof_received(self) -> bool | None:
        keep_open: bool | None = self._inner.eof_received()
        return keep_open

    def data_received(self, data: bytes) -> None:
        self._tally(data)
        self._inner.data_received(data)

    def _answer(self, *, takes_data: bool) -> None:
        self.is_copying = takes_data
        self.answered.set()

    def _tally(self, data: bytes) -> None:
        start = 0
        while start < len(data):
            if self._skip:
                step = min(self._skip, len(data) - start)
                self._skip -= step
                start += step
                continue
            need = 5 - len(self._head)
            self._head += data[start : start + need]
            start += need
            if len(self._head) == 5:  # one byte of type, four of length, which counts itself
                self.completed += self._head[0] in self._TALLIED
                if self._head[0] in self._ANSWERS:
                    self._answer(takes_data=self._head[:1] == b"G")
                self._skip = int.from_bytes(self._head[1:], "big") - 4
                self._head = b""


class Connection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no types
    """asyncpg's connection, with a count of completed statements."""

    def __init__(  # noqa: PLR0917 - asyncpg's order
        self, protocol: Any, transport: asyncio.Transport, loop: Any, addr: Any, config: Any, params: Any
    ) -> None:
        """As asyncpg makes it, once it is logged in."""
        super().__init__(protocol, transport, loop, addr, config, params)
        self.counter = _Counter(protocol, transport)
        transport.set_protocol(self.counter)
