"""Make a new, empty migration file."""

from __future__ import annotations

import argparse
import fcntl
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from migrator import migration as files
from migrator import naming, variables
from migrator.errors import ConfigError
from migrator.output import paragraph, write

if TYPE_CHECKING:
    from migrator.session import Session


def arguments(parser: argparse.ArgumentParser) -> None:
    """What it takes."""
    parser.description = paragraph(
        "Make an empty file <UTC time>_<name>.sql that comes after all others, in the first directory of "
        "MIGRATIONS_DIR (else supabase/migrations, else migrations, which is created). Needs no database."
    )
    parser.epilog = """\
example:    migrator new "add an index to orders"
            migrator new create_users --down      # and a file with the way back
exit codes: 0 made: standard output is the path, 2 the name makes no file name,
            78 the directory can't be written"""
    parser.add_argument("name", type=_name, metavar="NAME", help="a few words on what it does")
    parser.add_argument(
        "--down", action="store_true", help="also make <version>_<name>.down.sql, the way back"
    )
    parser.add_argument("--json", action="store_true", help="for machines")


async def run(session: Session, options: argparse.Namespace) -> int:
    """Make the file; 0.

    Raises:
        MigratorError: It can't be done.
    """
    settings = session.settings
    directory = _directory(settings.directories, chosen=settings.chosen)
    directories = settings.directories or (directory,)
    try:
        holder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise _not_writable(directory, error) from error
    try:
        # Two that are made at once would get one version; the kernel gives the lock back with the descriptor.
        fcntl.flock(holder, fcntl.LOCK_EX)
        found = files.load(directories, settings.environment, chosen=False)
        taken = {migration.version for migration in found.migrations}
        version = naming.next_version(datetime.now(UTC), taken)
        made = [directory / f"{version}_{options.name}.sql"]
        if options.down:
            made.append(directory / f"{version}_{options.name}.down.sql")
        for path in made:
            _write(path, options.name)
    finally:
        os.close(holder)
    if after := naming.later(version, taken):
        session.log.warning(
            "migration.odd",
            reason=f"{made[0].name} comes before version {after[0]}, as versions are compared as text; "
            f"rename it to a version after {after[-1]}",
        )
    if options.json:
        write(json.dumps({"version": version, "files": [str(path) for path in made]}, indent=2))
    else:
        write("\n".join(str(path) for path in made))
    return 0


def _name(given: str) -> str:
    try:
        return naming.slug(given)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _directory(directories: tuple[Path, ...], *, chosen: bool) -> Path:
    directory = directories[0] if directories else Path(variables.LOOKED_UP_DIRS[-1])
    if not directory.is_dir():
        if chosen:
            raise ConfigError(
                f"cannot make a file in {str(directory)!r}: the directory doesn't exist; create it, or "
                f"correct MIGRATIONS_DIR"
            )
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _not_writable(directory, error) from error
    return directory


def _write(path: Path, name: str) -> None:
    way = "undo" if path.name.endswith(".down.sql") else "do"
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(f"-- {name.replace('_', ' ')}: what to {way}\n\n")
    except OSError as error:
        raise _not_writable(path, error) from error


def _not_writable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"cannot write {str(path)!r}: {error.strerror}; make it writable for uid {os.geteuid()}"
    )
