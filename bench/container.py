"""How soon is an app at work in a container, and how soon is it gone? Alone, under Docker's init, under us.

    docker build -t entrypoint . && python bench/container.py [--image entrypoint] [--rounds 20]

1. From `docker start` to the first byte that the app writes. Most of it is Docker's own.
2. From `docker stop` to its return, with an app that ends at SIGTERM.
"""

import argparse
import re
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from datetime import datetime

import rig

APP = ("-c", "trap 'exit 0' TERM; echo up; while :; do sleep 60 & wait $!; done")
ALONE = "alone"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image", default="entrypoint")
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    try:
        docker("image", "inspect", arguments.image)
    except (OSError, subprocess.CalledProcessError):
        sys.exit(f"bench: no image {arguments.image}; docker build -t {arguments.image} .")
    image, shell = arguments.image, ("--entrypoint", "sh")
    candidates = {
        ALONE: [*shell, image, *APP],
        "docker run --init": ["--init", *shell, image, *APP],
        "entrypoint": [image, "sh", *APP],
        "entrypoint under --init": ["--init", image, "sh", *APP],
    }
    taken = rig.take_turns(list(candidates), lambda name: one_life(candidates[name]), arguments.rounds)
    for number, title in enumerate(("From docker start to the first byte", "docker stop")):
        times = {name: [life[number] for life in lives] for name, lives in taken.items()}
        rows = {
            name: (statistics.median(own), min(own), rig.difference(times, name, ALONE))
            for name, own in times.items()
        }
        rig.show(f"{title}, {arguments.rounds} rounds", ("median ms", "best ms", "ms more"), rows)


def one_life(options: Sequence[str]) -> tuple[float, float]:
    """Milliseconds to the first byte, and to the end."""
    name = f"bench-{uuid.uuid4().hex[:12]}"
    docker("create", "--name", name, "--network", "none", "--no-healthcheck", *options)
    try:
        began_s = time.time()
        docker("start", name)
        rig.wait_until(lambda: docker("logs", name).startswith("up"), "the app's word")
        first = docker("logs", "--timestamps", name).split()[0]
        stopped_s = time.monotonic()
        docker("stop", name)
        return (moment_s(first) - began_s) * 1000, (time.monotonic() - stopped_s) * 1000
    finally:
        docker("rm", "--force", name)


def moment_s(text: str) -> float:
    """As Docker writes it, with nanoseconds."""
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d*", r"\1", text)).timestamp()


def docker(*arguments: str) -> str:
    done = subprocess.run(
        ["docker", *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True
    )
    return done.stdout


if __name__ == "__main__":
    main()
