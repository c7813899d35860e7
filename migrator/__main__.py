"""Lower our own priority and memory first, then load everything else."""

from __future__ import annotations

import errno
import gc
import io
import os
import resource
import signal
import sys

TYPE_CHECKING = False  # `typing` itself takes 3 ms, but for the type checkers nothing
if TYPE_CHECKING:
    from typing import NoReturn

_DEFAULT_NICE = 10
_DEFAULT_MEMORY_MB = 256
_MAX_FILE_BYTES = 1024**3
# For a shell step's tools, of which one node process alone takes a dozen, and for the app's own growth.
_MORE_THREADS = 256

# A program's limit of data, as a multiple of ours: node, Go and the like map far more than they use. What is
# used, by it and us together, our supervisor adds up.
_FOR_PROGRAMS = 4

# One of the ways in which the loader of libraries says so. With a reason behind it, it is something else: a
# file system mounted noexec.
_UNMAPPED = "failed to map segment from shared object"

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
# Fixed in the kernel's include/linux/proc_ns.h.
_INITIAL_USER_NAMESPACE = "user:[4026531837]"
_INITIAL_PID_NAMESPACE = "pid:[4026531836]"


def main() -> None:
    """Run the migrator with `sys.argv`; ends the process."""
    _fill_standard_streams()
    limit = _give_way()
    _stay_with_parent()
    # Made now: when memory is out, there may be none for a text.
    told = (
        f"out of memory at {limit // 2**20} MiB; raise MIGRATION_MAX_MEMORY_MB, or a limit of the system's "
        "(ulimit -d)"
    )
    words = (f"migrator: {told}\n".encode(), f'{{"phase":"failed","error":"{told}"}}\n'.encode())
    report_fd = _number("MIGRATOR_REPORT_FD", -1, range(2**16))
    # What is imported stays for good: looking for garbage in it, now and later, is 6 of our 110 ms.
    gc.disable()
    try:
        from migrator import later

        later.put_off(later.RARE)
        later.load_without("msgspec", "typing_extensions")  # 3 ms, for Python 3.10
        from migrator import cli  # late: what it loads is already limited

        gc.freeze()
        gc.enable()
        code = cli.main(sys.argv[1:])
    except SystemExit as error:  # argparse's
        code = error.code if isinstance(error.code, int) else 2
    except Exception as error:
        if not _is_want_of_memory(error):
            raise
        _end_without_memory(words, report_fd)
    # Without taking apart what the kernel throws away anyway: 16 ms of 110.
    os._exit(code if _flush() else code or 1)


def _end_without_memory(words: tuple[bytes, bytes], report_fd: int) -> NoReturn:
    for fd, text in zip((2, report_fd), words, strict=True):
        try:
            os.write(fd, text)
        except OSError:
            pass
    os._exit(1)


def _is_want_of_memory(error: BaseException | None) -> bool:
    """MemoryError, or what becomes of it in C and in the loader of libraries, at whatever remove."""
    while error is not None:
        if isinstance(error, MemoryError | SystemError) or getattr(error, "errno", None) == errno.ENOMEM:
            return True
        told = str(error) if isinstance(error, ImportError) else ""
        if told.endswith(_UNMAPPED) or "allocate memory" in told or "cannot map" in told:
            return True
        error = error.__cause__ or error.__context__
    return False


def _fill_standard_streams() -> None:
    """Open /dev/null where standard input, output or error came closed.

    The connection to the database would get such a number, and our log lines would go into it.
    """
    for fd, flags in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, flags), True)  # the lowest free number, so this very one
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 - for as long as we live
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.write_through:
        # PYTHONUNBUFFERED, which many images set: only what waits until then can `_flush` find lost.
        sys.stdout = open(1, "w", encoding=sys.stdout.encoding, closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name of a file mustn't fail for want of a locale
            stream.reconfigure(errors="backslashreplace")


def _flush() -> bool:
    """Write what is left, without Python's traceback if that fails; False if somebody wants it in vain."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:  # as with `| head -1`
        pass
    except OSError as error:
        try:
            os.write(2, f"migrator: cannot write all of the output: {error.strerror}\n".encode())
        except OSError:
            pass
        return False
    return True


def _give_way() -> int:
    """Let the app have the CPU, the memory, and the kernel's mercy; our limit of memory, in bytes.

    Wrong values are told later.
    """
    try:
        # Our supervisor may have given way itself.
        already = _number("MIGRATOR_NICE_ALREADY", 0, range(40))
        os.nice(max(0, _number("MIGRATION_NICE", _DEFAULT_NICE, range(20)) - already))
    except OSError:
        pass
    wanted = _number("MIGRATION_MAX_MEMORY_MB", _DEFAULT_MEMORY_MB, range(48, 2**20 + 1)) * 1024 * 1024
    # RLIMIT_DATA, not RLIMIT_AS: threads and DNS map far more addresses than they ever use, and
    # uvloop aborts when it can't have them.
    limit = min(wanted, _number("MIGRATOR_MEMORY_LIMIT", wanted, range(2**50)))
    _lower(resource.RLIMIT_DATA, limit, limit * (_FOR_PROGRAMS if _starts_programs() else 1))
    # A core dump fills the disk, and holds every secret that we know.
    _lower(resource.RLIMIT_CORE, 0)
    try:
        # When memory runs out, the kernel shall take the migration and never the app.
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    except OSError:
        pass
    return resource.getrlimit(resource.RLIMIT_DATA)[0]


def _stay_with_parent() -> None:
    """What only the child of a supervisor needs: it shall outlive nobody, and nobody shall outlive it."""
    parent = _number("MIGRATOR_PARENT_PID", 0, range(1, 2**31))
    # Not for a migrator that a step of ours may start by hand.
    os.environ.pop("MIGRATOR_PARENT_PID", None)
    if not parent:
        return
    _lower(resource.RLIMIT_FSIZE, _MAX_FILE_BYTES)
    if os.geteuid() != 0 and _counts_threads_of_ours_only():
        _lower(resource.RLIMIT_NPROC, _threads_of_this_user() + _MORE_THREADS)
    try:
        import ctypes

        prctl = ctypes.CDLL(None).prctl
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        # Who leaves its parent behind comes to us, and so stays where our supervisor looks.
        prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    except (ImportError, OSError, AttributeError):  # no prctl outside Linux
        pass
    if os.getppid() != parent:  # it died before we had asked to be told
        sys.exit(128 + signal.SIGTERM)


def _starts_programs() -> bool:
    """Whether something else than our own engine migrates; as `migrator.settings` decides it."""
    runner = os.environ.get("MIGRATION_RUNNER", "").strip().lower() or "auto"
    if runner != "auto":
        return runner not in ("direct", "rest")
    if any(os.environ.get(name, "").strip() for name in ("MIGRATION_COMMAND", "MIGRATION_COMMAND_FILE")):
        return True
    return os.environ.get("USE_NODE_MIGRATIONS", "").strip().lower() in ("false", "0", "no", "off")


def _lower(kind: int, limit: int, most: int | None = None) -> None:
    """Lower a resource limit for us and our children for good; one that is lower already stays.

    With `most`, a child can raise it again up to there.
    """
    try:
        given = [one for one in resource.getrlimit(kind) if one != resource.RLIM_INFINITY]
        resource.setrlimit(
            kind, (min(limit, *given), min(most or limit, *given)) if given else (limit, most or limit)
        )
    except (OSError, ValueError):
        pass


def _counts_threads_of_ours_only() -> bool:
    """Whether we see all the threads that RLIMIT_NPROC counts.

    It counts a user's threads in the whole user namespace, and containers mostly share the machine's:
    a limit from what we see here could be below what other containers have, and we couldn't start one.
    """
    try:
        spaces = [os.readlink(f"/proc/self/ns/{kind}") for kind in ("user", "pid")]
    except OSError:
        return False
    return spaces[0] != _INITIAL_USER_NAMESPACE or spaces[1] == _INITIAL_PID_NAMESPACE


def _threads_of_this_user() -> int:
    count = 0
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            if os.stat(f"/proc/{pid}").st_uid == os.getuid():
                count += len(os.listdir(f"/proc/{pid}/task"))
        except OSError:  # it has ended
            pass
    return count


def _number(name: str, default: int, allowed: range) -> int:
    """The bounds are those of `migrator.variables`: in less memory we couldn't even say what is wrong."""
    raw = os.environ.get(name, "").strip()
    value = int(raw) if raw.isdecimal() and len(raw) < 16 else default
    return value if value in allowed else default


if __name__ == "__main__":
    main()
