"""The transport over the REST API of a Supabase project: each call of a function is a transaction.

What stands behind it are the two functions of `sql/rest_install.sql`. See docs/explanation/rest.md for what
differs from a connection.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from migrator import refusal
from migrator.endpoint import Endpoint
from migrator.errors import ConfigError, PlanError, Unavailable
from migrator.http_client import HttpClient
from migrator.sql import Value, literal
from migrator.transport import Ended, Row

# As over a connection: none of our own queries waits for anything.
_ANSWER_S = 15.0
# How long PostgREST may take to read again what functions there are, or to find the database.
_PATIENCE_S = 3.0
_FIRST_PAUSE_S = 0.1
_LAST_PAUSE_S = 1.0
# As sql.Piece.query numbers them.
_ARGUMENT = re.compile(r"\$(\d+)\b")
# What has no rows can't be asked for any.
_SILENT = re.compile(r"(insert|update|delete)\b(?!.*\breturning\b)", re.IGNORECASE | re.DOTALL)
# How JSON has a timestamptz, and nothing else of ours.
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?[+-]\d\d:\d\d")


class RestTransport:
    """Calls of functions at one endpoint."""

    # Nothing of a session can be relied on, and there is none to be lost.
    pooled = True
    by_call = True
    limits_transactions = False  # not ours to lift, nor is what PostgREST sets
    session_pid = 0

    def __init__(self, endpoint: Endpoint, client: HttpClient) -> None:
        """Call through `client`."""
        self._endpoint = endpoint
        self._client = client
        self.ended = Ended.UNKNOWN
        self.local_settings: Mapping[str, str] = {}

    def awaiting_s(self) -> float:
        """See Transport."""
        asked_s = self._client.asked_s
        return 0.0 if asked_s is None else time.monotonic() - asked_s

    def found_pooled(self) -> None:
        """See Transport. It is known."""

    async def fetch(self, query: str, *arguments: Value) -> list[Row]:
        """See Transport. What JSON hasn't comes as text, but for moments."""
        texts = [literal(one) for one in arguments]
        # As literals, which find their types by where they stand, like parameters.
        query = _ARGUMENT.sub(lambda found: texts[int(found[1]) - 1], query).strip().removesuffix(";")
        try:
            async with asyncio.timeout(_ANSWER_S):
                if _SILENT.match(query):
                    await self.apply("", [query], "")
                    return []
                rows = await self._call("migrator_fetch", {"query": query})
        except TimeoutError as error:
            raise Unavailable(
                f"lost the connection to {self._endpoint}: no answer within {_ANSWER_S:g} s"
            ) from error
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ConfigError(f"cannot use {self._endpoint}: it answers something else than rows")
        return [{name: _value(held) for name, held in row.items()} for row in rows]

    def send_ahead(self, message: str) -> None:
        """See Transport. Nothing is: calls may overtake each other, as transactions through a pooler."""
        raise NotImplementedError(message)

    async def execute(self, message: str) -> None:
        """See Transport. The message begins and ends no transaction."""
        await self.apply("", [message], "")

    async def copy(self, statement: str, _chunks: Iterable[bytes]) -> None:
        """See Transport.

        Raises:
            PlanError: There is no way to send the data.
        """
        raise PlanError(f"cannot run {statement!r} over the REST API; set DIRECT_URL to a direct connection")

    async def apply(self, head: str, statements: Sequence[str], tail: str) -> None:
        """Run the statements between what is ours, in one transaction.

        Raises:
            DatabaseError: The server refused one: `completed` says which, 0 being `head`; rolled back.
            Unavailable: There was no answer; whether it was executed is unknown.
        """
        # An empty text isn't a statement, but it may be executed.
        await self._call("migrator_apply", {"head": head, "statements": list(statements), "tail": tail})

    async def _call(self, function: str, arguments: dict[str, object]) -> Any:
        """The function's result.

        Again for a while, if it certainly wasn't called: PostgREST may have been told of the function, or
        have found the database, a moment ago.
        """
        body = json.dumps(arguments).encode()
        headers = (
            ("Host", self._endpoint.authority),
            *self._endpoint.headers,
            # Supabase refuses a secret key with a browser's name.
            ("User-Agent", "migrator"),
            ("Accept", "application/json"),
            ("Content-Type", "application/json"),
            ("Content-Profile", "public"),
        )
        path = f"{self._endpoint.path}/rpc/{function}"
        give_up_s = time.monotonic() + _PATIENCE_S
        pause_s = _FIRST_PAUSE_S
        while True:
            answer = await self._client.post(path, headers, body)
            if answer.status in (200, 204):
                return _result(answer.body, str(self._endpoint))
            error = refusal.of(answer.status, answer.headers, answer.body, str(self._endpoint))
            late = time.monotonic() + pause_s > give_up_s
            if isinstance(error, refusal.NoFunction) and late:
                raise ConfigError(
                    f"cannot migrate over {self._endpoint}: our functions aren't installed there, or are of "
                    f"another version; {refusal.INSTALL}; if that is done, the API hasn't read it: restart "
                    "PostgREST, or send NOTIFY pgrst, 'reload schema'"
                ) from error
            if late or not isinstance(error, refusal.NoFunction | refusal.NotExecuted):
                raise error
            await asyncio.sleep(random.uniform(pause_s / 2, pause_s))  # noqa: S311 - no secret
            pause_s = min(pause_s * 2, _LAST_PAUSE_S)


@asynccontextmanager
async def connect(endpoint: Endpoint) -> AsyncIterator[RestTransport]:
    """A transport for as long as the body runs.

    Raises:
        Unavailable: Nobody answers, or not now.
        ConfigError: What answers can't be trusted.
    """
    client = HttpClient(endpoint.host, endpoint.port, is_tls=endpoint.is_tls, place=str(endpoint))
    try:
        await client.connect()
        yield RestTransport(endpoint, client)
    finally:
        client.close()


def is_loss(error: object) -> bool:
    """Whether asyncio says with it that a connection is gone, to nobody in particular."""
    return isinstance(error, OSError)


def _result(body: bytes, place: str) -> Any:
    try:
        return json.loads(body) if body else None
    except (ValueError, RecursionError):
        raise ConfigError(f"cannot use {place}: what answers there isn't PostgREST; check the URL") from None


def _value(held: Any) -> Any:
    if isinstance(held, str) and _MOMENT.fullmatch(held):
        return datetime.fromisoformat(held)
    return held
