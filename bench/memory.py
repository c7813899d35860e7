"""How much memory do we take? PID 1 after the migrations, all of ours while it migrates, the migrator's peak.

    python bench/memory.py [--files 1000]

PSS: a process's own memory and its share of what it shares; other Pythons on the machine make it smaller, so
RSS stands beside it. Peak RSS: as the kernel kept it (ru_maxrss).
Wanted: PID 1 at most 14 MiB, also after it has served a health request that needed a parser (h11); the
migrator at most 40 MiB with 1,000 files, and 64 MiB with one file of 50 MB. "All of ours": PID 1, the
overseer and the migrator, summed up every few milliseconds; the private Postgres isn't ours.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import rig
from idle import ask

LARGE_BYTES = 50 * 10**6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=1000)
    files = parser.parse_args().files
    rows: dict[str, tuple[str, str, str]] = {}

    def note(name: str, pss_bytes: float, rss_bytes: float, remark: str = "") -> None:
        said = [f"{used / rig.MIB:.1f}" if used else "" for used in (pss_bytes, rss_bytes)]
        rows[name] = *said, remark

    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        directory = Path(name)
        migrations = rig.write_migrations(directory / "migrations", files)
        state = directory / "state"
        env = rig.environment(
            NODE_ENV="production", MIGRATIONS_DIR=str(migrations), ENTRYPOINT_STATE_DIR=str(state)
        )
        with rig.postgres(directory) as database:
            alone = {**env, "DATABASE_URL": database.new_database()}
            migrator = [sys.executable, "-m", "migrator", "up"]
            note(f"migrator at its peak, {files} files", 0, peak_rss_bytes(migrator, alone), "<= 40")
            note("migrator, nothing to do", 0, peak_rss_bytes(migrator, alone))
            for kind, lines in (("INSERTs", rig.inserts()), ("COPY data", rig.copied())):
                large = rig.write_large_migration(directory / kind, lines, LARGE_BYTES)
                alone = {**env, "DATABASE_URL": database.new_database(), "MIGRATIONS_DIR": str(large)}
                note(f"migrator at its peak, 50 MB of {kind}", 0, peak_rss_bytes(migrator, alone), "<= 64")
            beside = {**env, "DATABASE_URL": database.new_database()}
            process = rig.start(rig.ours("sleep", "600"), env=beside)
            note("all of ours at the peak", peak_pss_bytes(process.pid, state), 0)
            rig.wait_until_settled(process, state)
            time.sleep(1)
            ours = rig.pss_bytes(process.pid)
            note("entrypoint after that", ours, rig.rss_bytes(process.pid), "<= 14")
            ask(state / "entrypoint.sock")
            time.sleep(1)
            asked = rig.pss_bytes(process.pid)
            note("entrypoint after a request", asked, rig.rss_bytes(process.pid), "<= 14")
            rig.end(process)
        bare = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"]
        commands = {"bare Python": bare, **rig.others("sleep", "600", directory=directory)}
        for other, command in commands.items():
            theirs, resident = at_rest(command)
            note(other, theirs, resident, f"ours x {ours / theirs:.2f}")
    rig.show("Memory", ("PSS MiB", "RSS MiB", ""), rows)


def peak_rss_bytes(command: list[str], env: Mapping[str, str]) -> int:
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if status:
        sys.exit(f"bench: {' '.join(command)} ended with {process.returncode}")
    return usage.ru_maxrss * 1024


def peak_pss_bytes(pid: int, state: Path) -> int:
    """The most that PID 1 and all below it but the app had at any moment until the migrations were over."""
    peak = 0
    while rig.phase(state) not in ("completed", "failed"):
        peak = max(peak, sum(rig.pss_bytes(one) for one in (pid, *rig.family(pid))))
        time.sleep(0.005)
    if rig.phase(state) == "failed":
        sys.exit("bench: the migrations failed")
    return peak


def at_rest(command: list[str]) -> tuple[int, int]:
    """PSS and RSS once it is quiet."""
    process = rig.start(command)
    time.sleep(2)
    try:
        return rig.pss_bytes(process.pid), rig.rss_bytes(process.pid)
    finally:
        rig.end(process)


if __name__ == "__main__":
    main()
