"""What remains of PID 1 when our own code fails: forward signals, reap, end with the app's exit code.

Needs nothing of what may be broken: os and _signal.
"""

import _signal
import os

from entrypoint import launch

# Seconds that a process of ours gets to end.
_GRACE_S = 5
_MAX_DESCRIPTORS = 1024
_DOCUMENT = (
    '{"status": "ok", "migrations": {"status": "unknown", "phase": "unknown", "error": "%s", '
    '"reason": null}, '
    '"app": {"status": "running", "pid": %d, "exitCode": null}}\n'
)


def babysit(app: launch.App, problem: str) -> int:
    """Forward signals and reap until the app has ended; its exit code. `problem` says what broke."""
    _signal.set_wakeup_fd(-1)
    launch.hold_signals()
    if app.pid is None:  # it was to start after the migrations
        _end_others(app)
        return 1
    _publish(app, problem)
    _reap(app)  # whoever failed may have eaten the SIGCHLD that told of it
    while app.status is None:
        number = int(_signal.sigwait(launch.CATCHABLE))
        if number != _signal.SIGCHLD:
            launch.signal_process(app.pid, number)
        _reap(app)
    _end_others(app)
    _unlink(_place(launch.STATUS_FILE))
    return launch.exit_code(app.status)


def _publish(app: launch.App, problem: str) -> None:
    """Put the truth in the place of what was published before: the app is well, and nothing else is known.

    Whoever asks the socket or the port is refused at once instead of waiting for an answer.
    """
    os.closerange(3, _MAX_DESCRIPTORS)
    _unlink(_place(launch.SOCKET_FILE))
    error = "".join(char if char.isprintable() and char not in '"\\' else " " for char in problem[:500])
    marker = _place(launch.STATUS_FILE)
    beside = f"{marker}.{os.getpid()}"
    _unlink(beside)
    try:
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        os.write(fd, (_DOCUMENT % (error, app.pid)).encode(errors="replace"))
        os.close(fd)
        os.rename(beside, marker)  # a reader sees the old document or this one, whole
    except OSError:
        _unlink(beside)
        _unlink(marker)


def _place(name: str) -> str:
    return os.path.join(os.path.dirname(os.fsdecode(launch.marker_path(os.environb))), name)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass


def _reap(app: launch.App) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            app.others.clear()
            if app.status is None:
                app.status = 0  # nobody left to wait for, and nobody to tell how it ended
            return
        if pid == 0:
            return
        if pid == app.pid:
            app.status = status
        app.others.discard(pid)


def _end_others(app: launch.App) -> None:
    app.others = {leader for leader in app.others if launch.signal_group(leader, _signal.SIGTERM)}
    _signal.alarm(_GRACE_S)  # blocked, it only ends the wait
    while app.others and _signal.sigwait((_signal.SIGCHLD, _signal.SIGALRM)) == _signal.SIGCHLD:
        _reap(app)
    for leader in app.others:
        launch.signal_group(leader, _signal.SIGKILL)
