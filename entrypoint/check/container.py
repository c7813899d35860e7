"""What the place where we run means for us: processes, files, limits. Pure."""

from __future__ import annotations

import math
import os.path
from collections.abc import Iterator

from entrypoint import policy
from entrypoint.check.facts import Facts
from entrypoint.check.finding import Verdict, fail, ok, warn
from migrator.variables import MIB

# 256 clients on the socket, and what the migrator opens.
ENOUGH_FILES = 300
# The entrypoint, its overseer, the migrator, and the threads that look names up.
ENOUGH_TASKS = 8
# MIGRATION_MAX_MEMORY_MB's minimum: with less, the migrator couldn't even say what is wrong.
LEAST_MEMORY_BYTES = 48 * MIB

_SHELLS = frozenset(("ash", "bash", "busybox", "dash", "sh"))


def pid1(seen: Facts) -> Iterator[Verdict]:
    """Who reaps, and whether signals reach us."""
    # Only its name: its arguments may hold secrets.
    name = os.path.basename(seen.first[0]) if seen.first else "somebody we can't see"
    if seen.pid == 1:
        yield ok("we are PID 1")
    elif seen.beside:
        yield ok("PID 1 is an entrypoint; we look from beside it")
    elif name.lstrip("-") in _SHELLS:
        yield warn(
            f"PID 1 is {name}, and a shell passes no signals on",
            'use the exec form, ENTRYPOINT ["entrypoint", "--"], or `exec entrypoint -- ...` in the script',
        )
    elif seen.subreaper:
        yield ok(f"PID 1 is {name}; as a subreaper we get the app's orphans all the same")
    elif seen.platform != "linux":
        yield warn("not PID 1, and only Linux has subreapers: the app's orphans go to PID 1", "use Linux")
    else:
        yield fail(
            f"PID 1 is {name}, and we can't be a subreaper: orphans of the app escape us",
            "make entrypoint PID 1 (no shell before it, no docker run --init)",
        )


def pidfd(seen: Facts) -> Iterator[Verdict]:
    """A convenience of newer kernels that some sandboxes forbid."""
    if seen.pidfd_error is None:
        yield ok("pidfd_open works")
    else:
        yield ok(f"no pidfd_open ({seen.pidfd_error}); we wait by SIGCHLD and wait(2), which need none")


def user(seen: Facts) -> Iterator[Verdict]:
    """Whose eyes we see this with."""
    who = f"uid {seen.uid} ({seen.user or 'not in /etc/passwd, which is fine'})"
    if seen.beside and seen.first_uid not in (None, seen.uid):
        yield warn(
            f"{who}, but the entrypoint runs as uid {seen.first_uid}: what we may, it may not",
            f"look as that user: docker exec -u {seen.first_uid} ...",
        )
    else:
        yield ok(who)


def home(seen: Facts) -> Iterator[Verdict]:
    """Nobody needs it; people ask."""
    yield ok("writable" if seen.home_error is None else f"{seen.home_error}; we need none")


def root(seen: Facts) -> Iterator[Verdict]:
    """Whether the root file system can be written to."""
    yield ok("read-only; we write to the state directory alone" if seen.root_read_only else "not read-only")


def proc(seen: Facts) -> Iterator[Verdict]:
    """Where the kernel tells of processes."""
    if seen.proc:
        yield ok("mounted")
    else:
        yield warn(
            "not mounted: nobody watches the memory of the migrator's tree, nor raises its oom_score_adj",
            "mount it (mount -t proc proc /proc)",
        )


def state(seen: Facts) -> Iterator[Verdict]:
    """Where the marker file and the socket go."""
    where = seen.state
    if where.error is not None:
        yield fail(
            f"cannot use {where.path}: {where.error}; no marker file, no socket, no health check",
            "set ENTRYPOINT_STATE_DIR to a directory of our own that is writable (docker run --tmpfs ...)",
        )
    elif where.socket_error is not None:
        yield warn(
            f"no socket in {where.path}: {where.socket_error}; the marker file alone will tell",
            "set ENTRYPOINT_STATE_DIR to a short path on a local disk",
        )
    else:
        yield ok(f"{where.path} takes the marker file and the socket")


def limits(seen: Facts) -> Iterator[Verdict]:
    """Resource limits (getrlimit(2)), inherited by the app as they are."""
    soft = {name: limits[0] for name, limits in seen.limits.items()}
    files, tasks, wanted = soft.get("nofile"), soft.get("nproc"), seen.settings.memory_limit_bytes
    shown = ", ".join(f"{name} {_amount(name, value)}" for name, value in soft.items())
    if files is not None and files < ENOUGH_FILES:
        yield warn(
            f"{files} open files are few for 256 clients and the migrator",
            f"docker run --ulimit nofile={ENOUGH_FILES * 4}",
        )
    if tasks is not None and tasks < ENOUGH_TASKS and seen.uid != 0:
        yield warn(
            f"{tasks} processes for uid {seen.uid}, anywhere on this machine, are few",
            f"docker run --ulimit nproc={ENOUGH_TASKS * 64}",
        )
    data = seen.limits.get("data", (None, None))[1]
    for name, limit in (("RLIMIT_DATA", data), ("RLIMIT_AS", soft.get("as"))):
        if limit is None or limit >= wanted:
            continue
        message = (
            f"{name} gives the migrator {_mib(limit)}, not the {_mib(wanted)} of MIGRATION_MAX_MEMORY_MB"
        )
        if limit < LEAST_MEMORY_BYTES and seen.settings.skip_reason is None:
            yield fail(f"{message}, and {_mib(LEAST_MEMORY_BYTES)} is the least", "raise the limit")
        else:
            yield warn(message, "raise the limit, or lower the variable to what is true")
    yield ok(f"{shown}; the app inherits them as they are")


def memory(seen: Facts) -> Iterator[Verdict]:
    """Whether the migrator's own limit comes before the container's."""
    limited = [(one.limit_bytes, one.used_bytes or 0) for one in seen.cgroup.memory if one.limit_bytes]
    limit, used = min(limited, key=lambda one: one[0] - one[1], default=(None, 0))
    least = min((one for one, _ in limited), default=None)
    wanted = policy.memory_limit_bytes(seen.settings.memory_limit_bytes, least)
    if limit is None:
        seen_as = f"cgroup v{seen.cgroup.version}" if seen.cgroup.version else "no cgroup to be seen"
        yield ok(f"no limit ({seen_as}); the migrator may take {_mib(wanted)}")
        return
    left = max(0, limit - used)
    if wanted <= left:
        yield ok(f"limit {_mib(limit)}, in use {_mib(used)}; the migrator's {_mib(wanted)} fit beside that")
        return
    fits = left // 2 // MIB * MIB
    enough = math.ceil((used + seen.settings.memory_limit_bytes) / (64 * MIB)) * 64 * MIB
    remedy = f"raise the container's limit to {_mib(enough)}"
    if fits >= LEAST_MEMORY_BYTES:
        remedy = f"set MIGRATION_MAX_MEMORY_MB={fits // MIB}, or {remedy}"
    yield warn(
        f"limit {_mib(limit)}, in use {_mib(used)}; the migrator's {_mib(wanted)} don't fit beside that, "
        "so memory could run out before its own limit ends it",
        remedy,
    )


def oom(seen: Facts) -> Iterator[Verdict]:
    """Who dies when memory runs out (kubernetes/kubernetes#117070: all, since Kubernetes 1.28)."""
    if seen.cgroup.version == 0:
        yield ok("no cgroup to be seen")
    elif any(one.oom_group for one in seen.cgroup.memory):
        yield warn(
            "memory.oom.group is set: when memory runs out, the kernel kills everything, the app too",
            "keep MIGRATION_MAX_MEMORY_MB below what the app leaves (kubelet: singleProcessOOMKill: true)",
        )
    elif seen.cgroup.version == 1:
        yield ok("cgroup v1 has no memory.oom.group: the kernel kills one process, the migrator first")
    else:
        yield ok("memory.oom.group isn't set: the kernel kills one process, the migrator first")


def tasks(seen: Facts) -> Iterator[Verdict]:
    """Room for processes and threads."""
    limit, used = seen.cgroup.pids_limit, seen.cgroup.pids_used or 0
    if limit is None:
        yield ok("no limit")
    elif limit - used < ENOUGH_TASKS:
        yield warn(
            f"limit {limit}, in use {used}: the migrator may not get the processes and threads it needs",
            f"docker run --pids-limit {used + ENOUGH_TASKS * 4}",
        )
    else:
        yield ok(f"limit {limit}, in use {used}")


def cpu(seen: Facts) -> Iterator[Verdict]:
    """The quota of processor time."""
    quota = "no quota" if seen.cgroup.cpus is None else f"quota {seen.cgroup.cpus:.3g} CPUs"
    yield ok(f"{quota}; the migrator gives way by its nice value")


def cgroup(seen: Facts) -> Iterator[Verdict]:
    """Whether the migrator could have a control group of its own."""
    if seen.cgroup.writable:
        # cgroups(7): version 2 gives limits only to groups below one without processes, and we are in this.
        limits = "" if seen.cgroup.version == 1 else ", to be killed as one, but without limits"
        yield ok(f"writable (v{seen.cgroup.version}): the migrator gets a group of its own{limits}")
    else:
        yield ok("not writable, as in most containers; the migrator is held by RLIMIT_DATA and watched")


def terminal(seen: Facts) -> Iterator[Verdict]:
    """What the app gets for a terminal."""
    if seen.closed:
        streams = ", ".join(str(number) for number in seen.closed)
        yield ok(f"closed: {streams}; /dev/null takes their place")
    else:
        yield ok("stdin is one; the app gets its foreground" if seen.terminal else "none on stdin")


def termination_log(seen: Facts) -> Iterator[Verdict]:
    """The file that Kubernetes shows as the reason of the end."""
    if seen.termination_log is None:
        yield ok("not there (Kubernetes makes it); the marker file keeps the reason of the end")
    elif seen.termination_log == "":
        yield ok("writable; it gets the reason of the end")
    else:
        yield warn(seen.termination_log, "let it be writable for our user")


def _mib(count: int) -> str:
    return f"{count / MIB:.0f} MiB"


def _amount(name: str, value: int | None) -> str:
    if value is None:
        return "unlimited"
    return _mib(value) if name in ("data", "as", "core") and value else str(value)
