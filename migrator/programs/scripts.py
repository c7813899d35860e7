"""Shell scripts: which there are, how they are started, and what they say of themselves."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from migrator.errors import ConfigError
from migrator.migration import read_text

# A script that runs all there is to run, in the order in which they are looked for.
_IN_PROJECT = ("migrate.sh", "run-migrations.sh", "scripts/migrate.sh", "scripts/run-migrations.sh")
_SHEBANG_BYTES = 256


def find(directories: Sequence[Path], project: Path) -> Path | None:
    """The script that migrates: in or beside the migrations directories, or in the project's usual places."""
    places = [place / _IN_PROJECT[0] for directory in directories for place in (directory, directory.parent)]
    places += [project / name for name in _IN_PROJECT]
    return next((place for place in places if place.is_file()), None)


def command(path: Path) -> list[str]:
    """The words that run it: by its first line, so that neither its mode nor a noexec mount matters.

    Raises:
        ConfigError: It can't be read.
    """
    try:
        with path.open("rb") as file:
            first = file.readline(_SHEBANG_BYTES)
    except OSError as error:
        raise ConfigError(
            f"cannot read {path}: {error.strerror}; make it readable for uid {os.geteuid()}"
        ) from error
    # As the kernel does (execve(2)): the interpreter, and what follows as one argument.
    words = os.fsdecode(first[2:]).split(maxsplit=1) if first.startswith(b"#!") else []
    # With a slash, or PATH would be searched.
    return [*([word.strip() for word in words] or ["sh"]), os.path.join(".", path)]


def is_rerunnable(path: Path) -> bool:
    """Whether it says `# migrator: rerunnable` before its first command.

    Raises:
        PlanError: It can't be read.
    """
    for line in read_text(path).splitlines():
        stripped = line.strip()
        if stripped and not stripped.startswith("#"):
            return False
        if stripped[1:].strip().lower().replace(" ", "") == "migrator:rerunnable":
            return True
    return False
