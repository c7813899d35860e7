"""Many replicas that start together on a database that is nearly full: the app never notices."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from datetime import datetime

import asyncpg
import pytest

from tests.support.postgres import fetch, private_server
from tests.support.processes import clean_env, log_lines
from tests.support.waiting import wait_until

# A hundred take half a minute of two processors to start: `make chaos` does that.
REPLICAS = int(os.environ.get("CROWD") or 30)
MAX_CONNECTIONS = 60
TAKEN = 40
LATEST_S = 3.0
# `migrator up` once its standard input has ended.
GATED = """
import os, sys, uvloop
from migrator import cli
from migrator.__main__ import _give_way
_give_way()
print("ready", file=sys.stderr, flush=True)
os.read(0, 1)
sys.exit(cli.main(["up"]))
"""


@pytest.fixture
def full_server():
    """With 40 of 60 connections taken by the app, which is no superuser."""
    with private_server(max_connections=str(MAX_CONNECTIONS)) as server:
        fetch(server.url, "create role app login")
        fetch(server.url, "create database shop owner app")
        yield f"postgresql://app@127.0.0.1:{server.port}/shop"


class App(threading.Thread):
    """Holds its connections, and opens another one again and again."""

    def __init__(self, url):
        super().__init__(daemon=True)
        self._url = url
        self._leave = threading.Event()
        self.holds = threading.Event()
        self.opened = 0
        self.refused = []
        self.most_others = 0

    def run(self):
        asyncio.run(self._live())

    async def _live(self):
        held = [await asyncpg.connect(self._url) for _ in range(TAKEN)]
        self.holds.set()
        began_s = time.monotonic()
        while not self._leave.is_set():
            try:
                connection = await asyncpg.connect(self._url)
            except asyncpg.PostgresError as error:
                self.refused.append((round(time.monotonic() - began_s, 3), str(error)))
            else:
                self.opened += 1
                others = await connection.fetchval(
                    "select count(*) from pg_stat_activity where application_name like 'migrator/%'"
                )
                self.most_others = max(self.most_others, others)
                await connection.close()
            await asyncio.sleep(0.03)
        for connection in held:
            await connection.close()

    def stop(self):
        self._leave.set()
        self.join(20)


def test_all_complete_and_the_app_is_never_refused(full_server, migrations, tmp_path):
    wait_for_go = (
        "do $$ begin while not exists (select from go) loop perform pg_sleep(0.05); end loop; end $$;"
    )
    directory = migrations(
        _1_wait=f"create table done (at timestamptz);\n{wait_for_go}",
        _2_last="insert into done values (clock_timestamp());",
    )
    fetch(full_server, "create table go (n int)")
    app = App(full_server)
    app.start()
    assert app.holds.wait(20)

    # All of them connect at the same moment, whatever starting takes.
    logs = [tmp_path / f"log-{number}" for number in range(REPLICAS)]
    gate, opener = os.pipe()
    listener, reports = os.pipe()  # as a supervisor's; nobody writes so much that it must be read
    # Not loopback by its name: a database of this machine has no replicas elsewhere.
    url = full_server.replace("127.0.0.1", "0.0.0.0")
    env = clean_env(DATABASE_URL=url, MIGRATIONS_DIR=str(directory), MIGRATOR_REPORT_FD=str(reports))
    replicas = []
    for path in logs:
        with path.open("wb") as log:
            replicas.append(
                subprocess.Popen(
                    [sys.executable, "-c", GATED],
                    env=env,
                    stdin=gate,
                    stdout=log,
                    stderr=log,
                    pass_fds=(reports,),
                )
            )
    try:
        wait_until(
            lambda: all(path.stat().st_size for path in logs), timeout_s=100, what="that all stand there"
        )
        os.close(opener)
        waiting = lambda: sum("lease.busy" in log.read_text() for log in logs)  # noqa: E731
        wait_until(lambda: waiting() == REPLICAS - 1, timeout_s=60, what="that all wait")
        fetch(full_server, "insert into go values (1)")
        codes = [replica.wait(60) for replica in replicas]
    finally:
        for replica in replicas:
            replica.kill()
            replica.wait()
        app.stop()
        for fd in (gate, listener, reports):
            os.close(fd)

    assert codes == [0] * REPLICAS
    assert app.opened > 20
    assert not app.refused, f"{len(app.refused)} times, with {app.most_others} of ours: {app.refused}"
    ends = [log_lines(log.read_text())[-1] for log in logs]
    assert {end["event"] for end in ends} == {"migration.completed"}
    last = max(datetime.fromisoformat(end["timestamp"]) for end in ends)
    ((committed,),) = fetch(full_server, "select at from done")
    print(
        f"{REPLICAS} replicas, at most {app.most_others} connections of theirs at once, the last one completed"
        f" {(last - committed).total_seconds():.1f} s after the last commit"
    )
    assert (last - committed).total_seconds() < LATEST_S
