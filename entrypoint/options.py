"""What PID 1 itself must know, read once from the environment.

A wrong value takes its default here; the overseer reads the same variables and says what is wrong.
"""

from __future__ import annotations

import os

from migrator import env, signals, variables

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


class Options:
    """PID 1's settings; see `migrator.variables` for names, defaults and meaning."""

    __slots__ = (
        "death_signal",
        "http_port",
        "log_format",
        "log_level",
        "log_output",
        "mode",
        "names",
        "remap",
        "rewrite",
        "state_dir",
        "stop_delay_s",
        "stop_grace_s",
        "stop_signal",
        "termination_log",
        "whole_group",
    )

    def __init__(self, read: env.Reader) -> None:
        """Read them all."""
        self.mode = read.get(variables.MODE)
        self.state_dir = absolute(read.get(variables.STATE_DIR))
        self.http_port = read.get(variables.HTTP_PORT)
        self.stop_grace_s = read.get(variables.STOP_GRACE)
        self.stop_delay_s = read.get(variables.STOP_DELAY)
        self.stop_signal = read.get(variables.STOP_SIGNAL)
        self.whole_group = read.get(variables.SIGNAL_GROUP) == "group"
        self.rewrite = read.get(variables.REWRITE)
        self.remap = read.get(variables.REMAP_EXIT)
        self.death_signal = read.get(variables.PDEATHSIG)
        self.termination_log = read.get(variables.TERMINATION_LOG)
        self.log_level = read.get(variables.LOG_LEVEL)
        self.log_format = read.get(variables.LOG_FORMAT)
        self.log_output = read.get(variables.LOG_OUTPUT)
        # As the health document has them.
        self.names = {
            "service": read.get(variables.SERVICE),
            "environment": read.get(variables.ENVIRONMENT),
            "version": read.get(variables.VERSION),
        }

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Options:
        """From the environment; none of them is a secret, so no file is read."""
        return cls(env.Reader(environ, str))

    def exit_code(self, code: int, forwarded: frozenset[int]) -> int:
        """What the container exits with for an app that ended with `code`.

        Args:
            code: The app's own, or 128 + n.
            forwarded: The signals that we handed on to it.
        """
        if str(code) in self.remap:
            return self.remap[str(code)]
        if signals.FORWARDED in self.remap and code - 128 in forwarded:
            return self.remap[signals.FORWARDED]
        return code


def absolute(path: str) -> str:
    """As os.path.abspath, also where our working directory was deleted."""
    try:
        return os.path.abspath(path)
    except OSError:
        return path
