"""The files that a command is about, where it isn't our own runner that applies them."""

from __future__ import annotations

from migrator import migration as files
from migrator.errors import ConfigError
from migrator.migration import Found
from migrator.settings import Settings

_OURS = ("direct", "rest")


def found(settings: Settings) -> Found | None:
    """What there is to apply; None if only a program knows.

    Raises:
        PlanError: The files can't be read.
    """
    if settings.runner in _OURS:
        return files.load(settings.directories, settings.environment, chosen=settings.chosen)
    from migrator.programs import choice, steps  # late: most do without it

    return steps.load(settings) if choice.counts_files(settings) else None


def recorded(settings: Settings) -> Found:
    """What the history may be about: with the scripts, where those are on record.

    Raises:
        PlanError: The files can't be read.
    """
    names = files.names_for(settings.runner)
    return files.load(settings.directories, settings.environment, chosen=settings.chosen, names=names)


def load(settings: Settings, wanted: str, *, takes_scripts: bool = False) -> Found:
    """The migrations of the directories.

    Args:
        settings: Which directories, and who applies what is in them.
        wanted: What the command is to do, as a verb: "plan".
        takes_scripts: It can do that for scripts as well.

    Raises:
        ConfigError: Only another program could do it.
        PlanError: They can't be read.
    """
    if takes_scripts or settings.runner in _OURS:
        loaded = found(settings)
        if loaded is not None:
            return loaded
    raise ConfigError(
        f"cannot {wanted}: MIGRATION_RUNNER is {settings.runner} here, and only the program that it runs "
        "could do that"
    )
