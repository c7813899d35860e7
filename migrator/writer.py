"""Whole lines to a descriptor that others use too, never waiting for whoever reads them."""

import os
import select
import stat

# To the begin of the line, and away with what is there.
_ERASE = b"\r\x1b[K"


class Writer:
    """Writes whole lines to a descriptor that others use too, and drops what it can't write at once.

    A reader that doesn't read would stop PID 1, but the descriptor is the app's as well and can't be
    made non-blocking. A pipe can be opened once more, for ourselves; elsewhere a look whether there
    is room must do.
    """

    def __init__(self, fd: int) -> None:
        """Write to what `fd` is open for; `fd` itself is never closed here."""
        self._given = fd
        self._fd = _own_descriptor(fd)
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLOUT)
        self._torn = False
        # What stays below all lines, on a terminal.
        self._below = b""
        self.dropped = 0

    def close(self) -> None:
        """Let go of the descriptor that is ours alone, if there is one."""
        if self._fd != self._given:
            os.close(self._fd)
            self._fd = self._given

    def msg(self, line: str) -> None:
        """Write one line, or drop it if nobody reads."""
        try:
            ready = self._poll.poll(0)
            if not ready or not ready[0][1] & select.POLLOUT:
                self.dropped += 1
                return
            text = line.encode(errors="backslashreplace") + b"\n"
            if self._torn:  # the last line had room for its beginning only
                text = b"\n" + text
            if self._below:
                text = _ERASE + text + self._below
            self._torn = os.write(self._fd, text) < len(text)
        except OSError:  # a closed pipe, a full disk: our words matter less than the app
            self.dropped += 1

    def keep_below(self, line: str) -> None:
        """Keep a line without an end below all others on a terminal; "" takes it away."""
        text = line.encode(errors="backslashreplace")
        if text == self._below:
            return
        self._below = text
        try:
            ready = self._poll.poll(0)
            if ready and ready[0][1] & select.POLLOUT:
                os.write(self._fd, _ERASE + text)
        except OSError:
            pass

    log = debug = info = warning = error = critical = exception = msg


def _own_descriptor(fd: int) -> int:
    """For a pipe, a descriptor that doesn't block and is ours alone; else `fd`."""
    try:
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # no /proc, or a pipe that another user made
        pass
    return fd
