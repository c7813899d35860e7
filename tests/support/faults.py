"""A TCP proxy that breaks what passes: it resets connections, swallows packets, or holds them back."""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit, urlunsplit

# What a server's keepalives need to notice a host that is gone; the proxy gives their verdict, as they only
# reach the proxy.
KEEPALIVE_S = 4.0


class _Link:
    """One connection, both sides of it."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server
        self.swallowed = False
        # The client's words have gone through; it shall not hear the answer.
        self.deaf = False


class FaultyProxy:
    """Passes everything on until it is told otherwise. All methods may be called from any thread."""

    def __init__(self, url: str) -> None:
        """Listen on a port of loopback, in front of the server of `url`."""
        parts = urlsplit(url)
        self._target = (parts.hostname or "127.0.0.1", parts.port or 5432)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        login = parts.netloc.rpartition("@")[0]
        netloc = f"{login}@127.0.0.1:{self._listener.getsockname()[1]}"
        self.url = urlunsplit(parts._replace(netloc=netloc))
        self._links: set[_Link] = set()
        self._swallowing = False
        self._deaf_after: bytes | None = None
        self._loop = asyncio.new_event_loop()
        self._passing = asyncio.Event()
        self._passing.set()
        self._answering = asyncio.Event()
        self._answering.set()
        self._thread = threading.Thread(target=self._serve, name="faulty proxy", daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """Reset every connection."""
        self._call(lambda: [_reset(link) for link in list(self._links)])

    def swallow(self) -> None:
        """A black hole: connections stay open, and nothing passes any more, for good.

        New ones get into it as well, until `heal`.
        """

        def swallow() -> None:
            self._swallowing = True
            for link in self._links:
                link.swallowed = True

        self._call(swallow)

    def hold(self) -> None:
        """Hold back all packets until `heal`, as if they were lost and sent again."""
        self._call(self._passing.clear)

    def hold_answers(self) -> None:
        """Hold back what servers say until `heal`; what clients say, passes."""
        self._call(self._answering.clear)

    def heal(self) -> None:
        """Let new connections pass, and what was held back."""

        def heal() -> None:
            self._swallowing = False
            self._passing.set()
            self._answering.set()

        self._call(heal)

    def deafen_after(self, words: bytes) -> None:
        """Reset the next connection that sends these words once the server has answered them."""

        def deafen() -> None:
            self._deaf_after = words

        self._call(deafen)

    def close(self) -> None:
        """End everything."""
        self._call(self._loop.stop)
        self._thread.join(5)

    def _call(self, deed: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(deed)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._link, sock=self._listener))
        try:
            self._loop.run_forever()
        finally:
            server.close()
            for link in list(self._links):
                _reset(link)
            left = asyncio.all_tasks(self._loop)
            for task in left:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            self._loop.close()

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            to_read, to_write = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        link = _Link(writer, to_write)
        link.swallowed = self._swallowing
        self._links.add(link)
        with contextlib.suppress(asyncio.CancelledError):  # at our own end; a stream's server would log it
            await asyncio.gather(
                self._pump(link, reader, to_write, from_client=True),
                self._pump(link, to_read, writer, from_client=False),
            )
        self._links.discard(link)
        writer.transport.abort()
        to_write.transport.abort()

    async def _pump(
        self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, from_client: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self._passing.wait()
                if not from_client:
                    await self._answering.wait()
                if link.swallowed:
                    continue
                if from_client and self._deaf_after and self._deaf_after in data:
                    link.deaf, self._deaf_after = True, None
                elif link.deaf and not from_client:
                    _reset(link)
                    return
                writer.write(data)
                await writer.drain()
        await self._passing.wait()
        if link.swallowed:
            # Nobody tells the other side. A server's keepalives notice it in the end, a client is left alone.
            if from_client:
                await asyncio.sleep(KEEPALIVE_S)
                writer.transport.abort()
            return
        with contextlib.suppress(OSError):
            writer.close()


def _reset(link: _Link) -> None:
    for writer in (link.client, link.server):
        sock = writer.get_extra_info("socket")
        # No lingering: the other side gets an RST instead of a FIN.
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()


@contextlib.contextmanager
def faulty_proxy(url: str) -> Iterator[FaultyProxy]:
    """A proxy for as long as the body runs."""
    proxy = FaultyProxy(url)
    try:
        yield proxy
    finally:
        proxy.close()
