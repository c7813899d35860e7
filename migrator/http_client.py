"""A client for HTTP/1.1 that does what calls of functions need: POSTs over one connection, one by one.

h11 speaks the protocol. Redirects aren't followed: what is sent holds a key. TLS is always verified.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Sequence

import h11
from msgspec import Struct

from migrator.errors import ConfigError, MigratorError, Unavailable
from migrator.keepalive import keep_alive

_CONNECT_S = 10.0
_CHUNK_BYTES = 65536
# A gateway may have closed a connection that was silent for longer, and would lose what we send then.
_REUSE_S = 2.0
# More than a history of many thousand rows.
_MOST_BYTES = 64 * 1024 * 1024


class Answer(Struct, frozen=True, kw_only=True):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes


class HttpClient:
    """One connection, opened when needed, and again after it was lost."""

    def __init__(self, host: str, port: int, *, is_tls: bool, place: str) -> None:
        """Call `host`; `place` names it for people."""
        self._host = host
        self._port = port
        self._context: ssl.SSLContext | None = None
        if is_tls:
            from migrator import trust  # late: tests and sidecars speak plain HTTP

            self._context = trust.context()
        self._place = place
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._protocol = h11.Connection(h11.CLIENT)
        self._used_s = 0.0
        # Since when an answer is awaited to what has been sent, by the monotonic clock.
        self.asked_s: float | None = None

    async def post(self, path: str, headers: Sequence[tuple[str, str]], body: bytes) -> Answer:
        """Send it, and wait for the answer, for as long as it takes.

        Raises:
            Unavailable: Nobody answers, or the connection is gone; whether it was received is unknown.
            ConfigError: The other end isn't who it should be, or speaks something else.
        """
        try:
            reader, writer = await self._connected()
            self._used_s = time.monotonic()
            request = h11.Request(
                method="POST", target=path, headers=[*headers, ("Content-Length", str(len(body)))]
            )
            try:
                for event in (request, h11.Data(data=body), h11.EndOfMessage()):
                    data = self._protocol.send(event)
                    if data:
                        writer.write(data)
                        await writer.drain()
            except OSError:
                pass  # it may have answered before it had read everything
            self.asked_s = time.monotonic()
            answer = await self._answer(reader)
        except (OSError, EOFError) as error:
            self.close()
            raise Unavailable(f"lost the connection to {self._place}: {_said(error)}") from error
        except h11.ProtocolError as error:
            cut = self._streams is not None and self._streams[0].at_eof()
            self.close()
            if cut:
                raise Unavailable(f"lost the connection to {self._place}: it ended in the middle") from error
            raise ConfigError(
                f"cannot use {self._place}: what answers there doesn't speak HTTP/1.1 ({error})"
            ) from error
        except BaseException:
            self.close()  # an answer that comes later would be taken for the next one's
            raise
        finally:
            self.asked_s = None
        return answer

    async def connect(self) -> None:
        """Open the connection.

        Raises:
            As `post`.
        """
        try:
            async with asyncio.timeout(_CONNECT_S):
                self._streams = await asyncio.open_connection(self._host, self._port, ssl=self._context)
        except (OSError, TimeoutError) as error:
            raise _unreachable(self._place, error) from error
        keep_alive(self._streams[1].get_extra_info("socket"))
        self._protocol = h11.Connection(h11.CLIENT)

    def close(self) -> None:
        """Let go of the connection, at once."""
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is not None:
            stale = time.monotonic() - self._used_s > _REUSE_S and self._used_s
            if stale or self._streams[0].at_eof() or self._streams[1].is_closing():
                self.close()
        if self._streams is None:
            await self.connect()
        assert self._streams is not None
        return self._streams

    async def _answer(self, reader: asyncio.StreamReader) -> Answer:
        head: h11.Response | None = None
        body = bytearray()
        while True:
            event = self._protocol.next_event()
            if event is h11.NEED_DATA:
                self._protocol.receive_data(await reader.read(_CHUNK_BYTES))
            elif isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > _MOST_BYTES:
                    raise ConfigError(f"cannot use {self._place}: its answer is larger than 64 MiB")
            elif isinstance(event, h11.EndOfMessage):
                break
            elif isinstance(event, h11.ConnectionClosed):
                raise EOFError
        assert head is not None
        if self._protocol.our_state is h11.DONE and self._protocol.their_state is h11.DONE:
            self._protocol.start_next_cycle()
            self._used_s = time.monotonic()
        else:
            self.close()
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in head.headers}
        return Answer(status=head.status_code, headers=headers, body=bytes(body))


def _said(error: BaseException) -> str:
    return (getattr(error, "strerror", None) or str(error)) or "it was closed without an answer"


def _unreachable(place: str, error: Exception) -> MigratorError:
    if isinstance(error, TimeoutError):
        return Unavailable(
            f"cannot reach {place}: no answer within {_CONNECT_S:g} s; check host, port and network"
        )
    if isinstance(error, ssl.SSLCertVerificationError):
        return ConfigError(
            f"cannot trust {place}: {error.verify_message}; check the URL, install ca-certificates, or name "
            "the authority's file in SSL_CERT_FILE"
        )
    if isinstance(error, ssl.SSLError):
        return ConfigError(f"cannot use TLS with {place}: {error.reason or error}; check the URL")
    if isinstance(error, ConnectionRefusedError):
        return Unavailable(f"cannot reach {place}: nobody answers there; is it running?")
    return Unavailable(f"cannot reach {place}: {_said(error)}; check host, port and network")
