"""The rivals of `migrator up`: which are installed, how each wants its files, and how it is called.

What isn't installed is named and left out: `apt-get install postgresql`, `pip install -e '.[bench]'`, and for
dbmate `npm install --no-save dbmate` here, or its program in PATH.
"""

from __future__ import annotations

import dataclasses
import shutil
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import rig

from migrator import embedded

OURS = "migrator"
PSQL_EACH, PSQL_ALL = "psql, one a file", "psql, one for all"


class Write(Protocol):
    """Write a migration into a directory as a tool wants it; `alone`: not in a transaction."""

    def __call__(self, directory: Path, number: int, text: str, *, alone: bool = False) -> None: ...


@dataclasses.dataclass(frozen=True)
class Candidate:
    """How a tool wants its files, and how it is called for a directory of them, a port and a database."""

    write: Write
    command: Callable[[Path, int, str], list[str]]


def candidates(among: Sequence[str], tell: Callable[[str], None] = print) -> dict[str, Candidate]:
    """We, and those of these that are installed."""
    found = {OURS: Candidate(_write_plain, lambda *_: [sys.executable, "-m", "migrator", "up"])}
    for name in among:
        program = PROGRAMS[name]()
        if program is None:
            tell(f"{name}: not installed, left out")
        elif name == "psql":
            found[PSQL_EACH], found[PSQL_ALL] = _psql(program)
        elif name == "dbmate":
            found[name] = _dbmate(program)
        elif name == "alembic":
            found[name] = Candidate(_write_alembic, lambda *_, program=program: [program, "upgrade", "head"])
        else:
            found[name] = _yoyo(program)
    return found


def _psql(program: str) -> tuple[Candidate, Candidate]:
    flags = [program, "-X", "-q", "-v", "ON_ERROR_STOP=1"]
    loop = 'for file in *.sql; do "$@" -f "$file" || exit; done'

    def each(_: Path, port: int, database: str) -> list[str]:
        return ["/bin/sh", "-c", loop, "sh", *flags, "-1", url(port, database)]

    def one_for_all(where: Path, port: int, database: str) -> list[str]:
        return [*flags, *(f"-f{path}" for path in sorted(where.glob("*.sql"))), url(port, database)]

    return Candidate(_write_plain, each), Candidate(_write_plain, one_for_all)


def _dbmate(program: str) -> Candidate:
    """With `migrate`, not `up`, which looks first whether the database exists."""

    def write(directory: Path, number: int, text: str, *, alone: bool = False) -> None:
        up = "-- migrate:up" + " transaction:false" * alone
        _write_plain(directory, number, f"{up}\n{text}-- migrate:down\n")

    def command(where: Path, port: int, database: str) -> list[str]:
        plain = f"{url(port, database)}?sslmode=disable"
        return [program, "--url", plain, "--migrations-dir", str(where), "--no-dump-schema", "migrate"]

    return Candidate(write, command)


def _yoyo(program: str) -> Candidate:
    def write(directory: Path, number: int, text: str, *, alone: bool = False) -> None:
        _write_plain(directory, number, "-- transactional: false\n" * alone + text)

    def command(where: Path, port: int, database: str) -> list[str]:
        apply = [program, "apply", "--batch", "--no-config-file"]
        return [*apply, "--database", url(port, database, "+psycopg"), str(where)]

    return Candidate(write, command)


def url(port: int, database: str, driver: str = "") -> str:
    return f"postgresql{driver}://postgres@127.0.0.1:{port}/{database}"


def _write_plain(directory: Path, number: int, text: str, *, alone: bool = False) -> None:  # noqa: ARG001
    (directory / f"{20260101000000 + number}_step_{number}.sql").write_text(text)


def _write_alembic(directory: Path, number: int, text: str, *, alone: bool = False) -> None:
    """What `alembic init` makes, without the models; all in one transaction, as is its default."""
    versions = directory / "migrations" / "versions"
    if not number:
        versions.mkdir(parents=True)
        (directory / "alembic.ini").write_text("[alembic]\nscript_location = migrations\n")
        (directory / "migrations" / "env.py").write_text(_ALEMBIC_ENV)
    before = f"r{number - 1:05}" if number else None
    execute = f"op.execute({text!r})"
    if alone:
        execute = f"with op.get_context().autocommit_block():\n        {execute}"
    (versions / f"r{number:05}_step.py").write_text(
        "from alembic import op\n"
        f"revision = 'r{number:05}'\ndown_revision = {before!r}\nbranch_labels = None\ndepends_on = None\n"
        f"def upgrade():\n    {execute}\ndef downgrade():\n    pass\n"
    )


_ALEMBIC_ENV = """
import os
from alembic import context
from sqlalchemy import create_engine, pool
url = os.environ["DATABASE_URL"].replace("postgresql:", "postgresql+psycopg:")
with create_engine(url, poolclass=pool.NullPool).connect() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
"""


def _find_psql() -> str | None:
    """Debian's `psql` in PATH is a Perl script that looks for the real one."""
    real = binaries() / "psql"
    return str(real) if real.exists() else shutil.which("psql")


def _find_dbmate() -> str | None:
    """The program itself: npm's `dbmate` is a script for node that starts it."""
    modules = Path(__file__).resolve().parent.parent / "node_modules"
    cache = Path("~/.npm").expanduser() / "_npx"
    for place in (modules, *cache.glob("*/node_modules")):
        for program in place.glob("@dbmate/linux-*/bin/dbmate"):
            return str(program)
    return shutil.which("dbmate")


def binaries() -> Path:
    """Postgres of this machine, or else the wheel's."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else embedded.find_binaries()


PROGRAMS: dict[str, Callable[[], str | None]] = {
    "psql": _find_psql,
    "dbmate": _find_dbmate,
    "alembic": lambda: rig.installed("alembic"),
    "yoyo": lambda: rig.installed("yoyo"),
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
