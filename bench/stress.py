"""Does anything get lost, or hurt the app, when far too much comes in?

    python bench/stress.py [--signals 100000] [--seconds 3] [--rounds 3] [--only signals|health]

1. Signals at full rate, from a C program to the init, counted by a C app behind it.
   - real-time, queued (sigqueue): the kernel keeps each one, so each one must arrive.
   - the same where the kernel keeps only 1,000 (RLIMIT_SIGPENDING): it refuses, the sender tries again.
   - plain, each one sent when the one before has arrived: the kernel merges none, so each one must arrive.
   - plain at full rate: the kernel merges what is pending already, so it is only said how many arrived.
   - a SIGTERM in the middle of the plain and of the real-time flood: must arrive.
2. Health requests against the socket, 10,000 a second, over one connection and over one each. Beside it runs
   an app that does a piece of work every millisecond, on another CPU if there is one. Its throughput and its
   latency are measured with and without the requests in turns: wanted is no effect, and no growth of PID 1.
"""

import argparse
import contextlib
import os
import resource
import signal
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import rig

REAL_TIME = int(signal.SIGRTMIN) + 3
FEW = 1000
PLAIN = 5000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--signals", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["signals", "health"])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        directory = Path(name)
        if arguments.only != "health":
            signals(directory, arguments.signals)
        if arguments.only != "signals":
            health(directory, arguments.seconds, arguments.rounds)


class Flood:
    """So many signals of a number, sent in one way."""

    def __init__(self, number: int, count: int, *how: str, room: int | None = None) -> None:
        """`how`: the last arguments of apps/flood.c; `room`: RLIMIT_SIGPENDING of all that is flooded."""
        self.number, self.count, self.how, self.room = int(number), count, how, room


def signals(directory: Path, count: int) -> None:
    app, sender = rig.build("count", directory), rig.build("flood", directory)
    half = str(count // 2)
    floods = {
        "Real-time, queued": Flood(REAL_TIME, count, "queue"),
        f"Real-time, queued, room for {FEW}": Flood(REAL_TIME, count, "queue", room=FEW),
        "Real-time, queued, SIGTERM amid": Flood(REAL_TIME, count, "queue", half),
        "Plain, one by one": Flood(signal.SIGUSR1, PLAIN, "ack"),
        "Plain, at full rate": Flood(signal.SIGUSR1, count, "kill"),
        "Plain, at full rate, SIGTERM amid": Flood(signal.SIGUSR1, count, "kill", half),
    }
    for title, flood in floods.items():
        argv = [app, *(["ack"] if "ack" in flood.how else [])]
        others = rig.others(*argv, directory=directory)
        commands = {"bare": argv, rig.OURS: rig.ours(*argv)}
        commands |= {name: others[name] for name in ("tini", "dumb-init") if name in others}
        rows = {
            name: under_flood(flood, sender, command, directory / "state", is_ours=name == rig.OURS)
            for name, command in commands.items()
        }
        heads = ("arrived", "SIGTERM", "exit code", "sending ms", "EAGAIN")
        rig.show(f"{title}: {flood.count} sent", heads, rows)


def under_flood(
    flood: Flood, sender: str, command: list[str], state: Path, *, is_ours: bool
) -> tuple[object, ...]:
    """How many arrived at the app, how many SIGTERMs; its exit code, and what the sender says."""
    _, hard = resource.getrlimit(resource.RLIMIT_SIGPENDING)

    def limit() -> None:
        if flood.room is not None:
            resource.setrlimit(resource.RLIMIT_SIGPENDING, (flood.room, hard))

    env = rig.environment(ENTRYPOINT_STATE_DIR=str(state), ENTRYPOINT_STOP_GRACE="60", SKIP_MIGRATIONS="true")
    process = rig.start(command, env=env, preexec_fn=limit)
    rig.wait_for_line(process, lambda line: line == b"ready")
    if is_ours:
        rig.wait_until_settled(process, state)
    else:
        time.sleep(0.1)
    run = [sender, str(process.pid), str(flood.number), str(flood.count), *flood.how]
    said = subprocess.run(run, check=False, stdin=process.stdout, stdout=subprocess.PIPE, text=True).stdout
    if len(flood.how) == 1:  # else it was sent amid the others
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    told = [line.split() for line in output.splitlines()]
    counts = {int(line[0]): int(line[1]) for line in told if len(line) == 2}
    sent = said.split() or ("", "")
    return counts.get(flood.number, 0), counts.get(signal.SIGTERM, 0), process.returncode, *sent


def health(directory: Path, seconds: float, rounds: int, per_second: int = 10_000) -> None:
    app, client = rig.build("probe", directory), rig.build("ask", directory)
    state = directory / "state"
    everywhere = sorted(os.sched_getaffinity(0))
    here, elsewhere = {everywhere[0]}, {everywhere[-1]}
    env = rig.environment(ENTRYPOINT_STATE_DIR=str(state), SKIP_MIGRATIONS="true")
    command = rig.ours("taskset", "-c", str(max(elsewhere)), app, str(seconds))
    with rig.on_cpus(here):
        process = rig.start(command, env=env, stdin=subprocess.PIPE)
        rig.wait_for_line(process, lambda line: line == b"ready")
        rig.wait_until_settled(process, state)
        kinds = {"alone": None, "one connection": "keep", "a connection each": "new"}
        taken: dict[str, list[list[float]]] = {name: [] for name in kinds}
        served = {}
        memory = [_state_of(process.pid)]
        for _ in range(rounds):
            for name, kind in kinds.items():
                process.stdin.write(b"go\n")
                process.stdin.flush()
                if kind is not None:
                    socket = str(state / "entrypoint.sock")
                    asked = [client, socket, str(per_second), str(seconds), kind]
                    served[name] = subprocess.run(
                        asked, check=True, capture_output=True, text=True
                    ).stdout.split()
                    memory.append(_state_of(process.pid))
                taken[name].append([float(one) for one in process.stdout.readline().split()])
        process.stdin.close()
        process.stdin = None
        rig.end(process)
    where = "another CPU" if here != elsewhere else "the same CPU"
    heads = ("work / s", "median us", "p99 us", "longest us", "x alone")
    rows = {
        name: [
            *(f"{statistics.median(column):.0f}" for column in zip(*rounds_of, strict=True)),
            statistics.median(
                one[1] / other[1] for one, other in zip(rounds_of, taken["alone"], strict=True)
            ),
        ]
        for name, rounds_of in taken.items()
    }
    rig.show(f"The app on {where}, while {per_second} health requests/s are asked for", heads, rows)
    rig.show(
        "The requests, last round", ("asked", "answered 200", "per s", "median us", "longest us"), served
    )
    print("PID 1, PSS in KiB and open descriptors, before and after each: ", ", ".join(memory))


def _state_of(pid: int) -> str:
    return f"{rig.pss_bytes(pid) // 1024}/{len(os.listdir(f'/proc/{pid}/fd'))}"


if __name__ == "__main__":
    main()
