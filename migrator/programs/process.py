"""Running one program: in a process group behind a guard, its output as log lines, its end for certain."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from migrator import shorten
from migrator.errors import Redactor, Unavailable
from migrator.log import Log
from migrator.programs import outcome
from migrator.programs.lines import Lines, Tail
from migrator.programs.outcome import Ended
from migrator.report import MAX_TEXT_CHARS

GUARD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "guard.py")
_CHUNK_BYTES = 64 * 1024
_MAX_STATUS_BYTES = 100
# A chunk may be 30,000 lines, a second's work: a flood of them would keep the lease from being renewed.
_LINES_AT_ONCE = 100
# For output that is on its way still when the program and its guard have ended.
_LAST_WORDS_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What is to be run.

    Attributes:
        what: It, to people; shown, so without secrets.
        quiet: Its output isn't logged: it answers a question of ours.
    """

    what: str
    argv: Sequence[str]
    variables: Mapping[str, str] = field(repr=False)
    quiet: bool = False


class Programs:
    """Starts programs, and ends them."""

    def __init__(self, log: Log, redact: Redactor, grace_s: float) -> None:
        """Log to `log` what `redact` leaves of their output; they have `grace_s` between TERM and KILL."""
        self._log = log
        self._redact = redact
        self._grace_s = grace_s

    async def run(self, program: Program) -> Ended:
        """Run it to its end. Cancelled, it asks the program to end, and kills its whole tree after the grace.

        Raises:
            Unavailable: The system has no process or memory left for it.
        """
        status, status_end = os.pipe()
        try:
            try:
                guard = await asyncio.create_subprocess_exec(
                    sys.executable,
                    *("-I", "-S", GUARD, str(status_end)),
                    *program.argv,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.PIPE,
                    env=program.variables,
                    pass_fds=(status_end,),
                    start_new_session=True,
                )
            except OSError as error:
                raise Unavailable(f"cannot start {program.what}: {error.strerror}") from error
            finally:
                os.close(status_end)
            tail = Tail()
            async with asyncio.TaskGroup() as tasks:
                end = tasks.create_task(self._end(guard, status, program, tail), name="program")
                try:
                    await asyncio.shield(end)
                except asyncio.CancelledError:
                    await self._stop(guard, end, program)
                    raise
            return outcome.parse(end.result(), str(tail))
        finally:
            os.close(status)

    async def _end(self, guard: asyncio.subprocess.Process, status: int, program: Program, tail: Tail) -> str:
        """Pass its output on until all that could write any is gone; what the guard says of its end."""
        assert guard.stdout is not None
        assert guard.stderr is not None
        async with asyncio.TaskGroup() as tasks:
            readers = [
                tasks.create_task(self._read(name, stream, program, tail), name=name)
                for name, stream in (("stdout", guard.stdout), ("stderr", guard.stderr))
            ]
            code = await guard.wait()
            said = os.read(status, _MAX_STATUS_BYTES).decode()
            if code:
                _kill_group(said)
            # The guard ends after everybody else, so that nobody is left to write; unless it was killed.
            _, late = await asyncio.wait(readers, timeout=_LAST_WORDS_S)
            for one in late:
                one.cancel()
        return said

    async def _read(self, name: str, stream: asyncio.StreamReader, program: Program, tail: Tail) -> None:
        lines = Lines(self._redact)
        while True:
            content = await stream.read(_CHUNK_BYTES)
            for number, line in enumerate(lines.feed(content, final=not content), 1):
                if number % _LINES_AT_ONCE == 0:
                    await asyncio.sleep(0)
                masked = shorten.middle(self._redact(line), MAX_TEXT_CHARS)
                tail.add(masked)
                if not program.quiet:
                    self._log.info("runner.output", stream=name, text=masked)
            if not content:
                return

    async def _stop(
        self, guard: asyncio.subprocess.Process, end: asyncio.Task[str], program: Program
    ) -> None:
        self._log.warning("runner.stopped", program=program.what, grace_s=self._grace_s)
        order = guard.stdin
        assert order is not None
        order.write(b"T")
        try:
            await asyncio.wait({end}, timeout=self._grace_s)
        finally:  # also where a second cancellation cuts the grace short
            order.close()  # the guard kills whatever is left
        await asyncio.wait({end})


def _kill_group(said: str) -> None:
    """The guard was killed: the program died with it, by the kernel's hand, but not what that had started."""
    word, _, rest = said.partition(" ")
    pid = rest.split("\n", 1)[0]
    if word == "pid" and pid.isdecimal():
        try:
            os.killpg(int(pid), signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
