"""Makes what is in the directory quick to load, the same each time, and lawful to hand on."""

from __future__ import annotations

import gzip
import os
import py_compile
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Mapping
from pathlib import Path

from bundle.contents import ROOT, SITE

# Where it is in an image, and so in the archive.
PLACE = "opt/entrypoint"
# Their source stays: it is what people look into, and guard.py is started by its name.
_OURS = ("entrypoint", "migrator")
_COMMON_LICENCES = Path("/usr/share/common-licenses")
_BEGINNING_S = 315532800  # 1980: zip files know nothing older


def compile_modules(directory: Path) -> None:
    """Byte-compile every module; of those that aren't ours, only that is kept, as it takes half of the room.

    The results are never checked against their source: COPY may change its time, and a file system may be
    read-only.
    """
    for path in sorted(directory.rglob("*.py")):
        name = path.relative_to(directory)
        is_ours = name.parts[0] == SITE and name.parts[1] in _OURS
        to = None if is_ours else str(path.with_suffix(".pyc"))
        py_compile.compile(
            str(path),
            cfile=to,
            dfile=str(Path("/", PLACE, name)),
            doraise=True,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )
        if not is_ours:
            path.unlink()


def keep_licences(directory: Path, libraries: Mapping[str, Path]) -> None:
    """Put the licences of all that isn't a wheel into share/, and a list of what is in here for scanners."""
    share = directory / "share"
    (share / "licenses").mkdir(parents=True)
    shutil.copy(ROOT / "LICENSE", share / "licenses" / "entrypoint")
    packages = {name: _debian_package(path) for name, path in libraries.items()}
    for package in {one.partition(" ")[0] for one in packages.values() if one}:
        text = Path("/usr/share/doc", package.partition(":")[0], "copyright")
        if text.is_file():
            shutil.copy(text, share / "licenses" / package.partition(":")[0])
    own = Path(sysconfig.get_path("stdlib"), "LICENSE.txt")
    if own.is_file():
        shutil.copy(own, share / "licenses" / "python")
    everything = "".join(path.read_text(errors="replace") for path in (share / "licenses").iterdir())
    for name in set(re.findall(rf"{_COMMON_LICENCES}/([\w.+-]*\w)", everything)):
        if (_COMMON_LICENCES / name).is_file():
            shutil.copy(_COMMON_LICENCES / name, share / "licenses" / f"common-{name}")
    wheels = sorted(path.stem for path in (directory / SITE).glob("*.dist-info"))
    lines = [f"python {sys.version.split()[0]}", *(f"wheel {one.replace('-', ' ', 1)}" for one in wheels)]
    lines += [f"library {name} {packages[name] or 'of no Debian package'}" for name in sorted(libraries)]
    (share / "contents.txt").write_text("\n".join(lines) + "\n")


def _debian_package(path: Path) -> str | None:
    """The name and version of the package that a file belongs to."""
    if shutil.which("dpkg-query") is None:
        return None
    # The package may know it by its old place: /lib is a link to /usr/lib.
    for place in (str(path), str(path).removeprefix("/usr")):
        found = subprocess.run(["dpkg-query", "-S", place], capture_output=True, text=True, check=False)
        if found.returncode == 0:
            name = found.stdout.partition(": ")[0]
            shown = ["dpkg-query", "-W", "-f", "${Package} ${Version}", name]
            return subprocess.run(shown, capture_output=True, text=True, check=True).stdout
    return None


def level(directory: Path) -> None:
    """Set rights and times, so that the same input gives the same directory. Times: SOURCE_DATE_EPOCH."""
    time_s = int(os.environ.get("SOURCE_DATE_EPOCH", _BEGINNING_S))
    for path in [*directory.rglob("*"), directory]:
        is_program = path.parent.name == "bin" or path.name.startswith("ld-")
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or is_program else 0o644)
    for path in [*directory.rglob("*"), directory]:
        os.utime(path, (time_s, time_s), follow_symlinks=False)


def size_bytes(directory: Path) -> int:
    """What all the files hold."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def pack(directory: Path, archive: Path) -> None:
    """Write it as a .tar.gz that is unpacked in / (`ADD` in a Dockerfile does that)."""

    def of_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = "root"
        return member

    with (
        archive.open("wb") as file,
        gzip.GzipFile("", "wb", 9, file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar,
    ):
        for path in [directory, *sorted(directory.rglob("*"))]:
            name = Path(PLACE, path.relative_to(directory))
            tar.add(path, str(name), recursive=False, filter=of_root)
