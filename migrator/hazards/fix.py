"""`migrator lint --fix`: files rewritten into the safe form, where that means the same."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from msgspec import Struct, field

from migrator import headers, scan, statements
from migrator import migration as files
from migrator.errors import PlanError
from migrator.hazards.finding import Finding, Fix
from migrator.hazards.parsed import Parsed
from migrator.hazards.seen import edited_text
from migrator.migration import Migration
from migrator.statements import Statement

_NAME = re.compile(r"([0-9]+)_(.*)\.sql", re.DOTALL)
# What stands behind a statement on its line belongs to it.
_END = re.compile(r"(?:[ \t]*--[^\n]*)?")
_HEADER = re.compile(r"[ \t]*--[ \t]*migrator:[^\n]*", re.IGNORECASE)
# What ends with its file, and would be missing in the next one.
_LEFT_BEHIND = re.compile(
    r"(?:(?:begin|start|commit|end|rollback|abort|savepoint|release|set|reset|prepare|declare|copy|lock)\b"
    r"|create\s+(?:(?:local|global)\s+)?temp|select\b.*\bset_config\b)",
    re.IGNORECASE | re.DOTALL,
)


class _Pieces(Struct):
    """The files that one becomes; the first one is the file itself."""

    texts: list[str] = field(default_factory=lambda: [""])
    filled: list[bool] = field(default_factory=lambda: [False])

    def add(self, text: str) -> None:
        """A statement and what stands before it."""
        self.texts[-1] += text
        self.filled[-1] = True

    def cut(self) -> None:
        """Go on in a file of its own, unless this one is still empty."""
        if self.filled[-1]:
            self.texts.append("")
            self.filled.append(False)


def fix(
    read: Sequence[Parsed],
    found: Sequence[Finding],
    migrations: Sequence[Migration],
    applied: Collection[str],
) -> list[str]:
    """Write the safe form of what was found; one line for each file that was written, or why it wasn't.

    Args:
        read: The files, as they were when the hazards were found.
        found: The hazards.
        migrations: All files, so that the new ones come before the next one.
        applied: The versions on record, of which no file may change any more.
    """
    told = []
    taken = {migration.version for migration in migrations} | set(applied)
    for parsed in read:
        fixable = [one for one in found if one.filename == parsed.path.name and one.fix is not None]
        if not fixable:
            continue
        try:
            told += _fix(parsed, fixable, taken, applied)
        except PlanError as error:
            told.append(str(error))
    return told or ["nothing to fix"]


def _fix(parsed: Parsed, found: list[Finding], taken: set[str], applied: Collection[str]) -> list[str]:
    path = parsed.path
    named = _NAME.fullmatch(path.name)
    if named is None:
        raise _refused(parsed, "its name isn't <version>_<description>.sql; rename it")
    if named[1] in applied:
        raise _refused(parsed, "it is applied already; undo nothing, but write a new migration")
    cut = statements.split(parsed.text) if parsed.text else None
    if cut is None:
        raise _refused(
            parsed, "it is too large, or holds COPY data or what the parser doesn't know; split it"
        )
    pieces = _pieces(parsed, cut, _by_statement(found))
    siblings = {other[1] for one in path.parent.iterdir() if (other := _NAME.fullmatch(one.name))}
    versions = versions_between(named[1], len(pieces) - 1, taken | siblings)
    if versions is None:
        raise _refused(parsed, "no version is left between it and the next file; rename that")
    if files.read_text(path) != parsed.text:
        raise _refused(parsed, "it was changed meanwhile; run it again")
    others = [
        path.with_name(f"{version}_{named[2]}_part_{number}.sql")
        for number, version in enumerate(versions, 2)
    ]
    _write(path, pieces[0], list(zip(others, pieces[1:], strict=True)))
    taken |= set(versions)
    rules = ", ".join(dict.fromkeys(one.rule for one in found))
    return [f"changed {path} ({rules})", *(f"wrote {other}" for other in others)]


def _by_statement(found: Iterable[Finding]) -> dict[int, list[Fix]]:
    fixes: dict[int, list[Fix]] = {}
    for one in found:
        if one.fix is not None:
            fixes.setdefault(one.offset, []).append(one.fix)
    return fixes


def _pieces(parsed: Parsed, cut: Sequence[Statement], fixes: dict[int, list[Fix]]) -> list[str]:
    """The texts of the files that it becomes, in order."""
    text, bare = parsed.text, scan.bare(parsed.text)
    nodes = {step.statement.offset: step.node for step in parsed.steps}
    asked = headers.parse(text, parsed.path.name)
    pieces = _Pieces()
    done = 0
    for statement in cut:
        end = statement.offset + len(statement.text)
        semicolon = bare.find(";", end)
        end = _END.match(text, semicolon + 1).end() if semicolon >= 0 else end  # type: ignore[union-attr]  # matches always
        before, own = text[done : statement.offset], fixes.get(statement.offset, [])
        done = end
        if not own:
            pieces.add(before + text[statement.offset : end])
            continue
        behind = text[semicolon + 1 : end] if semicolon >= 0 else ""
        new = edited_text(statement.text, nodes[statement.offset], own)
        alone = any(one.alone for one in own)
        if alone and asked.transactional:
            raise _refused(
                parsed, f"its header asks for one transaction, where {new.split(chr(10))[0]!r} can't run"
            )
        if alone and parsed.in_transaction:
            pieces.cut()
        if new:
            pieces.add(f"{before}{new};{behind}")
        following = _following(own)
        for one in following:
            if parsed.in_transaction:
                pieces.cut()
            pieces.add(("\n" if pieces.filled[-1] else "") + "\n".join(one))
        if alone and parsed.in_transaction and not following:
            pieces.cut()
    rest = text[done:]
    if not pieces.filled[-1] and len(pieces.texts) > 1:
        pieces.texts.pop()
    pieces.texts[-1] += rest
    if len(pieces.texts) > 1:
        for statement in cut:
            if _LEFT_BEHIND.match(statement.text):
                raise _refused(
                    parsed,
                    f"{statement.first_line!r} would count for only one of its parts; take it out, or split by hand",
                )
    wanted = "".join(f"{line.strip()}\n" for line in _HEADER.findall(text))
    first, *others = pieces.texts
    return [_ended(first), *(_ended(wanted + one.lstrip()) for one in others)]


def _following(fixes: Sequence[Fix]) -> list[list[str]]:
    """What follows, file by file: what several fixes want in the next file shares it."""
    longest = max(len(one.then) for one in fixes)
    return [
        [statement for one in fixes if number < len(one.then) for statement in one.then[number]]
        for number in range(longest)
    ]


def versions_between(version: str, count: int, taken: Collection[str]) -> list[str] | None:
    """So many free versions after this one and before the next one, in the order in which files are applied.

    As long as this one where there is room, as versions are sorted as text; None if there isn't any.
    """
    following = min((one for one in taken if one > version), default=None)

    def fits(candidate: str) -> bool:
        return candidate > version and (following is None or candidate < following)

    same = [str(int(version) + step).zfill(len(version)) for step in range(1, count + 1)]
    if all(fits(one) and len(one) == len(version) for one in same):
        return same
    digits = len(str(count))
    longer = [f"{version}{step:0{digits}}" for step in range(1, count + 1)]
    return longer if all(map(fits, longer)) else None


def _write(path: Path, text: str, others: Sequence[tuple[Path, str]]) -> None:
    """All of them, or nothing: the new ones first, as they do no harm beside the old one.

    Raises:
        PlanError: It can't be done.
    """
    written: list[Path] = []
    temporary = path.with_name(f".{path.name}.new")
    try:
        for other, content in others:
            with other.open("x", encoding="utf-8", newline="") as file:
                written.append(other)
                file.write(content)
        with temporary.open("w", encoding="utf-8", newline="") as file:
            file.write(text)
        os.chmod(temporary, path.stat().st_mode & 0o777)
        os.replace(temporary, path)
    except OSError as error:
        for one in (*written, temporary):
            with contextlib.suppress(OSError):
                one.unlink(missing_ok=True)
        raise PlanError(
            f"cannot fix {path.name}: {error.strerror}: {error.filename}; make the directory writable"
        ) from error


def _ended(text: str) -> str:
    return text if text.endswith("\n") else f"{text}\n"


def _refused(parsed: Parsed, why: str) -> PlanError:
    return PlanError(f"cannot fix {parsed.path.name}: {why}")
