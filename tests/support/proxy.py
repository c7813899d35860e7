"""A TCP proxy between a client and Postgres that counts what passes."""

import contextlib
import select
import socket
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit


class Proxy:
    """Counts connections, and the round trips after each one's log-in."""

    def __init__(self, url: str) -> None:
        """Listen on a port of loopback and pass all on to the server of `url`."""
        parts = urlsplit(url)
        self._server = (parts.hostname or "127.0.0.1", parts.port or 5432)
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        login = parts.netloc.rpartition("@")[0]
        self.url = urlunsplit(parts._replace(netloc=f"{login}@127.0.0.1:{port}"))
        self.connections = 0
        self.round_trips = 0
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = [self._listener]
        self._start(self._accept)

    def _start(self, target, *arguments) -> None:
        thread = threading.Thread(target=target, args=arguments)
        thread.start()
        self._threads.append(thread)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
                self._sockets += [client, server]
                self._start(self._serve, client, server)

    def _serve(self, client: socket.socket, server: socket.socket) -> None:
        """Pass messages on in turns: what the client sends after an answer begins a new round trip."""
        logged_in = answered = False
        with contextlib.suppress(OSError):
            while True:
                for ready in select.select([client, server], [], [])[0]:
                    data = ready.recv(65536)
                    if not data:
                        client.shutdown(socket.SHUT_RDWR)
                        server.shutdown(socket.SHUT_RDWR)
                        return
                    (server if ready is client else client).sendall(data)
                    if ready is server:
                        answered = True
                        # ReadyForQuery, idle: the end of a log-in, unless the client only asked about TLS.
                        if not logged_in and data.endswith(b"Z\0\0\0\5I"):
                            logged_in = True
                            self.connections += 1
                    elif logged_in and answered and data[:1] != b"X":
                        self.round_trips += 1
                        answered = False

    def close(self) -> None:
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in self._threads:
            thread.join(5)


@contextlib.contextmanager
def counting_proxy(url: str) -> Iterator[Proxy]:
    """A proxy for as long as the body runs."""
    proxy = Proxy(url)
    try:
        yield proxy
    finally:
        proxy.close()
