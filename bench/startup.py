"""How soon does the app run? Our entrypoint beside the floor and beside other inits.

    python bench/startup.py [--rounds 30]

Time from the start of the command to the first instruction of an app that does nothing but say when it began.
All candidates take turns in each round, so that a noisy machine is noisy for all; read the ratios.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

APP = """
#include <stdio.h>
#include <time.h>
int main(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    printf("%lld\\n", now.tv_sec * 1000000000LL + now.tv_nsec);
    return 0;
}
"""
FLOOR = "python -I -S, exec"
OURS = "python -m entrypoint"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as directory:
        app = build_app(Path(directory))
        commands = candidates(app, Path(directory))
        times = measure(commands, rounds)
    floor = statistics.median(times[FLOOR])
    print(f"{'':24} {'median ms':>10} {'best ms':>9} {'times the floor':>16}   ({rounds} rounds)")
    for name, taken in times.items():
        median = statistics.median(taken)
        print(f"{name:24} {median:10.1f} {min(taken):9.1f} {median / floor:16.2f}")
    ratio = statistics.median(ours / floor for ours, floor in zip(times[OURS], times[FLOOR], strict=True))
    # What counts: noise hits both of a pair.
    print(f"\n{OURS} / {FLOOR}, median of {rounds} pairs: {ratio:.2f}")


def build_app(directory: Path) -> Path:
    """The app: a small C program, so that its own start costs next to nothing."""
    compiler = shutil.which("cc") or sys.exit("bench: needs a C compiler (apt-get install gcc)")
    source, program = directory / "app.c", directory / "app"
    source.write_text(APP)
    subprocess.run([compiler, "-O2", "-static", "-o", program, source], check=True)
    return program


def candidates(app: Path, directory: Path) -> dict[str, list[str]]:
    """The commands that start the app, of the programs that are installed."""
    replace = f"import posix; posix.execv({str(app)!r}, [{str(app)!r}])"
    python = sys.executable
    commands = {
        FLOOR: [python, "-I", "-S", "-c", replace],
        "python, exec": [python, "-c", replace],
        OURS: [python, "-m", "entrypoint", "--", str(app)],
        "entrypoint (script)": [str(Path(python).parent / "entrypoint"), "--", str(app)],
    }
    if tini := shutil.which("tini"):
        commands["tini"] = [tini, "-s", "--", str(app)]
    if dumb_init := shutil.which("dumb-init"):
        commands["dumb-init"] = [dumb_init, str(app)]
    if supervisord := shutil.which("supervisord"):
        config = directory / "supervisord.conf"
        config.write_text(
            f"[supervisord]\nnodaemon=true\nlogfile=/dev/null\nlogfile_maxbytes=0\npidfile={directory}/pid\n"
            f"[program:app]\ncommand={app}\nautorestart=false\nstartsecs=0\nstdout_logfile=/dev/fd/1\n"
            "stdout_logfile_maxbytes=0\n"
        )
        commands["supervisord"] = [supervisord, "-n", "-c", str(config)]
    if honcho := shutil.which("honcho"):
        procfile = directory / "Procfile"
        procfile.write_text(f"app: {app}\n")
        commands["honcho"] = [honcho, "-f", str(procfile), "--no-prefix", "start"]
    return commands


def measure(commands: dict[str, list[str]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds to the app's first instruction, each command once a round."""
    times: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(rounds + 2):
        for name, command in commands.items():
            taken_ms = once(command)
            if number >= 2:  # the first rounds fill the caches
                times[name].append(taken_ms)
    return times


def once(command: list[str]) -> float:
    began_ns = time.monotonic_ns()
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8"},
    )
    assert process.stdout is not None
    while True:
        line = process.stdout.readline()
        if not line:
            sys.exit(f"bench: {' '.join(command)} did not start the app")
        if line.strip().isdigit():
            break
    process.terminate()
    process.communicate()
    return (int(line) - began_ns) / 1e6


if __name__ == "__main__":
    main()
