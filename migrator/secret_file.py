"""Reading the file that a `NAME_FILE` variable names."""

from __future__ import annotations

import os
import stat

MAX_BYTES = 64 * 1024


def read(path: str) -> str:
    """Its text.

    Raises:
        OSError: It can't be read, or isn't a plain file of a secret's size. A pipe that nobody
            writes to would stop PID 1 for ever.
        UnicodeDecodeError: It isn't UTF-8.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(22, "it isn't a plain file")
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise OSError(27, "it is too large for a secret")
    return content.decode()
