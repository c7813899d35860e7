"""What a program's end means."""

import errno

import pytest

from migrator.errors import ConfigError, Conflict, MigrationFailed, Unavailable
from migrator.programs import outcome
from migrator.programs.outcome import Ended

RETRY = frozenset({69, 75, 2})


@pytest.mark.parametrize(
    ("said", "ended"),
    [
        ("pid 7\nexit 0 0\n", Ended(code=0)),
        ("pid 7\nexit 3 2\n", Ended(code=3, left=2)),
        ("pid 7\nsignal 9 0\n", Ended(signal=9)),
        ("pid 7\nerror 2 0\nexit 127 0\n", Ended(error=errno.ENOENT)),
        ("error 2 0\npid 7\nexit 127 0\n", Ended(error=errno.ENOENT)),
        ("pid 7\n", Ended()),
        ("", Ended()),
    ],
)
def test_what_the_guard_writes(said, ended):
    assert outcome.parse(said, "") == ended


@pytest.mark.parametrize(
    ("ended", "kind", "words"),
    [
        (Ended(code=1, tail="why"), MigrationFailed, "cannot migrate with x: it ended with exit code 1\nwhy"),
        (Ended(code=75), Conflict, "exit code 75"),
        (Ended(code=69), Unavailable, "exit code 69"),
        (Ended(code=2), Conflict, "exit code 2"),
        (Ended(code=127), MigrationFailed, "isn't installed in this image"),
        (Ended(code=126), MigrationFailed, "chmod"),
        (Ended(code=137), MigrationFailed, "out of memory? then raise MIGRATION_MAX_MEMORY_MB"),
        (Ended(signal=9), MigrationFailed, "was killed by SIGKILL; out of memory?"),
        (Ended(signal=15), MigrationFailed, "was killed by SIGTERM"),
        (Ended(error=errno.ENOENT), ConfigError, "could not be started: No such file or directory"),
        (Ended(error=errno.ENOENT), ConfigError, "what its first line (#!) names isn't in this image"),
        (Ended(error=errno.ENOEXEC), ConfigError, "for this machine's architecture"),
        (Ended(), MigrationFailed, "how isn't known"),
    ],
    ids=lambda value: repr(value)[:40] if isinstance(value, Ended) else "",
)
def test_each_end_is_an_error_of_its_kind(ended, kind, words):
    error = outcome.failure("x", ended, RETRY)

    assert type(error) is kind
    assert words in str(error)
