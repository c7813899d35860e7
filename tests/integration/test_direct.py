"""The transport over a real connection, with and without TLS, on both event loops."""

import asyncio
import os
import socket
import subprocess

import pytest
import uvloop

from migrator import direct, dsn
from migrator.errors import ConfigError, Unavailable
from migrator.transport import DatabaseError, Ended
from tests.conftest import needs
from tests.support.postgres import free_port, private_server
from tests.support.stores import session


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A key and a certificate for localhost that signs itself."""
    directory = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            needs("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
            "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
            "-keyout", str(directory / "key.pem"), "-out", str(directory / "cert.pem"),
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return directory


@pytest.fixture(scope="module")
def tls_server(certificate):
    """A server with TLS."""
    with private_server() as server:
        data = server.directory / "postgres-data"
        for name in ("key.pem", "cert.pem"):
            (data / name).write_bytes((certificate / name).read_bytes())
            (data / name).chmod(0o600)
            os.chown(data / name, data.stat().st_uid, data.stat().st_gid)
        server.stop()
        with (data / "postgresql.conf").open("a") as conf:
            conf.write("\nssl = on\nssl_cert_file = 'cert.pem'\nssl_key_file = 'key.pem'\n")
        server.start()
        yield server


def run(coroutine):
    """On uvloop, as the migrator does."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(coroutine)


def connect(url):
    return direct.connect(dsn.parse(url, "DATABASE_URL"), "migrator/test")


async def completed_before_error(url, message):
    async with connect(url) as transport:
        with pytest.raises(DatabaseError) as caught:
            await transport.execute(message)
        assert (await transport.fetch("select 1 as one"))[0]["one"] == 1
        return caught.value.completed


@pytest.mark.parametrize("over", ["tcp", "tls", "socket"])
def test_statements_before_an_error_are_counted(tls_server, over):
    url = {
        "tcp": f"{tls_server.url}?sslmode=disable",
        "tls": f"{tls_server.url}?sslmode=require",
        "socket": f"postgresql://postgres@/postgres?host={tls_server.directory}/postgres&port={tls_server.port}",
    }[over]
    large = "select repeat('C', 1000) from generate_series(1, 20000);"  # rows full of what is counted
    message = f"begin; {large} select 1; ; do $$ begin perform 1; end $$; copy (select 'C') to stdout; {large} select 1/0; select 2"

    assert run(completed_before_error(url, message)) == 6


async def test_what_becomes_of_a_transaction_is_known(database):
    deferred = (
        "begin; create table b (id int unique deferrable initially deferred);"
        "insert into b values (1), (1); commit"
    )
    async with connect(database) as transport:
        for message, ended, completed in (
            ("begin; create table a (); select 1/0", Ended.ROLLED_BACK, 2),
            ("select 1; select 1/0", Ended.ALREADY, 1),
            ("selec 1", Ended.ALREADY, 0),
            (deferred, Ended.ALREADY, 3),
        ):
            with pytest.raises(DatabaseError) as caught:
                await transport.execute(message)
            assert (caught.value.ended, caught.value.completed) == (ended, completed)
        assert (await transport.fetch("select to_regclass('a') as a, to_regclass('b') as b"))[0]["a"] is None


async def test_a_cancelled_message_is_cancelled_on_the_server_and_rolled_back(database):
    async with connect(database) as transport, session(database) as onlooker:
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(
                transport.execute("begin; create table a (); select pg_sleep(60); commit")
            )
            while not await onlooker.fetchval(
                "select count(*) from pg_stat_activity where wait_event = 'PgSleep'"
            ):
                await asyncio.sleep(0.01)
            running.cancel()

        assert transport.ended is Ended.ROLLED_BACK
        assert await onlooker.fetchval("select to_regclass('a')") is None
        assert (await transport.fetch("select 1 as one"))[0]["one"] == 1


async def test_a_connection_that_is_cut_in_a_message_is_unavailable_and_unknown(database):
    async with connect(database) as transport, session(database) as operator:
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(_outcome(transport, "begin; select pg_sleep(60); commit"))
            while not await operator.fetchval(
                "select count(*) from pg_stat_activity where wait_event = 'PgSleep'"
            ):
                await asyncio.sleep(0.01)
            await operator.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where wait_event = 'PgSleep'"
            )
        error = running.result()

    assert isinstance(error, Unavailable) or error.ended is Ended.UNKNOWN


async def _outcome(transport, message):
    try:
        await transport.execute(message)
    except (Unavailable, DatabaseError) as error:
        return error
    return None


async def test_the_server_notices_a_dead_client_soon(database):
    async with connect(database) as transport:
        (row,) = await transport.fetch(
            "select current_setting('client_connection_check_interval') as c, current_setting('statement_timeout') as s,"
            " current_setting('application_name') as a"
        )

    assert tuple(row.values()) == ("1s", "0", "migrator/test")


@pytest.mark.parametrize("query", ["sslmode=require", "sslmode=no-verify", "sslmode=prefer", "ssl=true", ""])
async def test_tls_is_used_where_it_is_offered(tls_server, query):
    async with connect(f"{tls_server.url}?{query}") as transport:
        (row,) = await transport.fetch("select ssl from pg_stat_ssl where pid = pg_backend_pid()")

    assert row["ssl"]


async def test_a_certificate_is_verified_against_a_file_or_the_systems(tls_server, certificate, monkeypatch):
    by_name = tls_server.url.replace("127.0.0.1", "localhost")
    for query in ("sslmode=verify-full&sslrootcert=system", "sslrootcert=system"):
        with pytest.raises(ConfigError, match=r"cannot trust the database at localhost.*check sslmode"):
            async with connect(f"{by_name}?{query}"):
                pass
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "cert.pem"))  # what OpenSSL takes for the system's
    for query in ("sslrootcert=system", f"sslmode=verify-full&sslrootcert={certificate}/cert.pem"):
        async with connect(f"{by_name}?{query}") as transport:
            (row,) = await transport.fetch("select ssl from pg_stat_ssl where pid = pg_backend_pid()")
            assert row["ssl"]


async def test_a_root_certificate_that_is_missing_is_told_as_such(tls_server):
    with pytest.raises(ConfigError, match="sslrootcert"):
        async with connect(f"{tls_server.url}?sslmode=verify-full&sslrootcert=/nowhere/ca.pem"):
            pass


async def test_a_server_without_tls_is_told_where_tls_is_wanted(postgres):
    with pytest.raises(ConfigError, match="sslmode"):
        async with connect(f"{postgres.url}?sslmode=require"):
            pass


async def test_the_first_of_several_hosts_may_be_down(postgres):
    parts = postgres.url.partition("@")
    url = f"{parts[0]}@127.0.0.1:{free_port()},{parts[2]}"
    async with connect(url) as transport:
        assert (await transport.fetch("select 1 as one"))[0]["one"] == 1


async def test_a_server_that_accepts_and_says_nothing_is_given_up_in_time():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(Unavailable, match=r"no answer within 0.2 s"):
            async with connect(
                f"postgresql://bob:s3cret@127.0.0.1:{port}/d?connect_timeout=0.2&sslmode=disable"
            ):
                pass
