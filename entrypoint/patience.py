"""Leave the processor to the app while it starts: whatever else we want to load can wait a little."""

import _signal
import os

from entrypoint import launch

# Seconds between two looks. The kernel counts idle time in hundredths.
LOOK_INTERVAL_S = 0.02
# A processor that idled for so many hundredths from one look to the next is free.
_FREE_TICKS = 2
# Where a container's quota stands, of both kinds of control groups, and what says that there is none.
_QUOTAS = ("/sys/fs/cgroup/cpu.max", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us")
_NO_QUOTA = (b"max", b"-1")
# Seconds after which we take our share, however busy the app is.
AT_MOST_S = 1.0


def wait_for_processor(app: int) -> None:
    """Return when a processor that we may use is free, when a signal comes, or after `AT_MOST_S`.

    On a single processor, what we load beside the app made it ready 50 ms later, with this 10
    (bench/startup.py). Signals are held, and stay so: the one that ends the wait is put back. The end of the
    app is one of them.

    Under a quota a processor that idles isn't free: what we use of the quota is taken from the app. So there
    the app must have stopped asking for more, too.
    """
    try:
        has_quota = _has_quota()
        before = _idle_ticks()
        for _ in range(round(AT_MOST_S / LOOK_INTERVAL_S)):
            came = _signal.sigtimedwait(launch.CATCHABLE, LOOK_INTERVAL_S)
            if came is not None:
                os.kill(os.getpid(), came.si_signo)
                return
            now = _idle_ticks()
            is_free = any(now[cpu] - before[cpu] >= _FREE_TICKS for cpu in now)
            if is_free and not (has_quota and _wants_processor(app)):
                return
            before = now
    except (OSError, AttributeError, ValueError, LookupError):  # no /proc, or not Linux: so be it
        pass


def _has_quota() -> bool:
    for path in _QUOTAS:
        try:
            return _read(path).split()[0] not in _NO_QUOTA
        except OSError:  # it is the other kind
            continue
    return False


def _wants_processor(pid: int) -> bool:
    """Whether it runs or would if it were let; a throttled process is counted as running."""
    return _read(f"/proc/{pid}/stat").rpartition(b") ")[2][:1] == b"R"


def _read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read()


def _idle_ticks() -> dict[int, int]:
    """Hundredths of a second for which each of our processors has idled since the boot (proc_stat(5))."""
    ours = os.sched_getaffinity(0)
    processors = _read("/proc/stat").partition(b"\nintr")[0].splitlines()[1:]
    ticks = {}
    for line in processors:
        name, _, _, _, idle, waiting_for_disk, *_ = line.split()
        if int(name[3:]) in ours:
            ticks[int(name[3:])] = int(idle) + int(waiting_for_disk)
    return ticks
