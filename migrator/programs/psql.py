"""How psql is called to apply a file, and what it means by its end."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from migrator import errors, parts
from migrator.errors import ConfigError, MigrationFailed, MigratorError, PlanError, Unavailable
from migrator.migration import Migration
from migrator.programs.outcome import Ended
from migrator.script import DiscardsAll

PROGRAM = "psql"
# Where the file's name goes.
_FILE = "\0file"
# Its exit codes (psql(1)); 3 is an error in the file.
_OWN_ERROR, _NO_CONNECTION = 1, 2
# "ERROR:  55P03: ..." with VERBOSITY=verbose, whatever language the word is in.
_SQLSTATE = re.compile(r"(?m)(?:^|: )[^\s:]+:  ([0-9A-Z]{5}): ")


def require(path: str) -> None:
    """Make sure that it is there.

    Raises:
        ConfigError: It isn't.
    """
    if shutil.which(PROGRAM, path=path) is None:
        raise ConfigError(
            "cannot apply SQL files with the shell runner: neither supabase nor psql is in PATH; install one "
            "(postgresql-client), or set MIGRATION_RUNNER=direct, which needs neither"
        )


def is_transactional(migration: Migration) -> bool:
    """Whether the file can run in one transaction; where we don't understand it, psql may."""
    try:
        return not parts.total(migration)
    except DiscardsAll:
        return False
    except PlanError:
        return True


def command(path: Path, around: Sequence[str]) -> list[str]:
    """Apply the file, and stop at the first error. `around` is what `in_one_transaction` has made."""
    argv = [PROGRAM, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose"]
    if not around:
        return [*argv, "-f", str(path)]
    return [*argv, *(str(path) if word == _FILE else word for word in around)]


def in_one_transaction(before: Sequence[str], after: Sequence[str]) -> list[str]:
    """The options that have the file's statements, and ours around them, as one transaction."""
    words = ["-1"]
    for text in before:
        words += ["-c", text]
    words += ["-f", _FILE]
    for text in after:
        words += ["-c", text]
    return words


def failure(filename: str, ended: Ended) -> MigratorError:
    """The error for a file that it didn't apply in its transaction."""
    found = _SQLSTATE.findall(ended.tail)
    kind: type[MigratorError] = MigrationFailed
    known = "; it was rolled back" if ended.code not in (None, _NO_CONNECTION) else f"\n{errors.NOT_KNOWN}"
    if ended.code == _NO_CONNECTION:
        kind = Unavailable
    if found:
        kind = errors.from_sqlstate(found[-1])
    if ended.error is not None:
        kind, known = ConfigError, ""
    tail = f"\n{ended.tail}" if ended.tail else ""
    return kind(f"cannot apply {filename}: psql {ended.described}{known}{tail}")
