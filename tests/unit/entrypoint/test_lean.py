"""PID 1 stays small: what its modules load is counted."""

import subprocess
import sys

from tests.support.processes import REPO

# What would cost memory that an init keeps for good. json, enum and dataclasses are the first of a long tail.
HEAVY = {
    "argparse", "asyncio", "asyncpg", "collections", "contextlib", "ctypes", "dataclasses", "datetime", "enum",
    "functools", "h11", "inspect", "json", "logging", "pathlib", "psutil", "re", "selectors", "signal", "socket",
    "structlog", "subprocess", "tempfile", "threading", "traceback", "typing", "uvloop",
}  # fmt: skip


def test_pid_1_loads_nothing_heavy():
    script = f"import sys; sys.path.insert(0, {str(REPO)!r}); import entrypoint.init, entrypoint.babysit; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())

    assert "entrypoint.init" in loaded
    assert loaded & HEAVY == set()
    assert {name for name in loaded if name.startswith("migrator.")} == {
        "migrator.env",
        "migrator.shorten",
        "migrator.signals",
        "migrator.variables",
        "migrator.writer",
    }
