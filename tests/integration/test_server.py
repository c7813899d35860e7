"""The status over HTTP, with real sockets and real clients."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
import threading

import h11
import pytest

from entrypoint import client, server
from entrypoint.board import Board
from entrypoint.line import Log
from entrypoint.loop import READ, Loop
from entrypoint.record import Record
from entrypoint.server import Server

GET = b"GET /api/health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


class Serving:
    """A server in a thread, as PID 1 drives it."""

    def __init__(self, board, log, where):
        self.loop = Loop()
        self.server = Server(board, self.loop, log)
        self.server.open_socket(where)
        self._wake, self._waker = os.pipe()
        self._goes_on = True
        self.loop.watch(self._wake, READ, lambda _: os.read(self._wake, 1))
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        while self._goes_on:
            self.loop.run_once()

    def end(self):
        self._goes_on = False
        os.write(self._waker, b"x")
        self._thread.join(5)
        self.server.close()
        for one in list(self.server._clients.values()):
            self.server._drop(one)
        for listener in self.server._listeners.values():
            listener.close()
        os.close(self._wake)
        os.close(self._waker)


@pytest.fixture
def log():
    return Log(level="debug", console=False, fd=2)


@pytest.fixture
def board(log, tmp_path):
    made = Board({"service": "shop", "environment": "production", "version": "1"}, str(tmp_path), log)
    made.app_runs(os.getpid())
    return made


@pytest.fixture
def serving(board, log, tmp_path):
    made = Serving(board, log, str(tmp_path / "entrypoint.sock"))
    yield made
    made.end()


@pytest.fixture
def path(serving, tmp_path):
    return str(tmp_path / "entrypoint.sock")


async def talk(path, data, *, timeout_s=8.0):
    """All that the server says until it hangs up."""
    async with asyncio.timeout(timeout_s):
        reader, writer = await asyncio.open_unix_connection(path)
        with contextlib.closing(writer):
            writer.write(data)
            return await reader.read()


def parts(answer):
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    return int(first.split()[1]), headers, body


def request(method, target, extra=""):
    return f"{method} {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{extra}\r\n".encode()


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("/api/health", 200),
        ("/api/health?verbose=1", 200),
        ("/live", 200),
        ("/ready", 503),
        ("/", 404),
        ("/api/health/", 404),
        ("/API/HEALTH", 404),
        ("//live", 404),
    ],
)
async def test_each_path_has_its_answer(path, target, code):
    assert parts(await talk(path, request("GET", target)))[0] == code


async def test_once_migrated_it_is_ready_and_once_failed_for_good_unhealthy(path, board):
    done = Record(
        settled=True, failed=False, done=True, code=0, groups=frozenset(), summary="", document="{}"
    )
    board.take(done)
    assert parts(await talk(path, request("GET", "/ready")))[0] == 200
    board.app_ended(3, "exited with code 3")

    codes = [
        parts(await talk(path, request("GET", target)))[0] for target in ("/api/health", "/live", "/ready")
    ]
    assert codes == [503, 503, 503]


async def test_the_answer_is_the_marker_files_bytes_and_not_to_be_cached(path, tmp_path):
    code, headers, body = parts(await talk(path, request("GET", "/api/health")))

    assert code == 200
    assert body == (tmp_path / "status.json").read_bytes()
    assert headers["content-type"] == "application/json"
    assert int(headers["content-length"]) == len(body)
    assert headers["cache-control"] == "no-store"
    assert json.loads(body)["service"] == "shop"


async def test_head_says_the_length_and_nothing_more(path):
    code, headers, body = parts(await talk(path, request("HEAD", "/api/health")))

    assert (code, body) == (200, b"")
    assert int(headers["content-length"]) > 100


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "NONSENSE"])
async def test_other_methods_are_refused_with_what_is_allowed(path, method):
    code, headers, _ = parts(await talk(path, request(method, "/api/health", "Content-Length: 0\r\n")))

    assert (code, headers["allow"]) == (405, "GET, HEAD")


async def test_a_body_is_read_and_thrown_away(path):
    data = request("POST", "/live", "Content-Length: 100000\r\n") + b"x" * 100_000

    assert parts(await talk(path, data))[0] == 405


@pytest.mark.parametrize(
    "garbage",
    [
        b"garbage\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET /live HTTP/1.1\r\n\r\n",
        b"GET /live HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /li\x00ve HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /live HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n",
    ],
)
async def test_garbage_is_a_bad_request(path, garbage):
    code, _, body = parts(await talk(path, garbage))

    assert 400 <= code < 600
    assert body.startswith(b"cannot read the request: ")
    assert parts(await talk(path, GET))[0] == 200


async def test_headers_without_end_are_cut_off(path):
    data = b"GET /live HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 20_000

    assert parts(await talk(path, data))[0] == 431


async def test_a_connection_can_be_kept_and_requests_sent_ahead(path):
    kept = b"GET /live HTTP/1.1\r\nHost: a\r\n\r\n"

    assert (await talk(path, kept * 3 + GET)).count(b"HTTP/1.1 200") == 4


async def test_http_1_0_gets_an_answer(path):
    assert b" 200 " in await talk(path, b"GET /live HTTP/1.0\r\n\r\n")


@pytest.mark.parametrize(
    "data", [b"", b"GET /live HT", GET[:-2]], ids=["nothing", "a part", "all but the end"]
)
async def test_a_client_that_goes_early_does_no_harm(path, data):
    for _ in range(20):
        _, writer = await asyncio.open_unix_connection(path)
        writer.write(data)
        writer.close()

    assert parts(await talk(path, GET))[0] == 200


async def test_silent_clients_dont_hold_others_up_and_are_let_go(path, monkeypatch):
    monkeypatch.setattr(server, "IDLE_S", 0.3)
    silent = [await asyncio.open_unix_connection(path) for _ in range(50)]

    assert parts(await talk(path, GET, timeout_s=2))[0] == 200
    async with asyncio.timeout(5):
        assert [await reader.read() for reader, _ in silent] == [b""] * 50
    for _, writer in silent:
        writer.close()


async def test_a_client_that_drips_doesnt_keep_its_place_for_ever(path, monkeypatch):
    monkeypatch.setattr(server, "IDLE_S", 0.4)
    reader, writer = await asyncio.open_unix_connection(path)

    async def drip():
        for byte in GET + b"x" * 1000:
            writer.write(bytes([byte]))
            await asyncio.sleep(0.05)

    async with asyncio.timeout(2), asyncio.TaskGroup() as tasks:
        dripping = tasks.create_task(drip())
        with contextlib.suppress(ConnectionError):  # let go with a byte unread
            assert await reader.read() == b""
        dripping.cancel()
    writer.close()


async def test_a_client_that_doesnt_read_is_let_go(path, board, monkeypatch):
    monkeypatch.setattr(server, "IDLE_S", 0.3)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        client.setblocking(False)
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            while True:  # more requests than answers fit into the buffers
                client.send(b"GET /api/health HTTP/1.1\r\nHost: a\r\n\r\n" * 100)
                await asyncio.sleep(0)

        assert parts(await talk(path, GET, timeout_s=2))[0] == 200


async def test_200_clients_at_once_are_all_answered(path):
    answers = []
    async with asyncio.TaskGroup() as tasks:
        for _ in range(200):
            tasks.create_task(_collect(path, answers))

    assert [parts(answer)[0] for answer in answers] == [200] * 200


async def _collect(path, answers):
    answers.append(await talk(path, GET))


async def test_clients_without_end_are_turned_away_and_later_ones_served(path):
    many = [await asyncio.open_unix_connection(path) for _ in range(server.MAX_CONNECTIONS)]

    assert await talk(path, b"") == b""
    for _, writer in many:
        writer.close()
    await asyncio.sleep(0)
    answer = b""
    async with asyncio.timeout(5):
        while not answer:
            with contextlib.suppress(ConnectionError):  # turned away, its request unread
                answer = await talk(path, GET)
    assert parts(answer)[0] == 200


def test_the_socket_is_gone_afterwards(board, log, tmp_path):
    where = tmp_path / "entrypoint.sock"
    serving = Serving(board, log, str(where))
    assert where.is_socket()
    serving.end()

    assert not where.exists()


async def test_the_same_request_again_is_answered_alike_without_being_parsed(path, serving):
    kept = b"GET /ready HTTP/1.1\r\nHost: a\r\n\r\n"
    reader, writer = await asyncio.open_unix_connection(path)
    answers = []
    for _ in range(3):
        writer.write(kept)
        head = await reader.readuntil(b"\r\n\r\n")
        answers.append(head.split(b"Date:")[0] + await reader.readexactly(_length(head)))
    writer.close()

    assert answers[0].startswith(b"HTTP/1.1 503 ")
    assert answers == [answers[0]] * 3
    assert serving.server._known[kept] == ("/ready", "GET")


async def test_requests_that_are_no_health_checks_arent_remembered(path, serving):
    before = dict(serving.server._known)
    await talk(path, GET)
    await talk(path, b"GET /live HTTP/1.1\r\nHost: a\r\n\r\n" * 2 + GET)
    await talk(path, request("POST", "/live", "Content-Length: 3\r\n") + b"abc")
    await talk(path, b"GET /live HTTP/1.0\r\n\r\n")

    assert serving.server._known == before


async def test_half_a_request_isnt_remembered_either(path, serving):
    before = dict(serving.server._known)
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b"GET /live HT")
    await _until(lambda: any(one.parser for one in serving.server._clients.values()))
    writer.write(b"TP/1.1\r\nHost: a\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    writer.close()

    assert serving.server._known == before


async def _until(condition):
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


async def test_what_is_remembered_has_a_bound(path, serving):
    for number in range(server.REMEMBERED + 50):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(f"GET /live?{number} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    assert len(serving.server._known) == server.REMEMBERED


def test_our_own_health_check_sends_what_the_server_knows_by_heart(tmp_path):
    where = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(where)
        listener.listen()
        connection = client._UnixConnection(where)
        connection.request("GET", "/api/health")
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.recv(4096) == server.OWN_REQUEST
        connection.close()


async def test_node_js_is_answered_without_a_parser_and_hung_up_on_as_it_asks(path, serving, monkeypatch):
    monkeypatch.setattr(h11, "Connection", None)  # who called it would get an error for an answer
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(server.NODE_REQUEST)
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()

    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nConnection: close" in head
    assert json.loads(body)["status"] == "ok"


@pytest.mark.parametrize("known", [server.OWN_REQUEST, server.NODE_REQUEST])
def test_what_the_server_knows_by_heart_is_what_h11_understands(known):
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(known)
    request_line, end = connection.next_event(), connection.next_event()

    assert (request_line.method, request_line.target) == (b"GET", b"/api/health")
    assert isinstance(end, h11.EndOfMessage)
    assert connection.trailing_data == (b"", False)


def _length(head):
    return int(re.search(rb"Content-Length: (\d+)", head)[1])


def test_a_live_socket_is_never_taken_over_and_a_dead_one_always(tmp_path):
    where = str(tmp_path / "s")
    first = server.bind(where)
    first.listen()
    with pytest.raises(OSError, match="another entrypoint"):
        server.bind(where)
    first.close()

    server.bind(where).close()
