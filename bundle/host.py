"""What the machine that builds has to offer: its Python, compiler and C library."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from bundle import elf

# What is missing, and the package of Debian that has it.
_PROGRAMS = {"cc": "gcc libc6-dev", "strip": "binutils"}


class CannotBuild(Exception):
    """Something is missing, and the text says what to do about it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """Where everything is that goes into the bundle.

    Attributes:
        loader: The dynamic loader of this machine's glibc.
        libpython: Python as a library.
        headers: The directory with Python.h.
        stdlib: The standard library.
        extensions: Its modules in C.
    """

    loader: Path
    libpython: Path
    headers: Path
    stdlib: Path
    extensions: Path

    @property
    def version(self) -> str:
        """Python's, as directories are called after it: 3.11."""
        return f"{sys.version_info.major}.{sys.version_info.minor}"


def missing_packages() -> list[str]:
    """The packages of Debian that would make this machine able to build."""
    found = [names for program, names in _PROGRAMS.items() if shutil.which(program) is None]
    if not _headers().is_file() or _libpython() is None:
        found.append("python3-dev")
    if importlib.util.find_spec("ensurepip") is None:
        found.append("python3-venv")
    return found


def look() -> Host:
    """What this machine has.

    Raises:
        CannotBuild: It has too little.
    """
    if sys.platform != "linux":
        raise CannotBuild(
            "cannot make a bundle on this system: it consists of Linux programs; use a container"
        )
    for program, packages in _PROGRAMS.items():
        if shutil.which(program) is None:
            raise CannotBuild(f"cannot find {program}; apt-get install {packages}")
    if importlib.util.find_spec("pip") is None:
        raise CannotBuild("cannot find pip; run this with the Python of a venv: python3 -m venv .venv")
    libpython = _libpython()
    if not _headers().is_file() or libpython is None:
        raise CannotBuild(
            f"cannot find the headers and the shared library of Python {sys.version.split()[0]}: "
            f"apt-get install python3-dev, or build Python with --enable-shared ({_headers()}, "
            f"{sysconfig.get_config_var('INSTSONAME')})"
        )
    loader = elf.interpreter(Path(sys.executable).resolve())
    if loader is None or "musl" in loader:
        raise CannotBuild(f"cannot make a bundle of a Python whose loader is {loader}: it must be glibc's")
    return Host(
        loader=Path(loader),
        libpython=libpython,
        headers=_headers().parent,
        stdlib=Path(sysconfig.get_path("stdlib")),
        extensions=Path(sysconfig.get_config_var("DESTSHARED")),
    )


def libraries(loader: Path, path: Path, beside: Path) -> dict[str, Path]:
    """The shared libraries that a file needs, by name; looked for in `beside` first.

    Raises:
        CannotBuild: One isn't on this machine.
    """
    listed = subprocess.run(
        [loader, "--library-path", beside, "--list", path], capture_output=True, text=True, check=False
    )
    found = {}
    for line in listed.stdout.splitlines():
        name, arrow, rest = line.strip().partition(" => ")
        if arrow and rest.startswith("not found"):
            raise CannotBuild(f"cannot find {name}, which {path} needs")
        if arrow:
            found[name] = Path(rest.rpartition(" (")[0]).resolve()
    return found


def _headers() -> Path:
    return Path(sysconfig.get_config_var("INCLUDEPY")) / "Python.h"


def _libpython() -> Path | None:
    directory, name = Path(sysconfig.get_config_var("LIBDIR")), sysconfig.get_config_var("INSTSONAME")
    multiarch = sysconfig.get_config_var("MULTIARCH") or ""
    candidates = [directory / name, directory / multiarch / name]
    return next((one for one in candidates if one.is_file() and one.suffix != ".a"), None)
