"""How long from SIGTERM to the end, with an app that obeys at once?

    python bench/stop.py [--rounds 30]

The app is a C program that ends on SIGTERM. Time from the signal to the supervisor's own end; without one the
app gets the signal itself. Wanted: at most 5 ms later than under tini. "while migrating": the migrator
waits for a database that takes connections and never answers, so that it must be ended, too.
"""

import argparse
import os
import signal
import socket
import statistics
import tempfile
import time
from pathlib import Path

import rig

BARE = "bare"
MIGRATING = "entrypoint, while migrating"
SLOW = ("supervisord", "honcho")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as name,
        socket.create_server(("127.0.0.1", 0)) as silent,
    ):
        directory = Path(name)
        app = rig.build("obey", directory)
        commands = {
            BARE: [app],
            rig.OURS: rig.ours(app),
            MIGRATING: rig.ours(app),
            **rig.others(app, directory=directory),
        }

        def measure(name: str) -> float:
            return stop_ms(name, commands[name], directory / "state", silent.getsockname()[1])

        quick = [name for name in commands if name not in SLOW]
        taken = rig.take_turns(quick, measure, rounds)
        taken |= rig.take_turns([name for name in SLOW if name in commands], measure, max(1, rounds // 10))
    against = "tini" if "tini" in taken else BARE
    rows = {
        name: (
            statistics.median(times),
            min(times),
            max(times),
            rig.difference(taken, name, against) if name in quick else statistics.median(times),
        )
        for name, times in taken.items()
    }
    heads = ("median ms", "best ms", "worst ms", f"over {against}")
    rig.show(f"From SIGTERM to the end, {rounds} rounds", heads, rows)


def stop_ms(name: str, command: list[str], state: Path, silent_port: int) -> float:
    env = rig.environment(ENTRYPOINT_STATE_DIR=str(state), NODE_ENV="production")
    if name == MIGRATING:
        env["DATABASE_URL"] = f"postgresql://nobody@127.0.0.1:{silent_port}/none"
    else:
        env["SKIP_MIGRATIONS"] = "true"
    process = rig.start(command, env=env)
    rig.wait_for_line(process, lambda line: line == b"ready")
    if name == rig.OURS:
        rig.wait_until_settled(process, state)
    elif name == MIGRATING:
        rig.wait_until(lambda: rig.phase(state) == "connecting", "the migrator's start")
    else:
        time.sleep(0.05)  # whatever it still does after the app's start
    began_s = time.monotonic()
    process.send_signal(signal.SIGTERM)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    taken_ms = (time.monotonic() - began_s) * 1000
    process.communicate()
    return taken_ms


if __name__ == "__main__":
    main()
