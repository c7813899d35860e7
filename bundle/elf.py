"""Reads and edits dynamic ELF files of this machine's own kind: 64 bits, little-endian."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_MAGIC = b"\x7fELF\x02\x01"
_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NULL, _DT_NEEDED, _DT_STRTAB, _DT_SONAME, _DT_RPATH, _DT_RUNPATH = 0, 1, 5, 14, 15, 29
_ENTRY = struct.Struct("<qQ")


@dataclass(frozen=True, slots=True)
class _Segment:
    kind: int
    offset: int
    address: int
    size: int


def is_elf(path: Path) -> bool:
    """Whether it is such a file."""
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def interpreter(path: Path) -> str | None:
    """The dynamic loader that a program names; None if it names none."""
    content = path.read_bytes()
    for one in _segments(content):
        if one.kind == _PT_INTERP:
            return content[one.offset : one.offset + one.size].rstrip(b"\0").decode()
    return None


def needed(path: Path) -> list[str]:
    """The names of the libraries that it is linked with."""
    content = path.read_bytes()
    return [_text(content, value) for tag, value, _ in _dynamic(content) if tag == _DT_NEEDED]


def soname(path: Path) -> str:
    """The name by which others are linked with a library."""
    content = path.read_bytes()
    return next(
        (_text(content, value) for tag, value, _ in _dynamic(content) if tag == _DT_SONAME), path.name
    )


def forget_directories(path: Path) -> None:
    """Remove from a library where it looks for others first, unless that moves along with it ($ORIGIN).

    Such a place is on the machine that built it. And with a DT_RUNPATH, a library doesn't look where the
    program tells all to look (ld.so(8)).
    """
    content = bytearray(path.read_bytes())
    entries = list(_dynamic(bytes(content)))
    kept = [
        (tag, value)
        for tag, value, _ in entries
        if tag not in (_DT_RPATH, _DT_RUNPATH) or _text(bytes(content), value).startswith("$ORIGIN")
    ]
    if len(kept) == len(entries):
        return
    kept += [(_DT_NULL, 0)] * (len(entries) - len(kept))
    for (_, _, offset), entry in zip(entries, kept, strict=True):
        _ENTRY.pack_into(content, offset, *entry)
    path.write_bytes(content)


def empty_text(path: Path, text: str) -> None:
    """Put an empty text in the place of one that stands in it exactly once; LookupError if it doesn't."""
    content = path.read_bytes()
    found = re.findall(rb"(?<=\0)" + re.escape(text.encode()) + rb"(?=\0)", content)
    if len(found) != 1:
        raise LookupError(f"{text!r} stands {len(found)} times in {path}")
    path.write_bytes(content.replace(b"\0" + found[0] + b"\0", bytes(len(found[0]) + 2)))


def _segments(content: bytes) -> list[_Segment]:
    (start,) = struct.unpack_from("<Q", content, 32)
    size, count = struct.unpack_from("<HH", content, 54)
    found = []
    for number in range(count):
        kind, _, offset, address, _, in_file = struct.unpack_from("<IIQQQQ", content, start + number * size)
        found.append(_Segment(kind, offset, address, in_file))
    return found


def _dynamic(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Each entry of the dynamic section: tag, value, and where in the file it is."""
    for one in _segments(content):
        if one.kind == _PT_DYNAMIC:
            for offset in range(one.offset, one.offset + one.size, _ENTRY.size):
                tag, value = _ENTRY.unpack_from(content, offset)
                if tag == _DT_NULL:
                    return
                yield tag, value, offset


def _text(content: bytes, index: int) -> str:
    address = next(value for tag, value, _ in _dynamic(content) if tag == _DT_STRTAB)
    for one in _segments(content):
        if one.kind == _PT_LOAD and one.address <= address < one.address + one.size:
            start = address - one.address + one.offset + index
            return content[start : content.index(b"\0", start)].decode()
    raise ValueError("cannot read a dynamic section: its strings are outside of the file")
