"""How modules of ours are started as processes."""

from __future__ import annotations

import os
import sys


def python_module(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of ours: -P, since the app's directory may hold one of that name."""
    return [sys.executable, "-P", "-m", module, *arguments]


def module_env() -> dict[str, str]:
    """What a child needs to find the same modules as we did, where we run from a checkout."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if any(os.path.abspath(entry) == root for entry in sys.path[1:]):
        return {}
    inherited = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": f"{root}{os.pathsep}{inherited}" if inherited else root}
