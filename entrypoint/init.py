"""PID 1: forwards signals, reaps, stops, publishes. Everything about migrations is the overseer's."""

from __future__ import annotations

import _signal
import errno
import os

from entrypoint import board as boards
from entrypoint import byhand, launch, line, server, system
from entrypoint.board import Board
from entrypoint.ending import Account, Leftovers, say_last_words
from entrypoint.forward import Forwarder
from entrypoint.link import Link
from entrypoint.loop import Loop, clock
from entrypoint.options import Options
from migrator import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from entrypoint.line import Log
    from entrypoint.record import Record

# Seconds for the overseer beyond the app's grace: it was asked to stop together with the app.
_OVERSEER_EXTRA_S = 0.5
# Seconds for a private Postgres, which must outlive the app.
_POSTGRES_GRACE_S = 6.0
# Not every exit is told to us: what the app left before we were the subreaper is somebody else's child.
_LOOK_INTERVAL_S = 0.1
# Seconds for the kernel to carry out a SIGKILL.
_KILL_S = 1.0


def main(app: launch.App) -> int:
    """Look after the app until it and all that belongs to it has ended; the container's exit code."""
    options = Options.read(os.environ)
    # `only` doesn't run the command, which therefore says nothing about what is wanted.
    by_hand = byhand.why(app.argv) if options.mode != "only" else None
    is_watched = os.isatty(2) or byhand.is_ours(app.argv)
    if by_hand and is_watched and not os.environ.get("LOG_LEVEL", "").strip():
        # A prompt with log lines behind it looks stuck; and a command of ours says all that is wanted of it.
        options.log_level = "warning"
    log = line.from_environ(
        os.environ, level=options.log_level, form=options.log_format, output=options.log_output
    )
    return Init(app, options, log, by_hand).run()


class Init:
    """One life of a container, from top to bottom in `run`; the rest answers to events."""

    def __init__(self, app: launch.App, options: Options, log: Log, by_hand: str | None = None) -> None:
        """Take over the app that the hot path started; `by_hand`: why it is none."""
        self._app = app
        self._options = options
        self._log = log
        self._by_hand = by_hand
        # PID 1, or what an engine's own init has started (`docker run --init`): the container ends with us.
        self._is_main = 1 in (os.getpid(), os.getppid())
        self._loop = Loop()
        self._account = Account()
        self._link = Link(app, self._loop, log, self._take)
        self._forwarder = Forwarder(
            app, options, account=self._account, loop=self._loop, log=log, on_stop=self._on_stop
        )
        # There was nobody left to wait for when we looked last.
        self._is_childless = False
        self._start_failure = 0

    def run(self) -> int:
        """From the first signal to the last process; the exit code."""
        ours = self._ignored_on_terminals() | {_signal.SIGCHLD}
        self._loop.take_signals((launch.CATCHABLE - ours) | {_signal.SIGCHLD}, self._on_signal)
        if self._options.death_signal:
            system.die_with_parent(self._options.death_signal)
        if os.getpid() != 1:
            system.become_subreaper()
        self._continue_if_stopped()
        self._reap()  # what ended while signals were held, or before us
        self._open()
        problem = self._start_overseer()
        if problem is not None:
            self._overseer_failed(f"cannot start the overseer: {problem}")
        if self._app.pid is None and not self._pass_gate():
            return self._end(self._code_without_app(), "the app was not started")
        self._wait(lambda: self._app.status is not None)
        return self._end(*self._verdict())

    # Beginning

    def _ignored_on_terminals(self) -> set[int]:
        """The kernel sends these when we write to a terminal that is the app's; ignored, we may."""
        if not any(os.isatty(fd) for fd in (0, 1, 2)):
            return set()
        for number in launch.TERMINAL:
            _signal.signal(number, _signal.SIG_IGN)
        return set(launch.TERMINAL)

    def _continue_if_stopped(self) -> None:
        if self._app.terminal and self._app.pid is not None and system.is_stopped(self._app.pid):
            # It read in the very moment in which it was given the terminal.
            system.send_group(self._app.pid, _signal.SIGCONT)

    def _open(self) -> None:
        """Say what we are, wherever it can be said."""
        state_dir = self._prepare_state_dir()
        self._board = Board(self._options.names, state_dir, self._log)
        self._server = server.Server(self._board, self._loop, self._log)
        if self._app.pid is not None:
            self._announce()
        if state_dir is not None:
            self._server.open_socket(os.path.join(state_dir, launch.SOCKET_FILE))
        if self._options.http_port is not None:
            self._server.open_port(self._options.http_port)

    def _prepare_state_dir(self) -> str | None:
        path = self._options.state_dir
        try:
            boards.prepare_state_dir(path)
            if server.answers(os.path.join(path, launch.SOCKET_FILE)):
                taken = "another entrypoint publishes there; set ENTRYPOINT_STATE_DIR"
                raise FileExistsError(errno.EEXIST, taken)
        except OSError as error:
            self._log.warning("marker.failed", path=path, reason=error.strerror)
            return None
        return path

    def _announce(self) -> None:
        assert self._app.pid is not None
        # Not the arguments: people put secrets there.
        self._log.info("app.spawned", pid=self._app.pid, command=self._app.argv[0])
        self._board.app_runs(self._app.pid)

    def _start_overseer(self) -> str | None:
        if self._by_hand is None:
            return self._link.start()
        return self._link.start(skip_reason=self._by_hand, log_level=self._options.log_level)

    # The gate

    def _pass_gate(self) -> bool:
        """Wait for the migrations, then start the app; whether it runs."""
        self._wait(lambda: self._board.migrations.settled or self._forwarder.is_stopping)
        if self._options.mode == "only" or not self._board.migrations.done or self._forwarder.is_stopping:
            return False
        try:
            self._start_app()
        except (OSError, ValueError) as error:
            self._start_failure = launch.report_failed_start(self._app, error)
            return False
        self._announce()
        return True

    def _start_app(self) -> None:
        """As the hot path does, although we have handlers by now: what was ignored must be so again."""
        launch.hold_signals()
        for number in self._app.inherited_ignored:
            _signal.signal(number, _signal.SIG_IGN)
        try:
            launch.start_app(self._app)
        finally:
            self._loop.listen()

    def _code_without_app(self) -> int:
        """`MIGRATION_MODE=only`, or a gate that stayed shut."""
        if self._start_failure:
            return self._start_failure
        if self._forwarder.is_stopping:
            # What it was at is rolled back; how that went decides what we say.
            self._link.signal(_signal.SIGINT)
            self._wait(lambda: self._link.ended, until_s=self._forwarder.deadline_s)
        migrations = self._board.migrations
        if migrations.done and self._options.mode == "only":
            return 0
        if self._account.signal and not migrations.failed:
            return launch.SIGNAL_BASE + self._account.signal
        return migrations.code

    # Events

    def _on_signal(self, number: int) -> None:
        if number == _signal.SIGCHLD:
            self._reap()
        else:
            self._forwarder.take(number)

    def _on_stop(self) -> None:
        self._board.app_stops()
        self._link.signal(_signal.SIGTERM)  # the migrations end in parallel

    def _reap(self) -> None:
        """Collect every process that has ended. SIGCHLD coalesces, so until there is none left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self._is_childless = True
                self._miss()
                return
            self._is_childless = False
            if pid == 0:
                break
            if pid == self._app.pid:
                self._app.status = status
            elif pid == self._link.pid:
                self._on_overseer_exit(status)
            else:
                self._log.debug("orphan.reaped", pid=pid, exit_code=launch.exit_code(status))
        if self._app.terminal and self._app.pid is not None and self._app.status is None:
            self._forwarder.follow_stop(system.stop_signal_of(self._app.pid))

    def _miss(self) -> None:
        """Nobody is left to wait for: whom we still expect was reaped by somebody else's fault."""
        if self._app.pid is not None and self._app.status is None:
            self._app.status = 0
        if self._link.pid is not None and not self._link.ended:
            self._on_overseer_exit(0)

    def _on_overseer_exit(self, status: int) -> None:
        self._link.on_exit()
        if self._board.migrations.settled:
            return
        if self._forwarder.is_stopping or self._app.status is not None:
            self._take(boards.unknown_record("aborted", "unknown"))
        else:
            self._overseer_failed(_how_it_ended(status))

    def _overseer_failed(self, error: str) -> None:
        self._log.error("overseer.failed", reason=error)
        for leader in self._app.others:
            system.send_group(leader, _signal.SIGTERM)
        self._take(boards.unknown_record("failed", "failed", error))

    def _take(self, record: Record) -> None:
        self._board.take(record)

    # The end

    def _verdict(self) -> tuple[int, str]:
        """The exit code of the container, and why."""
        assert self._app.status is not None
        code = launch.exit_code(self._app.status)
        if not os.WIFSIGNALED(self._app.status):
            reason = f"exited with code {code}"
        elif self._forwarder.was_killed:
            reason = f"killed by SIGKILL; it did not end within {self._options.stop_grace_s:g} s"
        else:
            reason = f"killed by {signals.name(os.WTERMSIG(self._app.status))}"
        mapped = self._options.exit_code(code, frozenset(self._forwarder.forwarded))
        return mapped, reason if mapped == code else f"{reason}, mapped to {mapped}"

    def _end(self, code: int, reason: str) -> int:
        """End all that is left, each part within its time, and give account of it."""
        self._account.begin()
        self._loop.cancel("delay")
        self._loop.cancel("kill")
        if self._app.pid is not None:
            self._log.info("app.exited", exit_code=code, reason=reason)
        self._board.app_ended(code, reason)
        deadline_s = self._forwarder.deadline_s or clock() + self._options.stop_grace_s
        self._link.signal(_signal.SIGTERM)
        self._end_leftovers(deadline_s)
        self._end_overseer(deadline_s)
        self._reap()
        self._last_words(code, reason)
        self._server.close()
        return code

    def _end_leftovers(self, deadline_s: float) -> None:
        """End what the app left behind: SIGTERM, what remains of the grace, SIGKILL."""
        left = Leftovers(self._app, self._account, adopts=self._is_main)
        if self._wait(
            lambda: left.are_gone(childless=self._is_childless),
            # Also where the app took all of the grace: who obeys SIGTERM is given the moment that it needs.
            until_s=max(deadline_s, clock() + _LOOK_INTERVAL_S),
            interval_s=_LOOK_INTERVAL_S,
        ):
            return
        self._log.warning("stop.escalated", grace_s=self._options.stop_grace_s)
        self._account.signalled(_signal.SIGKILL, "leftovers")
        self._wait(
            lambda: left.are_killed(childless=self._is_childless),
            until_s=clock() + _KILL_S,
            interval_s=_LOOK_INTERVAL_S,
        )

    def _end_overseer(self, deadline_s: float) -> None:
        """Let it end what it has started; the private Postgres last, since it is the app's database."""
        if not self._link.ended:
            self._link.signal(_signal.SIGINT)
            given = (os.environ.get(name, "").strip() for name in launch.DATABASE_NAMES)
            has_postgres = launch.EMBEDDED.decode() in given
            extra_s = _POSTGRES_GRACE_S if has_postgres else _OVERSEER_EXTRA_S
            until_s = max(deadline_s, clock() + extra_s)
            self._wait(lambda: self._link.ended, until_s=until_s)
        if not self._link.ended:
            self._account.killed(self._link.pid or 0, "overseer")
        self._link.kill()
        if not self._link.ended:
            self._wait(lambda: self._link.ended, until_s=clock() + _KILL_S)

    def _last_words(self, code: int, reason: str) -> None:
        who = "app " if self._app.pid is not None else ""
        say_last_words(self._options.termination_log, f"{who}{reason}; {self._board.migrations.summary}\n")
        self._board.publish()
        self._log.info("stop.finished", exit_code=code, reason=reason, **self._account.fields())

    def _wait(
        self, condition: Callable[[], bool], *, until_s: float | None = None, interval_s: float | None = None
    ) -> bool:
        """Deal with events until it is true; False if the moment came first.

        With an interval it is looked at without an event, too.
        """
        while not condition():
            now_s = clock()
            if until_s is not None and now_s >= until_s:
                return False
            moments = [moment for moment in (until_s, interval_s and now_s + interval_s) if moment]
            if moments:
                self._loop.at("wait", min(moments), _nothing)
            self._loop.run_once()
        self._loop.cancel("wait")
        return True


def _nothing() -> None:
    """The loop came round: that is all it was for."""


def _how_it_ended(status: int) -> str:
    """Of the overseer, although there was more to do."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        hint = "; out of memory?" if number == _signal.SIGKILL else ""
        return f"the overseer of the migrations was killed by {signals.name(number)}{hint}"
    return f"internal error: the overseer ended with exit code {launch.exit_code(status)}; see the log"
