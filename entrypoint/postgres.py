"""The private Postgres of `DATABASE_URL=embedded` as a child: kept running while the app lives."""

from __future__ import annotations

import asyncio
import os
import signal

from entrypoint import launch
from entrypoint.child import Child
from entrypoint.modules import module_env, python_module
from entrypoint.pipe import LineReader
from entrypoint.reaper import Reaper
from migrator.log import Log

# SIGINT is PostgreSQL's fast shutdown: it cuts sessions off and ends in well under a second.
GRACE_S = 5.0
RESTART_DELAY_S = 0.5
# Ended sooner than this after its start, it counts as unable to run.
TOO_SOON_S = 5.0
MAX_FAILURES = 3
# What it ends with if only a person can help.
EXIT_CONFIG = 78
MAX_LINE_BYTES = 4096
MAX_LINES_AT_ONCE = 20


async def keep_running(groups: set[int], state_dir: str, reaper: Reaper, log: Log) -> str:
    """Start it, start it again when it ends, and stop it when cancelled; why it can't be kept running."""
    loop = asyncio.get_running_loop()
    failures = 0
    while True:
        server = _Server(state_dir, groups, log)
        started_s = loop.time()
        try:
            exited = server.start_listening(reaper)
        except OSError as error:
            return _failed(log, f"cannot start the embedded Postgres: {error}")
        log.info("postgres.spawned", pid=server.pid)
        try:
            code = launch.exit_code(await asyncio.shield(exited))
        finally:
            await server.stop(exited, signal.SIGINT, GRACE_S)
            server.close()
        log.warning("postgres.exited", exit_code=code, pid=server.pid)
        if code == EXIT_CONFIG:  # it won't be another time either, and has said what to do
            return _failed(log, server.last)
        failures = failures + 1 if loop.time() - started_s < TOO_SOON_S else 0
        if failures == MAX_FAILURES:
            said = f": {server.last}" if server.last else ""
            return _failed(
                log,
                f"cannot keep the embedded Postgres in {state_dir} running: it ended {MAX_FAILURES} times "
                f"right after its start{said}; remove {state_dir}/postgres-data if its data may go",
            )
        await asyncio.sleep(RESTART_DELAY_S)


class _Server(Child):
    """One start of it; what it says becomes log lines."""

    def __init__(self, state_dir: str, groups: set[int], log: Log) -> None:
        super().__init__(python_module("migrator.embedded", state_dir), module_env(), groups)
        self._log = log
        self._reader: LineReader | None = None
        self.last = ""

    def start_listening(self, reaper: Reaper) -> asyncio.Future[int]:
        """As `start`.

        Raises:
            OSError: It can't be started.
        """
        read_fd, write_fd = os.pipe()
        self._reader = LineReader(read_fd, self._take, MAX_LINE_BYTES)
        try:
            # It unblocks them once it is ready: Python would make a traceback of an early SIGINT.
            blocked = frozenset({signal.SIGINT, signal.SIGTERM})
            return self.start(reaper, ((os.POSIX_SPAWN_DUP2, write_fd, 2),), blocked)
        except OSError:
            self.close()
            raise
        finally:
            os.close(write_fd)

    def close(self) -> None:
        """Read what is left of its words."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _take(self, lines: list[bytes]) -> None:
        for line in lines[-MAX_LINES_AT_ONCE:]:
            said = line.decode(errors="replace").strip().removeprefix("migrator: ")
            if said:
                self.last = said
                self._log.warning("postgres.said", text=said)


def _failed(log: Log, reason: str) -> str:
    log.error("postgres.failed", reason=reason)
    return reason
