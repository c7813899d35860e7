"""What programs need to know besides the migrator's own settings, read once from a mapping."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from migrator import env, variables
from migrator.errors import ConfigError, Redactor
from migrator.programs import environment
from migrator.settings import Settings

# From SIGTERM to SIGKILL. Our own supervisor gives us 5 s to end, and the lease is to be given back, too.
GRACE_S = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramSettings:
    """What is run, and in which environment.

    Attributes:
        runner: `shell`, `command`, `exec` or `exec:NAME`.
        command: The words of `MIGRATION_COMMAND`.
        url: The database, as the user wrote it.
        variables: For commands and scripts.
        libpq: For psql and its kind, when we start them ourselves.
        path: Where programs are looked for.
        timeout_s: For one attempt; None where a supervisor sees to that.
        memory_bytes: What we and the program may use together; None if nobody says.
    """

    runner: str
    command: tuple[str, ...]
    retry_exits: frozenset[int]
    url: str = field(repr=False)
    variables: Mapping[str, str] = field(repr=False)
    libpq: Mapping[str, str] = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)
    path: str
    timeout_s: float | None
    memory_bytes: int | None
    grace_s: float

    @classmethod
    def from_env(
        cls, environ: Mapping[str, str], read_text: Callable[[str], str], settings: Settings
    ) -> ProgramSettings:
        """Read the environment; what is wrong in it has been told with `settings`.

        Raises:
            ConfigError: No database is set, or we are run by a program that runs under our own lease.
        """
        if environ.get(environment.INSIDE):
            raise ConfigError(
                "cannot migrate inside of a migration: this program is run by MIGRATION_RUNNER="
                f"{settings.runner}, which holds the migration lock; take the migrator out of it"
            )
        dsn = settings.require_url()
        read = env.Reader(environ, read_text)
        url = dsn.url if settings.embedded else read.get(variables.DATABASE) or dsn.url
        memory = environ.get("MIGRATOR_MEMORY_LIMIT", "")
        return cls(
            runner=settings.runner,
            command=read.get(variables.COMMAND),
            retry_exits=read.get(variables.RETRY_EXITS),
            url=url,
            variables=environment.for_program(environ, url, dsn),
            libpq=environment.for_libpq(environ, url, dsn),
            secrets=(*settings.secrets, *environment.secrets(environ)),
            path=environ.get("PATH", ""),
            timeout_s=read.get(variables.TIMEOUT) if settings.report_fd is None else None,
            memory_bytes=int(memory) if memory.isdecimal() else None,
            grace_s=min(GRACE_S, settings.lease_ttl_s / 3),
        )

    @property
    def redact(self) -> Redactor:
        """What hides the secrets in a program's output."""
        return Redactor(self.secrets)
