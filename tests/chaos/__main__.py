"""`make chaos RUNS=500 [SEED=...]`: many runs, and what came of them."""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter

from tests.chaos.run import field_of_battle


def main() -> int:
    parser = argparse.ArgumentParser(prog="chaos")
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument(
        "--seed", type=int, default=None, help="of the first run; the next have the next ones"
    )
    parser.add_argument("--jobs", type=int, default=2 * (os.cpu_count() or 1), help="so many at once")
    parser.add_argument("--seconds", type=float, default=None, help="begin no run after so many")
    parser.add_argument("--rest", type=float, default=0.0, help="this share of them over the REST API")
    parser.add_argument("--worker", type=int, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(10**6)
    if options.worker is not None:
        return _work(options)
    print(f"SEED={options.seed}")
    began_s = time.monotonic()
    passed_on = [
        f"--{name}={value}" for name, value in vars(options).items() if name != "worker" and value is not None
    ]
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.chaos", *passed_on, f"--worker={number}"],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(options.jobs)
    ]
    runs, bad, counts = Counter[str](), list[int](), Counter[str]()
    try:
        said = [worker.communicate()[0] for worker in workers]
    finally:
        for worker in workers:
            worker.terminate()
    for line in "".join(said).splitlines():
        result = json.loads(line)
        runs[result["what"]] += 1
        counts.update(result["counts"])
        bad += [result["seed"]] if result["violations"] else []
    total = sum(runs.values())
    print(
        f"{total} runs in {time.monotonic() - began_s:.0f} s, {len(bad)} with violations {sorted(bad) or ''}"
    )
    print("runs:    " + ", ".join(f"{count} {what}" for what, count in sorted(runs.items())))
    print("mishaps: " + ", ".join(f"{counts[name]} {name}" for name in sorted(counts) if _is_mishap(name)))
    print(
        "others:  " + ", ".join(f"{counts[name]} {name}" for name in sorted(counts) if not _is_mishap(name))
    )
    return bool(bad) or any(worker.returncode for worker in workers)


def _is_mishap(name: str) -> bool:
    return not name.startswith(("exit ", "lives", "takeovers"))


def _work(options: argparse.Namespace) -> int:
    give_up_s = time.monotonic() + (options.seconds or float("inf"))
    with field_of_battle() as run:
        for number in range(options.worker, options.runs, options.jobs):
            if time.monotonic() > give_up_s:
                break
            seed = options.seed + number
            outcome = run(seed, rest=random.Random(seed).random() < options.rest)
            result = {
                "seed": outcome.seed,
                "what": outcome.what,
                "violations": outcome.violations,
                "counts": outcome.counts,
                "duration_s": round(outcome.duration_s, 1),
            }
            print(json.dumps(result), flush=True)
            if outcome.violations:
                print(f"SEED={outcome.seed}: {outcome.violations}\n{outcome.story}\n", file=sys.stderr)
    return 0


if __name__ == "__main__":
    # So that servers and migrators end with us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
