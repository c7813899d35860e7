"""What is published: the health document, composed here, written to the marker file, and served."""

from __future__ import annotations

import os
import stat
import time

from entrypoint import launch
from entrypoint.line import Log, dumps, stamp
from entrypoint.loop import clock
from entrypoint.record import Record, summary

# A document younger than this is served as it was published.
FRESH_S = 1.0

STARTING, RUNNING, STOPPING, EXITED = "starting", "running", "stopping", "exited"
# The life of the app: which state may follow which. Anything else is a bug of ours and refused.
APP_NEXT = {
    STARTING: (RUNNING, STOPPING, EXITED),
    RUNNING: (STOPPING, EXITED),
    STOPPING: (EXITED,),
    EXITED: (),
}


class Board:
    """The only writer of the status. What is published is always one and the same document."""

    def __init__(self, names: dict[str, str | None], state_dir: str | None, log: Log) -> None:
        """Begin with an app that is to start.

        Args:
            names: What stays as it is: service, environment, version.
            state_dir: Where to publish; None: there is nowhere to write to.
            log: For what goes wrong.
        """
        self.app = STARTING
        self.pid: int | None = None
        self.exit_code: int | None = None
        self.reason: str | None = None
        self.migrations = unknown_record("pending", "running")
        self._names = names
        self._directory = state_dir
        self._log = log
        self._started = clock()
        self._app_started: float | None = None
        self._warned = False
        self._document = b""
        self._published = 0.0
        self.publish()

    def app_runs(self, pid: int) -> None:
        """The app has been started."""
        if self._enter(RUNNING):
            self.pid, self._app_started = pid, clock()
            self.publish()

    def app_stops(self) -> None:
        """The app has been, or is about to be, asked to stop."""
        if self._enter(STOPPING):
            self.publish()

    def app_ended(self, exit_code: int, reason: str) -> None:
        """The app is gone, or was never there."""
        if self._enter(EXITED):
            self.exit_code, self.reason = exit_code, reason
            self.publish()

    def take(self, record: Record) -> None:
        """Take over what is known of the migrations."""
        self.migrations = record
        self.publish()

    @property
    def is_healthy(self) -> bool:
        """The app lives and nothing has failed for good."""
        return self.app != EXITED and not (self.migrations.failed and self.migrations.settled)

    @property
    def is_ready(self) -> bool:
        """The app runs, isn't asked to stop, and finds the schema it was built for."""
        return self.app == RUNNING and self.migrations.done

    def document(self) -> bytes:
        """The health document. What the marker file holds and what is served are the same bytes."""
        if not 0 <= clock() - self._published < FRESH_S:
            self.publish()
        return self._document

    def publish(self) -> None:
        """Compose the document anew and write it to the marker file."""
        self._published = clock()
        self._document = self._compose().encode(errors="backslashreplace")
        if self._directory is None:
            return
        try:
            _replace(os.path.join(self._directory, launch.STATUS_FILE), self._document)
            self._warned = False
        except OSError as error:  # a full disk, a directory that went away: said once
            if not self._warned:
                self._log.warning("marker.failed", reason=error.strerror, path=self._directory)
                self._warned = True

    def _enter(self, state: str) -> bool:
        if state not in APP_NEXT[self.app]:
            self._log.error("status.refused", app=self.app, refused=state)
            return False
        self.app = state
        return True

    def _compose(self) -> str:
        head = {
            "status": "ok" if self.is_healthy else "error",
            "timestamp": stamp(time.time()),
            **self._names,
            "uptime": int(self._published - self._started),
        }
        app = {
            "status": self.app,
            "pid": self.pid,
            "uptime": 0 if self._app_started is None else int(self._published - self._app_started),
            "exitCode": self.exit_code,
            "reason": self.reason,
        }
        return f'{dumps(head)[:-1]}, "migrations": {self.migrations.document}, "app": {dumps(app)}}}\n'


def unknown_record(phase: str, status: str, error: str | None = None) -> Record:
    """What PID 1 says of the migrations where the overseer says nothing."""
    document = {
        "status": status,
        "lastChecked": stamp(time.time()),
        "phase": phase,
        "applied": None,
        "pending": None,
        "current": None,
        "attempt": 0,
        "durationMs": None,
        "error": error,
        "reason": None,
    }
    return Record(
        settled=phase != "pending",
        failed=status == "failed",
        done=False,
        code=1,
        groups=frozenset(),
        summary=summary(status, phase, error),
        document=dumps(document),
    )


def prepare_state_dir(path: str) -> None:
    """Make the state directory, or see that the one that is there can be trusted.

    Raises:
        OSError: It can't be made or used; `strerror` says why.
    """
    os.makedirs(path, mode=0o755, exist_ok=True)
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (os.geteuid(), 0):
        # /tmp is everybody's: a directory or link planted there could redirect what we write.
        raise PermissionError(1, "it belongs to another user; set ENTRYPOINT_STATE_DIR")
    if not os.access(path, os.W_OK | os.X_OK):
        raise PermissionError(13, "it isn't writable; set ENTRYPOINT_STATE_DIR")


def _replace(path: str, content: bytes) -> None:
    """Write beside, then rename, so that a reader sees the old or the new document, whole."""
    beside = f"{path}.{os.getpid()}"
    # Made anew each time: the app may write here too, and opening a pipe of that name would stop us.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    _unlink(beside)
    try:
        fd = os.open(beside, flags, 0o644)
        try:
            os.fchmod(fd, 0o644)  # whatever the umask: the app may be another user
            while content:
                content = content[os.write(fd, content) :]
        finally:
            os.close(fd)
        os.replace(beside, path)
    except OSError:
        _unlink(beside)
        raise


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass
