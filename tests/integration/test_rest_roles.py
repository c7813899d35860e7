"""The attacker: whoever has the project's URL and the key that every browser is given, or an account."""

import asyncio

import asyncpg
import pytest

from tests.support.postgres import fetch
from tests.support.postgrest import PUBLISHABLE_KEY, SECRET_KEY, running_project, token
from tests.support.processes import log_lines, run_migrator_by
from tests.support.stores import install_for_rest, session
from tests.support.waiting import wait_until

ATTACKERS = {
    "nobody": None,
    "anon": token("anon"),
    "authenticated": token("authenticated"),
    "publishable": PUBLISHABLE_KEY,
}
DDL = "create table public.mine as select 1 as x"
CALLS = {
    "exec_sql": {"sql": DDL},
    "migrator_apply": {"head": "", "statements": [DDL], "tail": ""},
    "migrator_search_path": {},
    "migrator_fetch": {"query": "insert into public.bait values (1) returning 1"},
}
TABLES = ("migration_locks", "migration_history", "migration_undone")


@pytest.fixture
def project(postgres, database):
    """As careless as can be: all schemas are exposed."""
    fetch(database, "create schema migrator; create table public.bait (x int)")
    with running_project(postgres, database, PGRST_DB_SCHEMAS="public,migrator") as project:
        # Bait is what Supabase leaves open; it shows that the attacker gets as far as that.
        fetch(database, "grant usage on schema migrator to anon, authenticated; select 1")
        asyncio.run(install_for_rest(database))
        wait_until(
            lambda: project.call("migrator_fetch", SECRET_KEY, query="select 1")[0] == 200,
            what="our functions",
        )
        yield project


@pytest.mark.parametrize("who", ATTACKERS)
def test_no_function_of_ours_can_be_called_and_no_ddl_run(project, who):
    for function, arguments in CALLS.items():
        code, said = project.call(function, ATTACKERS[who], **arguments)

        assert code in (401, 403), (function, said)
        assert said["code"] == "42501", said
    code, said = project.request("GET", "/rest/v1/rpc/migrator_fetch?query=select%201", ATTACKERS[who])
    assert (code in (401, 403), said["code"]) == (True, "42501")

    assert fetch(project.database, "select to_regclass('public.mine')") == [(None,)]
    assert fetch(project.database, "select count(*) from public.bait") == [(0,)]


@pytest.mark.parametrize("who", ATTACKERS)
def test_no_table_of_ours_can_be_read_or_written(project, who):
    key = ATTACKERS[who]
    assert project.request("GET", "/rest/v1/bait", key) == (200, [])
    before = fetch(project.database, "select to_jsonb(l) from migrator.migration_locks l")
    read, write = {"Accept-Profile": "migrator"}, {"Content-Profile": "migrator"}
    for table in TABLES:
        for method, path, body, headers in (
            ("GET", "", None, read),
            ("POST", "", {"name": "mine"}, write),
            ("PATCH", "?name=eq.migrations", {"name": "mine"}, write),
            ("DELETE", "?name=eq.migrations", None, write),
        ):
            code, said = project.request(method, f"/rest/v1/{table}{path}", key, body, **headers)
            assert (code in (401, 403), said["code"]) == (True, "42501"), (method, table, said)

    assert fetch(project.database, "select to_jsonb(l) from migrator.migration_locks l") == before


@pytest.mark.parametrize("who", ["anon", "authenticated"])
def test_the_api_does_not_even_list_our_functions_to_them(project, who):
    code, document = project.request("GET", "/rest/v1/", ATTACKERS[who])

    assert code == 200
    assert "/bait" in document["paths"]
    assert [path for path in document["paths"] if "migrat" in path or "exec_sql" in path] == []


@pytest.mark.parametrize("role", ["anon", "authenticated"])
async def test_nor_is_there_a_way_in_sql(project, role):
    tries = [
        "select public.exec_sql('select 1')",
        "select public.migrator_fetch('select 1')",
        "select public.migrator_apply('', '{}', '')",
        *(
            f"{what} migrator.{table}"
            for what in ("select from", "delete from", "truncate")
            for table in TABLES
        ),
        *(f"lock table migrator.{table} in access share mode" for table in TABLES),
        "insert into migrator.migration_locks (name) values ('mine')",
        "select nextval('migrator.migration_locks_token_seq')",
        "create table migrator.mine ()",
        "create or replace function public.migrator_fetch(query text) returns jsonb language sql as 'select null::jsonb'",
        "grant execute on function public.exec_sql(text) to public",
    ]
    async with session(project.database) as attacker:
        await attacker.execute(f"set role {role}")
        for one in tries:
            await attacker.execute("begin")
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await attacker.execute(one)
            await attacker.execute("rollback")


def test_hostile_arguments_of_a_call_stay_arguments(project):
    """The doors take SQL; what is within that SQL a value of ours stays one, which test_ways shows."""
    code, said = project.call(
        "migrator_fetch", SECRET_KEY, query="select 1) select 2; drop table public.bait; --"
    )

    assert code == 400, said
    assert fetch(project.database, "select to_regclass('public.bait') is null") == [(False,)]


def test_an_installation_that_would_leave_a_door_open_is_refused_whole(postgres, project):
    fetch(project.database, "drop function public.migrator_fetch; grant service_role to authenticated")
    try:
        done = run_migrator_by({"DATABASE_URL": project.database}, "", "install", "--rest")
    finally:
        fetch(postgres.url, "revoke service_role from authenticated; select 1")

    assert done.returncode == 78
    (line,) = [line for line in log_lines(done.stderr) if line["event"] == "command.failed"]
    assert "can still be called by authenticated" in line["reason"]
    assert fetch(project.database, "select to_regproc('public.migrator_fetch')") == [(None,)]


# What Supabase's security advisor asks (github.com/supabase/splinter), by its numbers there.
LINTS = {
    "0007 policy exists, RLS disabled": "select c.relname from pg_class c join pg_policy p on p.polrelid = c.oid where not c.relrowsecurity",
    "0008 RLS enabled, no policy": "select c.relname from pg_class c left join pg_policy p on p.polrelid = c.oid"
    " where c.relkind = 'r' and c.relrowsecurity and p.oid is null",
    "0010 security definer view": "select relname from pg_class where relkind = 'v' and relnamespace::regnamespace::text in ('public', 'migrator')",
    "0011 function search_path mutable": "select p.proname from pg_proc p where p.pronamespace::regnamespace::text in ('public', 'migrator')"
    " and not exists (select from unnest(p.proconfig) c where c like 'search\\_path=%')",
    "0013 RLS disabled in public": "select relname from pg_class where relkind = 'r' and not relrowsecurity"
    " and relnamespace::regnamespace::text in ('public', 'migrator') and relname <> 'bait'",
    "0028 anon may execute a security definer": "select proname from pg_proc where prosecdef and pronamespace = 'public'::regnamespace"
    " and has_function_privilege('anon', oid, 'execute')",
    "0029 authenticated may execute a security definer": "select proname from pg_proc where prosecdef and pronamespace = 'public'::regnamespace"
    " and has_function_privilege('authenticated', oid, 'execute')",
}


@pytest.mark.parametrize("lint", LINTS)
def test_supabases_advisors_have_nothing_to_complain_about(project, lint):
    assert fetch(project.database, LINTS[lint]) == []
