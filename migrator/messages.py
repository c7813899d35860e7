"""What is sent to apply a migration: its SQL between our fence and our history."""

from __future__ import annotations

from migrator import sql
from migrator.migration import Migration
from migrator.store import LOCK_NAME, Lease

# An ALTER TABLE that waits longer than this for its lock gives up and is tried again, so that the
# app's queries, which queue behind it, don't wait longer either.
LOCK_TIMEOUT_MS = 1000


class Messages:
    """The messages for one migration under one lease; each is a transaction, sent at once."""

    def __init__(self, schema: str, migration: Migration, lease: Lease) -> None:
        """Write to our tables in `schema`."""
        self._schema = schema
        self._values: dict[str, sql.Value] = {
            "name": LOCK_NAME,
            "token": lease.token,
            "holder": lease.holder,
            "version": migration.version,
            "filename": migration.filename,
            "title": migration.name,
            "checksum": migration.checksum,
            "lock_timeout_ms": LOCK_TIMEOUT_MS,
        }

    def whole(self, text: str) -> tuple[str, int]:
        """A whole file, and where in the message its text begins."""
        head = self._joined("begin", "fence", "record")
        return f"{head}{text}\n;\n{self._joined('guard', 'commit')}", len(head)

    def first_step(self) -> str:
        """Put a file on record that will run statement by statement."""
        return self._joined("begin", "fence", "record_steps", "commit")

    def step(self, text: str, *, done: int, finished: bool) -> str:
        """One statement of such a file, and that it is done."""
        head = self._joined("begin", "fence")
        return f"{head}{text}\n;\n{self._joined('progress', 'commit', done=done, finished=finished)}"

    def fence(self) -> str:
        """Ask whether the lease is still ours, before a statement that can't run in a transaction."""
        return self._joined("begin", "fence", "commit")

    def progress(self, *, done: int, finished: bool) -> str:
        """That such a statement is done."""
        return self._joined("begin", "progress", "commit", done=done, finished=finished)

    def _joined(self, *names: str, **more: sql.Value) -> str:
        pieces = sql.pieces("apply.sql")
        return "".join(pieces[name].message(self._schema, **self._values, **more) + "\n" for name in names)
