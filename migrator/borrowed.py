"""What a file written for another migration tool holds that isn't for us. Pure."""

from __future__ import annotations

import re

from migrator.errors import PlanError

# Their own words, each alone on a line: dbmate's, goose's, node-pg-migrate's.
_WAY_BACK = re.compile(
    r"^[ \t]*--[ \t]*(?:migrate:down\b|\+goose[ \t]+down\b|down[ \t]+migration\b).*$",
    re.IGNORECASE | re.MULTILINE,
)
_NOTHING = re.compile(r"(?:\s|--[^\n]*(?:\n|\Z))*\Z")


def refuse_way_back(text: str, filename: str) -> None:
    """Don't apply a file that holds the way back, too: for us, as for psql, its marker is a comment.

    Raises:
        PlanError: It does.
    """
    found = _WAY_BACK.search(text)
    if found is None or _NOTHING.match(text, found.end()):
        return
    line = text.count("\n", 0, found.start()) + 1
    down = filename.removesuffix(".sql").removesuffix(".up") + ".down.sql"
    raise PlanError(
        f"cannot apply {filename}: from line {line} on ({found[0].strip()!r}) it holds what undoes it, which "
        f"would run, too; move that into {down}"
    )
