"""What an answer of a REST API means that isn't the one we wanted. Pure.

PostgREST's own codes and PostgreSQL's decide, not the status of HTTP: 500 is final for a statement's error,
and worth a retry for a deadlock. Where there is no code, a gateway before it has answered.
"""

from __future__ import annotations

import json
from typing import Any

from migrator.errors import ConfigError, Crowded, PlanError, Unavailable
from migrator.transport import DatabaseError, Ended

INSTALL = (
    "run `migrator install --rest` with a database URL, or `migrator install --rest --print` for the SQL"
)
_SHOWN_CHARS = 200
_SQLSTATE_LENGTH = 5
# Of gateways that have waited for an answer for as long as they do.
_TOO_LATE = frozenset({408, 504, 524})
_PAUSED = 540
# What ends a session: shutdowns, which cancellations aren't, and lost connections.
_SESSION_ENDED = frozenset({"57P01", "57P02", "57P03", "57P05", "08000", "08003", "08006"})
_TOO_LARGE = 413
_TOO_MANY = 429


class NotExecuted(Unavailable):
    """The API couldn't pass it on to the database: nothing was executed."""


class NoFunction(ConfigError):
    """The API doesn't know our functions, or not yet: it reads what there is once, and again when told."""


class TooLate(Unavailable):
    """A gateway didn't wait any longer for an answer; the database may still be at work."""


def of(status: int, headers: dict[str, str], body: bytes, place: str) -> Exception:
    """The error to raise for an answer that isn't a success."""
    said = _parsed(body)
    code = str(said.get("code") or "")
    message = _text(said, body)
    if code.startswith("PGRST"):
        return _of_postgrest(code, message, place)
    if len(code) == _SQLSTATE_LENGTH and code.isalnum():
        return _of_postgres(code, said, place)
    return _of_gateway(status, headers, message, place)


def _of_postgres(code: str, said: dict[str, Any], place: str) -> Exception:
    message = str(said.get("message"))
    details = said.get("details")
    placed = _parsed(details.encode()) if isinstance(details, str) and details.startswith("{") else {}
    number = placed.get("statement")
    # Our function was at work, and has lived to tell: it's what a statement met, however like an error of
    # the way there, and all of it is rolled back.
    if not isinstance(number, int):
        error = _of_the_way(code, said, message, place)
        if error is not None:
            return error
    lines = [message]
    for name, value in (
        ("detail", placed.get("detail") if "statement" in placed else details),
        ("hint", said.get("hint")),
    ):
        if value:
            lines.append(f"{name}: {value}")
    return DatabaseError(
        sqlstate=code,
        text="\n".join(lines),
        completed=number if isinstance(number, int) else 0,
        # A call is a transaction: one that is answered by an error has ended by it.
        ended=Ended.ROLLED_BACK,
    )


def _of_the_way(code: str, said: dict[str, Any], message: str, place: str) -> Exception | None:
    """What kept a call from our function, or ended it from outside; None if it was something else."""
    if code == "42501" and message.startswith("permission denied for function "):
        return ConfigError(
            f"cannot use the key for {place}: {message}; set the service_role key, or a secret key; if it is "
            f"one, {INSTALL}"
        )
    no_role = (code == "22023" and message.startswith("role ")) or (
        code == "42501" and message.startswith("permission denied to set role ")
    )
    if no_role and said.get("details") is None:
        return ConfigError(
            f"cannot use the key for {place}: {message}; set the service_role key, or a secret key"
        )
    if code == "42883" and "public.migrator_" in message:
        return NoFunction(message)
    if code in _SESSION_ENDED:
        # It may have come between a commit and the word of it.
        return Unavailable(f"lost the connection to the database behind {place}: {message} ({code})")
    return None


def _of_postgrest(code: str, message: str, place: str) -> Exception:
    match code:
        case "PGRST000" | "PGRST002":  # no database, or what it holds isn't read yet
            return NotExecuted(f"cannot reach the database behind {place}: {message} ({code})")
        case "PGRST001":  # its connection to the database, in the middle of a call
            return Unavailable(f"lost the connection to the database behind {place}: {message} ({code})")
        case "PGRST003":
            return Crowded(f"cannot reach the database behind {place}: {message} ({code}); try again later")
        case "PGRST202" | "PGRST203":
            return NoFunction(message)
        case "PGRST106":
            return ConfigError(
                f"cannot use {place}: its API doesn't expose the schema public, where our functions are "
                f"({message}); expose it, or set a database URL"
            )
        case _:
            pass
    if code.startswith("PGRST3"):
        return ConfigError(
            f"cannot use the key for {place}: {message} ({code}); check SUPABASE_SERVICE_ROLE_KEY or "
            "SUPABASE_SECRET_KEY"
        )
    return ConfigError(f"cannot use {place}: {message} ({code})")


def _of_gateway(status: int, headers: dict[str, str], message: str, place: str) -> Exception:
    said = f"{place} answers {status}{f' ({message})' if message else ''}"
    if 300 <= status < 400:
        # The place that it names would get the key.
        return ConfigError(
            f"cannot use {place}: it redirects to {headers.get('location', 'another place')}, which isn't "
            "followed; set the URL of the project itself"
        )
    if status in (401, 403):
        return ConfigError(
            f"cannot use the key for {place}: {said}; check SUPABASE_SERVICE_ROLE_KEY or SUPABASE_SECRET_KEY"
        )
    if status in _TOO_LATE:
        return TooLate(f"{said}: its time for an answer is over")
    if status == _TOO_LARGE:
        return PlanError(f"{said}: the file is too large for it; split it, or set a database URL")
    if status == _TOO_MANY:
        return Crowded(f"cannot reach the database: {said}; try again later")
    if status == _PAUSED:
        return ConfigError(f"cannot use {place}: the project is paused; restore it in the dashboard")
    if status >= 500:
        return Unavailable(f"lost the connection to the database: {said}")
    return ConfigError(f"cannot use {place}: {said}, as PostgREST doesn't; check the URL")


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _text(said: dict[str, Any], body: bytes) -> str:
    """What it says, for people; a gateway's page isn't for them."""
    for key in ("message", "msg", "error"):
        if isinstance(said.get(key), str):
            return str(said[key])[:_SHOWN_CHARS]
    plain = body.decode("utf-8", "replace").strip()
    return "" if plain.startswith("<") or said else plain[:_SHOWN_CHARS]
