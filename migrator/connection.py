"""asyncpg's connection, with an ear on what the server says: how far it is, and whether it takes data.

And with a way to send a message before the one before it is answered, for which asyncpg has none: the server
then begins with it at once, instead of waiting for us to hear, and to speak.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from typing import Any

import asyncpg

# What asyncpg wants to hear of at any time: NoticeResponse, ParameterStatus, NotificationResponse
_ASIDES = frozenset(b"NSA")
_IN_FAILED_TRANSACTION = b"E"


class Sent:
    """A message on its way, whose answer is heard here instead of by asyncpg.

    Attributes:
        message: What was sent.
        answer: Comes with the server's answer, or the loss of the connection.
        error: What went wrong; None until then.
        completed: How many of its statements were executed.
    """

    __slots__ = ("answer", "completed", "error", "message")

    def __init__(self, message: str, answer: asyncio.Future[None]) -> None:
        self.message = message
        self.answer = answer
        self.error: Exception | None = None
        self.completed = 0

    @property
    def is_done(self) -> bool:
        """The server has said that it executed all of it."""
        return self.answer.done() and self.error is None


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
        # What was sent ahead, in the order in which it is answered.
        self.ahead: deque[Sent] = deque()
        self.in_failed_transaction = False
        self._unread = bytearray()

    def set_linger(self, *, enabled: bool) -> None:
        """Whether what isn't sent yet is thrown away when the socket is closed."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", enabled, 0))

    def connection_lost(self, error: Exception | None) -> None:
        self._answer(takes_data=False)
        self._inner.resume_writing()  # asyncpg's COPY waits for that, and for nothing else
        self._inner.connection_lost(error)
        while self.ahead:
            # As asyncpg words it, with the server's last words if there are any.
            said = f": {self.ahead[0].error}" if self.ahead[0].error else ""
            self.ahead[0].error = asyncpg.ConnectionDoesNotExistError(
                f"connection was closed in the middle of operation{said}"
            )
            self._finish_first()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def eof_received(self) -> bool | None:
        keep_open: bool | None = self._inner.eof_received()
        return keep_open

    def data_received(self, data: bytes) -> None:
        if self.ahead:
            self._hear(data)
            return
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

    def _hear(self, data: bytes) -> None:
        """The answers to what was sent ahead; rows aren't wanted."""
        self._unread += data
        begin = 0
        while self.ahead and len(self._unread) - begin >= 5:
            kind = self._unread[begin]
            end = begin + 1 + int.from_bytes(self._unread[begin + 1 : begin + 5], "big")
            if end > len(self._unread):
                break
            if kind in self._TALLIED:
                self.ahead[0].completed += 1
            elif kind == ord("E"):
                self.ahead[0].error = _error_in(self._unread[begin + 5 : end])
            elif kind == ord("Z"):
                self.in_failed_transaction = self._unread[end - 1 : end] == _IN_FAILED_TRANSACTION
                self._finish_first()
            elif kind in _ASIDES:
                self._inner.data_received(bytes(self._unread[begin:end]))
            begin = end
        del self._unread[:begin]
        if self._unread and not self.ahead:
            rest, self._unread = bytes(self._unread), bytearray()
            self.data_received(rest)

    def _finish_first(self) -> None:
        sent = self.ahead.popleft()
        if not sent.answer.done():
            sent.answer.set_result(None)


def _error_in(fields: bytearray) -> Exception:
    """What an ErrorResponse says: fields of a letter and a text, each ended by a zero byte."""
    try:
        texts = [field.decode() for field in bytes(fields).split(b"\0") if field]
    except UnicodeDecodeError as error:
        return error
    refused: Exception = asyncpg.PostgresError.new({text[0]: text[1:] for text in texts})
    return refused


class Connection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no types
    """asyncpg's connection, with a count of completed statements."""

    def __init__(  # noqa: PLR0917 - asyncpg's order
        self, protocol: Any, transport: asyncio.Transport, loop: Any, addr: Any, config: Any, params: Any
    ) -> None:
        """As asyncpg makes it, once it is logged in."""
        super().__init__(protocol, transport, loop, addr, config, params)
        self.counter = _Counter(protocol, transport)
        transport.set_protocol(self.counter)

    def send_ahead(self, message: str) -> Sent:
        """Send a simple query. Nothing else may be sent by asyncpg until `answer` has had all answers."""
        self._check_open()
        sent = Sent(message, self._loop.create_future())
        if not self.counter.ahead:
            self.counter.in_failed_transaction = False
        self.counter.ahead.append(sent)
        text = message.encode()
        self._transport.write(b"Q" + (len(text) + 5).to_bytes(4, "big") + text + b"\0")
        return sent

    async def answer(self, sent: Sent) -> None:
        """Wait for the answer.

        Raises:
            asyncpg.PostgresError: The server refused it, or the connection is gone.
        """
        await asyncio.shield(sent.answer)
        self.counter.completed = sent.completed
        if sent.error is not None:
            raise sent.error

    async def cancel_ahead(self) -> None:
        """Wait for all answers that are still due; the server is asked to stop what it is at."""
        while self.counter.ahead:
            first = self.counter.ahead[0]
            # In a failed transaction the server refuses all that comes, by itself.
            if not self.counter.in_failed_transaction:
                asked = self._loop.create_future()
                self._cancel_current_command(asked)
                await asked
            await asyncio.shield(first.answer)
