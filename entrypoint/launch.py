"""Hold signals and start processes: what must happen before anything else is loaded.

Imports nothing but os, sys and _signal: `signal` alone costs 3-7 ms, because it makes enums.
"""

import _signal
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

SIGNAL_BASE = 128

# A fault of our own must end us with a core dump, not be handed to the app (tini does the same).
FAULTS = frozenset(
    (
        _signal.SIGSEGV,
        _signal.SIGBUS,
        _signal.SIGFPE,
        _signal.SIGILL,
        _signal.SIGABRT,
        _signal.SIGTRAP,
        _signal.SIGSYS,
    )
)
# What the kernel tells a process of its own writing. Ignored, as CPython has them from the start:
# handed on, a client that hangs up on us or a log that nobody reads would kill the app.
_OWN_WRITES = frozenset((_signal.SIGPIPE, _signal.SIGXFSZ))
CATCHABLE = frozenset(_signal.valid_signals()) - FAULTS - _OWN_WRITES - {_signal.SIGKILL, _signal.SIGSTOP}

# On a terminal that belongs to the app, the kernel would stop us for writing our log.
TERMINAL = (_signal.SIGTTIN, _signal.SIGTTOU)

DEFAULT_STATE_DIR = "/tmp/entrypoint"  # noqa: S108 - the contract's default; ownership is checked
STATUS_FILE = "status.json"
SOCKET_FILE = "entrypoint.sock"
EMBEDDED = b"embedded"
DATABASE_NAMES = ("SUPABASE_DB_URL", "DIRECT_URL", "DATABASE_UNPOOLED_URL", "DATABASE_URL")


class App:
    """The app as a process, shared between the hot path, `init` and `babysit`."""

    __slots__ = ("argv", "inherited_ignored", "inherited_mask", "others", "pid", "status", "terminal")

    def __init__(self, argv: list[str], inherited_mask: frozenset[int]) -> None:
        """`argv` is the command; `inherited_mask` the signals that were blocked when we started."""
        self.argv = argv
        self.inherited_mask = inherited_mask
        # Signals that were ignored when we started, as under nohup.
        self.inherited_ignored = frozenset(n for n in CATCHABLE if _is_ignored(n))
        # None until it is spawned.
        self.pid: int | None = None
        # What waitpid said, once the app has ended.
        self.status: int | None = None
        # The terminal was given to the app's process group.
        self.terminal = False
        # Process groups of ours beside the app's, by their leaders: they must end with us.
        self.others: set[int] = set()


def _is_ignored(number: int) -> bool:
    return bool(_signal.getsignal(number) == _signal.SIG_IGN)


# The one thing that must survive between the hook in entrypoint.pth and __main__.
current: App | None = None


def begin(argv: list[str]) -> App:
    """Hold all signals, then start the app, unless `MIGRATION_MODE` wants it later.

    Ends the process with 127 or 126 and one line if the app can't be started.
    """
    global current  # noqa: PLW0603 - see `current`
    app = current = App(argv, hold_signals())
    if mode() not in ("gate", "only"):
        try:
            start_app(app)
        except (OSError, ValueError) as error:
            os._exit(report_failed_start(app, error))
    return app


def mode() -> str:
    """`MIGRATION_MODE` as far as it decides whether the app starts now."""
    return os.environ.get("MIGRATION_MODE", "").strip().lower()


def begin_early() -> None:
    """Called by entrypoint.pth, 5 ms before `python -m` reaches our __main__.

    `site` runs .pth lines before `runpy` is even imported. Anything but a plain start of an app is
    left to __main__, and so is every failure: `site` would only print it and go on.
    """
    argv = app_command(sys.argv[1:])
    if argv and current is None:  # in a venv, `site` reads every .pth file twice
        begin(argv)


def app_command(arguments: list[str]) -> list[str]:
    """The app's command among our arguments; empty if they are options for ourselves.

    Also behind "--", which an image's ENTRYPOINT has: `docker run IMAGE --status` is for us, and
    nobody's app is called so.
    """
    while arguments[:1] == ["--"]:
        arguments = arguments[1:]
    return [] if arguments and arguments[0].startswith("-") else arguments


def hold_signals() -> frozenset[int]:
    """Block every catchable signal; the set that was blocked before.

    Blocked, not ignored: the kernel drops a signal sent to PID 1 that has no handler for it, but
    keeps a blocked one pending. Where SIGCHLD came ignored, the kernel would throw exit codes away
    (tini and catatonit hang for it, cpython#76296), so it isn't any more.
    """
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    return frozenset(_signal.pthread_sigmask(_signal.SIG_BLOCK, CATCHABLE))


def start_app(app: App) -> None:
    """Spawn the app into a process group of its own and give it the terminal, if there is one.

    Raises:
        OSError: The command can't be started.
        ValueError: It can't even be said to the kernel (a NUL in it).
    """
    env = app_environ(os.environb)
    _forget_last_life(os.path.dirname(env[b"ENTRYPOINT_STATUS_FILE"]))
    argv = app.argv
    if env.get(b"LISTEN_PID") == str(os.getpid()).encode():
        # Sockets handed down by systemd are for whoever has this pid (sd_listen_fds(3)): the app.
        argv = ["/bin/sh", "-c", 'LISTEN_PID=$$ exec "$@"', "sh", *argv]
    # After a gate we ignore these on our own account.
    reset = tuple(number for number in TERMINAL if number not in app.inherited_ignored)
    app.pid = spawn(argv, env, app.inherited_mask, reset=reset)
    app.terminal = share_terminal(app.pid)


def report_failed_start(app: App, error: Exception) -> int:
    """Say why the app can't be started; the exit code a shell would have, 127 or 126."""
    # glibc looks an empty name up in PATH too, and finds directories.
    number = getattr(error, "errno", None) if app.argv[0] else 2
    code = 127 if number in (2, 20) else 126  # ENOENT, ENOTDIR
    reason = {2: "not found", 13: "not executable"}.get(number or 0)
    if number == 2 and len(app.argv) == 1 and len(app.argv[0].split()) > 1:
        reason = 'not found; no shell splits it into words: ["node", "server.js"], or ["sh", "-c", "..."]'
    if number == 2 and os.path.isfile(_which(app.argv[0])):
        reason = "the interpreter that it names is not found"
    say(f"cannot start the app {app.argv[0]!r}: {reason or getattr(error, 'strerror', error)}")
    return code


def spawn(
    argv: list[str],
    env: dict[bytes, bytes],
    mask: frozenset[int],
    file_actions: tuple[tuple[object, ...], ...] = (),
    reset: tuple[int, ...] = (),
) -> int:
    """Start a program as the leader of a new process group; its pid.

    posix_spawn returns after the exec, so a signal to the group that is sent afterwards can't be
    lost between fork and setpgid, as it is with dumb-init and `tini -g`.

    Args:
        argv: The command; looked up in PATH as execvp does.
        env: Its whole environment, as bytes.
        mask: The signals it starts with blocked.
        file_actions: As for `os.posix_spawn`.
        reset: Signals that we ignore, and it doesn't.

    Raises:
        OSError: It can't be started.
    """
    # A name that is empty or holds a "=" can be inherited, but posix_spawn refuses all for it.
    given = {name: value for name, value in env.items() if name and b"=" not in name}

    # CPython ignores the first two for itself; after a plain exec they kill.
    reset = (_signal.SIGPIPE, _signal.SIGXFSZ, *reset)

    def run(program: str, arguments: list[str]) -> int:
        try:
            return os.posix_spawnp(
                program,
                arguments,
                given,
                file_actions=file_actions,
                setpgroup=0,
                setsigmask=mask,
                setsigdef=reset,
            )
        except PermissionError as error:
            if error.errno != 1:  # EACCES: the file isn't executable
                raise
            from entrypoint import fork  # only where an old engine forbids clone3

            return fork.start(program, arguments, given, mask=mask, file_actions=file_actions, reset=reset)

    try:
        return run(argv[0], argv)
    except OSError as error:
        if error.errno != 8:  # ENOEXEC: a script without "#!", which execvp hands to sh
            raise
    return run("/bin/sh", ["/bin/sh", _which(argv[0]), *argv[1:]])


def _forget_last_life(state_dir: bytes) -> None:
    """Take away what a killed entrypoint published: the app must not read it as ours."""
    marker, path = (state_dir + b"/" + name.encode() for name in (STATUS_FILE, SOCKET_FILE))
    if not os.path.lexists(marker):
        return
    try:
        found = os.lstat(state_dir)
        if found.st_mode & 0o170000 != 0o040000 or found.st_uid not in (os.geteuid(), 0):
            return  # not a directory, or somebody else's: `board.prepare_state_dir` says so
        import _socket  # only where something is left: 1 ms

        probe = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        probe.settimeout(1)
        try:
            probe.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            os.unlink(marker)
        finally:
            probe.close()
    except OSError:  # somebody is there, or it can't be taken away
        pass


def app_environ(ours: "Mapping[bytes, bytes]") -> dict[bytes, bytes]:
    """The app's environment: what we inherited, and where our status is to be found."""
    env = dict(ours)
    if env.get(b"LC_CTYPE") in (b"C.UTF-8", b"C.utf8", b"UTF-8") and not _inherited_lc_ctype():
        del env[b"LC_CTYPE"]  # PEP 538: the interpreter set it, in a container without a locale
    scrub = env.get(b"ENTRYPOINT_SCRUB_ENV")
    if scrub:
        for name in scrub.split(b","):
            env.pop(name.strip(), None)
    env[b"ENTRYPOINT_STATUS_FILE"] = marker_path(ours)
    state_dir = os.path.dirname(env[b"ENTRYPOINT_STATUS_FILE"])
    env[b"ENTRYPOINT_SOCKET"] = state_dir + b"/" + SOCKET_FILE.encode()
    for variable in DATABASE_NAMES:
        if env.get(os.fsencode(variable), b"").strip() == EMBEDDED:
            env[os.fsencode(variable)] = os.fsencode(embedded_url(os.fsdecode(state_dir)))
    return env


def marker_path(environ: "Mapping[bytes, bytes]") -> bytes:
    """Where the status is published."""
    state_dir = environ.get(b"ENTRYPOINT_STATE_DIR", b"").strip() or DEFAULT_STATE_DIR.encode()
    return _absolute(state_dir) + b"/" + STATUS_FILE.encode()


def embedded_url(state_dir: str) -> str:
    """Where the private Postgres of `DATABASE_URL=embedded` answers, before and after it runs."""
    return f"postgresql://postgres@/postgres?host={state_dir}/postgres"


def share_terminal(pid: int) -> bool:
    """Make the app's group the foreground of our terminal, if the foreground is ours to give."""
    try:
        if os.tcgetpgrp(0) != os.getpgrp():
            return False
        for number in TERMINAL:
            _signal.signal(number, _signal.SIG_IGN)
        os.tcsetpgrp(0, pid)
        os.killpg(pid, _signal.SIGCONT)  # it may have read too early and been stopped for it
    except OSError:  # no terminal, closed stdin, or the app is gone already
        return False
    return True


def is_stopped(pid: int) -> bool:
    """Whether a process stands still, as one does that reads a terminal from the background."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] == b"T"
    except OSError:
        return False


def take_terminal_back() -> None:
    """Give the foreground back to our own group, for the shell script that called us."""
    try:
        os.tcsetpgrp(0, os.getpgrp())
    except OSError:
        pass


def exit_code(status: int) -> int:
    """The exit code of a container for a wait status: the app's own, or 128 + signal."""
    if os.WIFSIGNALED(status):
        return SIGNAL_BASE + os.WTERMSIG(status)
    return os.WEXITSTATUS(status)


def fill_standard_streams() -> None:
    """Open /dev/null where standard input, output or error came closed, for all but the app.

    The next descriptor that anybody opens would get such a number, and what is meant for a log
    would go into it: our lines became signals in the event loop's own socket.
    """
    for fd, flags in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(fd)
        except OSError:
            # The lowest free number, so this very one. Inheritable: our children need it as well.
            os.set_inheritable(os.open("/dev/null", flags), True)


def say(text: str) -> None:
    """One line on standard error, come what may."""
    try:
        os.write(2, f"entrypoint: {text}\n".encode(errors="backslashreplace"))
    except OSError:
        pass


def where(error: BaseException) -> str:
    """What a traceback boils down to on one line: the error and the place that raised it."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    if place is None:
        return repr(error)
    return f"{error!r} at {place.tb_frame.f_code.co_filename}:{place.tb_lineno}"


def signal_process(pid: int | None, number: int) -> None:
    """Send a signal to one process. That it has ended already is normal; so is one that became root."""
    try:
        if pid is not None:
            os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def signal_group(leader: int, number: int) -> bool:
    """Send a signal to a process group; whether there was anybody in it."""
    try:
        os.killpg(leader, number)
    except ProcessLookupError:
        return False
    return True


def _which(name: str) -> str:
    if "/" in name:
        return name
    for directory in os.get_exec_path():
        path = os.path.join(directory, name)
        if os.access(path, os.X_OK):
            return path
    return name


def _absolute(path: bytes) -> bytes:
    try:
        return os.path.abspath(path)
    except OSError:  # our working directory was deleted: no reason not to start the app
        return path


def _inherited_lc_ctype() -> bool:
    try:
        with open("/proc/self/environ", "rb") as block:
            return b"\0LC_CTYPE=" in b"\0" + block.read()
    except OSError:  # no /proc: rather pass on what we see
        return True
