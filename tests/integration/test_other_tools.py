"""Other migration tools as they are, under our lease: what docs/how-to/run-another-tool.md promises."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import needs
from tests.support import othertools
from tests.support.postgres import fetch
from tests.support.processes import REPO, Entrypoint, app
from tests.support.programs import environment, migrate, output, reason, start
from tests.support.tools import tool

PAGE = REPO / "docs" / "how-to" / "run-another-tool.md"


def write(directory: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def alembic(cwd: Path, *, broken: bool) -> dict[str, str]:
    statement = "select 1/0" if broken else "create table visits (at timestamptz)"
    write(
        cwd,
        {
            "alembic.ini": "[alembic]\nscript_location = alembic\n",
            "alembic/env.py": """
import os

from alembic import context
from sqlalchemy import create_engine

url = os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://", 1)
with create_engine(url).connect() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
""",
            "alembic/versions/0001_visits.py": f"""
from alembic import op

revision, down_revision = "0001", None


def upgrade():
    op.execute({statement!r})
""",
        },
    )
    return {"MIGRATION_COMMAND": "alembic upgrade head", "PATH": on_path(tool("alembic"))}


def django(cwd: Path, *, broken: bool) -> dict[str, str]:
    statement = "select 1/0" if broken else "create table visits (at timestamptz)"
    write(
        cwd,
        {
            "manage.py": "import sys\nfrom django.core.management import execute_from_command_line\nexecute_from_command_line(sys.argv)\n",
            "project.py": """
import os

INSTALLED_APPS = ["visits"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": os.environ["PGHOST"],
        "PORT": os.environ["PGPORT"],
        "USER": os.environ["PGUSER"],
        "PASSWORD": os.environ.get("PGPASSWORD", ""),
        "NAME": os.environ["PGDATABASE"],
    }
}
""",
            "visits/__init__.py": "",
            "visits/migrations/__init__.py": "",
            "visits/migrations/0001_initial.py": f"""
from django.db import migrations


class Migration(migrations.Migration):
    dependencies = []
    operations = [migrations.RunSQL({statement!r})]
""",
        },
    )
    return {
        "MIGRATION_COMMAND": "python manage.py migrate --noinput",
        "PATH": on_path(tool("python").parent / "django-admin"),
        "DJANGO_SETTINGS_MODULE": "project",
    }


def dbmate(cwd: Path, *, broken: bool) -> dict[str, str]:
    statement = "select 1/0;" if broken else "create table visits (at timestamptz);"
    write(cwd, {"db/migrations/20260101000000_visits.sql": f"-- migrate:up\n{statement}\n-- migrate:down\n"})
    return {"MIGRATION_COMMAND": "dbmate --no-dump-schema migrate", "PATH": on_path(tool("dbmate"))}


def node_pg_migrate(cwd: Path, *, broken: bool) -> dict[str, str]:
    statement = "select 1/0;" if broken else "create table visits (at timestamptz);"
    write(cwd, {"migrations/1700000000000_visits.sql": f"-- Up Migration\n{statement}\n-- Down Migration\n"})
    return {"MIGRATION_COMMAND": "node-pg-migrate up", "PATH": on_path(tool("node-pg-migrate"))}


def prisma(cwd: Path, *, broken: bool) -> dict[str, str]:
    """With an engine that npm has; see `othertools.prisma`."""
    statement = "select 1/0;" if broken else "create table visits (at timestamptz);"
    program = tool("prisma")
    write(
        cwd,
        {
            "prisma/migrations/migration_lock.toml": 'provider = "postgresql"\n',
            "prisma/migrations/20260101000000_visits/migration.sql": statement,
            **{name: (othertools.TOOLS / name).read_text() for name in ("prisma.config.ts", "schema.prisma")},
        },
    )
    (cwd / "node_modules").symlink_to(program.parents[1])
    return {
        "MIGRATION_COMMAND": "node_modules/.bin/prisma migrate deploy",
        "PRISMA_MIGRATIONS": "prisma/migrations",
        "PRISMA_SCHEMA": "schema.prisma",
        "PRISMA_QUERY_ENGINE_LIBRARY": str(othertools.TOOLS / "package.json"),
        "PRISMA_SCHEMA_ENGINE_BINARY": needs("true"),
    }


def supabase(major: int) -> Callable[..., dict[str, str]]:
    def project(cwd: Path, *, broken: bool) -> dict[str, str]:
        statement = "select 1/0;" if broken else "create table visits (at timestamptz);"
        write(cwd, {"supabase/migrations/20260101000000_visits.sql": statement})
        return {"MIGRATION_RUNNER": "shell", "PATH": on_path(tool(f"supabase-{major}"))}

    return project


TOOLS = {
    "alembic": alembic,
    "django": django,
    "dbmate": dbmate,
    "node-pg-migrate": node_pg_migrate,
    "prisma": prisma,
    "supabase 2": supabase(2),
    "supabase 3": supabase(3),
}


# What they are called on a command line.
PROGRAMS = ("supabase", "prisma", "dbmate", "alembic", "manage.py", "node-pg-migrate")


def on_path(program: Path) -> str:
    return f"{program.parent}{os.pathsep}{os.environ['PATH']}"


@pytest.fixture(params=TOOLS, ids=list(TOOLS))
def project(request, tmp_path):
    """Makes a project of the tool; the variables for it."""

    def make(**how):
        home = tmp_path / "home"
        home.mkdir(exist_ok=True)
        variables = TOOLS[request.param](tmp_path, **{"broken": False, **how})
        return {"HOME": str(home), "CHECKPOINT_DISABLE": "1", **variables}

    return make


def with_login(database):
    """As the URL of a customer has it: with a password, and without TLS, which the tests' server doesn't have."""
    return database.replace("postgres@", "postgres:s3cr3t-pw@") + "?sslmode=disable"


def seen_command_lines():
    found = set()
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            found.add(Path(f"/proc/{pid}/cmdline").read_bytes())
        except OSError:
            pass
    return found


def test_two_replicas_at_once_migrate_once_and_no_password_is_shown(database, tmp_path, project):
    variables = project()
    url = with_login(database)
    both = [start(url, tmp_path, **variables) for _ in range(2)]
    lines = set()
    while any(one.poll() is None for one in both):
        lines |= seen_command_lines()
        time.sleep(0.03)  # between two looks, or they would have to share the processor with us
    told = [one.communicate(timeout=60)[1] for one in both]

    assert [one.returncode for one in both] == [0, 0], told
    assert fetch(database, "select 1 from pg_tables where tablename = 'visits'")
    assert not any("s3cr3t-pw" in text for text in told)
    assert any(f"{name}\0".encode() in line for line in lines for name in PROGRAMS)
    assert not any(b"s3cr3t-pw" in line for line in lines)


def test_what_the_tool_says_of_a_failure_is_in_the_error(database, tmp_path, project):
    done = migrate(with_login(database), tmp_path, **project(broken=True))

    assert done.returncode == 1, done.stderr
    assert "division by zero" in reason(done)
    assert "s3cr3t-pw" not in done.stderr


def test_the_default_limit_of_memory_is_enough(database, tmp_path, project):
    env = environment(with_login(database), None, NODE_ENV="production", **project())
    with Entrypoint(["--", *app("wait")], tmp_path / "state", env, cwd=tmp_path) as one:
        done = one.wait_for_phase("completed", "failed", timeout_s=60)["migrations"]

    assert (done["phase"], done["error"], done["pending"]) == ("completed", None, None)


def test_a_limit_that_is_too_small_for_the_cli_is_said(database, tmp_path):
    variables = supabase(3)(tmp_path, broken=False)
    env = environment(
        with_login(database), None, NODE_ENV="production", MIGRATION_MAX_MEMORY_MB="110", **variables
    )
    with Entrypoint(["--", *app("wait")], tmp_path / "state", env, cwd=tmp_path) as one:
        done = one.wait_for_phase("failed", timeout_s=60)["migrations"]
        (warned,) = one.events("runner.short_of_memory")

    assert "need about 210 MiB, and may use 110: raise MIGRATION_MAX_MEMORY_MB" in warned["reason"]
    assert (
        "more than 110 MiB; raise MIGRATION_MAX_MEMORY_MB" in done["error"]
        or "out of memory" in done["error"]
    )


def test_the_cli_and_what_it_leaves_out_of_order(database, tmp_path):
    variables = supabase(3)(tmp_path, broken=False)
    first = migrate(with_login(database), tmp_path, **variables)
    write(tmp_path, {"supabase/migrations/20250101000000_earlier.sql": "create table earlier();"})
    second = migrate(with_login(database), tmp_path, **variables)

    assert (first.returncode, second.returncode) == (0, 0), second.stderr
    assert any("20250101000000_earlier.sql" in line for line in output(second))
    assert fetch(database, "select version from supabase_migrations.schema_migrations order by 1") == [
        ("20250101000000",),
        ("20260101000000",),
    ]


@pytest.mark.parametrize("name", [name for name in TOOLS if "supabase" not in name])
def test_the_page_says_what_is_tested(tmp_path, name):
    command = TOOLS[name](tmp_path, broken=False)["MIGRATION_COMMAND"]

    assert command in PAGE.read_text()
