"""The history of the Supabase CLI beside ours: what it applied counts, and what we apply may appear there."""

from __future__ import annotations

from migrator import sql
from migrator.errors import ConfigError
from migrator.store import Store, translated
from migrator.transport import DatabaseError

# As `foreign` calls it: the tools whose history needn't be adopted, as it is heard anyway.
HEARD = ("Supabase CLI",)
_NO_SUCH_TABLE = frozenset({"42P01", "3F000"})


async def versions(store: Store) -> frozenset[str] | None:
    """What the CLI says is applied; None if it has never been here.

    Raises:
        ConfigError: It has, and we may not read what it says.
        MigratorError: It can't be read.
    """
    pieces = sql.pieces("supabase.sql")
    try:
        if not (await store.transport.fetch(pieces["exists"].query(store.schema)))[0]["found"]:
            return None
        rows = await store.transport.fetch(pieces["versions"].query(store.schema))
    except DatabaseError as error:
        raise _refused(error, "read") from error
    return frozenset(row["version"] for row in rows)


async def mirror(store: Store) -> None:
    """Have all that is on our record on the CLI's.

    Raises:
        ConfigError: We may not write there.
        MigratorError: It can't be written.
    """
    mirrored = sql.message("supabase.sql", ("mirror",), store.schema, {})
    try:
        try:
            await store.transport.execute(mirrored)
        except DatabaseError as error:
            if error.sqlstate not in _NO_SUCH_TABLE:
                raise
            await store.transport.execute(sql.message("supabase.sql", ("create", "mirror"), store.schema, {}))
    except DatabaseError as error:
        raise _refused(error, "write") from error


def _refused(error: DatabaseError, what: str) -> Exception:
    told = translated(error, f"{what} the Supabase CLI's history")
    if not isinstance(told, ConfigError):
        return told
    return ConfigError(
        f"cannot {what} the Supabase CLI's history, supabase_migrations.schema_migrations: "
        f"{error.text.splitlines()[0]} ({error.sqlstate}); grant the role the right to, or set "
        "MIGRATION_SUPABASE_HISTORY=off"
    )
