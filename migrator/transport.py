"""How the engine reaches a database: what every way there must offer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, Protocol

from migrator.sql import Value

Row = Mapping[str, Any]


class Ended(StrEnum):
    """What is known of a transaction whose message was broken off by an error or a cancellation."""

    # It was still open, and the server has confirmed the rollback.
    ROLLED_BACK = "rolled back"
    # The server has said that it executed all of it: committed, before anything was broken off.
    COMMITTED = "committed"
    # None was open any more: it never began, or its end came first.
    ALREADY = "already ended"
    # The server couldn't be asked.
    UNKNOWN = "unknown"


class DatabaseError(Exception):
    """The server refused something.

    Attributes:
        sqlstate: Five characters; see appendix A of PostgreSQL's manual.
        text: The server's message, with its detail and hint on lines of their own.
        position: Where in what was sent, in characters from 1; None if the server didn't say.
        column: Of a table, where it is about one.
        completed: How many statements of what was sent had been executed.
        ended: What became of the transaction.
    """

    def __init__(
        self,
        *,
        sqlstate: str,
        text: str,
        position: int | None = None,
        column: str | None = None,
        completed: int = 0,
        ended: Ended = Ended.UNKNOWN,
    ) -> None:
        """Hold what the server said."""
        super().__init__(text)
        self.sqlstate = sqlstate
        self.text = text
        self.position = position
        self.column = column
        self.completed = completed
        self.ended = ended


class Transport(Protocol):
    """A way to the database."""

    # Each transaction may be on another server session: nothing of a session can be relied on.
    pooled: bool
    # Each transaction is one call of a function: no statement begins or ends one, nor sets a role.
    by_call: bool
    # The server knows transaction_timeout, with which a role may end sessions at work.
    limits_transactions: bool
    # The server process that the log-in named. A pooler names one that isn't the one who answers.
    session_pid: int
    # What became of the transaction of the last `execute` or `copy`, if that was cancelled.
    ended: Ended

    @property
    def local_settings(self) -> Mapping[str, str]:
        """What each transaction must set for itself, where there is no session to have it set."""

    async def fetch(self, query: str, *arguments: Value) -> list[Row]:
        """Run one query in a transaction of its own; its rows.

        Raises:
            DatabaseError: The server refused it.
            Unavailable: The connection is gone; whether it was executed is unknown.
        """

    def awaiting_s(self) -> float:
        """For how long the server has had all that we sent, and owed an answer; 0 if it owes none."""

    def found_pooled(self) -> None:
        """Take it for pooled from now on: it has turned out that a pooler is in between.

        Raises:
            ConfigError: What the URL asks for can't be had there.
        """

    def send_ahead(self, message: str) -> None:
        """Send the message of a later `execute`, before the server has answered those before it.

        It must be such that it does nothing unless those succeed. After an error or a cancellation of one of
        them it is as if it had never been sent: nobody waits for its answer any more.

        Raises:
            Unavailable: The connection is gone.
        """

    async def execute(self, message: str) -> None:
        """Run a text of one or more statements, as it is, in one message.

        If it was sent ahead, this waits for the answer. A transaction that is open after an error or a
        cancellation is rolled back, after the answers to all that was sent ahead.

        Raises:
            DatabaseError: The server refused a statement of it.
            Unavailable: The connection is gone; whether it was executed is unknown.
        """

    async def copy(self, statement: str, chunks: Iterable[bytes]) -> None:
        """Run a COPY ... FROM stdin with its data, which is read while it is sent.

        Raises:
            As `execute`. What `chunks` raises ends the transaction, too.
        """
