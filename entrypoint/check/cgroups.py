"""Reading the control groups that we are in, of both versions, as far as a container lets us see them."""

from __future__ import annotations

import os

from entrypoint.cgroup import UNIFIED, below_mount, parse_mounts, parse_own
from entrypoint.check.facts import Cgroup, Memory

# cgroup v1 says "no limit" by the largest multiple of a page.
_NO_LIMIT = 2**60


def look(root: str = "/") -> Cgroup:
    """Read it all. What can't be read is as if it were without limit."""
    version, directories = _directories(root, "memory")
    # The narrowest is the one where the fewest are left.
    pids = [
        (limit, _number(where, "pids.current") or 0)
        for where in _directories(root, "pids")[1]
        if (limit := _number(where, "pids.max")) is not None
    ]
    pids_limit, pids_used = min(pids, key=lambda one: one[0] - one[1], default=(None, None))
    cpus = [cpus for where in _directories(root, "cpu")[1] if (cpus := _cpus(where)) is not None]
    return Cgroup(
        version=version,
        memory=tuple(_memory(version, where) for where in directories),
        pids_limit=pids_limit,
        pids_used=pids_used,
        cpus=min(cpus, default=None),
        writable=bool(directories) and os.access(directories[0], os.W_OK | os.X_OK),
    )


def _directories(root: str, controller: str) -> tuple[int, list[str]]:
    """Version of the controller, and the directories of our group and its parents up to the mount."""
    groups = parse_own(_text(root, "proc/self/cgroup"))
    mounts = parse_mounts(_text(root, "proc/self/mountinfo"))
    for version, name in ((1, controller), (2, UNIFIED)):
        if name in groups and name in mounts:
            mount = mounts[name]
            # Where the mount shows another part of the tree, what it shows at its top is ours.
            below = below_mount(groups[name], mount) or "/"
            found = [os.path.normpath(mount.point + below)]
            while found[-1] not in (mount.point, "/"):
                found.append(os.path.dirname(found[-1]))
            return version, [os.path.join(root, path.lstrip("/")) for path in found]
    usual = os.path.join(root, "sys/fs/cgroup")  # no /proc to ask
    if os.path.exists(os.path.join(usual, "cgroup.controllers")):
        return 2, [usual]
    if os.path.isdir(os.path.join(usual, controller)):
        return 1, [os.path.join(usual, controller)]
    return 0, []


def _memory(version: int, where: str) -> Memory:
    if version == 2:
        used, cache = _number(where, "memory.current"), _field(where, "inactive_file")
        limit, group = _number(where, "memory.max"), _number(where, "memory.oom.group") == 1
        return Memory(limit_bytes=limit, used_bytes=_less(used, cache), oom_group=group)
    limits = [_number(where, "memory.limit_in_bytes"), _field(where, "hierarchical_memory_limit")]
    return Memory(
        limit_bytes=min((limit for limit in limits if limit is not None), default=None),
        used_bytes=_less(_number(where, "memory.usage_in_bytes"), _field(where, "total_inactive_file")),
        oom_group=None,
    )


def _cpus(where: str) -> float | None:
    words = _text(where, "cpu.max").split()
    words = words or [_text(where, "cpu.cfs_quota_us").strip(), _text(where, "cpu.cfs_period_us").strip()]
    if len(words) != 2 or not all(word.isdecimal() for word in words) or int(words[1]) == 0:
        return None  # "max", or -1: no limit
    return int(words[0]) / int(words[1])


def _less(used: int | None, cache: int | None) -> int | None:
    return None if used is None else max(0, used - (cache or 0))


def _field(where: str, name: str) -> int | None:
    lines = [line.split() for line in _text(where, "memory.stat").splitlines()]
    return _parse(next((words[1] for words in lines if len(words) == 2 and words[0] == name), ""))


def _number(where: str, name: str) -> int | None:
    return _parse(_text(where, name).strip())


def _parse(raw: str) -> int | None:
    value = int(raw) if raw.isdecimal() else None
    return value if value is not None and value < _NO_LIMIT else None


def _text(*path: str) -> str:
    try:
        with open(os.path.join(*path), encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
