"""What a team's own runner in Python implements, and what it is given.

A package offers it under the entry point group `migrator.runners`:

    [project.entry-points."migrator.runners"]
    mine = "our_package.migrations:Mine"

`MIGRATION_RUNNER=exec:mine` then has `Mine().run(context)` called, once an attempt, under the migration lock.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

GROUP = "migrator.runners"


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a runner is given. More may come; nothing goes.

    Attributes:
        url: The database, as the user wrote it. A secret.
        directories: Where migration files are; empty if there are none.
        environment: What this deployment is called, e.g. "production"; None if nothing says so.
        variables: An environment for programs, in which they find the database.
        say: Write a line to the log; secrets that we know are masked.
        progress: Tell the status how many are applied and pending (None: not known), and which is at work.
        execute: Run a program, by its words, as `MIGRATION_COMMAND` is run: guarded, its output in the log.
            Its exit code; None if a signal ended it.
    """

    url: str = field(repr=False)
    directories: tuple[Path, ...]
    environment: str | None
    variables: Mapping[str, str] = field(repr=False)
    say: Callable[[str], None]
    progress: Callable[[int | None, int | None, str | None], None]
    execute: Callable[[Sequence[str]], Awaitable[int | None]]


class Runner(Protocol):
    """A team's own way to migrate. The entry point names a class like this, made without arguments."""

    async def run(self, context: Context) -> None:
        """Bring the database up to date, or raise.

        It is cancelled when we are asked to stop or the lock is lost: what it has begun it must end then,
        within 3 seconds. It mustn't block the event loop, which keeps the lock: what blocks goes into
        `context.execute`, or a thread.

        Raises:
            migrator.errors.MigratorError: Its kind says whether another attempt is worth it (`Unavailable`,
                `Conflict`), its text what a person can do. Any other exception fails the migration for good.
        """
