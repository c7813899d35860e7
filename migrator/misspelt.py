"""Variables that are almost called like ours. Pure.

A wrong value is refused, but a wrong name would only be silence, and the default in its place.
"""

from __future__ import annotations

from collections.abc import Mapping

from migrator import variables
from migrator.env import Variable

# Shorter ones are alike by chance.
_LEAST_CHARS = 10
_PREFIX_CHARS = 3
# Of difflib's ratio: a letter or two in twenty. Names in our own realm may differ by a word like `_MS`.
_ALIKE, _ALIKE_IN_OUR_REALM = 0.93, 0.9
_OUR_REALM = ("MIGRATION", "ENTRYPOINT_")


def misspelt(environ: Mapping[str, str]) -> tuple[str, ...]:
    """A sentence for each name that nobody reads here, and that one of ours, not set, is so like."""
    ours = {
        name
        for variable in vars(variables).values()
        if isinstance(variable, Variable)
        for alias in variable.names
        for name in ((alias, f"{alias}_FILE") if variable.secret else (alias,))
    }
    starts = {name[:_PREFIX_CHARS] for name in ours}
    strangers = [
        name
        for name in environ
        if len(name) >= _LEAST_CHARS and name not in ours and name[:_PREFIX_CHARS] in starts
    ]
    if not strangers:
        return ()
    from difflib import get_close_matches  # late: it takes `re` along, and there is mostly no need

    told = []
    for name in sorted(strangers):
        alike = _ALIKE_IN_OUR_REALM if name.startswith(_OUR_REALM) else _ALIKE
        # Who has set ours as well means something else by the other.
        meant = next((one for one in get_close_matches(name, ours, cutoff=alike) if one not in environ), None)
        if meant is not None:
            told.append(f"nothing here reads {name}: if {meant} is meant, call it so")
    return tuple(told)
