"""The real migration tools of others, from npm: `.ci/run` installs them beside their package.json."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.conftest import needs
from tests.support.processes import clean_env

TOOLS = Path(__file__).parent / "tools"
MODULES = TOOLS / "node_modules"


def run(url: str, program: str, *arguments: str, home: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """One of them, to its end; it must succeed. `home` is where it may leave what it likes."""
    done = attempt(url, program, *arguments, home=home, **env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def attempt(
    url: str, program: str, *arguments: str, home: Path, **env: str
) -> subprocess.CompletedProcess[str]:
    """One of them, to its end."""
    needs("node")
    path = MODULES / program
    if not path.exists():
        pytest.skip(f"needs {program}; .ci/run installs it")
    command = [str(path)] if path.parent.name in (".bin", "bin") else ["node", str(TOOLS / program)]
    return subprocess.run(
        [*command, *arguments],
        env=clean_env(HOME=str(home), DATABASE_URL=url, DO_NOT_TRACK="1", CHECKPOINT_DISABLE="1") | env,
        capture_output=True,
        text=True,
        cwd=TOOLS,
        timeout=90,
    )


def dbmate(url: str, directory: Path, home: Path) -> None:
    run(f"{url}?sslmode=disable", ".bin/dbmate", "-d", str(directory), "--no-dump-schema", "up", home=home)


def node_pg_migrate(url: str, directory: Path, home: Path) -> None:
    run(url, ".bin/node-pg-migrate", "up", "-m", str(directory), home=home)


def knex(url: str, directory: Path, home: Path) -> None:
    run(
        url,
        ".bin/knex",
        "--knexfile",
        "knexfile.cjs",
        "migrate:latest",
        home=home,
        KNEX_DIRECTORY=str(directory),
    )


def supabase(url: str, directory: Path, home: Path) -> None:
    """`directory` is supabase/migrations of a project."""
    project = str(directory.parents[1])
    program = "@supabase/cli-linux-x64/bin/supabase"
    run(url, program, "migration", "up", "--db-url", url, "--workdir", project, "--yes", home=home)


def prisma(url: str, *arguments: str, directory: Path, home: Path) -> subprocess.CompletedProcess[str]:
    """Its engine is WebAssembly here, over the `pg` driver: the usual one is downloaded from elsewhere.

    It looks for the usual ones all the same: that one is there, and that the other, asked whether it can connect,
    says yes, is all it wants to know.
    """
    (directory / "migration_lock.toml").write_text('provider = "postgresql"\n')
    return attempt(
        url,
        ".bin/prisma",
        *arguments,
        home=home,
        PRISMA_MIGRATIONS=str(directory),
        PRISMA_SCHEMA=str(TOOLS / "schema.prisma"),
        PRISMA_QUERY_ENGINE_LIBRARY=str(TOOLS / "package.json"),
        PRISMA_SCHEMA_ENGINE_BINARY=needs("true"),
    )


def prisma_deploy(url: str, directory: Path, home: Path) -> None:
    done = prisma(url, "migrate", "deploy", directory=directory, home=home)
    assert done.returncode == 0, done.stdout + done.stderr


def drizzle(url: str, directory: Path, home: Path) -> None:
    """The journal, which its drizzle-kit would write, says when each file was made."""
    if not (MODULES / "drizzle-orm").exists():
        pytest.skip("needs drizzle-orm; .ci/run installs it")
    entries = [
        {
            "idx": number,
            "version": "7",
            "when": 1_704_106_800_000 + number,
            "tag": path.stem,
            "breakpoints": True,
        }
        for number, path in enumerate(sorted(directory.glob("*.sql")))
    ]
    (directory / "meta").mkdir(exist_ok=True)
    journal = {"version": "7", "dialect": "postgresql", "entries": entries}
    (directory / "meta" / "_journal.json").write_text(json.dumps(journal))
    done = subprocess.run(
        [needs("node"), "drizzle.mjs", str(directory)],
        env=clean_env(HOME=str(home), DATABASE_URL=url),
        capture_output=True,
        text=True,
        cwd=TOOLS,
    )
    assert done.returncode == 0, done.stderr
