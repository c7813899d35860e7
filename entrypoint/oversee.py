"""`python -m entrypoint.oversee [REASON]`, started by PID 1: give way to the app, then load the overseer.

With a reason nothing is migrated, whatever the settings say.
SIGTERM asks it to stop the migrations; SIGINT to end all that was started here.
"""

import os
import sys

from entrypoint import board, launch, line, record, system
from entrypoint.options import Options
from migrator import env, variables

# Between the app, which comes first, and the migrator, which we must be able to stop.
_NICE = 5


def main() -> None:
    """See the migrations through; ends the process."""
    # Never lower than the migrator: only root could then raise it.
    system.give_way(min(_NICE, env.Reader(os.environ, str).get(variables.NICE)))
    # Nothing here speaks TLS, and asyncio can do without it: OpenSSL would be 4 MiB.
    sys.modules["ssl"] = None  # type: ignore[assignment]  # the import system's word for "not there"
    try:
        from entrypoint import overseer  # late: it is loaded with a lower priority

        code = overseer.main(skip_reason=sys.argv[1] if len(sys.argv) > 1 else None)
    except Exception as error:  # noqa: BLE001 - our own bug: a truthful status instead of a traceback
        code = 70  # EX_SOFTWARE
        _tell(f"internal error: {launch.where(error)}")
    # Not sys.exit: tearing the interpreter down takes longer than anything that is left to do.
    os._exit(code)


def _tell(problem: str) -> None:
    options = Options.read(os.environ)
    log = line.from_environ(
        os.environ, level=options.log_level, form=options.log_format, output=options.log_output
    )
    log.error("overseer.failed", reason=problem)
    os.write(record.REPORT_FD, record.encode(board.unknown_record("failed", "failed", problem)))


if __name__ == "__main__":
    main()
