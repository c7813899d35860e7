"""Whether pending files could hold a hazard at all, for less than a parser costs. Pure.

A file that only makes tables, and alters and fills what the pending files make themselves, can't. That is told
by words, and only in this direction: whatever isn't plainly harmless is parsed.
"""

from __future__ import annotations

import re

_NAME = r'(?:"[^"]+"|\w+)(?:\.(?:"[^"]+"|\w+))?'
# What words don't count in; what has another end than it seems is found by _ODD.
_HIDDEN = re.compile(r"--[^\n]*|'[^']*'|\$(\w*)\$.*?\$\1\$", re.DOTALL)
_ODD = re.compile(r"/\*|\\|\bstdin\b|\bE'", re.IGNORECASE)
_CREATED = re.compile(
    rf"\s*create\s+(?:unlogged\s+)?table\s+(?:(if\s+not\s+exists)\s+)?({_NAME})\s*\(", re.IGNORECASE
)
_ON_TABLE = re.compile(
    rf"\s*(?:alter\s+table\s+(?:if\s+exists\s+)?(?:only\s+)?({_NAME})\s"
    rf"|create\s+(?:unique\s+)?index\s+(?:if\s+not\s+exists\s+)?(?:{_NAME}\s+)?on\s+(?:only\s+)?({_NAME})\s*[(\s])",
    re.IGNORECASE,
)
_MOVED = re.compile(r"\b(?:rename|schema|partition)\b", re.IGNORECASE)
_HARMLESS = re.compile(
    r"\s*(?:$|insert\s(?!.*\b(?:select|with|table)\b)|comment\s|grant\s|begin\s*$|commit\s*$"
    r"|create\s+(?:type|domain|sequence|extension|schema|role|policy|trigger|function|procedure)\s"
    r"|drop\s+(?:trigger|policy|rule)\s|set\s+(?!.*\bsearch_path\b)|select\s(?!.*\b(?:set_config|into)\b))",
    re.IGNORECASE | re.DOTALL,
)


class Quick:
    """Looks at one pending file after the other."""

    def __init__(self) -> None:
        """Before the first one."""
        self._new: set[str] = set()
        self.makes_tables = False

    def is_harmless(self, text: str) -> bool:
        """Whether nothing in the next file can be a hazard."""
        if _ODD.search(text):
            return False
        bare = _HIDDEN.sub(lambda found: " " if found[0][0] == "-" else "''", text)
        return "$" not in bare and all(self._is_harmless(statement) for statement in bare.split(";"))

    def _is_harmless(self, statement: str) -> bool:
        created = _CREATED.match(statement)
        if created is not None:
            self.makes_tables = True
            if created[1] is None:
                self._new.add(created[2].lower())
            return True
        altered = _ON_TABLE.match(statement)
        if altered is not None:
            return (altered[1] or altered[2]).lower() in self._new and not _MOVED.search(statement)
        return _HARMLESS.match(statement) is not None
