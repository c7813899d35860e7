"""Comments in SQL: `/* ... */` nest, other than in the standard (PostgreSQL manual, 4.1.5)."""

from __future__ import annotations

import re
from typing import AnyStr

_MARK = re.compile(r"/\*|\*/")
_MARK_BYTES = re.compile(rb"/\*|\*/")


def end_of_block(text: AnyStr, position: int) -> int:
    """Where a block comment ends whose opening mark ends at `position`; -1 if it has no end in `text`."""
    depth = 1
    marks = _MARK.finditer(text, position) if isinstance(text, str) else _MARK_BYTES.finditer(text, position)
    for mark in marks:
        depth += 1 if mark[0] in ("/*", b"/*") else -1
        if depth == 0:
            return mark.end()
    return -1
