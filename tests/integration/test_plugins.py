"""MIGRATION_RUNNER=exec: a team's own runner, as a small installed package."""

import pytest

from tests.support.postgres import fetch
from tests.support.processes import REPO, log_lines
from tests.support.programs import is_gone, migrate, output, reason, start, written
from tests.support.waiting import wait_until

# docs/how-to/run-another-tool.md shows this one.
EXAMPLE = '''
import asyncpg

from migrator.errors import Unavailable
from migrator.programs.plugin import Context


class Tenants:
    """Creates a table in the schema of each tenant."""

    async def run(self, context: Context) -> None:
        try:
            connection = await asyncpg.connect(context.url)
        except OSError as error:
            raise Unavailable(f"cannot reach the tenants: {error}") from error
        try:
            tenants = await connection.fetch(
                "select nspname from pg_namespace where nspname like 'tenant%' order by 1"
            )
            for number, (tenant,) in enumerate(tenants):
                context.progress(number, len(tenants) - number, tenant)
                context.say(f"migrating {tenant}")
                await connection.execute(f'create table if not exists "{tenant}".visits (at timestamptz)')
        finally:
            await connection.close()
'''


def test_the_page_shows_the_example_that_is_tested():
    assert EXAMPLE.strip() in (REPO / "docs" / "how-to" / "run-another-tool.md").read_text()


@pytest.fixture
def plugin(tmp_path):
    """Installs a package with plug-ins, as `pip install` would lay it; the path to it."""

    def install(text=EXAMPLE, **points):
        site = tmp_path / "site"
        info = site / "ours-1.0.dist-info"
        info.mkdir(parents=True)
        (site / "ours.py").write_text(text)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ours\nVersion: 1.0\n")
        lines = [f"{name} = {value}" for name, value in (points or {"tenants": "ours:Tenants"}).items()]
        (info / "entry_points.txt").write_text("\n".join(["[migrator.runners]", *lines, ""]))
        return str(site)

    return install


def run(url, cwd, site, runner="exec", **extra):
    return migrate(url, cwd, MIGRATION_RUNNER=runner, PYTHONPATH=site, **extra)


@pytest.mark.parametrize("runner", ["exec", "exec:tenants"])
def test_a_plug_in_migrates(database, tmp_path, plugin, runner):
    fetch(database, "create schema tenant_a; create schema tenant_b;")
    done = run(database, tmp_path, plugin(), runner)

    assert done.returncode == 0, done.stderr
    assert output(done) == ["migrating tenant_a", "migrating tenant_b"]
    assert done.stdout == "exec:tenants: done\n"
    assert fetch(database, "select count(*) from pg_tables where tablename = 'visits'") == [(2,)]
    assert fetch(database, "select holder from migrator.migration_locks") == [(None,)]


BODY = """
import asyncio, os
class Mine:
    async def run(self, context):
        {body}
def no_class(): return 1
class NotAsync:
    def run(self, context): pass
"""


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ("raise ValueError('odd')", 1, "cannot migrate with exec:mine: ValueError: odd at"),
        (
            "from migrator.errors import Conflict; raise Conflict('cannot, others are at it')",
            75,
            "others are",
        ),
        ("raise TimeoutError('slow')", 1, "cannot migrate with exec:mine: it took too long: slow"),
        ("await asyncio.sleep(60)", 1, "it took too long; raise MIGRATION_TIMEOUT"),
        ("raise KeyError(context.url)", 1, "***"),
        ("raise SystemExit(3)", 1, "it called sys.exit(3), so that"),
        ("raise SystemExit", 1, "it called sys.exit(None), so that"),
        ("raise SystemExit(context.url)", 1, "***"),
        ("assert await context.execute(['sh', '-c', 'exit 7']) == 8", 1, "AssertionError"),
    ],
)
def test_what_it_raises_is_one_message(database, tmp_path, plugin, *, body, code, words):
    url = database.replace("postgres@", "postgres:s3cr3t-pw@")
    done = run(url, tmp_path, plugin(BODY.format(body=body), mine="ours:Mine"), MIGRATION_TIMEOUT="2")

    assert done.returncode == code, done.stderr
    assert words in reason(done)
    assert "Traceback" not in done.stderr
    assert "s3cr3t-pw" not in done.stderr


@pytest.mark.parametrize(
    ("points", "runner", "words"),
    [
        ({"a": "ours:Mine", "b": "ours:Mine"}, "exec", "choose one, as in exec:a, of a, b"),
        ({"a": "ours:Mine"}, "exec:c", "the plug-ins installed here are a"),
        ({"a": "ours:Nothing"}, "exec", "cannot load the plug-in a (ours:Nothing): AttributeError"),
        ({"a": "nonesuch:Mine"}, "exec", "cannot load the plug-in a (nonesuch:Mine): ModuleNotFoundError"),
        ({"a": "ours:no_class"}, "exec", "it needs a method `async def run(self, context)`"),
        ({"a": "ours:NotAsync"}, "exec", "it needs a method `async def run(self, context)`"),
    ],
)
def test_a_plug_in_that_cannot_be_used_is_told(database, tmp_path, plugin, *, points, runner, words):
    done = run(database, tmp_path, plugin(BODY.format(body="pass"), **points), runner)

    assert done.returncode == 78, done.stderr
    assert words in reason(done)


def test_without_any_it_is_told(database, tmp_path):
    done = run(database, tmp_path, str(tmp_path))

    assert done.returncode == 78
    assert "no installed package has an entry point in the group migrator.runners" in reason(done)


@pytest.mark.parametrize("how", ["terminate", "kill", "lease"])
def test_its_programs_end_with_it(database, tmp_path, plugin, how):
    body = "await context.execute(['sh', '-c', 'echo $$ > pid; sleep 60'])"
    site = plugin(BODY.format(body=body), mine="ours:Mine")
    one = start(database, tmp_path, MIGRATION_RUNNER="exec", PYTHONPATH=site, MIGRATION_LEASE_TTL="1.5")
    pid = int(wait_until(lambda: written(tmp_path / "pid")))
    if how == "lease":
        fetch(database, "delete from migrator.migration_locks returning 1")
    else:
        getattr(one, how)()
    _, told = one.communicate(timeout=20)

    assert one.returncode == {"terminate": 143, "kill": -9, "lease": 75}[how], told
    wait_until(lambda: is_gone(pid))
    if how == "terminate":
        assert "stopped while running exec:mine" in [line.get("reason") or "" for line in log_lines(told)][-1]
