"""The errors of the migrator: the class says what to do next."""

from __future__ import annotations

import re
from collections.abc import Iterable

# What is true of a file after the server has said so.
ROLLED_BACK = "rolled back: nothing of this file was applied"
# What is true of a file when nobody could say what became of it.
NOT_KNOWN = "whether it was rolled back is not known; the next run reads the history before it decides"


class MigratorError(Exception):
    """Anything the migrator ends with that isn't success.

    Attributes:
        exit_code: What the process exits with.
        retryable: Whether trying again later can help.
        outcome_known: What it left of the file at work is known: nothing, or what is on record.
    """

    exit_code = 1
    retryable = False
    outcome_known = True


class MigrationFailed(MigratorError):
    """The database refused a migration's SQL."""


class PlanError(MigratorError):
    """The files don't fit each other or the history."""

    exit_code = 65


class HazardRefused(MigratorError):
    """What is pending would stop or break the running app (`MIGRATION_HAZARDS=refuse`, `migrator lint`)."""

    exit_code = 65


class Unavailable(MigratorError):
    """The database can't be reached, or went away."""

    exit_code = 69
    retryable = True
    outcome_known = False


class Crowded(Unavailable):
    """The database, or a pooler, has no connection left."""


class SessionGone(Unavailable):
    """The connection that works is cut, and we haven't been told."""


class LeaseBusy(MigratorError):
    """Somebody else migrates, or holds what we need, and didn't finish in time."""

    exit_code = 75
    retryable = True


class LeaseLost(MigratorError):
    """Somebody else took over, or a person removed the lock row."""

    exit_code = 75
    retryable = True


class Conflict(MigratorError):
    """A lock timeout, deadlock or serialization failure: the same file may well pass later."""

    exit_code = 75
    retryable = True


class ConfigError(MigratorError):
    """A setting is missing or wrong, or doesn't let us in."""

    exit_code = 78


# The exit codes that are worth another attempt.
RETRYABLE_EXITS = frozenset(kind.exit_code for kind in MigratorError.__subclasses__() if kind.retryable)

# What PostgreSQL's error codes (appendix A of its manual) mean for us, by code or by class.
# Everything else is MigrationFailed.
_BY_SQLSTATE: dict[str, type[MigratorError]] = {
    "MG001": LeaseLost,
    "08": Unavailable,
    "25006": Unavailable,  # read-only: a standby, for as long as a failover takes
    "53200": Unavailable,  # the server is out of memory
    "53300": Crowded,  # too many connections
    "57P01": Unavailable,  # admin shutdown
    "57P02": Unavailable,  # crash shutdown
    "57P03": Unavailable,  # cannot connect now: starting up
    "57P05": Unavailable,  # idle session timeout
    "58": Unavailable,  # I/O errors of the server
    "40": Conflict,  # deadlock, serialization failure
    "55P03": Conflict,  # lock timeout
    "28": ConfigError,  # wrong user, password or pg_hba.conf
    "3D000": ConfigError,  # no such database
}


# What a person can do, by code. What is only so inside of a migration is in `failure`.
REMEDIES: dict[str, str] = {
    "25006": "the database is read-only, as a standby is, or one whose disk is full; point the URL at the "
    "primary (target_session_attrs=read-write finds it among several hosts)",
    "40001": "run it when less is going on, or make the migration smaller",
    "40P01": "it and others waited for each other; run it when less is going on, or make it smaller",
    "42501": "give the role the right to",
    "53100": "the server's disk is full; free or add space",
    "53200": "the server is out of memory; give it more, or make the migration smaller",
    "53300": "close connections that nobody uses, or raise the limit of the server, database or role",
    "53400": "raise that limit of the server, or make the migration smaller",
    "55000": "check that the database accepts connections (ALTER DATABASE ... ALLOW_CONNECTIONS true)",
    "57014": "a statement_timeout that the file sets, or somebody with pg_cancel_backend, stopped it",
}


def from_sqlstate(sqlstate: str | None) -> type[MigratorError]:
    """The error class for a SQLSTATE (five characters; None: none given)."""
    code = sqlstate or ""
    return _BY_SQLSTATE.get(code) or _BY_SQLSTATE.get(code[:2]) or MigrationFailed


class Redactor:
    """Replaces known secrets by `***` wherever they would be shown."""

    def __init__(self, secrets: Iterable[str]) -> None:
        """Longer secrets go first, so that one containing another leaves no tail."""
        self._secrets = sorted({secret for secret in secrets if secret}, key=len, reverse=True)

    def __call__(self, shown: str) -> str:
        """The text without any of the secrets, nor a password literal in SQL."""
        for secret in self._secrets:
            shown = shown.replace(secret, "***")
        if "password" in shown.lower():
            shown = _PASSWORD_LITERAL.sub(r"\1'***'", shown)
            shown = _PASSWORD_PARAMETER.sub(r"\1***", shown)
        return _PASSWORD_IN_URL.sub(r"\1***@", shown) if "://" in shown else shown


def tears_password(text: str, offset: int) -> bool:
    """Whether what begins at `offset` is a part of a password literal that couldn't be told by itself."""
    return any(found.start() < offset < found.end() for found in _PASSWORD_LITERAL.finditer(text))


# In quotes or dollar quotes, also without their end, as a text may have been cut.
_PASSWORD_LITERAL = re.compile(r"(?is)\b(password\s+)(?:(?:E|U&)?'(?:[^'\\]|''|\\.)*'?|(\$\w*\$).*?(?:\2|$))")
# As in a connection string: password=..., and as in a URL: //user:...@
_PASSWORD_PARAMETER = re.compile(r"(?i)\b(password\s*=\s*)[^\s'\"&]+")
_PASSWORD_IN_URL = re.compile(r"(://[^\s/:@]*:)[^\s/@]+@")
