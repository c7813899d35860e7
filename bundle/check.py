"""Tries the bundle before anybody gets it: what it lacks would be noticed in somebody's container."""

from __future__ import annotations

import subprocess
from pathlib import Path

from bundle import elf
from bundle.contents import elf_files
from bundle.host import CannotBuild

# All that we import from C, and what of the rest of Python is most in use.
_MODULES = (
    "asyncpg, asyncio, bz2, ctypes, decimal, email.message, hashlib, h11, http.server, json, "
    "logging.config, lzma, msgspec, multiprocessing, psutil, ssl, structlog, unicodedata, "
    "urllib.request, uuid, uvloop, zoneinfo"
)
_TRY = f"""
import {_MODULES}
from migrator import parser
ssl.create_default_context()
assert ctypes.CDLL(None).prctl
assert parser.split('select 1')
print(*sorted({{line.split()[-1] for line in open('/proc/self/maps') if '/' in line}}), sep='\\n')
"""


def complete(directory: Path) -> None:
    """Return if every library is there and everything can be loaded from the bundle alone.

    Raises:
        CannotBuild: Something is missing.
    """
    there = {path.name for path in (directory / "lib").iterdir()}
    for path in elf_files(directory):
        lacking = sorted(set(elf.needed(path)) - there)
        if lacking:
            raise CannotBuild(f"cannot use the bundle: {path} needs {', '.join(lacking)}")
    tried = _run(directory / "bin" / "python3", "-c", _TRY)
    root = str(directory.resolve())
    foreign = [line for line in tried.splitlines() if not line.startswith(root)]
    if foreign:
        raise CannotBuild(f"cannot use the bundle: it loads {', '.join(foreign)} from outside")
    for name in ("entrypoint", "migrator"):
        _run(directory / "bin" / name, "--help")


def _run(*command: object) -> str:
    done = subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        check=False,
        env={},
        cwd="/",
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        raise CannotBuild(
            f"cannot use the bundle: {command[0]} exits with {done.returncode}: {done.stderr.strip()}"
        )
    return done.stdout
