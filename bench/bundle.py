"""How large is the bundle, and how soon is it at work? Beside this Python and its venv.

    make bundle && python bench/bundle.py [--rounds 30] [--directory build/opt/entrypoint]

1. What it holds. Wanted: at most 45 MB.
2. From the start of a Python to its end, with nothing to do. Wanted: at most 1.5 times the plain one's.
3. To the first instruction of an app, as in bench/startup.py.
4. A migrator that only says its version: the imports; and the memory of PID 1 once it rests.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import rig

NOTHING = ["-I", "-S", "-c", "pass"]
PLAIN = "python -I -S"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--directory", type=Path, default=Path("build/opt/entrypoint"))
    arguments = parser.parse_args()
    bundle = arguments.directory.resolve()
    if not (bundle / "bin" / "entrypoint").exists():
        sys.exit(f"bench: no bundle in {bundle}; make bundle")
    show_size(bundle)
    plain = Path(sys.executable).resolve()  # not the venv's, which looks for its own first
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        directory = Path(name)
        starts = {
            PLAIN: [str(plain), *NOTHING],
            "bundle's python3": [str(bundle / "bin" / "python3"), *NOTHING],
            "venv's python": [sys.executable, "-c", "pass"],
        }
        compare("A Python that does nothing", starts, PLAIN, time_of_run, arguments.rounds)
        app = rig.build("say_start", directory)
        inits = {
            rig.FLOOR: rig.floor(app),
            "bundle's entrypoint": [str(bundle / "bin" / "entrypoint"), "--", app],
            "python -m entrypoint": rig.ours(app),
            "entrypoint (script)": [str(Path(sys.executable).parent / "entrypoint"), "--", app],
        }

        def first_instruction(command: Sequence[str]) -> float:
            return time_to_first_instruction(command, directory / "state")

        compare("To the app's first instruction", inits, rig.FLOOR, first_instruction, arguments.rounds)
        migrators = {
            "python -m migrator": [sys.executable, "-m", "migrator", "--version"],
            "bundle's migrator": [str(bundle / "bin" / "migrator"), "--version"],
        }
        compare("migrator --version", migrators, "python -m migrator", time_of_run, arguments.rounds)
        show_memory(
            {"bundle's entrypoint": [str(bundle / "bin" / "entrypoint"), "--"], rig.OURS: rig.ours()},
            directory,
        )


def show_size(bundle: Path) -> None:
    parts = {
        "programs and C libraries": [*bundle.glob("bin/*"), *bundle.glob("lib/*.*")],
        "Python's library": [*bundle.glob("lib/python*/**/*")],
        "our packages, and theirs": [*bundle.glob("site-packages/**/*")],
        "all": [*bundle.rglob("*")],
    }
    rows = {
        name: (sum(one.stat().st_size for one in files if one.is_file()) / 1e6,)
        for name, files in parts.items()
    }
    rig.show(f"{bundle}", ("MB",), rows)


def compare(
    title: str,
    commands: Mapping[str, Sequence[str]],
    base: str,
    measure: Callable[[Sequence[str]], float],
    rounds: int,
) -> None:
    taken = rig.take_turns(list(commands), lambda name: measure(commands[name]), rounds)
    rows = {
        name: (statistics.median(times), min(times), rig.ratio(taken, name, base))
        for name, times in taken.items()
    }
    rig.show(f"{title}, {rounds} rounds", ("median ms", "best ms", "x the first"), rows)


def time_of_run(command: Sequence[str]) -> float:
    began_s = time.monotonic()
    subprocess.run(command, env=rig.environment(), stdout=subprocess.DEVNULL, check=True)
    return (time.monotonic() - began_s) * 1000


def time_to_first_instruction(command: Sequence[str], state: Path) -> float:
    began_ns = time.monotonic_ns()
    process = rig.start(command, env=rig.environment(ENTRYPOINT_STATE_DIR=str(state)))
    line = rig.wait_for_line(process, bytes.isdigit)
    process.terminate()
    process.communicate()
    return (int(line) - began_ns) / 1e6


def show_memory(commands: Mapping[str, Sequence[str]], directory: Path) -> None:
    rows = {}
    for number, (name, command) in enumerate(commands.items()):
        state = directory / f"state{number}"
        env = rig.environment(ENTRYPOINT_STATE_DIR=str(state))
        process = rig.start([*command, "sleep", "600"], env=env)
        rig.wait_until_settled(process, state)
        rows[name] = tuple(f"{of(process.pid) / rig.MIB:.1f}" for of in (rig.pss_bytes, rig.rss_bytes))
        rig.end(process)
    rig.show("PID 1 at rest", ("PSS MiB", "RSS MiB"), rows)


if __name__ == "__main__":
    main()
