"""How often does PID 1 wake up when there is nothing to do?

    python bench/idle.py [--seconds 5]

Context switches of all its threads once the migrations are done, per second, from /proc/PID/task/TID/status,
and how many processes are left beside the app. Wanted: 0 and 0. Measured again after a health request has
been served, once its connection's time is over. All candidates are watched at the same time; they only sleep.
"""

import argparse
import socket
import tempfile
import time
from pathlib import Path

import rig

SERVED = "entrypoint, after a request"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5)
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        directory = Path(name)
        app = rig.build("obey", directory)
        migrations = rig.write_migrations(directory / "migrations", 20)
        commands = {rig.OURS: rig.ours(app), SERVED: rig.ours(app), **rig.others(app, directory=directory)}
        with rig.postgres(directory) as database:
            started = {}
            for candidate, command in commands.items():
                env = rig.environment(
                    NODE_ENV="production",
                    MIGRATIONS_DIR=str(migrations),
                    ENTRYPOINT_STATE_DIR=str(directory / candidate),
                    DATABASE_URL=database.new_database(),
                )
                started[candidate] = rig.start(command, env=env)
                rig.wait_for_line(started[candidate], lambda line: line == b"ready")
            for candidate in (rig.OURS, SERVED):
                rig.wait_until(lambda name=candidate: rig.phase(directory / name) == "completed", "completed")
            ask(directory / SERVED / "entrypoint.sock")
            time.sleep(6)  # a connection's time is 5 s
            before = {name: rig.switches(process.pid) for name, process in started.items()}
            time.sleep(seconds)
            rows = {
                name: (
                    (rig.switches(process.pid) - before[name]) / seconds,
                    len(rig.children(process.pid)) - 1,
                )
                for name, process in started.items()
            }
            for process in started.values():
                rig.end(process)
    rig.show(f"At rest, {seconds:g} s", ("wakeups / s", "other processes"), rows)


def ask(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.sendall(b"GET /api/health HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\n\r\n")
        assert b" 200 " in client.recv(4096)


if __name__ == "__main__":
    main()
