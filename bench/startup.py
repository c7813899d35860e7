"""How soon does the app run? Our entrypoint beside the floor and beside other inits.

    python bench/startup.py [--rounds 30] [--only first|busy]

1. Time from the start of the command to the first instruction of an app that does nothing but say when it
   began. Wanted: 1.25 times the floor, which is a Python that does nothing but exec.
2. Time to the first answer (HTTP 200) of a real uvicorn and a real node server on one CPU, with everything of
   ours on that same CPU and migrations to apply; the database runs elsewhere, if there is an elsewhere.
   Wanted: at most 5 % later than without an entrypoint. The floor is printed beside it: no program written in
   Python can do better. uvicorn comes with the extra `bench`.
"""

import argparse
import os
import shutil
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path

import rig

BARE = "bare"
NO_MIGRATIONS = "entrypoint, none to apply"
MIGRATIONS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--only", choices=["first", "busy"])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        if arguments.only != "busy":
            first_instruction(Path(directory), arguments.rounds)
        if arguments.only != "first":
            busy_cpu(Path(directory), arguments.rounds)


def first_instruction(directory: Path, rounds: int) -> None:
    app = rig.build("say_start", directory)
    python = sys.executable
    commands = {
        rig.FLOOR: rig.floor(app),
        "python, exec": [python, "-c", rig.floor(app)[-1]],
        rig.OURS: rig.ours(app),
        "entrypoint (script)": [str(Path(python).parent / "entrypoint"), "--", app],
        **rig.others(app, directory=directory),
    }
    slow = ("supervisord", "honcho")  # a few rounds tell enough, at a second each

    def measure(name: str) -> float:
        began_ns = time.monotonic_ns()
        process = rig.start(
            commands[name], env=rig.environment(ENTRYPOINT_STATE_DIR=str(directory / "state"))
        )
        line = rig.wait_for_line(process, bytes.isdigit)
        process.terminate()
        process.communicate()
        return (int(line) - began_ns) / 1e6

    taken = rig.take_turns([name for name in commands if name not in slow], measure, rounds)
    floor = statistics.median(taken[rig.FLOOR])
    slow_ones = rig.take_turns([name for name in slow if name in commands], measure, max(1, rounds // 10))
    rows = {
        name: (statistics.median(times), min(times), rig.ratio(taken, name, rig.FLOOR))
        for name, times in taken.items()
    }
    for name, times in slow_ones.items():
        rows[name] = statistics.median(times), min(times), statistics.median(times) / floor
    rig.show(
        f"To the app's first instruction, {rounds} rounds", ("median ms", "best ms", "x the floor"), rows
    )
    if "supervisord" in slow_ones:
        sooner = statistics.median(slow_ones["supervisord"]) / statistics.median(taken[rig.OURS])
        print(f"{sooner:.0f} times sooner than supervisord")


def busy_cpu(directory: Path, rounds: int) -> None:
    everywhere = sorted(os.sched_getaffinity(0))
    here, elsewhere = {everywhere[0]}, set(everywhere[1:]) or {everywhere[0]}
    migrations = rig.write_migrations(directory / "migrations", MIGRATIONS)
    servers = {}
    if _has("uvicorn"):
        servers["uvicorn"] = [
            sys.executable,
            "-m",
            "uvicorn",
            "--app-dir",
            str(rig.APPS),
            "web:app",
            "--port",
        ]
    else:
        print("uvicorn isn't installed (pip install -e '.[bench]'): left out")
    if node := shutil.which("node"):
        servers["node"] = [node, str(rig.APPS / "web.js")]
    else:
        print("node isn't installed: left out")
    with rig.on_cpus(elsewhere), rig.postgres(directory) as database:
        for name, server in servers.items():
            _first_answer(name, server, here=here, rounds=rounds, migrations=migrations, database=database)


def _first_answer(
    title: str, server: list[str], *, here: set[int], rounds: int, migrations: Path, database: rig.Postgres
) -> None:
    state = migrations.parent / "state"

    def measure(name: str) -> float:
        port = _free_port()
        app = [*server, str(port)]
        commands = {
            BARE: app,
            rig.FLOOR: rig.floor(shutil.which(app[0]) or app[0], *app[1:]),
            "tini": ["tini", "-s", "--", *app],
        }
        env = rig.environment(
            NODE_ENV="production", MIGRATIONS_DIR=str(migrations), ENTRYPOINT_STATE_DIR=str(state)
        )
        if name == rig.OURS:
            env["DATABASE_URL"] = database.new_database()
        elif name == NO_MIGRATIONS:
            env["SKIP_MIGRATIONS"] = "true"
        shutil.rmtree(state, ignore_errors=True)  # a container's file system is fresh
        with rig.on_cpus(here):
            began_s = time.monotonic()
            process = rig.start(commands.get(name) or rig.ours(*app), env=env)
        _wait_for_answer(port)
        taken_ms = (time.monotonic() - began_s) * 1000
        if name == rig.OURS:
            rig.wait_until(lambda: rig.phase(state) == "completed", "the end of the migrations")
        rig.end(process)
        return taken_ms

    names = [BARE, rig.FLOOR, rig.OURS, NO_MIGRATIONS, *(["tini"] if rig.installed("tini") else [])]
    taken = rig.take_turns(names, measure, rounds)
    rows = {
        name: (
            statistics.median(times),
            min(times),
            rig.difference(taken, name, BARE),
            rig.ratio(taken, name, BARE),
        )
        for name, times in taken.items()
    }
    heads = ("median ms", "best ms", "later by ms", "x bare")
    rig.show(
        f"{title} on one CPU, {MIGRATIONS} migrations to apply: first answer, {rounds} rounds", heads, rows
    )
    print(f"entrypoint / floor, median of {rounds} pairs: {rig.ratio(taken, rig.OURS, rig.FLOOR):.3f}")


def _wait_for_answer(port: int) -> None:
    give_up_s = time.monotonic() + 60
    while time.monotonic() < give_up_s:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
                client.sendall(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
                if client.recv(64).split(b" ")[1:2] == [b"200"]:
                    return
        except ConnectionError:
            time.sleep(0.001)
    sys.exit(f"bench: nobody answers on port {port}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _has(module: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(module) is not None


if __name__ == "__main__":
    main()
