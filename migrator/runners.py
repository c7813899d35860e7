"""Running one migration: its SQL, its fence and its history row, whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from msgspec.structs import replace

from migrator import borrowed, failure, locks, meaning, parts, script, statements, wants
from migrator import migration as files
from migrator.ahead import Ahead, Ready
from migrator.attempts import Whole
from migrator.errors import ConfigError, PlanError, Unavailable
from migrator.log import Log
from migrator.messages import ROW_TIMEOUT_MS, Messages, Prepared
from migrator.migration import Migration, checksum, read_text
from migrator.parts import Parts
from migrator.passage import Care, Passage
from migrator.plan import HistoryRow
from migrator.script import Script
from migrator.sending import Sending
from migrator.store import Lease, Store
from migrator.transport import DatabaseError
from migrator.wants import Want


def meaning_of(migration: Migration) -> str | None:
    """What the file means, as a checksum; None if it can't be told, or is too large for being edited by hand.

    Raises:
        PlanError: It can't be read.
    """
    if files.size_bytes(migration.path) > parts.WHOLE_BYTES:
        return None
    return meaning.of(read_text(migration.path), migration.filename)


class SqlRunner:
    """Applies SQL files over a store's transport."""

    # What is in between, for people.
    through = "a transaction pooler"

    def __init__(
        self,
        store: Store,
        log: Log,
        care: Care,
        *,
        kind: type[Messages] = Messages,
        passage: type[Passage] = Passage,
    ) -> None:
        """Apply to the database of `store`.

        `kind` is what is sent with each file, `passage` how it gets through.

        Raises:
            ConfigError: It can't be sent by calls of a function.
        """
        if store.transport.by_call and kind is not Messages:
            raise ConfigError(
                "cannot undo or rehearse files over the REST API; set DIRECT_URL to a direct connection"
            )
        self._store = store
        self._log = log
        self._care = care
        self._kind = kind
        self._passage = passage
        # Relations that were made by the files before: nobody uses them yet.
        self._made: set[str] = set()
        self._bare = care.is_bare
        # The file at work runs statement by statement.
        self.in_steps = False
        self._ahead = Ahead(store.transport)
        self._prepared = Prepared()
        # A pooler gives each transaction to another session; and who undoes something says other things.
        self._keeps = kind is Messages and not (store.transport.pooled or store.transport.by_call)

    @property
    def sent_ahead(self) -> tuple[str, ...]:
        """Files that were on their way behind the one with which something went wrong."""
        return self._ahead.forgotten

    async def check(self, migration: Migration) -> Script | Parts:
        """What the file means.

        Raises:
            PlanError: It can't be applied, or not over this connection.
        """
        understood = await self._understand(migration)
        if understood.total and self._store.transport.pooled:
            what = f"{understood.alone[0]!r} can't" if understood.alone else "it isn't to"
            raise PlanError(
                f"cannot apply {migration.filename} through {self.through}: {what} "
                "run in a transaction; set DIRECT_URL to a direct connection"
            )
        return understood

    async def _understand(self, migration: Migration) -> Script | Parts:
        if files.size_bytes(migration.path) > parts.WHOLE_BYTES:
            return await self._cut(migration)
        text = read_text(migration.path)
        if checksum(text) != migration.checksum:
            raise _edited(migration)
        borrowed.refuse_way_back(text, migration.filename)
        meant = meaning.of(text, migration.filename)
        if script.needs_parts(text):
            return replace(await self._cut(migration), meaning=meant)
        return replace(script.understand(text, migration.filename), meaning=meant)

    async def apply(
        self,
        migration: Migration,
        lease: Lease,
        begun: HistoryRow | None,
        *,
        following: Sequence[Migration] = (),
    ) -> None:
        """Apply the file and leave it in history.

        Args:
            migration: The file.
            lease: Ours; the server checks it in the same transaction.
            begun: What an earlier run left on record; None if the file is untouched.
            following: Those that are applied after it, each by a call of its own. If there are any, its
                commit needn't wait for the disk: a later one will, be it that which gives the lease back
                after a failure.

        Raises:
            MigrationFailed: The server refused it; the message says where, why, and what is left.
            Conflict: Others were in the way for too long.
            LeaseLost: The lease isn't ours any more.
            Unavailable: The connection broke; the outcome is unknown.
        """
        if following:  # before anything is on its way, as this asks the server something
            await self._is_bare()
            if self._keeps and not self._prepared.is_there and not self._ahead.is_under_way:
                await self._prepared.keep(self._store.transport, self._store.schema)
        self.in_steps = False
        ready = await self._ahead.take(migration, following, partial(self._prepare, lease))
        understood, messages = ready.understood, ready.messages
        passage = self._passage(self._store, self._log, self._care, messages, migration.filename)
        if ready.whole is not None:
            await self._apply_whole(ready, ready.whole, passage)
        elif isinstance(understood, Parts) and not understood.total:
            await self._apply_parts(migration, understood, messages, passage)
        else:
            from migrator.stepping import Stepping  # late: most runs have no such file

            self.in_steps = True
            try:
                await Stepping(
                    self._store,
                    self._log,
                    migration=migration,
                    understood=understood,
                    messages=messages,
                    passage=passage,
                    begun=begun,
                ).run()
            finally:
                await self._clean_session(messages)

    async def _prepare(self, lease: Lease, migration: Migration, *, last: bool) -> Ready:
        understood = await self.check(migration)
        transport = self._store.transport
        messages = self._kind(
            self._store.schema,
            migration,
            lease,
            headers=understood.headers,
            meaning=understood.meaning,
            lock_key=self._store.lock_key,
            pooled=transport.pooled,
            local_settings=transport.local_settings,
            limits_transactions=transport.limits_transactions,
            prepared=self._prepared if self._keeps else None,
        )
        if isinstance(understood, Parts) or understood.steps:
            return Ready(migration=migration, understood=understood, messages=messages)
        wanted, waits_for_rows = await self._wants(understood)
        # For one that is sent ahead; `Passage` does the same in its turn.
        budget_ms = self._care.restraint.freeze_budget_ms
        messages.limit_waits(ROW_TIMEOUT_MS if waits_for_rows else locks.wait_ms(budget_ms, 1))
        return Ready(
            migration=migration,
            understood=understood,
            messages=messages,
            whole=Whole(transport, messages, understood, last=last, on_error=self._forget),
            wants=wanted,
            waits_for_rows=waits_for_rows,
        )

    def _forget(self) -> None:
        """What was sent, and what the session may keep: something went wrong."""
        self._ahead.forget()
        self._prepared.is_there = False

    async def _apply_whole(self, ready: Ready, whole: Whole, passage: Passage) -> None:
        migration, understood = ready.migration, ready.understood
        assert isinstance(understood, Script)
        try:
            await passage.through(whole, ready.wants, waits_for_rows=ready.waits_for_rows)
        except DatabaseError as error:
            text, head = understood.text, whole.message[: whole.start]
            located = failure.locate(error, text, whole.start, whole.head)
            located = located or failure.role_refused(error, head, understood.headers)
            state = failure.state_of(error, understood=understood.understood, untouched=True)
            unfinished = failure.unfinished(migration, error, text, whole.start, state)
            if unfinished is not None:
                raise unfinished from error
            raise failure.failure(migration, error, located, state) from error

    async def _is_bare(self) -> bool:
        """Whether there was no table in the database that anybody could use when we began."""
        if self._bare is None:
            self._bare = await self._store.is_bare()
        return self._bare

    async def _wants(self, understood: Script) -> tuple[list[Want], bool]:
        """What a file will lock, and whether it does nothing but change rows."""
        is_worth_a_look = wants.is_worth_a_look(understood.text)
        if not (is_worth_a_look or wants.mentions_code(understood.text)) or await self._is_bare():
            return [], True
        found = statements.split(understood.text) or []
        if not is_worth_a_look:
            return [], not any(wants.may_run_code(one.text) for one in found)
        trees = [statements.tree(one) for one in found if wants.may_lock(one.text)]
        return wants.of(trees, self._made), wants.is_data_only(one.text for one in found)

    async def _cut(self, migration: Migration) -> Parts:
        with files.open_file(migration.path) as file:
            cut = await parts.cut(file, migration.filename)
        if cut.checksum != migration.checksum:
            raise _edited(migration)
        return cut

    async def _apply_parts(
        self, migration: Migration, cut: Parts, messages: Messages, passage: Passage
    ) -> None:
        sending = Sending(self._store.transport, migration, cut, messages)
        wanted = [one for one in cut.wants if one.name not in self._made]
        if wanted and await self._is_bare():
            wanted = []
        try:
            await passage.through(sending, wanted, waits_for_rows=not (wanted or cut.runs_code))
        except DatabaseError as error:
            raise await sending.failed(error) from error

    async def _clean_session(self, messages: Messages) -> None:
        """What the file set for its session must not reach the next one."""
        try:
            await self._store.transport.execute(messages.clean())
        except (DatabaseError, Unavailable) as error:
            self._log.warning("session.unclean", reason=str(error))


def _edited(migration: Migration) -> PlanError:
    return PlanError(f"cannot apply {migration.filename}: it was edited while we were reading; start again")
