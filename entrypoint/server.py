"""The status over HTTP: a unix socket for the app and `docker exec`, a TCP port where wanted."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from entrypoint.board import Board
from entrypoint.status import http_status
from migrator.log import Log

if TYPE_CHECKING:
    import h11

# Seconds for a whole request, and for taking the answer; then a client is let go.
IDLE_S = 5.0
MAX_CONNECTIONS = 256
_READ_BYTES = 4096


class Server:
    """Answers GET and HEAD from the board; keeps no state of its own but the count of clients."""

    def __init__(self, board: Board, log: Log) -> None:
        """Answer from `board`."""
        self._board = board
        self._log = log
        self._clients = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Talk to one client until it goes, falls silent, or breaks the protocol."""
        self._clients += 1
        try:
            if self._clients <= MAX_CONNECTIONS:
                await self._talk(reader, writer)
        except (TimeoutError, ConnectionError):
            pass
        finally:
            self._clients -= 1
            writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        import h11  # late: most containers are never asked

        connection = h11.Connection(h11.SERVER)
        while True:
            try:
                async with asyncio.timeout(IDLE_S):  # in all: one byte now and then isn't a request
                    request = await _next_request(connection, reader)
            except h11.RemoteProtocolError as error:
                if connection.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                    body = f"cannot read the request: {error}\n".encode()
                    await _send(connection, writer, error.error_status_hint, body, "text/plain")
                return
            if request is None:
                return
            code, body, content_type = self._answer(request)
            await _send(
                connection,
                writer,
                code,
                body,
                content_type,
                without_body=request.method == b"HEAD",
            )
            if connection.our_state is h11.MUST_CLOSE or connection.their_state is not h11.DONE:
                return
            connection.start_next_cycle()

    def _answer(self, request: h11.Request) -> tuple[int, bytes, str]:
        path = request.target.split(b"?", 1)[0].decode("ascii", "replace")
        code = http_status(path, self._board.status)
        if code == 404:
            known = "/api/health, /live, /ready"
            return 404, f"cannot find {path}; there is {known}\n".encode(), "text/plain"
        if request.method not in (b"GET", b"HEAD"):
            return 405, b"cannot do that; use GET\n", "text/plain"
        return code, self._board.document(), "application/json"


@asynccontextmanager
async def serve(board: Board, *, socket_path: str | None, port: int | None, log: Log) -> AsyncIterator[None]:
    """Serve while the body runs. What can't be opened is a warning: the app doesn't depend on it."""
    server = Server(board, log)
    async with AsyncExitStack() as stack:
        if socket_path is not None:
            try:
                listener = bind(socket_path)
            except OSError as error:
                log.warning("socket.failed", path=socket_path, reason=error.strerror or str(error))
            else:
                stack.callback(_unlink, socket_path)
                await stack.enter_async_context(
                    _closing(
                        await asyncio.start_unix_server(server.serve, sock=listener, backlog=MAX_CONNECTIONS)
                    )
                )
        if port is not None:
            try:
                listening = await asyncio.start_server(server.serve, port=port, backlog=MAX_CONNECTIONS)
            except OSError as error:
                log.warning("socket.failed", port=port, reason=error.strerror or str(error))
            else:
                await stack.enter_async_context(_closing(listening))
        yield


def bind(path: str) -> socket.socket:
    """A listening unix socket at `path` that only our own user may open.

    Raises:
        OSError: There is no room for it, or another entrypoint answers there.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Under a umask, not chmod afterwards: nobody else may get in between.
    before = os.umask(0o177)
    try:
        try:
            listener.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            if answers(path):
                raise OSError(error.errno, "another entrypoint answers there") from None
            os.unlink(path)  # what a dead entrypoint left behind
            listener.bind(path)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(before)
    return listener


def answers(path: str) -> bool:
    """Whether somebody listens there: a living entrypoint's socket is never taken."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except TimeoutError:  # too busy to take us, but there
            return True
        except OSError:
            return False
    return True


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:  # gone already, or the disk is read-only by now
        pass


@asynccontextmanager
async def _closing(server: asyncio.Server) -> AsyncIterator[None]:
    # Not `async with server`: from 3.12 on its exit waits for the clients, who may take their time.
    try:
        yield
    finally:
        server.close()


async def _next_request(connection: h11.Connection, reader: asyncio.StreamReader) -> h11.Request | None:
    """The next whole request, its body thrown away; None when the client has gone."""
    import h11

    request: h11.Request | None = None
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(_READ_BYTES))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.EndOfMessage):
            return request
        elif isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
            return None


async def _send(
    connection: h11.Connection,
    writer: asyncio.StreamWriter,
    code: int,
    body: bytes,
    content_type: str,
    *,
    without_body: bool = False,
) -> None:
    import h11

    headers = [
        ("Date", time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())),
        ("Content-Type", content_type),
        ("Content-Length", str(len(body))),
        ("Cache-Control", "no-store"),
    ]
    if code == 405:
        headers.append(("Allow", "GET, HEAD"))
    writer.write(connection.send(h11.Response(status_code=code, headers=headers)) or b"")
    if not without_body:
        writer.write(connection.send(h11.Data(data=body)) or b"")
    writer.write(connection.send(h11.EndOfMessage()) or b"")
    async with asyncio.timeout(IDLE_S):
        await writer.drain()
