"""The HTTP client, against servers that misbehave."""

import asyncio
import ssl
import subprocess
from contextlib import asynccontextmanager

import pytest
import uvloop

from migrator import http_client
from migrator.errors import ConfigError, Unavailable
from migrator.http_client import HttpClient
from tests.conftest import needs

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"
HEADERS = (("Host", "localhost"), ("apikey", "k3y"))


@asynccontextmanager
async def serving(answer, context=None):
    """A port that reads a request and lets `answer(request, writer)` deal with it; and what it was sent."""
    seen, serving = [], {}

    async def serve(reader, writer):
        serving[asyncio.current_task()] = writer
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0] or 0)
                seen.append(head + await reader.readexactly(length))
                if await answer(len(seen), writer):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1], seen
    finally:
        server.close()
        for writer in serving.values():
            writer.transport.abort()
        if serving:
            await asyncio.wait(serving, timeout=5)
        await asyncio.sleep(0)  # in which the transports close their sockets


def saying(content, *, ends=False):
    async def answer(_number, writer):
        writer.write(content)
        await writer.drain()
        return ends

    return answer


def client_of(port, *, is_tls=False):
    return HttpClient("localhost" if is_tls else "127.0.0.1", port, is_tls=is_tls, place="the project")


async def test_calls_share_a_connection():
    async with serving(saying(OK)) as (port, seen):
        client = client_of(port)
        answers = [await client.post("/rpc/f", HEADERS, b"{}") for _ in range(3)]
        client.close()

    assert [answer.body for answer in answers] == [b"[]"] * 3
    assert len(seen) == 3
    assert seen[0].startswith(b"POST /rpc/f HTTP/1.1\r\n")
    assert seen[0].endswith(b"\r\n\r\n{}")


async def test_a_connection_that_was_closed_in_between_is_opened_again():
    async with serving(saying(OK, ends=True)) as (port, seen):
        client = client_of(port)
        for _ in range(2):
            assert (await client.post("/", HEADERS, b"{}")).status == 200
            while not client._streams[0].at_eof():
                await asyncio.sleep(0)
        client.close()

    assert len(seen) == 2


async def test_one_that_was_silent_for_long_is_not_trusted(monkeypatch):
    monkeypatch.setattr(http_client, "_REUSE_S", 0.0)
    async with serving(saying(OK)) as (port, _):
        client = client_of(port)
        await client.post("/", HEADERS, b"{}")
        first = client._streams
        await client.post("/", HEADERS, b"{}")
        assert client._streams is not first
        client.close()


async def test_chunks_and_answers_without_a_length_are_read_whole():
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n[1,\r\n2\r\n2]\r\n0\r\n\r\n"
    async with serving(saying(chunked)) as (port, _):
        client = client_of(port)
        assert (await client.post("/", HEADERS, b"{}")).body == b"[1,2]"
        client.close()
    async with serving(saying(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n[3]", ends=True)) as (port, _):
        assert (await client_of(port).post("/", HEADERS, b"{}")).body == b"[3]"


@pytest.mark.parametrize(
    "content",
    [b"", b"HTTP/1.1 200 O", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n[1"],
    ids=["nothing", "half a head", "half a body"],
)
async def test_an_answer_that_is_cut_is_a_lost_connection(content):
    async with serving(saying(content, ends=True)) as (port, _):
        client = client_of(port)
        with pytest.raises(Unavailable, match="lost the connection to the project"):
            await client.post("/", HEADERS, b"{}")

        assert client.asked_s is None


async def test_what_speaks_no_http_is_told():
    async with serving(saying(b"220 mail.example.com ESMTP\r\n\r\n")) as (port, _):
        with pytest.raises(
            ConfigError, match="cannot use the project: what answers there doesn't speak HTTP"
        ):
            await client_of(port).post("/", HEADERS, b"{}")


async def test_an_answer_that_comes_before_all_is_read_is_heard():
    async def refuse(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        await reader.read(10_000_000)
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    try:
        port = server.sockets[0].getsockname()[1]
        assert (await client_of(port).post("/", HEADERS, b" " * 3_000_000)).status == 413
    finally:
        server.close()


async def test_nobody_there_is_told():
    async with serving(saying(OK)) as (port, _):
        pass
    with pytest.raises(Unavailable, match="cannot reach the project: nobody answers there"):
        await client_of(port).post("/", HEADERS, b"{}")


async def test_a_cancelled_call_does_not_leave_its_answer_to_the_next():
    heard = asyncio.Event()

    async def answer(number, writer):
        heard.set()
        if number > 1:
            writer.write(OK)

    async with serving(answer) as (port, _):
        client = client_of(port)
        call = asyncio.create_task(client.post("/", HEADERS, b"{}"))
        await heard.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert (await client.post("/", HEADERS, b"{}")).body == b"[]"
        client.close()


@pytest.fixture
def certificate(tmp_path):
    """A certificate for localhost that nobody has signed, and its key."""
    subprocess.run(
        [
            *(
                needs("openssl"),
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
            ),
            *("-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem", "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
        ],
        check=True,
        capture_output=True,
    )
    return tmp_path / "cert.pem", tmp_path / "key.pem"


def server_context(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


async def test_a_certificate_that_nobody_vouches_for_is_refused_before_the_key_is_sent(certificate):
    async with serving(saying(OK), server_context(certificate)) as (port, seen):
        with pytest.raises(
            ConfigError, match=r"cannot trust the project: self.signed certificate; check the URL"
        ):
            await client_of(port, is_tls=True).post("/", HEADERS, b"{}")

    assert seen == []


async def test_one_that_ssl_cert_file_vouches_for_is_trusted(certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    async with serving(saying(OK), server_context(certificate)) as (port, _):
        client = client_of(port, is_tls=True)
        assert (await client.post("/", HEADERS, b"{}")).status == 200
        client.close()


async def test_a_certificate_of_another_host_is_refused(certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    async with serving(saying(OK), server_context(certificate)) as (port, seen):
        client = HttpClient("127.0.0.1", port, is_tls=True, place="the project")
        with pytest.raises(ConfigError, match="cannot trust the project"):
            await client.post("/", HEADERS, b"{}")

    assert seen == []


async def test_plain_http_where_tls_is_asked_for_is_told():
    async def answer(reader, writer):
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        with pytest.raises(ConfigError, match="cannot use TLS with the project"):
            await client_of(server.sockets[0].getsockname()[1], is_tls=True).post("/", HEADERS, b"{}")
    finally:
        server.close()


def test_on_the_migrators_own_loop_it_is_the_same(certificate, monkeypatch):
    """Its streams and its TLS are uvloop's."""

    async def calls():
        async with serving(saying(OK), server_context(certificate)) as (port, seen):
            with pytest.raises(ConfigError, match="cannot trust the project"):
                await client_of(port, is_tls=True).post("/", HEADERS, b"{}")
            assert seen == []
            monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
            client = client_of(port, is_tls=True)
            for _ in range(2):
                assert (await client.post("/", HEADERS, b" " * 300_000)).body == b"[]"
            client.close()
        async with serving(saying(b"", ends=True)) as (port, _):
            with pytest.raises(Unavailable, match="lost the connection"):
                await client_of(port).post("/", HEADERS, b"{}")
        with pytest.raises(Unavailable, match="nobody answers there"):
            await client_of(port).post("/", HEADERS, b"{}")

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(calls())
