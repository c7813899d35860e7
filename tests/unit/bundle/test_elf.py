import subprocess
import sys
from pathlib import Path

import pytest

from bundle import elf
from tests.conftest import needs

PYTHON = Path(sys.executable).resolve()


def build_library(directory: Path, *options: str) -> Path:
    """A library that needs libm, with search paths of its own."""
    path = directory / "libtried.so"
    source = directory / "tried.c"
    source.write_text("double cos(double); double tried(double x) { return cos(x); }\n")
    command = [needs("cc"), "-shared", "-fPIC", "-o", path, source, *options, "-Wl,--no-as-needed", "-lm"]
    subprocess.run(command, check=True)
    return path


def test_programs_are_told_from_texts(tmp_path):
    (tmp_path / "text").write_text("#!/bin/sh\n")

    assert elf.is_elf(PYTHON)
    assert not elf.is_elf(tmp_path / "text")


def test_the_loader_of_a_program_is_found():
    loader = elf.interpreter(PYTHON)

    assert loader is not None
    assert Path(loader).is_file()
    assert elf.interpreter(Path(loader)) is None
    assert elf.soname(Path(loader)) == Path(loader).name


@pytest.mark.parametrize("tags", ["--disable-new-dtags", "--enable-new-dtags"], ids=["RPATH", "RUNPATH"])
@pytest.mark.parametrize(
    ("directory", "left"),
    [("/build/host/lib", False), ("$ORIGIN/../lib", True)],
    ids=["of the machine that built it is forgotten", "that moves along is kept"],
)
def test_a_directory_of_libraries(tmp_path, tags, directory, left):
    path = build_library(tmp_path, "-Wl,-soname,libtried.so.1", f"-Wl,{tags},-rpath,{directory}")

    elf.forget_directories(path)

    shown = subprocess.run([needs("readelf"), "-dW", path], capture_output=True, text=True, check=True).stdout
    assert (directory in shown) is left
    assert ("PATH)" in shown) is left
    assert {"libm.so.6", "libc.so.6"} <= set(elf.needed(path))
    assert elf.soname(path) == "libtried.so.1"


def test_a_library_without_directories_is_left_alone(tmp_path):
    path = build_library(tmp_path)
    before = path.read_bytes()

    elf.forget_directories(path)

    assert path.read_bytes() == before


def test_a_text_that_stands_there_once_is_emptied(tmp_path):
    path = tmp_path / "tried"
    path.write_bytes(b"\0/etc/one\0/etc/oneself\0/etc/two\0/etc/two\0")

    elf.empty_text(path, "/etc/one")

    assert path.read_bytes() == b"\0" * 10 + b"/etc/oneself\0/etc/two\0/etc/two\0"
    with pytest.raises(LookupError, match="'/etc/one' stands 0 times"):
        elf.empty_text(path, "/etc/one")
    with pytest.raises(LookupError, match="stands 2 times"):
        elf.empty_text(path, "/etc/two")
