"""The directory of a Postgres cluster: made whole or not at all, and by one process at a time."""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from migrator import shorten
from migrator.errors import ConfigError

_PR_SET_PDEATHSIG = 1
_NEW_PREFIX = "postgres-data.new-"
_LOCK_FILE = "postgres.lock"
_SAID_CHARS = 500


def lock(directory: Path) -> int:
    """Wait until nobody else makes or serves the cluster in `directory`; the descriptor of our lock.

    It is inherited: as long as a process of the server lives, its files are its own.

    Raises:
        OSError: The lock's file can't be made.
    """
    fd = os.open(directory / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.set_inheritable(fd, True)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.stderr.write(f"migrator: waiting for another embedded Postgres in {directory} to end\n")
        sys.stderr.flush()
        fcntl.flock(fd, fcntl.LOCK_EX)
    return fd


def make(directory: Path, binaries: Path, owner: int, lock_fd: int) -> Path:
    """The cluster's directory below `directory`, made if there is none yet.

    initdb works beside it, and what it made is renamed once it is whole: killed in the middle, it
    would leave what looks like a cluster and can't be started.

    Raises:
        ConfigError: It can't be made, or what is there isn't ours.
        OSError: As what the system refused.
    """
    data = directory / "postgres-data"
    for leftover in directory.glob(f"{_NEW_PREFIX}*"):
        shutil.rmtree(leftover)
    if data.exists() and data.stat().st_uid != owner and any(data.iterdir()):
        raise ConfigError(
            f"cannot start the embedded Postgres in {data}: it belongs to another user (uid "
            f"{data.stat().st_uid}, not {owner}); remove it, or set ENTRYPOINT_STATE_DIR to another directory"
        )
    if not (data / "PG_VERSION").exists():
        if data.exists() and any(data.iterdir()):
            raise ConfigError(
                f"cannot make the embedded Postgres in {data}: something else is there; remove it, or set "
                "ENTRYPOINT_STATE_DIR to another directory"
            )
        made = Path(tempfile.mkdtemp(prefix=_NEW_PREFIX, dir=directory))
        os.chown(made, owner, owner if os.geteuid() == 0 else -1)
        try:
            _initdb(binaries, made, owner, lock_fd)
            made.rename(data)  # also over an empty directory
        finally:
            shutil.rmtree(made, ignore_errors=True)
    data.chmod(0o700)  # Postgres refuses more
    return data


def end_with_parent(number: int) -> None:
    """Have the kernel send us a signal when our parent dies; forgotten when we change the user."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)


def _initdb(binaries: Path, made: Path, owner: int, lock_fd: int) -> None:
    command = [
        str(binaries / "initdb"),
        f"--pgdata={made}",
        "--auth=trust",
        "--username=postgres",
        "--encoding=UTF8",
        "--locale=C.UTF-8",
        "--no-sync",
        "--no-instructions",
    ]
    as_root = os.geteuid() == 0
    done = subprocess.run(  # noqa: S603
        command,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        cwd=made,
        user=owner if as_root else None,
        group=owner if as_root else None,
        extra_groups=[] if as_root else None,
        pass_fds=[lock_fd],  # if we are killed and it isn't, nobody starts beside it
        # One thread is all there is here. Without a parent its work would be for nobody.
        preexec_fn=lambda: end_with_parent(signal.SIGKILL),
    )
    if done.returncode:
        said = "; ".join(line.strip() for line in done.stderr.splitlines() if line.strip())
        raise ConfigError(
            f"cannot make the embedded Postgres in {made.parent}: "
            f"{shorten.middle(said, _SAID_CHARS) or f'initdb ended with {done.returncode}'}; see that "
            "ENTRYPOINT_STATE_DIR is a writable directory with 100 MB to spare"
        )
