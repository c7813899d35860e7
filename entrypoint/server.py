"""The status over HTTP: a unix socket for the app and `docker exec`, a TCP port where wanted."""

from __future__ import annotations

import _socket
import errno
import os
import time

from entrypoint.board import EXITED, Board
from entrypoint.line import Log
from entrypoint.loop import READ, WRITE, Loop, clock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Seconds for a whole request, and for taking the answer; then a client is let go.
IDLE_S = 5.0
MAX_CONNECTIONS = 256
# Bytes of answers that may wait for a client who sends requests ahead and reads nothing.
MAX_WAITING_BYTES = 64 * 1024
# Seconds without new clients when there is no descriptor left for one.
PAUSE_S = 1.0
_READ_BYTES = 4096
# Requests that are known by heart, at the most.
REMEMBERED = 64

# What `entrypoint --healthcheck` sends, and most containers are asked nothing else: no parser needed.
OWN_REQUEST = b"GET /api/health HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: identity\r\n\r\n"
# What Node.js sends for a route of the app's that hands our answer on, as in examples/: 2 MiB less for good.
NODE_REQUEST = b"GET /api/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


class Client:
    """One connection."""

    __slots__ = ("deadline_s", "ends", "fd", "is_deaf", "parser", "request", "waiting")

    def __init__(self, fd: int) -> None:
        """Begin to wait for its first request."""
        self.fd = fd
        self.deadline_s = clock() + IDLE_S
        # An h11 connection, in the middle of a request that isn't one of those we know by heart.
        self.parser: Any = None
        # Path and method of the request that is being read.
        self.request: tuple[str, str] | None = None
        # What it says isn't listened to any more, only read.
        self.is_deaf = False
        # What it hasn't taken yet.
        self.waiting = b""
        # It is let go once it has.
        self.ends = False


class Server:
    """Answers GET and HEAD from the board."""

    def __init__(self, board: Board, loop: Loop, log: Log) -> None:
        """Answer from `board`, driven by `loop`."""
        self._board = board
        self._loop = loop
        self._log = log
        self._clients: dict[int, Client] = {}
        self._listeners: dict[int, _socket.socket] = {}
        self._path: str | None = None
        # Whole requests by their bytes, as h11 understood them: path and method. The same bytes mean the
        # same again, and a health check sends nothing else: 10 us instead of 150.
        self._known: dict[bytes, tuple[str, str]] = {OWN_REQUEST: ("/api/health", "GET")}

    def open_socket(self, path: str) -> None:
        """Listen on a unix socket. That it can't be opened is a warning: the app doesn't depend on it."""
        try:
            self._listen(bind(path))
            self._path = path
        except OSError as error:
            self._log.warning("socket.failed", path=path, reason=error.strerror or str(error))

    def open_port(self, port: int) -> None:
        """Listen on a TCP port, of both IP versions where there are both."""
        try:
            self._listen(_bind_port(port))
        except OSError as error:
            self._log.warning("socket.failed", port=port, reason=error.strerror or str(error))

    def close(self) -> None:
        """Take the socket out of the directory. Clients are left to the end of the process."""
        if self._path is not None:
            try:
                os.unlink(self._path)
            except OSError:  # gone already, or the disk is read-only by now
                pass

    def _listen(self, listener: _socket.socket) -> None:
        listener.listen(MAX_CONNECTIONS)
        self._listeners[listener.fileno()] = listener
        self._attend(listener)

    def _attend(self, listener: _socket.socket) -> None:
        self._loop.watch(listener.fileno(), READ, lambda _: self._accept(listener))

    def _accept(self, listener: _socket.socket) -> None:
        try:
            fd, _ = listener._accept()  # type: ignore[attr-defined]  # noqa: SLF001 - as socket.accept does
        except (BlockingIOError, ConnectionError):  # it has gone again
            return
        except OSError as error:
            self._pause(error)
            return
        if len(self._clients) >= MAX_CONNECTIONS:
            os.close(fd)
            return
        os.set_blocking(fd, False)
        client = self._clients[fd] = Client(fd)
        self._loop.watch(fd, READ, lambda events: self._serve(client, events))
        if not self._loop.has_timer("clients"):
            self._loop.at("clients", client.deadline_s, self._let_go_of_idle)

    def _pause(self, error: OSError) -> None:
        """No descriptor is left: whoever waits would wake us for ever."""
        self._log.error("loop.failed", reason=f"cannot take a client: {error.strerror}")
        for fd in self._listeners:
            self._loop.forget(fd)
        self._loop.at("listen", clock() + PAUSE_S, self._go_on)

    def _go_on(self) -> None:
        for listener in self._listeners.values():
            self._attend(listener)

    def _let_go_of_idle(self) -> None:
        now_s = clock()
        for client in list(self._clients.values()):
            if client.deadline_s <= now_s:
                self._drop(client)
        if self._clients:
            first_s = min(client.deadline_s for client in self._clients.values())
            self._loop.at("clients", first_s, self._let_go_of_idle)

    def _drop(self, client: Client) -> None:
        del self._clients[client.fd]
        self._loop.forget(client.fd)
        os.close(client.fd)

    def _serve(self, client: Client, events: int) -> None:
        """Whatever goes wrong here is between us and this client."""
        try:
            if events & WRITE:
                self._send(client, b"")
            else:
                self._read(client)
        except OSError:
            client.ends, client.waiting = True, b""
        except Exception as error:  # noqa: BLE001 - a bug of ours here must not reach the app
            self._log.error("loop.failed", reason=repr(error))
            client.ends, client.waiting = True, b""
        if client.ends and not client.waiting:
            self._drop(client)

    def _read(self, client: Client) -> None:
        data = os.read(client.fd, _READ_BYTES)
        if client.is_deaf or (not data and client.parser is None):
            client.ends = not data
        elif client.parser is None and data in self._known:
            client.deadline_s = clock() + IDLE_S
            self._send(client, self._answer(*self._known[data]))
        elif client.parser is None and data == NODE_REQUEST:
            client.ends = True
            self._send(client, self._answer("/api/health", "GET", close=True))
        else:
            self._parse(client, data)

    def _parse(self, client: Client, data: bytes) -> None:
        import h11  # late: most containers are asked nothing that needs it

        fresh, answered = client.parser is None, 0
        if fresh:
            client.parser = h11.Connection(h11.SERVER)
        parser = client.parser
        try:
            parser.receive_data(data)
            while len(client.waiting) < MAX_WAITING_BYTES:
                event = parser.next_event()
                if isinstance(event, h11.Request):
                    path = event.target.split(b"?", 1)[0].decode("ascii", "replace")
                    client.request = path, event.method.decode("ascii", "replace")
                elif isinstance(event, h11.EndOfMessage) and client.request is not None:
                    answered += 1
                    self._reply(client, *client.request)
                    if client.ends:
                        break
                elif event is h11.NEED_DATA:
                    break
                elif event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
                    client.ends = True
                    break
            else:
                client.ends = True
        except h11.RemoteProtocolError as error:
            if parser.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                said = f"cannot read the request: {error}\n".encode()
                head = _head(error.error_status_hint, "text/plain", len(said), close=True)
                self._send(client, head + said)
            self._stop_listening(client)
            return
        if client.ends or parser.their_state is not h11.IDLE or parser.trailing_data[0]:
            return
        if answered == 1 and fresh and client.request is not None and len(self._known) < REMEMBERED:
            self._known[data] = client.request
        if answered:
            client.parser = client.request = None

    def _stop_listening(self, client: Client) -> None:
        """Read what it still says, in its time: hung up on, it would never see our answer."""
        client.is_deaf = True
        talk = _socket.socket(fileno=client.fd)
        try:
            talk.shutdown(_socket.SHUT_WR)
        except OSError:
            client.ends = True
        finally:
            talk.detach()

    def _reply(self, client: Client, path: str, method: str) -> None:
        """Answer a whole request, and be ready for the next one if there may be one."""
        import h11

        parser = client.parser
        parser.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
        parser.send(h11.EndOfMessage())
        client.ends = parser.our_state is h11.MUST_CLOSE or parser.their_state is not h11.DONE
        client.deadline_s = clock() + IDLE_S
        self._send(client, self._answer(path, method, close=client.ends))
        if not client.ends:
            parser.start_next_cycle()

    def _answer(self, path: str, method: str, *, close: bool = False) -> bytes:
        code = self._code(path)
        content_type, body = "text/plain", b""
        if code == 404:
            body = f"cannot find {path}; there is /api/health, /live, /ready\n".encode()
        elif method not in ("GET", "HEAD"):
            code, body = 405, b"cannot do that; use GET\n"
        else:
            content_type, body = "application/json", self._board.document()
        head = _head(code, content_type, len(body), close=close)
        return head if method == "HEAD" else head + body

    def _code(self, path: str) -> int:
        match path:
            case "/api/health":
                good = self._board.is_healthy
            case "/live":
                good = self._board.app != EXITED
            case "/ready":
                good = self._board.is_ready
            case _:
                return 404
        return 200 if good else 503

    def _send(self, client: Client, data: bytes) -> None:
        before, client.waiting = client.waiting, client.waiting + data
        try:
            client.waiting = client.waiting[os.write(client.fd, client.waiting) :]
        except BlockingIOError:
            pass
        if bool(before) is not bool(client.waiting):
            # Who doesn't take its answers isn't asked for further requests.
            events = WRITE if client.waiting else READ
            self._loop.watch(client.fd, events, lambda ready: self._serve(client, ready))


def bind(path: str) -> _socket.socket:
    """A unix socket at `path` that only our own user may open, not listening yet.

    Raises:
        OSError: There is no room for it, or another entrypoint answers there.
    """
    listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
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
    probe = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        probe.settimeout(1)
        probe.connect(path)
    except TimeoutError:  # too busy to take us, but there
        return True
    except OSError:
        return False
    finally:
        probe.close()
    return True


def _bind_port(port: int) -> _socket.socket:
    for family, address in ((_socket.AF_INET6, "::"), (_socket.AF_INET, "0.0.0.0")):  # noqa: S104 - what it is for
        listener = None
        try:
            listener = _socket.socket(family, _socket.SOCK_STREAM)
            listener.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
            if family == _socket.AF_INET6:
                listener.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, 0)
            listener.bind((address, port))
            listener.setblocking(False)
        except OSError as error:
            if listener is not None:
                listener.close()
            if family == _socket.AF_INET or error.errno in (errno.EADDRINUSE, errno.EACCES):
                raise
        else:
            return listener
    raise AssertionError("the last family returns or raises")


def _head(code: int, content_type: str, length: int, *, close: bool) -> bytes:
    lines = [
        f"HTTP/1.1 {code} {_REASONS.get(code, '')}",
        time.strftime("Date: %a, %d %b %Y %H:%M:%S GMT", time.gmtime()),
        f"Content-Type: {content_type}",
        f"Content-Length: {length}",
        "Cache-Control: no-store",
    ]
    if code == 405:
        lines.append("Allow: GET, HEAD")
    if close:
        lines.append("Connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


_REASONS = {200: "OK", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}
