"""Trying out the state directory."""

from __future__ import annotations

import contextlib
import os
import socket
import stat

from entrypoint import launch
from entrypoint.check.facts import State


def look(path: str, trusted: set[int]) -> State:
    """Use it as the entrypoint will (`prepare_state_dir`, marker, socket), and take everything back."""
    made: list[str] = []
    try:
        missing = path
        while not os.path.lexists(missing) and missing != "/":
            made.append(missing)
            missing = os.path.dirname(missing)
        os.makedirs(path, mode=0o755, exist_ok=True)
        found = os.lstat(path)
        if not stat.S_ISDIR(found.st_mode):
            return State(path=path, error="it is no directory, or a link", socket_error=None)
        if not made and found.st_uid not in trusted:
            return State(path=path, error="it belongs to another user", socket_error=None)
        _write(os.path.join(path, f".check{os.getpid()}"))
        return State(path=path, error=None, socket_error=_socket_error(path))
    except OSError as error:
        return State(path=path, error=error.strerror or str(error), socket_error=None)
    finally:
        for directory in made:
            with contextlib.suppress(OSError):
                os.rmdir(directory)


def _write(path: str) -> None:
    """Write beside and rename, as the marker is written; a full disk shows itself only in bytes."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # of one that was killed, with the same pid
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(b" " * 4096)
        os.replace(path, f"{path}.new")
        path = f"{path}.new"
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)


def _socket_error(directory: str) -> str | None:
    path = os.path.join(directory, launch.SOCKET_FILE)
    if len(os.fsencode(path)) > 107:  # unix(7): sun_path has 108 bytes, with the NUL at the end
        return f"its path has {len(os.fsencode(path))} bytes and 107 are possible"
    probe = os.path.join(directory, f".chk{os.getpid()}")  # never longer than the real name
    with contextlib.suppress(OSError):
        os.unlink(probe)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(probe)
    except OSError as error:
        return error.strerror or str(error)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(probe)
    return None
