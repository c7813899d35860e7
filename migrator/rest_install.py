"""What a database needs so that we can come over its REST API: our tables, and two functions as doors."""

from __future__ import annotations

from migrator import sql
from migrator.errors import ConfigError
from migrator.store import Store, lock_key_of
from migrator.transport import DatabaseError

_NOTE = """\
-- For the SQL editor of a Supabase project, or psql; safe to run again. It lets whoever has the
-- service_role key or a secret key migrate over the REST API, and nobody else.
"""
_FOREIGN = """
select case when has_function_privilege('anon', oid, 'execute') then 'anon'
            when has_function_privilege('authenticated', oid, 'execute') then 'authenticated' end as grantee
  from pg_proc
 where pronamespace = 'public'::regnamespace and proname = 'exec_sql'
   and obj_description(oid, 'pg_proc') is distinct from 'migrator: runs SQL; for service_role only'
"""


def script(schema: str) -> str:
    """All of it as SQL, for people to run; our tables are in `schema`."""
    tables = sql.install(schema, lock_key_of(schema)).strip()
    return f"{_NOTE}begin;\n\n{tables};\n\n{sql.rest_install(schema).strip()}\n\ncommit;"


async def install(store: Store) -> list[str]:
    """Do it over a connection; what is to be said about what was there before.

    Raises:
        ConfigError: The server refused it.
        MigratorError: See Store.install.
    """
    await store.install()
    try:
        await store.transport.execute(sql.rest_install(store.schema))
    except DatabaseError as error:
        raise ConfigError(_refused(error)) from error
    return [_about(row["grantee"]) for row in await store.transport.fetch(_FOREIGN)]


def _about(grantee: str | None) -> str:
    if grantee is None:
        return "public.exec_sql was there before and is left as it is"
    return (
        f"public.exec_sql was there before and is left as it is, but {grantee} can call it, and so run any "
        "SQL: revoke execute on it from public, anon and authenticated"
    )


def _refused(error: DatabaseError) -> str:
    remedy = (
        "; connect as the role that owns the schema public (postgres)" if error.sqlstate == "42501" else ""
    )
    return f"cannot install what the REST API needs: {error.text} ({error.sqlstate}){remedy}"
