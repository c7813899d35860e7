"""Migration files: which there are, what they are called, and what they hold."""

from __future__ import annotations

import codecs
import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from msgspec import Struct

from migrator.errors import ConfigError, PlanError

SQL_NAME = re.compile(r"([0-9]+)_(.*)\.sql", re.DOTALL)
_STEP_NAME = re.compile(r"([0-9]+)_(.*)\.(?:sql|sh)", re.DOTALL)
# How the name of a file ends that undoes the one of the same version.
DOWN = ".down.sql"
_NOT_TEXT = re.compile("[\udc80-\udcff]")  # how Python shows bytes of a name that aren't UTF-8
_NAMES_SHOWN = 3
_CHUNK_BYTES = 256 * 1024
_SMALL_BYTES = 16 * 1024
_STDIN = "stdin"

# Mostly a str: to make a Path of each takes longer than to read it.
AnyPath = str | os.PathLike[str]


# How what is sent for a file begins: pg_stat_activity shows it. No file name has a slash in it.
LABEL = ("/* migrator: ", " */ ")


class Migration(Struct, frozen=True, kw_only=True):
    """One file. Its text stays on disk: a thousand of them needn't fit into the memory limit.

    Attributes:
        version: The digits before the first `_`, as text: any number of them, not always a date.
        name: What follows, without `.sql`.
        checksum: `sha256:` and 64 hex digits; see `checksum`.
    """

    version: str
    name: str
    path: AnyPath
    checksum: str

    @property
    def filename(self) -> str:
        """The file's name without its directory."""
        return os.path.basename(self.path)


def names_for(runner: str) -> re.Pattern[str]:
    """What a migration is called where `runner` migrates."""
    return _STEP_NAME if runner == "shell" else SQL_NAME


class Found(Struct, frozen=True, kw_only=True):
    """What is in the directories.

    Attributes:
        migrations: In the order in which they are applied.
        warnings: What looks odd, one sentence each.
        down_paths: The files that undo one each, `<version>_<description>.down.sql`; see `migrator.undo`.
    """

    migrations: tuple[Migration, ...]
    warnings: tuple[str, ...]
    down_paths: tuple[AnyPath, ...] = ()


def load(
    directories: Sequence[Path],
    environment: str | None,
    *,
    chosen: bool,
    names: re.Pattern[str] = SQL_NAME,
) -> Found:
    """Read the migrations of all directories.

    Args:
        directories: Where to look, and in their sub-directory called `environment`.
        environment: What this deployment is called.
        chosen: Somebody named the directories, so a missing one is an error.
        names: What a migration is called: version and name are the first two groups.

    Raises:
        ConfigError: A directory doesn't exist or can't be read.
        PlanError: Two files have one version, or a file can't be read as UTF-8.
    """
    paths: list[str] = []
    odd: list[str] = []
    for directory in directories:
        try:
            if chosen and not directory.is_dir():
                raise ConfigError(
                    f"cannot find the migrations directory {str(directory)!r}: correct MIGRATIONS_DIR"
                )
            paths += _files(directory, names, odd)
            if environment and (directory / environment).is_dir():
                paths += _files(directory / environment, names, odd)
        except OSError as error:
            raise ConfigError(
                f"cannot read the migrations directory {str(directory)!r}: {error.strerror}; make it "
                f"readable for uid {os.geteuid()}, or correct MIGRATIONS_DIR"
            ) from error
    migrations, skipped, down_paths = [], [], []
    for path in paths:
        filename = os.path.basename(path)
        matched = names.fullmatch(filename)
        if os.path.splitext(filename)[0].endswith(".down"):
            if filename.endswith(DOWN):
                down_paths.append(path)
            continue  # the way back; never applied on the way up
        if matched is None:
            skipped.append(filename)
            continue
        if not filename.isascii() and _NOT_TEXT.search(filename):
            raise PlanError(f"cannot apply {filename!r}: its name isn't UTF-8; rename it")
        migrations.append(
            Migration(version=matched[1], name=matched[2], path=path, checksum=_checksum_of(path))
        )
    # By version as text, as the Supabase CLI does (tried with 3.1.0: 1_, 10_, 2_), across directories too.
    migrations.sort(key=lambda migration: (migration.version, migration.filename))
    _refuse_duplicates(migrations)
    wanted = "<version>_<description>.sql" + ("" if names is SQL_NAME else " or .sh")
    return Found(
        migrations=tuple(migrations),
        warnings=_warnings(migrations, skipped, odd, wanted),
        down_paths=tuple(down_paths),
    )


def load_down(path: AnyPath) -> Migration | None:
    """A file that undoes a migration, under that one's version; None if its name has none.

    Raises:
        PlanError: It can't be read as UTF-8.
    """
    matched = SQL_NAME.fullmatch(os.path.basename(path))
    if matched is None:
        return None
    name = matched[2].removesuffix(DOWN.removesuffix(".sql"))
    return Migration(version=matched[1], name=name, path=path, checksum=_checksum_of(os.fspath(path)))


def read_text(path: AnyPath) -> str:
    """The file's text, without a byte order mark, line ends as they are.

    Raises:
        PlanError: It can't be read, or isn't UTF-8.
    """
    return "".join(_texts(path))


def open_file(path: AnyPath) -> BinaryIO:
    """The file, to be read as bytes.

    Raises:
        PlanError: It can't be read.
    """
    try:
        return open(path, "rb")
    except OSError as error:
        raise _unreadable(path, error) from error


def content(migration: Migration) -> bytes:
    """The file's bytes.

    Raises:
        PlanError: It can't be read.
    """
    with open_file(migration.path) as file:
        return file.read()


def size_bytes(path: AnyPath) -> int:
    """How large the file is.

    Raises:
        PlanError: It can't be looked at.
    """
    try:
        return os.stat(path).st_size
    except OSError as error:
        raise _unreadable(path, error) from error


class Checksum:
    """What identifies a file's content: line ends, byte order mark and trailing white space don't count.

    Where there may be COPY data in it, everything counts: there, such things are data. What doesn't matter
    around the data is for `migrator.meaning` to tell.
    """

    def __init__(self) -> None:
        """Of a file of which nothing is known yet."""
        self._hash = hashlib.sha256()
        # White space that may turn out to be trailing.
        self._held = ""
        self._exact = hashlib.sha256()
        self._may_hold_data = False
        self._last = ""

    def update(self, text: str) -> None:
        """Go on with its next piece."""
        self._exact.update(text.encode())
        self._may_hold_data = self._may_hold_data or _STDIN in (self._last + text).lower()
        self._last = text[-len(_STDIN) :]
        text = self._held + text
        body = text.rstrip()
        self._held = text[len(body) :]
        if "\r" in body:
            body = body.replace("\r\n", "\n").replace("\r", "\n")
        self._hash.update(_without_trailing(body).encode())

    def __str__(self) -> str:
        """Of all that came."""
        return "sha256:" + (self._exact if self._may_hold_data else self._hash).hexdigest()


def checksum(text: str) -> str:
    """The checksum of a text."""
    text = text.removeprefix("\ufeff")
    if "\r" not in text and _STDIN not in text.lower():  # as most are, in a third of the time
        return f"sha256:{hashlib.sha256(_without_trailing(text.rstrip()).encode()).hexdigest()}"
    summed = Checksum()
    summed.update(text)
    return str(summed)


def _without_trailing(body: str) -> str:
    return "\n".join([line.rstrip() for line in body.split("\n")])


def _checksum_of(path: str) -> str:
    small = _small_plain_text(path)
    if small is not None:
        return checksum(small)
    summed = Checksum()
    for text in _texts(path):
        summed.update(text)
    return str(summed)


def _small_plain_text(path: str) -> str | None:
    """The text if nothing is special about it, as of most files; else None, and `_texts` tells what it is.

    A start with nothing to do mostly does this.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            content = os.read(fd, _SMALL_BYTES)
            is_whole = not os.read(fd, 1)
        finally:
            os.close(fd)
    except OSError:
        return None
    if not is_whole or not content.isascii() or b"\0" in content:
        return None
    return content.decode("ascii")


def _texts(path: AnyPath) -> Iterator[str]:
    """The file's text, piece by piece, so that a large file needn't be held."""
    name = os.path.basename(path)
    decode = codecs.getincrementaldecoder("utf-8")().decode
    lines = 1
    try:
        with open(path, "rb", buffering=0) as file:
            content = file.read(_CHUNK_BYTES)
            if content.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
                raise PlanError(f"cannot read {name}: it is UTF-32; save it as UTF-8")
            if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or _looks_like_utf16(content):
                raise PlanError(f"cannot read {name}: it is UTF-16; save it as UTF-8")
            content = content.removeprefix(codecs.BOM_UTF8)
            while content:
                text = decode(content)
                if "\0" in text:
                    line = lines + text.count("\n", 0, text.index("\0"))
                    raise PlanError(f"cannot read {name}: line {line} holds a NUL character; remove it")
                yield text
                lines += text.count("\n")
                content = file.read(_CHUNK_BYTES)
            decode(b"", True)
    except UnicodeDecodeError as error:
        line = lines + error.object.count(b"\n", 0, error.start)
        raise PlanError(f"cannot read {name}: line {line} isn't UTF-8; save the file as UTF-8") from error
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: AnyPath, error: OSError) -> PlanError:
    why = f"{error.strerror}; make it readable for uid {os.geteuid()}"
    if os.path.islink(path) and error.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR):
        target = os.readlink(path)
        why = f"it is a link to {target!r}, where nothing is; correct the link or remove it"
    return PlanError(f"cannot read {os.path.basename(path)}: {why}")


def _looks_like_utf16(content: bytes) -> bool:
    """Without a byte order mark: every second byte of what SQL is mostly made of is 0."""
    begin = content[:200]
    return len(begin) > 3 and max(begin[::2].count(0), begin[1::2].count(0)) > len(begin) // 4


def _files(directory: Path, names: re.Pattern[str], odd: list[str]) -> list[str]:
    """The files, in order; what has the name of a migration and is something else goes to `odd`.

    What can't be looked at counts as a file: reading it tells why.
    """
    found = []
    # scandir knows what most entries are without asking for each: 1,000 files in 3 instead of 9 ms.
    with os.scandir(directory) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            kind = "" if _is_file(entry) else _other_kind(entry)
            if not kind:
                found.append(entry.path)
            elif names.fullmatch(entry.name):
                odd.append(f"{entry.name} ({kind})")
    return found


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return True


def _other_kind(entry: os.DirEntry[str]) -> str:
    try:
        mode = entry.stat().st_mode
    except OSError:  # a link to nowhere
        return ""
    return "a directory" if stat.S_ISDIR(mode) else "a pipe or device"


def _refuse_duplicates(migrations: Iterable[Migration]) -> None:
    seen: dict[str, Migration] = {}
    for migration in migrations:
        other = seen.setdefault(migration.version, migration)
        if other is not migration:
            raise PlanError(
                f"cannot tell {other.path} and {migration.path} apart: both have version "
                f"{migration.version}; rename one of them"
            )


def _warnings(
    migrations: Sequence[Migration], skipped: Sequence[str], odd: Sequence[str], wanted: str
) -> tuple[str, ...]:
    warnings = []
    if odd:
        warnings.append(
            f"skipped, since it isn't a file: {_listed(odd)}; put the SQL into a file of that name"
        )
    if skipped:
        warnings.append(f"skipped, since the name isn't {wanted}: {_listed(skipped)}")
    by_number = sorted(migrations, key=lambda migration: int(migration.version))
    if [one.version for one in by_number] != [one.version for one in migrations]:
        misplaced = [
            one.filename
            for one, other in zip(migrations, by_number, strict=True)
            if one.version != other.version
        ]
        warnings.append(
            "versions of different lengths: sorted as text, as the Supabase CLI does, not as numbers: "
            + _listed(misplaced)
        )
    return tuple(warnings)


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
