"""Variables that are almost called like ours."""

import pytest

from migrator.misspelt import misspelt


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("MIGRATION_TIMOUT", "MIGRATION_TIMEOUT"),
        ("MIGRATION_DIR", "MIGRATIONS_DIR"),
        ("MIGRATION_MAX_MEMORY", "MIGRATION_MAX_MEMORY_MB"),
        ("MIGRATION_TIMEOUT_S", "MIGRATION_TIMEOUT"),
        ("SKIP_MIGRATION", "SKIP_MIGRATIONS"),
        ("DATABSE_URL", "DATABASE_URL"),
        ("DATABASE_URLFILE", "DATABASE_URL_FILE"),
        ("ENTRYPOINT_STOPGRACE", "ENTRYPOINT_STOP_GRACE"),
        ("NEXT_PUBLIC_SUPABSE_URL", "NEXT_PUBLIC_SUPABASE_URL"),
    ],
)
def test_who_is_almost_called_like_ours_is_told(name, meant):
    assert misspelt({name: "x", "PATH": "/bin"}) == (
        f"nothing here reads {name}: if {meant} is meant, call it so",
    )


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"MIGRATION_TIMEOUT": "5", "DATABASE_URL": "x", "DATABASE_URL_FILE": "x"},
        # Whoever has both means both.
        {"DATABASE_URL2": "x", "DATABASE_URL": "x"},
        # An app's own, and others'.
        {"MIGRATION_REPORT_MAIL": "x", "MIGRATOR_REPORT_FD": "5", "MIGRATOR_MEMORY_LIMIT": "1"},
        {"MIGRATION_LOCK_TIMEOUT": "5s"},
        {"NODE_ENVS": "x", "LOGLEVEL": "x", "USER": "x"},
        {"RAILWAY_ENVIRONMENT": "x", "RAILWAY_SERVICE_ID": "x", "RAILWAY_DEPLOYMENT_DRAINING_SECONDS": "5"},
        {"NEXT_PUBLIC_SUPABASE_ANON_KEY": "x", "SUPABASE_ANON_KEY": "x", "SUPABASE_SERVICE_KEY": "x"},
        {"DATABASE_URI": "x", "DATABASE_HOST": "x", "SUPABASE_JWT_SECRET": "x"},
        {"ENTRYPOINT_STATUS_FILE": "x", "ENTRYPOINT_SOCKET": "x"},
    ],
)
def test_nobody_else_is(environ):
    assert misspelt(environ) == ()
