"""How the Supabase CLI wants to be called. Pure."""

from __future__ import annotations

import re

# What `supabase db push` used at its peak (2.122.1: 147 MiB, 3.1.0: 161 MiB), and we beside it.
NEEDS_BYTES = 210 * 1024 * 1024
_REMOTE_SINCE = 3
_VERSION = re.compile(r"^v?(\d+)\.\d+\.\d+", re.MULTILINE)


def major_of(text: str) -> int | None:
    """The major version in what `supabase --version` writes; it may add a word about newer ones."""
    found = _VERSION.search(text)
    return int(found[1]) if found else None


def push(program: str, major: int, url: str, workdir: str) -> list[str]:
    """The command that applies what is pending.

    Args:
        program: The CLI.
        major: Its major version. 3 has `--remote` and takes `--db-url` with a warning; 4 won't.
        url: The database, without a password: PGPASSWORD holds it.
        workdir: The directory that holds `supabase/`.
    """
    database = f"--remote={url}" if major >= _REMOTE_SINCE else f"--db-url={url}"
    # --yes: without it, 3 changes nothing. --include-all: files out of order are applied, as by our engine.
    return [program, "db", "push", "--yes", "--include-all", f"--workdir={workdir}", database]
