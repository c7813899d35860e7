"""A job of numbered steps: scripts, and SQL files for psql, each on record in our history."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec import Struct, field

from migrator import errors, sql
from migrator import migration as files
from migrator import plan as plans
from migrator.errors import Conflict, MigratorError, PlanError, Unavailable
from migrator.migrate import meaning_of
from migrator.migration import Migration
from migrator.plan import HistoryRow, Plan
from migrator.programs import outcome, psql, scripts
from migrator.programs.held import Held
from migrator.programs.process import Program
from migrator.report import MigrationPhase
from migrator.settings import Settings
from migrator.store import LOCK_NAME, Store
from migrator.transport import DatabaseError

_SCRIPT = ".sh"
# A file that met a lock timeout or a deadlock is tried again so often, with pauses that double (seconds).
_CONFLICT_TRIES = 12
_FIRST_PAUSE_S = 0.25
_LAST_PAUSE_S = 10.0
# How often the end of a step is told to a database that has gone away meanwhile, and how many seconds apart.
_RECORD_TRIES = 5
_RECORD_PAUSE_S = 1.0


def load(settings: Settings) -> files.Found:
    """The steps in the migrations directories.

    Raises:
        ConfigError: A directory doesn't exist or can't be read.
        PlanError: Two files have one version, or a file can't be read as UTF-8.
    """
    return files.load(
        settings.directories, settings.environment, chosen=settings.chosen, names=files.names_for("shell")
    )


def plan_of(
    migrations: Sequence[Migration],
    history: Sequence[HistoryRow],
    *,
    refuse_changed: bool,
    meaning: plans.Meaning,
    is_rerunnable: Callable[[Migration], bool],
) -> Plan:
    """What is pending. A step that was begun may be half done, and is run again only if it says that it may.

    Raises:
        PlanError: An applied file was edited (if that is refused), or a step is half done.
    """
    rows = {row.version: row for row in history if not row.finished}
    again = set()
    for migration in migrations:
        row = rows.get(migration.version)
        if row is None:
            continue
        if not is_rerunnable(migration):
            raise PlanError(_half_done(migration, row))
        again.add(row.version)
    kept = [row for row in history if row.version not in again]
    return plans.make(migrations, kept, refuse_changed=refuse_changed, meaning=meaning)


def _half_done(migration: Migration, row: HistoryRow) -> str:
    what = f"was begun on {row.day}, and how it ended isn't known" if row.in_doubt else f"failed on {row.day}"
    declare = (
        f'; a line "# migrator: rerunnable" at the beginning of {migration.filename} says that it may be run '
        "again without that"
        if migration.filename.endswith(_SCRIPT)
        else ""
    )
    return (
        f"cannot go on: {migration.filename} {what}, so that it may be half done; look what is there, then "
        f"`migrator repair --not-applied {row.version}` has it run again, and `--applied {row.version}` says "
        "that it is done"
        f"{declare}"
    )


class Steps(Struct):
    """Runs what is pending, one after the other."""

    name = "the steps"
    settings: Settings
    migrations: tuple[Migration, ...]
    tell: Callable[..., None]
    warn: Callable[[str], None]
    _warned: set[str] = field(default_factory=set)

    def is_settled(self, history: list[HistoryRow] | None) -> bool:
        """Whether nothing is pending, which is told then.

        Raises:
            PlanError: An applied file was edited, if that is refused.
        """
        # A step that isn't finished may be at work this very moment, with somebody else: only who has the
        # lease knows better.
        plan = self._plan(history, lambda _: True)
        if plan.pending:
            return False
        self.tell(MigrationPhase.COMPLETED, applied=plan.applied, pending=0)
        return True

    async def run(self, held: Held) -> int | None:
        """Run what is pending; how many that were.

        Raises:
            MigratorError: One failed.
        """
        plan = self._plan(await held.store.history(), _is_rerunnable)
        if any(not one.filename.endswith(_SCRIPT) for one in plan.pending):
            psql.require(held.settings.path)
        log = held.session.log
        log.info("migration.planned", pending=len(plan.pending), applied=plan.applied)
        for number, migration in enumerate(plan.pending):
            self.tell(
                MigrationPhase.APPLYING,
                applied=plan.applied + number,
                pending=len(plan.pending) - number,
                current=migration.filename,
            )
            log.info("migration.started", filename=migration.filename, version=migration.version)
            began_s = time.monotonic()
            await _Step(held, migration).run()
            log.info(
                "migration.applied",
                filename=migration.filename,
                version=migration.version,
                duration_ms=int((time.monotonic() - began_s) * 1000),
            )
        self.tell(MigrationPhase.COMPLETED, applied=plan.applied + len(plan.pending), pending=0)
        return len(plan.pending)

    def _plan(self, history: list[HistoryRow] | None, is_rerunnable: Callable[[Migration], bool]) -> Plan:
        plan = plan_of(
            self.migrations,
            history or [],
            refuse_changed=self.settings.changed_files == "refuse",
            meaning=meaning_of,
            is_rerunnable=is_rerunnable,
        )
        for text in plan.warnings:
            if text not in self._warned:
                self._warned.add(text)
                self.warn(text)
        return plan


def _is_rerunnable(migration: Migration) -> bool:
    return migration.filename.endswith(_SCRIPT) and scripts.is_rerunnable(Path(migration.path))


class _Step:
    """One of them."""

    def __init__(self, held: Held, migration: Migration) -> None:
        self._held = held
        self._migration = migration
        self._values: dict[str, sql.Value] = {
            "name": LOCK_NAME,
            "token": held.lease.token,
            "holder": held.lease.holder,
            "version": migration.version,
            "filename": migration.filename,
            "title": migration.name,
            "checksum": migration.checksum,
            "lock_timeout_ms": held.session.settings.freeze_budget_ms,
        }

    async def run(self) -> None:
        migration, settings = self._migration, self._held.settings
        if migration.filename.endswith(_SCRIPT):
            program = Program(
                what=migration.filename,
                argv=scripts.command(Path(migration.path)),
                variables=settings.variables,
            )
            await self._alone(program)
        elif psql.is_transactional(migration):
            await self._together()
        else:
            await self._alone(self._psql([]))

    async def _alone(self, program: Program) -> None:
        """It can't share a transaction with its history row: one before, one after, and doubt in between."""
        held, migration = self._held, self._migration
        rerunnable = _is_rerunnable(migration)
        await self._execute(held.store, ("apply", "fence"), ("programs", "begin"))
        ended = await held.run(program)
        if ended.succeeded:
            await self._record("ended", finished=True)
            return
        error = outcome.failure(program.what, ended, held.settings.retry_exits)
        if (
            rerunnable
            or ended.error is not None
            or outcome.is_worth_a_retry(ended, held.settings.retry_exits)
        ):
            await self._record("forget")
            raise error
        await self._record("ended", finished=False)
        raise type(error)(
            f"{error}\nwhat it had done by then isn't known, so it isn't run again by itself: `migrator "
            "repair` shows the ways out"
        )

    async def _together(self) -> None:
        """File and history row, sent by psql as one transaction, between the fence and the guard."""
        before = [self._text("programs", "limits"), self._text("apply", "begin_pooled")]
        before += [self._text("apply", "fence"), self._text("apply", "record")]
        program = self._psql(
            psql.in_one_transaction(before, [self._text("apply", "unrole"), self._text("apply", "guard")])
        )
        for attempt in range(1, _CONFLICT_TRIES + 1):
            ended = await self._held.run(program)
            if ended.succeeded:
                return
            error = psql.failure(self._migration.filename, ended)
            if not isinstance(error, Conflict) or attempt == _CONFLICT_TRIES:
                raise error
            pause_s = min(_FIRST_PAUSE_S * 2 ** (attempt - 1), _LAST_PAUSE_S)
            self._held.session.log.warning(
                "migration.retrying",
                filename=self._migration.filename,
                attempt=attempt,
                reason=str(error).split("\n", 1)[0],
            )
            async with self._held.kept():
                await asyncio.sleep(random.uniform(pause_s / 2, pause_s))  # noqa: S311 - no secret

    def _psql(self, around: Sequence[str]) -> Program:
        return Program(
            what=f"psql -f {self._migration.filename}",
            argv=psql.command(Path(self._migration.path), around),
            variables=self._held.settings.libpq,
        )

    async def _record(self, piece: str, **more: sql.Value) -> None:
        """What became of it. The database may have gone away meanwhile; what we know isn't lost for that."""
        store = self._held.store
        for attempt in range(1, _RECORD_TRIES + 1):
            try:
                if attempt == 1:
                    await self._execute(store, ("programs", piece), **more)
                else:
                    async with self._held.session.open_store() as another:
                        await self._execute(another, ("programs", piece), **more)
            except Unavailable:
                if attempt == _RECORD_TRIES:
                    raise
                await asyncio.sleep(_RECORD_PAUSE_S)
            else:
                return

    async def _execute(self, store: Store, *pieces: tuple[str, str], **more: sql.Value) -> None:
        message = "".join(self._text(file, piece, **more) for file, piece in pieces)
        try:
            await store.transport.execute(f"begin;\n{message}commit;")
        except DatabaseError as error:
            kind: type[MigratorError] = errors.from_sqlstate(error.sqlstate)
            raise kind(f"cannot put {self._migration.filename} on record: {error.text}") from error

    def _text(self, file: str, piece: str, **more: sql.Value) -> str:
        return sql.message(f"{file}.sql", (piece,), self._held.store.schema, {**self._values, **more})
