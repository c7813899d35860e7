"""What migrates, as several variables say it together. Pure; read by both packages."""

from __future__ import annotations

from migrator import env, variables


def runner(read: env.Reader) -> str:
    """What migrates, once `auto` has made up its mind."""
    wanted, command = read.get(variables.RUNNER), read.get(variables.COMMAND)
    if wanted == "auto":
        if command:
            return "command"
        if not read.get(variables.USE_NODE):
            return "shell"
        project = read.get(variables.REST_URL) and read.get(variables.REST_KEY)
        return "rest" if project and not read.get(variables.DATABASE) else "direct"
    told = any(variables.COMMAND.names[0] in problem for problem in read.problems)
    if wanted == "command" and not command and not told:
        read.problems.append(
            "cannot use MIGRATION_RUNNER=command without a command: set MIGRATION_COMMAND, "
            'for instance to "alembic upgrade head"'
        )
    return wanted


def lacks_of_project(read: env.Reader) -> str:
    """What would have to be set to migrate over a Supabase project's REST API: `NAME to a value`."""
    url_name, _ = read.named(variables.REST_URL)
    key_name, _ = read.named(variables.REST_KEY)
    if url_name and not key_name:
        return f"SUPABASE_SERVICE_ROLE_KEY to a key of the project that {url_name} names"
    if key_name and not url_name:
        return f"SUPABASE_URL to that of the project that {key_name} is a key of"
    return "both SUPABASE_URL and SUPABASE_SERVICE_ROLE_KEY to those of a project"
