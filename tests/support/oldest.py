"""The oldest PostgreSQL that we promise to migrate, from npm: Debian has it no more."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.othertools import MODULES
from tests.support.postgres import Server, answers, free_port
from tests.support.waiting import wait_until

PACKAGE = MODULES / "@embedded-postgres" / "linux-x64"
_NOBODY = 65534


@contextlib.contextmanager
def oldest_server() -> Iterator[Server]:
    """A server that lives as long as the body runs."""
    if not PACKAGE.is_dir():
        pytest.skip("needs PostgreSQL 12 from npm; `make tools` installs it")
    directory = Path(tempfile.mkdtemp(prefix="entrypoint-test-"))
    programs = directory / "programs"
    shutil.copytree(PACKAGE / "native", programs, symlinks=True)
    # npm packages hold no symbolic links: a list has them instead.
    for link in json.loads((programs / "pg-symlinks.json").read_text()):
        source, target = (
            directory / link[name].replace("native", "programs", 1) for name in ("source", "target")
        )
        if not target.is_symlink():
            target.symlink_to(source)
    data, port = directory / "data", free_port()
    data.mkdir()
    # Postgres refuses to run as root.
    user = _NOBODY if os.geteuid() == 0 else None
    if user is not None:
        directory.chmod(0o755)
        os.chown(data, user, -1)
    where = ["-D", str(data)]
    initdb = [
        str(programs / "bin/initdb"),
        *where,
        "-U",
        "postgres",
        "-A",
        "trust",
        "-E",
        "UTF8",
        "--locale=C",
        "-N",
    ]
    subprocess.run(initdb, check=True, capture_output=True, user=user, cwd="/")
    options = {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "fsync": "off",
        "log_min_messages": "fatal",
    }
    flags = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
    process = subprocess.Popen(
        [str(programs / "bin/postgres"), *where, "-p", str(port), *flags], user=user, cwd="/"
    )
    server = Server(url=f"postgresql://postgres@127.0.0.1:{port}/postgres")
    try:
        wait_until(lambda: answers(server.url), what="the oldest server's answer")
        yield server
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(directory)
