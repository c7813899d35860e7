"""The commands and options of the command line. Loaded for all but a plain `up`."""

from __future__ import annotations

import argparse
import importlib
import sys
from types import ModuleType

from migrator.version import Version

# Each is a module of `migrator.commands`.
_COMMANDS = {
    "up": "apply what is pending",
    "plan": "what up would do; nothing is changed",
    "down": "undo what was applied last",
    "verify": "whether the files fit what was applied",
    "status": "which migrations are applied and which are pending",
    "new": "make a new migration file",
    "wait": "wait until the database answers, or all is applied",
    "repair": "show and settle edited, missing and half-done files",
    "unlock": "show who holds the lock, and take it from the dead",
    "baseline": "record files as applied that needn't run any more",
    "adopt": "take over the history of another migration tool",
    "install": "create our tables and what the REST API needs, or print the SQL",
    "lint": "what in the files would stop or break the running app",
}

_EPILOG = """\
exit codes: 0 done, 1 a migration failed, 2 usage, 65 files don't fit the history, or have hazards,
            69 database unreachable, 75 lock busy or lost, 78 configuration
in trouble: migrator repair (files and history), unlock (a lock), adopt (a database of another tool),
            wait (a database that sleeps); each with --help
example:    DATABASE_URL=postgresql://user:password@host/database migrator up"""


def parse(arguments: list[str]) -> argparse.Namespace | None:
    """What is asked for, `command` first of all; None if nothing is, after the help.

    Raises:
        SystemExit: Something is wrong with them, or only help or the version is wanted.
    """
    parser = _parser(arguments)
    options = parser.parse_args(arguments)
    if options.run and options.command not in (None, "up"):
        parser.error(f"--run means up, not {options.command}")
    if options.command is None and not options.run:
        parser.print_help(sys.stderr)
        return None
    return options


def _parser(arguments: list[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="migrator",
        description="Bring a Postgres database up to date from SQL files.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=Version, nargs=0, help="which version this is")
    parser.add_argument("--run", action="store_true", help="the same as the command up")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, summary in _COMMANDS.items():
        of_command = commands.add_parser(
            name, help=summary, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        if name in arguments:
            _load(name).arguments(of_command)
    return parser


def _load(command: str) -> ModuleType:
    return importlib.import_module(f"migrator.commands.{command}")
