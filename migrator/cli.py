"""The command line of the migrator."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from types import ModuleType

from migrator import log as logs
from migrator import secret_file
from migrator.errors import ConfigError, Redactor
from migrator.report import MigrationPhase, Report
from migrator.session import Session, reporter
from migrator.settings import Settings
from migrator.version import Version

# Each is a module of `migrator.commands`.
_COMMANDS = {
    "up": "apply what is pending",
    "status": "which migrations are applied and which are pending",
    "lint": "what in the files would stop or break the running app",
}

_EPILOG = """\
exit codes: 0 done, 1 a migration failed, 2 usage, 65 files don't fit the history, or have hazards,
            69 database unreachable, 75 lock busy or lost, 78 configuration
example:    DATABASE_URL=postgresql://user:password@host/database migrator up"""


def main(arguments: list[str]) -> int:
    """Run the command line; the exit code."""
    parser = _parser(arguments)
    options = parser.parse_args(arguments)
    if options.run and options.command not in (None, "up"):
        parser.error(f"--run means up, not {options.command}")
    if options.command is None and not options.run:
        parser.print_help(sys.stderr)
        return 2
    try:
        settings = Settings.from_env(os.environ, secret_file.read, os.path.isdir)
    except ConfigError as error:
        return _refuse_settings(error)
    redact = Redactor(settings.secrets)
    log = logs.configure(
        component="migration-runner",
        level=settings.log_level,
        mask=redact,
        **logs.destination(os.environ, log_format=settings.log_format, output=settings.log_output),
    )
    if settings.complaints and settings.report_fd is None:  # else the supervisor says it
        log.warning("settings.ignored", reason="; ".join(settings.complaints))
    if settings.ignored_runner:
        log.warning(
            "settings.ignored",
            reason="USE_NODE_MIGRATIONS=false asks for the shell runner, which this version doesn't have; "
            "the SQL files are applied directly",
        )
    if settings.database and settings.database.ignored:
        log.warning(
            "settings.ignored",
            reason="parameters of the database URL that mean nothing here: "
            + ", ".join(settings.database.ignored),
        )
    session = Session(settings, log, redact)
    command = _load(options.command or "up")
    return session.run(lambda: command.run(session, options))


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


def _refuse_settings(error: ConfigError) -> int:
    """Settings can't be trusted yet, so the log's can't either: the defaults say what is wrong."""
    log = logs.configure(
        component="migration-runner",
        level="info",
        mask=Redactor(()),
        **logs.destination(os.environ, log_format=None, output=None),
    )
    fd = os.environ.get("MIGRATOR_REPORT_FD", "")
    tell = reporter(int(fd) if fd.isdecimal() else None, Redactor(()))
    tell(Report(phase=MigrationPhase.FAILED, error=str(error)))
    log.error("settings.refused", reason=str(error), exit_code=error.exit_code)
    return error.exit_code
