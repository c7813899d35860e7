"""The coroutines that tie it together: app, migrator, status, signals, from start to exit code."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from entrypoint import board as boards
from entrypoint import launch, policy, postgres, server
from entrypoint.board import Board
from entrypoint.child import Migrator
from entrypoint.policy import Limits, Outcome
from entrypoint.reaper import Reaper
from entrypoint.settings import Settings
from entrypoint.status import AppPhase, Status
from migrator import log as logs
from migrator import secret_file
from migrator.errors import Redactor
from migrator.log import Log
from migrator.report import MAX_TEXT_CHARS, STATUS_OF, MigrationPhase, MigrationStatus, Report

# These ask us to stop; every other signal is the app's business alone (QUIT makes a JVM print its threads).
STOP_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT})


def main(app: launch.App) -> int:
    """Supervise the app until it has ended; the exit code of the container."""
    settings = Settings.from_env(os.environ, secret_file.read)
    log = logs.configure(
        component="entrypoint",
        level=settings.log_level,
        mask=Redactor(settings.secrets),
        **logs.destination(os.environ, log_format=settings.log_format, output=settings.log_output),
    )
    if settings.problems or settings.complaints:
        log.error("settings.refused", reason="; ".join((*settings.problems, *settings.complaints)))
    # asyncio's own loop: uvloop refuses SIGCHLD handlers (MagicStack/uvloop#409). Never closed:
    # the process ends with it.
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _, context: _log_unexpected(log, context))
    return loop.run_until_complete(Supervisor(app, settings, log).run())


class Supervisor:
    """One life of a container."""

    def __init__(self, app: launch.App, settings: Settings, log: Log) -> None:
        """Take over the app that the hot path started."""
        self._app = app
        self._settings = settings
        self._log = log
        self._reaper = Reaper(self._on_orphan)
        self._stop_signal = 0
        self._stop = asyncio.Event()
        self._migrator_code = 0
        self._child: Migrator | None = None

    async def run(self) -> int:
        """From the first signal to the last process; the exit code."""
        app_exit = self._watch_app() if self._app.pid is not None else None
        self._reaper.install(asyncio.get_running_loop())
        self._forward_signals()
        self._reaper.reap()  # what ended while signals were held
        state_dir = self._prepare_state_dir()
        board = self._new_board(state_dir)
        socket_path = os.path.join(state_dir, launch.SOCKET_FILE) if state_dir else None
        async with server.serve(board, socket_path=socket_path, port=self._settings.http_port, log=self._log):
            if app_exit is not None:
                self._announce_app(board)
            return await self._run(board, app_exit)

    async def _run(self, board: Board, app_exit: asyncio.Future[int] | None) -> int:
        async with asyncio.TaskGroup() as tasks:
            database = None
            if self._settings.embedded:  # also where migrations are skipped: it is the app's database
                database = tasks.create_task(
                    postgres.keep_running(self._app, self._settings.state_dir, self._reaper, self._log),
                    name="postgres",
                )
            migrations = tasks.create_task(self._migrate(board), name="migrations")
            try:
                if app_exit is None:
                    app_exit = await self._pass_gate(board)
                if app_exit is None:
                    return await self._end_without_app(board, migrations)
                return await self._see_app_through(board, app_exit, migrations)
            finally:
                _stop(migrations)
                await asyncio.wait({migrations})
                if database is not None:  # last: the migrator rolls back first
                    database.cancel()

    # The app

    def _watch_app(self) -> asyncio.Future[int]:
        assert self._app.pid is not None
        app_exit = self._reaper.watch(self._app.pid)
        app_exit.add_done_callback(self._remember_status)
        return app_exit

    def _remember_status(self, app_exit: asyncio.Future[int]) -> None:
        if not app_exit.cancelled():
            self._app.status = app_exit.result()  # `babysit` must know it, should we fail now

    def _announce_app(self, board: Board) -> None:
        # Not the arguments: people put secrets there.
        self._log.info("app.spawned", pid=self._app.pid, command=self._app.argv[0])
        board.app(AppPhase.RUNNING, pid=self._app.pid)

    async def _pass_gate(self, board: Board) -> asyncio.Future[int] | None:
        """Start the app once the migrations are through; None if it isn't to be started."""
        async with asyncio.TaskGroup() as tasks:
            settled = tasks.create_task(board.settled(), name="gate")
            stop = tasks.create_task(self._stop.wait(), name="stop")
            await _first(settled, stop)
            settled.cancel()
            stop.cancel()
        passed = board.status.migration.phase in (MigrationPhase.COMPLETED, MigrationPhase.SKIPPED)
        if self._settings.mode == "only" or not passed or self._stop.is_set():
            return None
        try:
            launch.start_app(self._app)
        except (OSError, ValueError) as error:
            self._migrator_code = launch.report_failed_start(self._app, error)
            return None
        app_exit = self._watch_app()
        self._announce_app(board)
        return app_exit

    async def _end_without_app(self, board: Board, migrations: asyncio.Task[None]) -> int:
        _stop(migrations)
        await asyncio.wait({migrations})
        report = board.status.migration
        code = policy.container_exit_code(self._settings.mode, report, self._migrator_code)
        if code and self._stop_signal and STATUS_OF[report.phase] is not MigrationStatus.FAILED:
            code = launch.SIGNAL_BASE + self._stop_signal
        board.app(AppPhase.EXITED, exit_code=code)
        return code

    async def _see_app_through(
        self, board: Board, app_exit: asyncio.Future[int], migrations: asyncio.Task[None]
    ) -> int:
        async with asyncio.TaskGroup() as tasks:
            stop = tasks.create_task(self._stop.wait(), name="stop")
            await _first(app_exit, stop)
            stop.cancel()
        deadline_s = asyncio.get_running_loop().time() + self._settings.stop_grace_s
        if not app_exit.done():
            board.app(AppPhase.STOPPING)
            self._log.info("stop.started", signal=_name(self._stop_signal))
            _stop(migrations)  # it ends in parallel
            await asyncio.wait({app_exit}, timeout=self._settings.stop_grace_s)
            if not app_exit.done():
                self._log.warning("stop.escalated", grace_s=self._settings.stop_grace_s)
                self._kill_app_group()
        code = launch.exit_code(await app_exit)
        self._log.info("app.exited", exit_code=code)
        board.app(AppPhase.EXITED, exit_code=code)
        _stop(migrations)
        await self._end_app_group(deadline_s)
        return code

    async def _end_app_group(self, deadline_s: float) -> None:
        """End what the app left behind in its process group: TERM, what remains of the grace, KILL."""
        assert self._app.pid is not None
        try:
            if not launch.signal_group(self._app.pid, signal.SIGTERM):
                return
            async with asyncio.timeout_at(deadline_s):
                while launch.signal_group(self._app.pid, 0):
                    # Not every exit reaches us: what the app left before we became the subreaper
                    # is somebody else's child.
                    await self._reaper.next_exit(at_most_s=0.1)
        except TimeoutError:
            self._log.warning("stop.escalated", grace_s=self._settings.stop_grace_s)
            self._kill_app_group()
        except PermissionError:  # it became another user: beyond our reach, unless we are PID 1
            pass

    def _kill_app_group(self) -> None:
        assert self._app.pid is not None
        try:
            launch.signal_group(self._app.pid, signal.SIGKILL)
        except PermissionError:
            pass
        if self._app.status is None:  # it may have left its group
            launch.signal_process(self._app.pid, signal.SIGKILL)

    # The migrations

    async def _migrate(self, board: Board) -> None:
        """See the migrations through: attempts, retries, and what to say at the end."""
        try:
            await self._attempts(board)
        except asyncio.CancelledError:
            if not board.status.settled:
                said = self._child.last if self._child is not None else None
                last = said or board.status.migration
                stopped = Outcome(cause=policy.Cause.STOPPING, code=0, last=last)
                board.report(policy.conclude(stopped, None, self._limits), settled=True)
            raise
        except Exception as error:  # noqa: BLE001 - a bug of ours here must not touch the app
            self._log.error("migrator.failed", reason=repr(error))
            failed = replace(
                board.status.migration, phase=MigrationPhase.FAILED, error=f"internal error: {error!r}"
            )
            board.report(failed, settled=True)

    async def _attempts(self, board: Board) -> None:
        if self._settings.skip_reason is not None:
            reason = self._settings.skip_reason
            board.report(Report(phase=MigrationPhase.SKIPPED, reason=reason), settled=True)
            return
        if self._settings.problems:
            # Who misspelt MIGRATION_ENABLED=false didn't want what its default does.
            self._migrator_code = policy.EXIT_CONFIG
            wrong = Report(
                phase=MigrationPhase.FAILED, error="; ".join(self._settings.problems)[:MAX_TEXT_CHARS]
            )
            board.report(wrong, settled=True)
            return
        for attempt in range(1, self._settings.attempts + 1):
            board.report(board.status.migration, attempt=attempt)
            self._child = Migrator(self._app, self._progress(board), self._log)
            outcome = await self._child.run(self._reaper, self._limits)
            self._migrator_code = outcome.code
            delay_s = policy.retry_delay_s(outcome, attempt, self._limits)
            board.report(policy.conclude(outcome, delay_s, self._limits), settled=delay_s is None)
            if delay_s is None:
                return
            self._log.warning("migration.retrying", attempt=attempt, delay_s=delay_s)
            await asyncio.sleep(delay_s)

    def _progress(self, board: Board) -> Callable[[Report], None]:
        def take(report: Report) -> None:
            # Only the supervisor says how an attempt ended: it knows whether another follows.
            if report.phase in (
                MigrationPhase.CONNECTING,
                MigrationPhase.WAITING_FOR_LOCK,
                MigrationPhase.APPLYING,
            ):
                board.report(report)

        return take

    @property
    def _limits(self) -> Limits:
        return Limits(
            attempts=self._settings.attempts,
            retry_delay_s=self._settings.retry_delay_s,
            timeout_s=self._settings.timeout_s,
            memory_limit_bytes=self._settings.memory_limit_bytes,
        )

    # Signals and status

    def _forward_signals(self) -> None:
        loop = asyncio.get_running_loop()
        ours = {signal.SIGCHLD}
        if any(os.isatty(fd) for fd in (0, 1, 2)):
            # The kernel sends us these two when we write to the app's terminal; ignored, we may.
            for number in (signal.SIGTTOU, signal.SIGTTIN):
                signal.signal(number, signal.SIG_IGN)
                ours.add(number)
        for number in launch.CATCHABLE - ours:
            loop.add_signal_handler(number, self._forward, number)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, launch.CATCHABLE)
        if self._app.terminal and self._app.pid is not None and launch.is_stopped(self._app.pid):
            # It read in the very moment in which it was given the terminal.
            launch.signal_group(self._app.pid, signal.SIGCONT)

    def _forward(self, number: int) -> None:
        if self._app.status is None:  # reaped, its number may be another's by now
            launch.signal_process(self._app.pid, number)
        if number in STOP_SIGNALS and not self._stop.is_set():
            self._stop_signal = number
            self._stop.set()
        self._log.debug("signal.forwarded", signal=_name(number))

    def _on_orphan(self, pid: int, status: int) -> None:
        self._log.debug("orphan.reaped", pid=pid, exit_code=launch.exit_code(status))

    def _prepare_state_dir(self) -> str | None:
        try:
            boards.prepare_state_dir(self._settings.state_dir)
            if server.answers(os.path.join(self._settings.state_dir, launch.SOCKET_FILE)):
                taken = "another entrypoint publishes there; set ENTRYPOINT_STATE_DIR"
                raise FileExistsError(errno.EEXIST, taken)
        except OSError as error:
            self._log.warning("marker.failed", path=self._settings.state_dir, reason=error.strerror)
            return None
        return self._settings.state_dir

    def _new_board(self, state_dir: str | None) -> Board:
        now = _now()
        status = Status(
            service=self._settings.service,
            environment=self._settings.environment,
            version=self._settings.version,
            started=now,
            migration=Report(phase=MigrationPhase.PENDING),
            checked=now,
        )
        return Board(status, state_dir, self._log, _now)


def _stop(task: asyncio.Task[None]) -> None:
    """Cancel it, once: a second time would cut off what it does to end well."""
    if not task.cancelling():
        task.cancel()


def _log_unexpected(log: Log, context: dict[str, Any]) -> None:
    """What asyncio would print as text, e.g. that no descriptor is left for a client."""
    log.error("loop.failed", reason=f"{context.get('message')}: {context.get('exception')!r}")


async def _first(*events: asyncio.Future[Any]) -> None:
    await asyncio.wait(events, return_when=asyncio.FIRST_COMPLETED)


def _now() -> datetime:
    return datetime.now(UTC)


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal between the two that have names
        return str(number)
