"""What can be known of a container from inside, as values."""

from __future__ import annotations

import os.path
from collections.abc import Iterable, Mapping

from msgspec import Struct

from entrypoint.options import Options
from entrypoint.settings import Settings
from migrator.dsn import Dsn
from migrator.endpoint import Endpoint


class Memory(Struct, frozen=True, kw_only=True):
    """The memory of one group.

    Attributes:
        limit_bytes: None: no limit.
        used_bytes: Without the page cache that the kernel would drop first; None: it can't be seen.
        oom_group: When it runs out, all die together; None: version 1, where one process dies.
    """

    limit_bytes: int | None
    used_bytes: int | None
    oom_group: bool | None


class Cgroup(Struct, frozen=True, kw_only=True):
    """Our group and its visible parents.

    Attributes:
        version: Of the memory controller: 1, 2, or 0 if there is none to be seen.
        memory: Our own first, then the parents'.
        pids_limit: How many tasks the narrowest of them may have; None: no limit.
        pids_used: How many it has.
        cpus: How many processors' time we may use; None: no limit.
        writable: A group of our own can be made below.
    """

    version: int
    memory: tuple[Memory, ...]
    pids_limit: int | None
    pids_used: int | None
    cpus: float | None
    writable: bool


class State(Struct, frozen=True, kw_only=True):
    """The state directory: what keeps us from using it, and from having a socket in it (None: nothing)."""

    path: str
    error: str | None
    socket_error: str | None


class Directory(Struct, frozen=True, kw_only=True):
    """A directory with migrations: how many files it has, or why they can't be listed."""

    path: str
    files: int
    error: str | None


class Facts(Struct, frozen=True, kw_only=True):
    """What `check` judges.

    Attributes:
        first: The command line of PID 1; empty if it can't be seen.
        first_uid: Whose PID 1 is.
        pidfd_error: Why pidfd_open doesn't work; None if it does.
        limits: Soft and hard limit by name; None is unlimited.
        draining: RAILWAY_DEPLOYMENT_DRAINING_SECONDS as it is set.
        directories: Where migrations are looked for.
        missing: What an import would not find, of what migrations need.
        database: None if no URL is set, or a wrong one.
        rest: The way over a REST API, if that is the one.
        rest_error: What is wrong with it.
        lacks_of_project: What would have to be set for that way.
        absent_files: Certificates and keys that the URL names and that aren't there.
        termination_log: None if it isn't there, else what keeps us from writing to it, or "".
        closed: Which of the three standard streams are closed.
        home_error: What is wrong with HOME; None if nothing is.
    """

    platform: str
    pid: int
    proc: bool
    first: tuple[str, ...]
    first_uid: int | None
    subreaper: bool
    pidfd_error: str | None
    state: State
    limits: Mapping[str, tuple[int | None, int | None]]
    cgroup: Cgroup
    settings: Settings
    options: Options
    kubernetes: bool
    railway: bool
    draining: str | None
    directories: tuple[Directory, ...]
    missing: tuple[str, ...]
    database_name: str | None
    database: Dsn | None
    rest: Endpoint | None
    rest_error: str | None
    lacks_of_project: str
    absent_files: tuple[str, ...]
    termination_log: str | None
    terminal: bool
    closed: tuple[int, ...]
    uid: int
    user: str | None
    home_error: str | None
    root_read_only: bool
    cwd: str

    @property
    def beside(self) -> bool:
        """PID 1 is an entrypoint, and we are another process in its container."""
        return self.pid != 1 and is_entrypoint(self.first)


def is_entrypoint(command: Iterable[str]) -> bool:
    """Whether this command line is ours: .../entrypoint, or python -m entrypoint."""
    ours: list[str] = []
    for word in command:
        if word == "--" or len(ours) == 6:  # the app's words come after ours
            break
        ours.append(os.path.basename(word))
    return "entrypoint" in ours
