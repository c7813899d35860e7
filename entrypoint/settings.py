"""The overseer's settings, read once from a mapping. PID 1's own (`options`) are only checked here."""

from __future__ import annotations

import os.path
from collections.abc import Callable, Mapping

from msgspec import Struct

from migrator import choosing, dsn, env, variables
from migrator.errors import ConfigError
from migrator.misspelt import misspelt


class Settings(Struct, frozen=True, kw_only=True):
    """What the overseer needs to know; see `migrator.variables` for names and defaults.

    Attributes:
        skip_reason: Why migrations are switched off here; None if they are on.
        embedded: A private Postgres is wanted.
        runner: What migrates: `direct`, `shell`, `command`, `exec` or `exec:NAME`.
        attempts: How often the migrator may be started, the first time included.
        secrets: Values that must never be shown.
        problems: What is wrong about the migrations' settings, one sentence each: they can't run.
        complaints: What else is wrong; the default does in its place.
        unread: Variables that nobody reads, and that are almost called like one of ours.
    """

    skip_reason: str | None
    embedded: bool
    runner: str
    timeout_s: float
    attempts: int
    retry_delay_s: float
    memory_limit_bytes: int
    state_dir: str
    log_level: str
    log_format: str | None
    log_output: str | None
    secrets: tuple[str, ...]
    problems: tuple[str, ...]
    complaints: tuple[str, ...]
    unread: tuple[str, ...]

    @classmethod
    def from_env(cls, environ: Mapping[str, str], read_text: Callable[[str], str]) -> Settings:
        """Read the environment; what is wrong takes its default and is named."""
        read = env.Reader(environ, read_text)
        # Who misspells LOG_LEVEL wants to be told, but the migrations can do without.
        lenient = env.Reader(environ, read_text)
        name, database = read.named(variables.DATABASE)
        if name and database and database != "embedded":
            try:
                dsn.parse(database, name)
            except ConfigError as error:
                read.problems.append(str(error))
        # The migrator's own and PID 1's are read too, so that one message names all that is wrong.
        for variable in variables.OF_MIGRATIONS:
            read.get(variable)
        for variable in variables.OF_PID_1:
            lenient.get(variable)
        environment = read.get(variables.ENVIRONMENT)
        return cls(
            skip_reason=_skip_reason(read, environ, environment),
            embedded=database == "embedded",
            runner=choosing.runner(read),
            timeout_s=read.get(variables.TIMEOUT),
            attempts=1 + read.get(variables.RETRY_COUNT),
            retry_delay_s=read.get(variables.RETRY_DELAY),
            memory_limit_bytes=read.get(variables.MAX_MEMORY) * variables.MIB,
            state_dir=os.path.abspath(lenient.get(variables.STATE_DIR)),
            log_level=lenient.get(variables.LOG_LEVEL),
            log_format=lenient.get(variables.LOG_FORMAT),
            log_output=lenient.get(variables.LOG_OUTPUT),
            secrets=dsn.known_secrets(read, environ),
            problems=tuple(read.problems),
            complaints=tuple(lenient.problems),
            unread=misspelt(environ),
        )


def _skip_reason(read: env.Reader, environ: Mapping[str, str], environment: str | None) -> str | None:
    allowed = read.get(variables.ENVIRONMENTS)
    if read.get(variables.SKIP):
        return f"SKIP_MIGRATIONS={environ.get('SKIP_MIGRATIONS', '').strip()}"
    if not read.get(variables.ENABLED):
        return f"MIGRATION_ENABLED={environ.get('MIGRATION_ENABLED', '').strip()}"
    # Fly keeps the ENTRYPOINT for its release_command. Who asks for migrations and nothing else means them.
    if read.get(variables.RELEASE_COMMAND) and read.get(variables.MODE) != "only":
        return "RELEASE_COMMAND=1: a release command runs, and nothing beside it"
    wanted = " or ".join(allowed)
    if environment is None:
        return f"NODE_ENV is not set; migrations run where it is {wanted}"
    if environment.lower() not in {name.lower() for name in allowed}:
        name, _ = read.named(variables.ENVIRONMENT)
        return f"{name}={environment}; migrations run where it is {wanted}"
    return None
