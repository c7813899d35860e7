"""What comes through a pipe, line by line, at a pace that we set."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

# After each read there is a pause: however a writer floods us, we wake 20 times a second and read at
# most 1.3 MB of it. The pipe fills, and the writer waits.
TURN_BYTES = 64 * 1024
PAUSE_S = 0.05
# A pipe holds 64 KiB unless its writer enlarged it, to 1 MiB at most (pipe(7)).
_LAST_TURNS = 17


class LineReader:
    """Reads a descriptor on the running loop and hands over whole lines, without their ends."""

    def __init__(self, fd: int, on_lines: Callable[[list[bytes]], None], max_line_bytes: int) -> None:
        """Take over `fd`. Of a line without end come the first `max_line_bytes` or some more, no rest."""
        self._fd = fd
        self._on_lines = on_lines
        self._max_line_bytes = max_line_bytes
        self._loop = asyncio.get_running_loop()
        self._buffer = b""
        self._cutting = False
        self._pause: asyncio.TimerHandle | None = None
        os.set_blocking(fd, False)
        self._listen()

    def close(self) -> None:
        """Hand over what is in the pipe now, and close it.

        All that the child wrote before its end is there. Waiting for the pipe's end instead would hang
        on a grandchild that inherited the descriptor.
        """
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._fd)
        try:
            for _ in range(_LAST_TURNS):
                if not self._turn():
                    break
            if self._buffer:  # its writer was cut off
                self._on_lines([self._buffer])
        finally:
            os.close(self._fd)

    def _listen(self) -> None:
        self._pause = None
        self._loop.add_reader(self._fd, self._on_readable)

    def _on_readable(self) -> None:
        self._loop.remove_reader(self._fd)
        if self._turn():
            self._pause = self._loop.call_later(PAUSE_S, self._listen)

    def _turn(self) -> bool:
        """Read once; False if there is nothing: at the end of the pipe, or after all that was in it."""
        try:
            chunk = os.read(self._fd, TURN_BYTES)
        except BlockingIOError:
            return False
        if not chunk:
            return False
        lines = (self._buffer + chunk).split(b"\n")
        self._buffer = lines.pop()
        if self._cutting and lines:
            del lines[0]
            self._cutting = False
        if self._cutting:
            self._buffer = b""
        elif len(self._buffer) > self._max_line_bytes:
            lines.append(self._buffer)
            self._buffer = b""
            self._cutting = True
        if lines:
            self._on_lines(lines)
        return True
