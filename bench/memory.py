"""How much memory do we take? PID 1 after the migrations, and the migrator at its peak.

    python bench/memory.py [--files 1000]

PSS: a process's own memory and its share of what it shares. Peak RSS: as the kernel kept it (ru_maxrss).
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

MIB = 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=1000)
    files = parser.parse_args().files
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        directory = Path(name)
        migrations = directory / "migrations"
        migrations.mkdir()
        for number in range(files):
            text = f"create table t{number} (id bigint primary key, note text);\n"
            (migrations / f"{20260101000000 + number}_table_{number}.sql").write_text(text)
        with postgres(directory) as url:
            env = {
                "PATH": os.environ["PATH"],
                "LANG": "C.UTF-8",
                "NODE_ENV": "production",
                "DATABASE_URL": url,
                "MIGRATIONS_DIR": str(migrations),
                "ENTRYPOINT_STATE_DIR": str(directory / "state"),
                "LOG_LEVEL": "warning",
            }
            first = peak_rss_kib([sys.executable, "-m", "migrator", "up"], env)
            again = peak_rss_kib([sys.executable, "-m", "migrator", "up"], env)
            print(f"migrator, peak RSS, {files} files applied   {first / MIB:6.1f} MiB")
            print(f"migrator, peak RSS, nothing to do       {again / MIB:6.1f} MiB")
            ours = pss_kib(
                [sys.executable, "-m", "entrypoint", "--", "sleep", "600"],
                env,
                lambda: settled(directory / "state" / "status.json"),
            )
        bare = pss_kib([sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"], env)
        print(f"entrypoint, PSS after the migrations    {ours / MIB:6.1f} MiB")
        print(f"bare Python, PSS                        {bare / MIB:6.1f} MiB   ours {ours / bare:.1f} times")
        if supervisord := shutil.which("supervisord"):
            config = directory / "supervisord.conf"
            config.write_text(
                f"[supervisord]\nnodaemon=true\nlogfile=/dev/null\nlogfile_maxbytes=0\npidfile={directory}/pid\n"
                "[program:app]\ncommand=sleep 600\n"
            )
            theirs = pss_kib([supervisord, "-n", "-c", str(config)], env)
            ratio = f"ours {ours / theirs:.2f} times"
            print(f"supervisord, PSS                        {theirs / MIB:6.1f} MiB   {ratio}")


@contextlib.contextmanager
def postgres(directory: Path) -> Iterator[str]:
    """The URL of a private Postgres."""
    server = subprocess.Popen([sys.executable, "-m", "migrator.embedded", str(directory)])
    try:
        while not (directory / "postgres" / ".s.PGSQL.5432").exists():
            time.sleep(0.05)
        yield f"postgresql://postgres@/postgres?host={directory}/postgres"
    finally:
        server.send_signal(signal.SIGINT)
        server.wait()


def peak_rss_kib(command: list[str], env: dict[str, str]) -> int:
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if status:
        sys.exit(f"bench: {' '.join(command)} ended with {process.returncode}")
    return usage.ru_maxrss


def pss_kib(command: list[str], env: dict[str, str], ready: Callable[[], bool] | None = None) -> int:
    """The process's PSS once it is ready and quiet."""
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while ready is not None and not ready():
            time.sleep(0.05)
        time.sleep(1)
        for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
        raise AssertionError("no Pss in smaps_rollup")
    finally:
        process.terminate()
        process.wait()


def settled(marker: Path) -> bool:
    with contextlib.suppress(OSError, ValueError):
        return bool(json.loads(marker.read_text())["migrations"]["phase"] == "completed")
    return False


if __name__ == "__main__":
    main()
