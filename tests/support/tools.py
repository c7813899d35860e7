"""Other migration tools as programs, as `make tools` installs them; `othertools` runs them for their histories."""

from pathlib import Path

import pytest

from tests.support.othertools import MODULES
from tests.support.processes import REPO

TOOLS = REPO / ".venv" / "tools"
_CLI = "@supabase/cli-linux-x64/bin/supabase"
_PLACES = {
    "supabase-2": TOOLS / "supabase-2" / "node_modules" / _CLI,
    "supabase-3": MODULES / _CLI,
    "dbmate": MODULES / ".bin" / "dbmate",
    "node-pg-migrate": MODULES / ".bin" / "node-pg-migrate",
    "prisma": MODULES / ".bin" / "prisma",
}


def tool(name: str) -> Path:
    """The program. Without it a laptop skips the test, and CI fails."""
    path = _PLACES.get(name, TOOLS / "bin" / name)
    if not path.exists():
        pytest.skip(f"needs {name}; make tools installs it")
    return path
