"""A control group of its own for the migrator, where this container lets us make one.

Each step that fails only means that this protection isn't there; the others stand.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterable, Mapping

from msgspec import Struct

from migrator.log import Log

SELF_CGROUP = "/proc/self/cgroup"
MOUNTINFO = "/proc/self/mountinfo"
# The name under which version 2 stands among the controllers of version 1.
UNIFIED = ""

# cgroup v1 says "no limit" with the greatest number of whole pages.
_V1_UNLIMITED = 2**60
# Page cache and the kernel's own memory count as well; RLIMIT_DATA and the look at the tree come first.
_HEADROOM_BYTES = 32 * 1024 * 1024
_MAX_ROUNDS = 100


class Mount(Struct, frozen=True, kw_only=True):
    """Where a hierarchy is mounted, and which of its groups is seen there as the top."""

    root: str
    point: str


def parse_own(text: str) -> dict[str, str]:
    """`/proc/self/cgroup`: our group's path by controller; version 2 under `UNIFIED` (cgroups(7))."""
    own = {}
    for line in text.splitlines():
        number, _, rest = line.partition(":")
        controllers, separator, path = rest.partition(":")
        if separator:
            for controller in [UNIFIED] if number == "0" else controllers.split(","):
                own[controller] = path
    return own


def parse_mounts(text: str) -> dict[str, Mount]:
    """`/proc/self/mountinfo`: the cgroup mounts by controller; version 2 under `UNIFIED` (proc(5))."""
    mounts: dict[str, Mount] = {}
    for line in text.splitlines():
        left, separator, right = line.partition(" - ")
        before, after = left.split(" "), right.split(" ")
        if not separator or len(before) < 5 or len(after) < 3:
            continue
        mount = Mount(root=_unescaped(before[3]), point=_unescaped(before[4]))
        if after[0] == "cgroup2":
            mounts.setdefault(UNIFIED, mount)
        elif after[0] == "cgroup":
            for controller in after[2].split(","):
                mounts.setdefault(controller, mount)
    return mounts


def below_mount(path: str, mount: Mount) -> str | None:
    """Our group's path seen from the mount, e.g. "/" where it is the mount's top; None if outside of it."""
    root = mount.root.rstrip("/")
    if "/.." in path or not (path == mount.root or path.startswith(root + "/")):
        return None
    return path.removeprefix(root) or "/"


class Hierarchies(Struct, frozen=True, kw_only=True):
    """Where our own groups are, by controller: the mount and our path below it."""

    found: Mapping[str, tuple[str, str]]

    @classmethod
    def read(cls, own_path: str = SELF_CGROUP, mountinfo_path: str = MOUNTINFO) -> Hierarchies:
        """As the kernel shows them to us; none where there is no /proc."""
        own, mounts = parse_own(_read(own_path)), parse_mounts(_read(mountinfo_path))
        found = {}
        for controller, path in own.items():
            mount = mounts.get(controller)
            below = None if mount is None else below_mount(path, mount)
            if mount is not None and below is not None:
                found[controller] = (mount.point, below)
        return cls(found=found)

    def ours(self, controller: str) -> str | None:
        """Our group's directory, if it is the top of what we see.

        A container's own group is. Below any other one that we happen to be in, the group of a login
        session for instance, somebody else keeps house, and nobody asked us to.
        """
        point, below = self.found.get(controller, ("", ""))
        return point if below == "/" else None


def memory_limit_bytes(hierarchies: Hierarchies) -> int | None:
    """The least memory limit that our group or one above it has; None if there is none to be seen."""
    limits = []
    for controller, file in ((UNIFIED, "memory.max"), ("memory", "memory.limit_in_bytes")):
        if controller not in hierarchies.found:
            continue
        point, below = hierarchies.found[controller]
        while True:
            said = _read(os.path.join(point, below.lstrip("/"), file)).strip()
            if said.isdecimal() and int(said) < _V1_UNLIMITED:
                limits.append(int(said))
            if below == "/":
                break
            below = os.path.dirname(below)
    return min(limits, default=None)


def oom_kills(hierarchies: Hierarchies) -> int:
    """How often the kernel killed in our own group (a container: all of it) for want of memory."""
    places = [hierarchies.found[name] for name in (UNIFIED, "memory") if name in hierarchies.found]
    return _oom_kills(os.path.join(point, below.lstrip("/")) for point, below in places)


def _oom_kills(directories: Iterable[str]) -> int:
    text = "\n".join(
        _read(os.path.join(directory, file))
        for directory in directories
        for file in ("memory.events", "memory.oom_control")  # version 2, and version 1 since Linux 4.13
    )
    return sum(int(count) for count in re.findall(r"^oom_kill (\d+)$", text, re.MULTILINE))


class Cgroup:
    """A group of its own: one directory in each hierarchy that let us make one."""

    def __init__(self, directories: Mapping[str, str]) -> None:
        """Directories by controller; `make` makes them."""
        self._directories = dict(directories)

    @classmethod
    def make(
        cls, hierarchies: Hierarchies, name: str, *, memory_bytes: int, max_tasks: int, log: Log
    ) -> Cgroup | None:
        """Make it and set its limits; None if none of it can be had.

        Args:
            hierarchies: Where our own groups are.
            name: Of the new group; nobody else must use it, since `kill` ends all in it.
            memory_bytes: What its processes may use together, before some headroom.
            max_tasks: How many threads, all processes together.
            log: For the one debug line.
        """
        directories = {}
        reasons = []
        for controller, limits in _limits(memory_bytes + _HEADROOM_BYTES, max_tasks).items():
            own = hierarchies.ours(controller)
            if own is None:
                continue
            directory = os.path.join(own, name)
            try:
                os.makedirs(directory, exist_ok=True)
            except OSError as error:
                reasons.append(f"{directory}: {error.strerror}")
                continue
            if controller == UNIFIED:
                # Fails with EBUSY where the group has processes of its own, us for one, and isn't the
                # machine's root: then the new group has no limits, but it can still be killed as one.
                for wanted in ("memory", "pids", "cpu", "io"):
                    _write(os.path.join(own, "cgroup.subtree_control"), f"+{wanted}")
            set_limits = [file for file, value in limits if _write(os.path.join(directory, file), value)]
            if set_limits or controller == UNIFIED:
                directories[controller] = directory
            else:
                _remove(directory)
        if not directories:
            reason = "; ".join(reasons) or "no group of our own"
            log.debug("cgroup.unavailable", reason=reason)
            return None
        return cls(directories)

    def add(self, pid: int) -> None:
        """Move a process in; its children are born there. Best done before it has any."""
        for directory in self._directories.values():
            _write(os.path.join(directory, "cgroup.procs"), str(pid))

    def pids(self) -> list[int]:
        """Who is in it, as far as our pid namespace sees them."""
        said = {
            int(line)
            for directory in self._directories.values()
            for line in _read(os.path.join(directory, "cgroup.procs")).split()
        }
        return sorted(said - {0})

    def oom_kills(self) -> int:
        """How often the kernel killed in it because its memory was used up."""
        return _oom_kills(self._directories.values())

    def kill(self) -> None:
        """SIGKILL to all in it, and nobody can be born there meanwhile."""
        unified = self._directories.get(UNIFIED)
        if unified is not None:
            _write(os.path.join(unified, "cgroup.kill"), "1")  # Linux 5.14
        for directory in self._directories.values():
            _write(os.path.join(directory, "pids.max"), "0")
        killed: set[int] = set()
        for _ in range(_MAX_ROUNDS):
            found = set(self.pids()) - killed - {os.getpid()}
            if not found:
                return
            for pid in found:
                try:
                    os.kill(pid, signal.SIGKILL)
                except (ProcessLookupError, PermissionError):
                    pass
            killed |= found

    def remove(self) -> bool:
        """Remove it; False if somebody is still in it."""
        self._directories = {
            controller: directory
            for controller, directory in self._directories.items()
            if not _remove(directory)
        }
        return not self._directories


def _limits(memory_bytes: int, max_tasks: int) -> dict[str, tuple[tuple[str, str], ...]]:
    """What to write into a new group, by hierarchy. Files that aren't there are passed over."""
    return {
        UNIFIED: (
            ("memory.max", str(memory_bytes)),
            ("memory.oom.group", "1"),
            ("pids.max", str(max_tasks)),
            ("cpu.weight", "10"),
            ("io.weight", "10"),
        ),
        "pids": (("pids.max", str(max_tasks)),),
        "memory": (("memory.limit_in_bytes", str(memory_bytes)),),
    }


def _unescaped(text: str) -> str:
    r"""A path as it is: mountinfo writes a space as `\040`."""
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), text)


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _write(path: str, value: str) -> bool:
    try:
        # Not open(): a file that isn't there must not come into being on some other filesystem.
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.write(fd, value.encode())
        return True
    except OSError:
        return False
    finally:
        os.close(fd)


def _remove(directory: str) -> bool:
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        pass
    except OSError:
        return False
    return True
