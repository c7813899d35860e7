"""`python -m bundle DIRECTORY [--archive FILE]`: make the bundle from this very Python."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from bundle import check, contents, finish, host


def main() -> None:
    """Make it, or say what is in the way."""
    parser = argparse.ArgumentParser(prog="python -m bundle", description="Make the bundle from this Python.")
    parser.add_argument("directory", nargs="?", type=Path, help="replaced if it is there")
    parser.add_argument("--archive", type=Path, help="write it as a .tar.gz as well")
    parser.add_argument(
        "--missing-packages",
        action="store_true",
        help="only print which packages of Debian are to be installed first",
    )
    arguments = parser.parse_args()
    if arguments.missing_packages:
        print(*host.missing_packages())
        return
    if arguments.directory is None:
        parser.error("where to make it?")
    try:
        make(arguments.directory.absolute(), arguments.archive)
    except host.CannotBuild as error:
        sys.exit(f"bundle: {error}")


def make(directory: Path, archive: Path | None) -> None:
    """Make the bundle beside `directory` first, so that there never is half of one.

    Raises:
        CannotBuild: This machine can't, or what was made doesn't work.
    """
    if directory.exists() and not (directory / "bin" / "entrypoint").exists() and any(directory.iterdir()):
        raise host.CannotBuild(f"cannot replace {directory}: it holds something else than a bundle")
    machine = host.look()
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".bundle-", dir=directory.parent) as place:
        new = Path(place, "new")
        new.mkdir()
        libraries = contents.fill(new, machine)
        finish.compile_modules(new)
        finish.keep_licences(new, libraries)
        finish.level(new)
        check.complete(new)
        if directory.exists():
            os.rename(directory, Path(place, "old"))
        os.rename(new, directory)
    print(f"{directory}: {finish.size_bytes(directory) / 1e6:.1f} MB, Python {sys.version.split()[0]}")
    if archive is not None:
        finish.pack(directory, archive)
        print(f"{archive}: {archive.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
