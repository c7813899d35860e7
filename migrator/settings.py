"""The migrator's settings, read once from a mapping."""

from __future__ import annotations

import os.path
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from migrator import choosing, dsn, env, variables
from migrator.dsn import Dsn
from migrator.errors import ConfigError, Redactor

if TYPE_CHECKING:
    from migrator.endpoint import Endpoint

# How long to go on knocking at a database that isn't there yet, where a supervisor waits with us.
SUPERVISED_CONNECT_WAIT_S = 15.0
# For how long others may wait for what a migration holds, where the app runs beside it.
MAX_BLOCKING_MS = 2000
# Over how many seconds replicas that start together spread their first look at the database. Not where an
# app waits for it, nor where the database is of this machine and has no other replicas.
START_SPREAD_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the migrator needs to know; see `migrator.variables` for names and defaults.

    Attributes:
        database: Where to migrate; None if nothing says so, or `rest` does.
        rest: Where to migrate over a REST API instead.
        embedded: The database is the private Postgres in `state_dir`.
        directories: Where the files are.
        chosen: Somebody named the directories, so they must exist.
        start_spread_s: The first look at the database comes at a random moment within so many seconds.
        max_blocking_ms: How long others may wait for what a migration holds; None: as long as it takes.
        terminate_idle_s: Sessions in the way that are idle in a transaction so long are ended; None: never.
        runner: What migrates: `direct`, `shell`, `command`, `exec` or `exec:NAME`; see `migrator.programs`.
        lacks_of_project: What would have to be set to migrate over a Supabase project's REST API.
        connect_wait_s: How long an unreachable database is tried again.
        report_fd: Where the supervisor listens; None when run by hand.
        complaints: What is wrong without keeping us from migrating.
    """

    database: Dsn | None
    rest: Endpoint | None
    embedded: bool
    state_dir: str
    directories: tuple[Path, ...]
    chosen: bool
    environment: str | None
    schema: str
    changed_files: str
    hazards: str
    out_of_order: str
    rollback_on_failure: bool
    supabase_history: str
    lease_ttl_s: float
    freeze_budget_ms: int
    max_blocking_ms: int | None
    terminate_idle_s: float | None
    connect_wait_s: float
    start_spread_s: float
    report_fd: int | None
    log_level: str
    log_format: str | None
    log_output: str | None
    runner: str
    lacks_of_project: str
    complaints: tuple[str, ...]
    secrets: tuple[str, ...] = field(repr=False)

    @classmethod
    def from_env(
        cls,
        environ: Mapping[str, str],
        read_text: Callable[[str], str],
        is_directory: Callable[[str], bool],
    ) -> Settings:
        """Read the environment.

        Raises:
            ConfigError: Something in it is wrong; the message names everything that is.
        """
        read = env.Reader(environ, read_text)
        # LOG_LEVEL=trace is meant for the app's logger: no reason not to migrate.
        lenient = env.Reader(environ, read_text)
        url_name, url = read.named(variables.DATABASE)
        state_dir = os.path.abspath(read.get(variables.STATE_DIR))
        runner = choosing.runner(read)
        database = rest = None
        try:
            if runner == "rest":
                rest = _rest(read)
            else:
                database = _database(url_name, url, state_dir)
        except ConfigError as error:
            read.problems.append(str(error))
        chosen = read.get(variables.DIRECTORIES)
        report_fd = environ.get("MIGRATOR_REPORT_FD")
        # The supervisor's own are read too, so that one message names all that is wrong.
        for variable in variables.OF_MIGRATIONS:
            read.get(variable)
        place = database or rest
        waits_for_nobody = read.get(variables.MODE) == "parallel" and place and not place.is_local
        settings = cls(
            database=database,
            rest=rest,
            embedded=database is not None and url == "embedded",
            state_dir=state_dir,
            directories=_directories(chosen, is_directory),
            chosen=chosen is not None,
            environment=read.get(variables.ENVIRONMENT),
            schema=read.get(variables.SCHEMA),
            changed_files=read.get(variables.CHANGED_FILES),
            hazards=read.get(variables.HAZARDS),
            out_of_order=read.get(variables.OUT_OF_ORDER),
            rollback_on_failure=read.get(variables.ROLLBACK_ON_FAILURE),
            supabase_history=read.get(variables.SUPABASE_HISTORY),
            lease_ttl_s=read.get(variables.LEASE_TTL),
            freeze_budget_ms=read.get(variables.FREEZE_BUDGET),
            max_blocking_ms=_max_blocking_ms(read.get(variables.MAX_BLOCKING), read.get(variables.MODE)),
            terminate_idle_s=read.get(variables.TERMINATE_IDLE),
            connect_wait_s=0.0 if report_fd is None else SUPERVISED_CONNECT_WAIT_S,
            start_spread_s=START_SPREAD_S if report_fd and waits_for_nobody else 0.0,
            report_fd=int(report_fd) if report_fd and report_fd.isdecimal() else None,
            log_level=lenient.get(variables.LOG_LEVEL),
            log_format=lenient.get(variables.LOG_FORMAT),
            log_output=lenient.get(variables.LOG_OUTPUT),
            runner=runner,
            lacks_of_project=choosing.lacks_of_project(read),
            complaints=tuple(lenient.problems),
            secrets=dsn.known_secrets(read, environ),
        )
        if read.problems:
            raise ConfigError(Redactor(settings.secrets)("; ".join(read.problems)))
        return settings

    @property
    def is_supabase(self) -> bool:
        """Whether what is migrated looks like a Supabase project, by its host or by where its files lie."""
        host = self.database.place.split("/")[0] if self.database else ""
        in_project = any(one.absolute().parts[-2:] == ("supabase", "migrations") for one in self.directories)
        return in_project or "supabase" in host or self.rest is not None

    def require_database(self) -> Dsn | Endpoint:
        """Where to migrate.

        Raises:
            ConfigError: None is set.
        """
        place = self.database or self.rest
        if place is None:
            project = f", or {self.lacks_of_project}"
            raise ConfigError(
                "cannot migrate without a database: set SUPABASE_DB_URL, DIRECT_URL or DATABASE_URL to a "
                f"postgresql:// URL{project if self.runner in ('direct', 'rest') else ''}"
            )
        return place

    def require_url(self) -> Dsn:
        """The database, for what needs a connection.

        Raises:
            ConfigError: None is set.
        """
        place = self.require_database()
        if isinstance(place, Dsn):
            return place
        raise ConfigError(f"cannot do this over the REST API of {place}; set a database URL")


def _max_blocking_ms(chosen: int | None, mode: str) -> int | None:
    if chosen is None:
        return MAX_BLOCKING_MS if mode == "parallel" else None
    return chosen or None


def _database(name: str | None, url: str | None, state_dir: str) -> Dsn | None:
    if name is None or url is None:
        return None
    if url == "embedded":
        url = f"postgresql://postgres@/postgres?host={state_dir}/postgres"
    return dsn.parse(url, name)


def _rest(read: env.Reader) -> Endpoint:
    """The REST API."""
    url_name, url = read.named(variables.REST_URL)
    key_name, key = read.named(variables.REST_KEY)
    if url is None or key is None or url_name is None or key_name is None:
        missing = [
            one.names for one, held in ((variables.REST_URL, url), (variables.REST_KEY, key)) if not held
        ]
        raise ConfigError(
            f"cannot use MIGRATION_RUNNER=rest: set {' and '.join(' or '.join(names) for names in missing)}"
        )
    from migrator import endpoint  # late: 3 ms that a database URL spares

    return endpoint.parse(url, url_name, key, key_name)


def _directories(chosen: tuple[str, ...] | None, is_directory: Callable[[str], bool]) -> tuple[Path, ...]:
    if chosen is not None:
        return tuple(Path(directory) for directory in chosen)
    for looked_up in variables.LOOKED_UP_DIRS:
        if is_directory(looked_up):
            return (Path(looked_up),)
    return ()
