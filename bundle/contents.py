"""Fills the directory: the standard library, our packages, the C libraries of both, and the programs."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bundle import elf, host
from bundle.host import CannotBuild, Host

ROOT = Path(__file__).resolve().parent.parent
SITE = "site-packages"
CERTIFICATES = "lib/cacert.pem"
# What neither we nor somebody's own runner need: there is no terminal, no screen, and nothing to install.
_NOT_OF_STDLIB = frozenset(
    "__pycache__ test tests idlelib tkinter turtledemo turtle.py ensurepip lib2to3 pydoc_data curses dbm "
    "sqlite3 venv distutils msilib site-packages dist-packages lib-dynload sitecustomize.py "
    "LICENSE.txt".split()
)
_NOT_OF_EXTENSIONS = tuple(
    "_test _ctypes_test _xx xx _tkinter _curses _dbm _gdbm _sqlite3 readline nis ossaudiodev _crypt".split()
)
# What wheels hold beside what runs; postgast's protobuf is for its own Python side, which we don't use.
_NOT_OF_PACKAGES = "*.pyx *.pxd *.pxi *.pyi *.c *.h __pycache__ _testbase tests py.typed".split()
_NOT_PACKAGES = ("google", "protobuf-*", "bin", "certifi", "_entrypoint.pth")
# Of an installation, not of a package: where it came from, and what was there before we took some away.
_NOT_OF_METADATA = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")
# Where a loader finds libraries that go into every program: those are of the image's, for another C library.
_PRELOADS = "/etc/ld.so.preload"
# Loaded by glibc itself when a thread ends.
_UNNAMED_LIBRARIES = ("libgcc_s.so.1",)
# The rest of glibc, as far as wheels (PEP 600) and name services (nsswitch.conf) are linked with it. Without
# ours they would get the image's, which is another glibc's other half, or none.
_REST_OF_GLIBC = ("libdl.so.2", "libutil.so.1", "libresolv.so.2", "libnss_compat.so.2")
PROGRAMS = {"entrypoint": "entrypoint.__main__", "migrator": "migrator.__main__", "python3": None}
_EARLY = "-ffreestanding -fno-builtin -fno-stack-protector -fno-tree-loop-distribute-patterns".split()


def fill(directory: Path, machine: Host) -> dict[str, Path]:
    """Make the bundle in an empty directory; its shared libraries by name, and where each was.

    Raises:
        CannotBuild: Something of it can't be had.
    """
    (directory / "bin").mkdir()
    (directory / "lib").mkdir()
    stdlib = directory / "lib" / f"python{machine.version}"
    _copy_stdlib(machine, stdlib)
    _install_packages(directory)
    _make_programs(directory, machine)
    libraries = _gather_libraries(directory, machine)
    for path in elf_files(directory):
        elf.forget_directories(path)
        if path.parent.name != "bin":
            subprocess.run(["strip", "--strip-unneeded", path], check=True)
    try:
        elf.empty_text(directory / "lib" / machine.loader.name, _PRELOADS)
    except LookupError as error:
        raise CannotBuild(f"cannot keep the image's libraries out of the bundle: {error}") from error
    return libraries


def elf_files(directory: Path) -> Iterator[Path]:
    """Every program and library in it."""
    for path in sorted(directory.rglob("*")):
        if path.is_file() and not path.is_symlink() and elf.is_elf(path):
            yield path


def _copy_stdlib(machine: Host, to: Path) -> None:
    def leave_out(_: str, names: list[str]) -> set[str]:
        # config-3.11-x86_64-linux-gnu: for whoever compiles.
        return {name for name in names if name in _NOT_OF_STDLIB or name.startswith("config-")}

    shutil.copytree(machine.stdlib, to, ignore=leave_out, ignore_dangling_symlinks=True)
    for path in sorted(machine.extensions.glob("*.so")):
        if not path.name.startswith(_NOT_OF_EXTENSIONS):
            shutil.copy2(path, to)


def _install_packages(directory: Path) -> None:
    to = directory / SITE
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    installed = subprocess.run([*pip, "--target", to, ROOT, "certifi"], check=False)
    if installed.returncode:
        raise CannotBuild("cannot install the packages: see what pip says above")
    shutil.copy(to / "certifi" / "cacert.pem", directory / CERTIFICATES)
    inside = (
        *(f"**/{name}" for name in _NOT_OF_PACKAGES),
        *(f"*.dist-info/{name}" for name in _NOT_OF_METADATA),
    )
    for pattern in (*_NOT_PACKAGES, *inside):
        for path in sorted(to.glob(pattern), reverse=True):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _make_programs(directory: Path, machine: Host) -> None:
    sources = Path(__file__).resolve().parent / "launcher"
    with tempfile.TemporaryDirectory(prefix="bundle-") as place:
        early = Path(place) / "loader.o"
        loader = f'-DLOADER="{machine.loader.name}"'
        _compile(*_EARLY, "-fPIE", loader, "-c", sources / "loader.c", "-o", early)
        for name, module in PROGRAMS.items():
            _compile(
                *("-fPIE", "-pie", f"-I{machine.headers}", f"-ffile-prefix-map={sources}=launcher"),
                *([f'-DMODULE="{module}"'] if module else []),
                *(sources / "main.c", early, machine.libpython, "-o", directory / "bin" / name),
                # Started at `begin`, without the kernel's looking for a loader. DT_RPATH, not DT_RUNPATH:
                # it goes before LD_LIBRARY_PATH, and counts for the libraries' own needs, too.
                *("-Wl,-e,begin", "-Wl,--no-dynamic-linker", "-Wl,-z,now", "-Wl,--build-id=none", "-s"),
                *("-Wl,--disable-new-dtags", "-Wl,-rpath,$ORIGIN/../lib"),
            )


def _compile(*arguments: object) -> None:
    command = ["cc", "-O2", "-Wall", "-Wextra", "-Werror", *map(str, arguments)]
    if subprocess.run(command, check=False).returncode:
        raise CannotBuild("cannot compile the programs: see what cc says above")


def _gather_libraries(directory: Path, machine: Host) -> dict[str, Path]:
    """Copy every shared library that anything in here needs, glibc's included; where each was."""
    to = directory / "lib"
    found: dict[str, Path] = {machine.loader.name: machine.loader.resolve()}
    for path in [*elf_files(directory), machine.libpython]:
        found |= host.libraries(machine.loader, path, machine.libpython.parent)
    found[elf.soname(machine.libpython)] = machine.libpython.resolve()
    libc = found["libc.so.6"].parent
    for name in _UNNAMED_LIBRARIES:
        found.setdefault(name, libc / name)
    found |= {name: libc / name for name in _REST_OF_GLIBC if (libc / name).is_file()}
    found = {name: path for name, path in found.items() if not path.is_relative_to(directory)}
    for name, path in found.items():
        if not path.is_file():
            raise CannotBuild(f"cannot find {name}: {path} isn't there")
        shutil.copy(path, to / name)
    return found
