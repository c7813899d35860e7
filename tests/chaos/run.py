"""One run of chaos: migrators, migrations and mishaps from a seed, and then the check."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import psutil

from entrypoint import policy
from tests.chaos import checker, scripts
from tests.chaos.scripts import Script, Trouble
from tests.conftest import needs
from tests.support.faults import FaultyProxy
from tests.support.pooler import running_pooler
from tests.support.postgres import Server, fetch, new_database, private_server
from tests.support.postgrest import DEFAULTS, Project, running_project
from tests.support.processes import clean_env, run_migrator
from tests.support.stores import install_for_rest

TTL_S = 1.0
# From the last mishap to the end of the last migrator.
CALM_S = 60.0
# Between two lives of one migrator: the base of the entrypoint's back-off, shortened.
RESTART_S = 0.2


class Deed(StrEnum):
    KILL = "kill"
    TERMINATE = "terminate"
    FREEZE = "freeze"  # for longer than the lease
    CUT = "cut"
    SWALLOW = "swallow"
    HOLD = "hold"
    END_SESSION = "end session"
    UNLOCK = "unlock"
    JUMP = "jump"  # of a client's clock
    CRASH = "crash"  # of the server
    OCCUPY = "occupy"  # a table that a migration may want to lock


_WEIGHTS = {
    Deed.KILL: 5,
    Deed.TERMINATE: 3,
    Deed.FREEZE: 4,
    Deed.CUT: 4,
    Deed.SWALLOW: 2,
    Deed.HOLD: 2,
    Deed.END_SESSION: 2,
    Deed.UNLOCK: 1,
    Deed.JUMP: 2,
    Deed.CRASH: 1,
    Deed.OCCUPY: 6,
}


@dataclass(kw_only=True)
class Life:
    """A migrator from its start to its end."""

    process: subprocess.Popen[bytes]
    reports_fd: int
    log_path: Path
    began_s: float
    reports: bytes = b""
    wakes_at_s: float | None = None

    def read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self.reports_fd, 65536):
                self.reports += data

    @property
    def last(self) -> dict[str, Any]:
        lines = self.reports.splitlines()
        return json.loads(lines[-1]) if lines else {}


@dataclass(kw_only=True)
class Slot:
    """One replica: it is started again as the entrypoint would, until it is done."""

    name: str
    env: dict[str, str]
    clock: Path | None
    life: Life | None = None
    lives: int = 0
    starts_at_s: float = 0.0
    ended: int | None = None


@dataclass(kw_only=True)
class Outcome:
    seed: int
    what: str
    violations: list[str]
    counts: Counter[str]
    duration_s: float
    story: str = field(repr=False)


class Run:
    """Everything that happens in one run."""

    def __init__(
        self,
        server: Server,
        url: str,
        pooled_url: str,
        directory: Path,
        seed: int,
        *,
        project: Project | None,
    ) -> None:
        """Decide all that a seed can decide; over the REST API of `project`, if there is one."""
        self._project = project
        self._chance = chance = random.Random(seed)
        self._server = server
        self._url = url
        self._directory = directory
        self._files = directory / "migrations"
        self._files.mkdir()
        self.pooled = chance.random() < 0.35 or project is not None
        self.trouble = chance.choice([Trouble.NONE, Trouble.NONE, *Trouble])
        if self.pooled and self.trouble is Trouble.FIXED_DATA:
            self.trouble = Trouble.FIXED_FILE
        self.scripts = scripts.make(chance, alone=not self.pooled, trouble=self.trouble)
        behind = pooled_url if self.pooled else url
        self.proxy = FaultyProxy(project.url if project else behind)
        self._pooled_url = pooled_url
        self._slots = [self._slot(number) for number in range(chance.randint(3, 5))]
        deeds = chance.choices(list(_WEIGHTS), list(_WEIGHTS.values()), k=chance.randint(5, 12))
        self._deeds = [(deed, chance.uniform(0.05, 0.7)) for deed in deeds]
        self.counts: Counter[str] = Counter()
        self.found: list[str] = []
        self._began_s = time.monotonic()
        self._events: list[str] = []
        self._fixed_at_s: float | None = None
        self._heals_at_s: float | None = None
        self._selector = selectors.DefaultSelector()
        self._app: list[threading.Thread] = []

    def _slot(self, number: int) -> Slot:
        chance = self._chance
        ways = [("proxy", self.proxy.url), ("direct", self._url)]
        if self.pooled:
            ways = [("proxy, pooler", self.proxy.url), ("pooler", self._pooled_url), ("direct", self._url)]
        if self._project:
            proxied = self.proxy.url.replace("@", "")
            ways = [("proxy, rest", proxied), ("rest", self._project.url), ("direct", self._url)]
        way, url = ways[0] if number == 0 else chance.choice(ways)
        env = {"MIGRATION_LEASE_TTL": f"{TTL_S:g}", "LOG_LEVEL": "debug"}
        clock = None
        if chance.random() < 0.4:
            clock = self._directory / f"clock-{number}"
            hours = chance.choice([-7, -1, 2, 30])
            clock.write_text(f"{hours:+d}h\n")
            way += f", clock {hours:+d} h"
            env |= {
                "LD_PRELOAD": faketime_library(),
                "FAKETIME_TIMESTAMP_FILE": str(clock),
                "FAKETIME_NO_CACHE": "1",
                # No jump of a clock touches the monotonic one.
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            }
        if url.startswith("http"):
            assert self._project is not None
            env |= self._project.env() | {"SUPABASE_URL": url}
        else:
            env["DATABASE_URL"] = f"{url}?connect_timeout=2"
        return Slot(name=f"{number} ({way})", env=env, clock=clock)

    def play(self) -> None:
        """Everything up to the end of the last migrator."""
        for script in self.scripts:
            script.write(self._files)
        self.tell(f"{len(self.scripts)} files, {self.trouble}, {self.way}")
        next_deed_s = time.monotonic() + 0.3
        give_up_s: float | None = None
        while not all(self._is_done(slot) for slot in self._slots):
            now_s = time.monotonic()
            if self._deeds and now_s >= next_deed_s:
                deed, pause_s = self._deeds.pop()
                self._do(deed)
                next_deed_s = time.monotonic() + pause_s
            elif not self._deeds and give_up_s is None:
                self.tell("calm")
                give_up_s = time.monotonic() + CALM_S
            if give_up_s is not None and now_s > give_up_s:
                waiting = [slot.name for slot in self._slots if not self._is_done(slot)]
                self.found.append(f"no end within {CALM_S:g} s of calm: {waiting}")
                return
            self._look_after()
            self._wait(next_deed_s)

    @property
    def way(self) -> str:
        """By which replicas reach the database, direct ones beside it."""
        return "rest" if self._project else "pooled" if self.pooled else "direct"

    def _is_done(self, slot: Slot) -> bool:
        return slot.ended is not None and not self._deeds

    def _wait(self, next_deed_s: float) -> None:
        """Until a migrator says something or ends, or something is due."""
        due = [next_deed_s] if self._deeds else []
        due += [self._heals_at_s] if self._heals_at_s else []
        for slot in self._slots:
            if slot.life is None and slot.ended is None:
                due.append(slot.starts_at_s)
            elif slot.life and slot.life.wakes_at_s:
                due.append(slot.life.wakes_at_s)
        pause_s = min([0.5, *(one - time.monotonic() for one in due)])
        self._selector.select(max(pause_s, 0.001))

    def _look_after(self) -> None:
        """Wake, heal, start and bury whoever's time has come."""
        now_s = time.monotonic()
        if self._heals_at_s and (now_s >= self._heals_at_s or not self._deeds):
            self._heals_at_s = None
            self.proxy.heal()
            self.tell("healed")
        for slot in self._slots:
            life = slot.life
            if life is None:
                if slot.ended is None and now_s >= slot.starts_at_s:
                    self._start(slot)
                continue
            if life.wakes_at_s and now_s >= life.wakes_at_s:
                life.wakes_at_s = None
                life.process.send_signal(signal.SIGCONT)
                self.tell(f"woke {slot.name}")
            life.read()
            if life.process.poll() is not None:
                self._bury(slot, life)

    def _start(self, slot: Slot) -> None:
        read_fd, write_fd = os.pipe()
        os.set_blocking(read_fd, False)
        slot.lives += 1
        number = self._slots.index(slot)
        log_path = self._directory / f"log-{number}-{slot.lives}"
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "migrator", "up"],
                env=clean_env(
                    MIGRATIONS_DIR=str(self._files),
                    MIGRATOR_REPORT_FD=str(write_fd),
                    **slot.env,
                ),
                stdout=log,
                stderr=log,
                pass_fds=(write_fd,),
            )
        os.close(write_fd)
        slot.life = Life(process=process, reports_fd=read_fd, log_path=log_path, began_s=time.monotonic())
        # Readable at each report, and at the process's end.
        self._selector.register(read_fd, selectors.EVENT_READ)
        self.counts["lives"] += 1
        self.tell(f"started {slot.name} as {process.pid}")

    def _bury(self, slot: Slot, life: Life) -> None:
        """Judge what it said at its end, and decide as the entrypoint does."""
        life.read()
        self._selector.unregister(life.reports_fd)
        os.close(life.reports_fd)
        slot.life = None
        code = life.process.returncode
        code = 128 - code if code < 0 else code
        last = life.last
        phase, error = last.get("phase"), last.get("error") or ""
        self.counts[f"exit {code}"] += 1
        self.tell(f"{slot.name} ({life.process.pid}) ended with {code}: {phase}: {error}")
        self._judge(life, code, phase, error)
        again = code in policy.RETRYABLE_EXITS or code > 128 or self._is_raced_by_an_edit(life, code)
        if code == 1 and self.trouble in (Trouble.FIXED_DATA, Trouble.FIXED_FILE):
            again = True
            self._fix()
        if again:
            slot.starts_at_s = time.monotonic() + RESTART_S
        else:
            slot.ended = code

    def _is_raced_by_an_edit(self, life: Life, code: int) -> bool:
        """It had read a file that was edited afterwards, and refuses to go on."""
        return code == 65 and self._fixed_at_s is not None and life.began_s <= self._fixed_at_s

    def _judge(self, life: Life, code: int, phase: str | None, error: str) -> None:
        pid = life.process.pid
        faulty = next((one for one in self.scripts if one.fails), None)
        match code:
            case 0:
                if phase != "completed":
                    self.found.append(f"{pid} exits with 0 and says {phase}")
                if undone := checker.unfinished(self._url, self.scripts):
                    self.found.append(f"{pid} says completed, but {undone} isn't done")
            case 1:
                if faulty is None or faulty.filename not in error or phase != "failed":
                    self.found.append(f"{pid} failed, which nothing explains: {phase}: {error}")
            case 69 | 75:
                if phase != "failed":
                    self.found.append(f"{pid} exits with {code} and says {phase}")
            case 143:
                if phase not in ("aborted", "completed", None):
                    self.found.append(f"{pid} was stopped and says {phase}: {error}")
            case 137:
                pass
            case _:
                if not self._is_raced_by_an_edit(life, code):
                    self.found.append(f"{pid} ended with {code}: {error}")
        if "rolled back" in error and "not known" not in error:
            for script in self.scripts:
                if script.filename in error and (made := checker.marks_of(self._url, script.number, pid)):
                    self.found.append(f"{pid} says rolled back, but left {made} marks: {error}")

    def _fix(self) -> None:
        if self._fixed_at_s is not None:
            return
        faulty = next(one for one in self.scripts if one.fails)
        if faulty.fixing_sql:
            checker.psql(self._url, faulty.fixing_sql)
        faulty.write(self._files, fixed=True)
        self._fixed_at_s = time.monotonic()
        self.tell(f"fixed {faulty.filename}")

    def _do(self, deed: Deed) -> None:
        alive = [one for one in self._slots if one.life and one.life.wakes_at_s is None]
        victim = self._victim(alive) if alive else None
        if deed in (Deed.KILL, Deed.TERMINATE, Deed.FREEZE) and victim is None:
            return
        self.counts[deed] += 1
        match deed:
            case Deed.KILL | Deed.TERMINATE | Deed.FREEZE:
                assert victim is not None
                assert victim.life is not None
                number = {
                    Deed.KILL: signal.SIGKILL,
                    Deed.TERMINATE: signal.SIGTERM,
                    Deed.FREEZE: signal.SIGSTOP,
                }[deed]
                self.tell(f"{deed} {victim.name}")
                victim.life.process.send_signal(number)
                if deed is Deed.FREEZE:
                    victim.life.wakes_at_s = time.monotonic() + self._chance.uniform(1.5, 5) * TTL_S
            case Deed.CUT:
                self.tell(deed)
                self.proxy.cut()
            case Deed.SWALLOW | Deed.HOLD:
                self.tell(deed)
                (self.proxy.swallow if deed is Deed.SWALLOW else self.proxy.hold)()
                self._heals_at_s = time.monotonic() + self._chance.uniform(0.5, 3)
            case Deed.END_SESSION:
                ended = checker.psql(
                    self._url,
                    "select pg_terminate_backend(pid), query from pg_stat_activity where datname = current_database()"
                    " and application_name like 'migrator/%' order by query_start limit 1",
                )
                self.tell(f"{deed}: {ended}")
            case Deed.UNLOCK:
                statement = "set lock_timeout = '100ms'; delete from migrator.migration_locks"
                checker.psql(self._url, statement, check=False)
                self.tell(deed)
            case Deed.JUMP:
                clocks = [one for one in self._slots if one.clock]
                if clocks:
                    chosen = self._chance.choice(clocks)
                    assert chosen.clock is not None
                    hours = self._chance.choice([-11, -2, 5, 50])
                    chosen.clock.write_text(f"{hours:+d}h\n")
                    self.tell(f"the clock of {chosen.name} jumps to {hours:+d} h")
            case Deed.CRASH:
                self.tell(deed)
                crash(self._server)
                self.tell("the server is up again")
            case Deed.OCCUPY:
                self._occupy()

    def _occupy(self) -> None:
        """A session of the app that reads or locks rows for a while, and so holds a lock on the table."""
        table = self._chance.choice(["app", "stock"])
        how = self._chance.choice(["", "for share "])
        for_s = self._chance.uniform(0.02, 2.5)
        query = f"select pg_sleep({for_s:.2f}) from (select 1 from public.{table} {how}limit 1) as one right join (values (1)) as v on true"
        self.tell(f"{table} is occupied for {for_s:.2f} s")
        thread = threading.Thread(target=checker.psql, args=(self._url, query), kwargs={"check": False})
        thread.start()
        self._app.append(thread)

    def _victim(self, alive: list[Slot]) -> Slot:
        """Mostly who migrates just now."""
        rows = checker.psql(
            self._url, "select split_part(holder, '/', 2) from migrator.migration_locks", check=False
        )
        holders = [one for one in alive if one.life and rows and str(one.life.process.pid) == rows[0][0]]
        wants_holder = self._chance.random() < 0.75
        return holders[0] if holders and wants_holder else self._chance.choice(alive)

    def check(self, expected: checker.Truth) -> None:
        """Look at what the run has left."""
        done = [one for one in self.scripts if not (one.fails and self.trouble is Trouble.STAYS)]
        self.found += checker.violations(self._url, done, expected, ttl_s=TTL_S, pooled=self.pooled)
        ((hands,),) = checker.psql(self._url, "select count(distinct token) from marks")
        self.counts["takeovers"] += int(hands) - 1
        wanted = {1} if self.trouble is Trouble.STAYS else {0}
        if (ends := {slot.ended for slot in self._slots}) != wanted:
            self.found.append(f"the migrators ended with {ends} instead of {wanted}")

    def close(self) -> None:
        """Leave no process behind."""
        for slot in self._slots:
            if slot.life:
                slot.life.process.kill()
                slot.life.process.wait()
                os.close(slot.life.reports_fd)
        for thread in self._app:
            thread.join()
        self._selector.close()
        self.proxy.close()

    def tell(self, event: str) -> None:
        self._events.append(f"{time.monotonic() - self._began_s:7.3f} {event}")

    def story(self) -> str:
        """The events, and what every migrator wrote."""
        logs = [
            f"--- {path.name}\n{path.read_text(errors='replace')}"
            for path in sorted(self._directory.glob("log-*"))
        ]
        return "\n".join([*self._events, *logs])


def faketime_library() -> str:
    """The library that fakes a clock."""
    needs("faketime")
    return str(next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")))


def crash(server: Server) -> None:
    """Kill the postmaster as the kernel would, and start the server again, which recovers."""
    assert server.process is not None
    children = psutil.Process(server.process.pid).children(recursive=True)
    server.process.kill()
    server.process.wait()
    # They end by themselves once they notice; until then a new one would refuse to start.
    psutil.wait_procs(children, timeout=10)
    server.start()


def reference(server: Server, made: list[Script], trouble: Trouble, *, rest: bool) -> checker.Truth:
    """What the same files leave where nothing happens to anybody; in a project if it is for `rest`."""
    with new_database(server) as url, tempfile.TemporaryDirectory() as directory:
        if rest:
            fetch(url, f"{DEFAULTS}; select 1")
            asyncio.run(install_for_rest(url))
        checker.psql(url, scripts.APP)
        for script in made:
            script.write(Path(directory), fixed=True)
        done = run_migrator(url, directory)
        faulty = next((one for one in made if one.fails), None)
        if faulty and faulty.fixing_sql:
            checker.psql(url, faulty.fixing_sql)
            done = run_migrator(url, directory)
        assert done.returncode == (trouble is Trouble.STAYS), done.stderr
        return checker.truth(url)


def run(server: Server, pooler_url: str, seed: int, *, rest: bool = False) -> Outcome:
    """One run, and what was wrong; over the REST API if it is for `rest`."""
    began_s = time.monotonic()
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(new_database(server))
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-"))
        project = stack.enter_context(running_project(server, url)) if rest else None
        if rest:
            asyncio.run(install_for_rest(url))
        pooled_url = f"{pooler_url}/{url.rsplit('/', 1)[1]}"
        made = Run(server, url, pooled_url, Path(directory), seed, project=project)
        try:
            checker.psql(url, scripts.APP)
            expected = reference(server, made.scripts, made.trouble, rest=rest)
            made.play()
            if not made.found:
                made.check(expected)
            story = made.story()
        finally:
            made.close()
    return Outcome(
        seed=seed,
        what=f"{made.way}, {made.trouble}",
        violations=made.found,
        counts=made.counts,
        duration_s=time.monotonic() - began_s,
        story=story,
    )


@contextlib.contextmanager
def field_of_battle() -> Iterator[Callable[..., Outcome]]:
    """A function that makes the run of a seed, on a server and a pooler of its own."""
    with private_server() as server, running_pooler(server) as pooler_url:
        yield lambda seed, **options: run(server, pooler_url, seed, **options)
