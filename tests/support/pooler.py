"""A real PgBouncer, in transaction mode if nothing else is said."""

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from tests.conftest import needs
from tests.support.postgres import Server, answers, free_port
from tests.support.waiting import wait_until

POOL_SIZE = 2


@contextlib.contextmanager
def running_pooler(server: Server, *, ignores: str = "", mode: str = "transaction") -> Iterator[str]:
    """The URL of a pooler in front of the server's databases, to be completed by a database name.

    `ignores` are startup parameters that it swallows instead of refusing them.
    """
    program = needs("pgbouncer")
    behind = urlsplit(server.url)
    port = free_port()
    directory = Path(tempfile.mkdtemp(prefix="entrypoint-pooler-"))
    (directory / "users.txt").write_text('"postgres" ""\n')
    (directory / "pgbouncer.ini").write_text(
        f"""
[databases]
* = host={behind.hostname} port={behind.port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {directory}/users.txt
pool_mode = {mode}
default_pool_size = {POOL_SIZE}
max_client_conn = 200
server_lifetime = 3600
ignore_startup_parameters = {ignores}
server_login_retry = 1
log_connections = 0
log_disconnections = 0
log_stats = 0
verbose = 0
"""
    )
    owner = 65534 if os.geteuid() == 0 else None  # it refuses to run as root
    if owner:
        for path in (directory, *directory.iterdir()):
            os.chown(path, owner, owner)
    process = subprocess.Popen(
        [program, "-q", str(directory / "pgbouncer.ini")],
        user=owner,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        url = f"postgresql://postgres@127.0.0.1:{port}"
        wait_until(lambda: answers(f"{url}/postgres"), what="the pooler's answer")
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)
        for path in directory.iterdir():
            path.unlink()
        directory.rmdir()
