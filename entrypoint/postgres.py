"""The private Postgres of `DATABASE_URL=embedded` as a child: kept running while the app lives."""

from __future__ import annotations

import asyncio
import signal

from entrypoint import launch
from entrypoint.child import Child
from entrypoint.modules import module_env, python_module
from entrypoint.reaper import Reaper
from migrator.log import Log

# SIGINT is PostgreSQL's fast shutdown: it cuts sessions off and ends in well under a second.
GRACE_S = 5.0
RESTART_DELAY_S = 0.5
# Ended sooner than this after its start, it counts as unable to run.
TOO_SOON_S = 5.0
MAX_FAILURES = 3


async def keep_running(groups: set[int], state_dir: str, reaper: Reaper, log: Log) -> None:
    """Start it, start it again when it ends, and stop it when cancelled."""
    loop = asyncio.get_running_loop()
    failures = 0
    while failures < MAX_FAILURES:
        server = Child(python_module("migrator.embedded", state_dir), module_env(), groups)
        started_s = loop.time()
        try:
            exited = server.start(reaper)
        except OSError as error:
            log.error("postgres.failed", reason=str(error))
            return
        log.info("postgres.spawned", pid=server.pid)
        try:
            code = launch.exit_code(await asyncio.shield(exited))
        finally:
            await server.stop(exited, signal.SIGINT, GRACE_S)
        failures = failures + 1 if loop.time() - started_s < TOO_SOON_S else 0
        log.warning("postgres.exited", exit_code=code, pid=server.pid)
        await asyncio.sleep(RESTART_DELAY_S)
    log.error("postgres.failed", reason=f"it ended {MAX_FAILURES} times right after its start")
