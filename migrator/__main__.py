"""Lower our own priority and memory first, then load everything else."""

from __future__ import annotations

import os
import resource
import sys

_DEFAULT_NICE = 10
_DEFAULT_MEMORY_MB = 256


def main() -> None:
    """Run the migrator with `sys.argv`; ends the process."""
    _give_way()
    from migrator import cli  # late: what it loads is already limited

    sys.exit(cli.main(sys.argv[1:]))


def _give_way() -> None:
    """Let the app have the CPU, the memory, and the kernel's mercy. Wrong values are told later."""
    try:
        os.nice(_number("MIGRATION_NICE", _DEFAULT_NICE, range(20)))
    except OSError:
        pass
    limit = _number("MIGRATION_MAX_MEMORY_MB", _DEFAULT_MEMORY_MB, range(48, 2**20 + 1)) * 1024 * 1024
    try:
        # RLIMIT_DATA, not RLIMIT_AS: threads and DNS map far more addresses than they ever use, and
        # uvloop aborts when it can't have them.
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        ceiling = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (ceiling, ceiling))
    except (OSError, ValueError):
        pass
    try:
        # When memory runs out, the kernel shall take the migration and never the app.
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    except OSError:
        pass


def _number(name: str, default: int, allowed: range) -> int:
    """The bounds are those of `migrator.variables`: in less memory we couldn't even say what is wrong."""
    raw = os.environ.get(name, "")
    value = int(raw) if raw.isdecimal() and len(raw) < 10 else default
    return value if value in allowed else default


if __name__ == "__main__":
    main()
