"""Puts off modules that others import and hardly ever use: each is loaded when something of it is used."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# asyncio and logging import the first two to show tracebacks and sources, asyncpg the others for service
# files and for URLs without a user: 2 ms of 85.
RARE = ("textwrap", "tokenize", "configparser", "getpass")


def put_off(names: Iterable[str]) -> None:
    """Stand in for modules that aren't loaded yet.

    Not by `importlib.util.LazyLoader`, whose modules an import statement wakes.
    """
    for name in names:
        if name not in sys.modules:
            _stand_in(name)


def load_without(name: str, absent: str) -> None:
    """Load a module as if another, which it uses where it is there and can do without, weren't installed."""
    if absent in sys.modules:
        return
    sys.modules[absent] = None  # type: ignore[assignment]  # what `import` takes for not installed
    try:
        __import__(name)
    finally:
        del sys.modules[absent]


def _stand_in(name: str) -> None:
    module = type(sys)(name)

    def load(attribute: str) -> object:
        if sys.modules.get(name) is module:
            del sys.modules[name]
        __import__(name)
        return getattr(sys.modules[name], attribute)

    module.__getattr__ = load  # type: ignore[method-assign]  # PEP 562
    sys.modules[name] = module
