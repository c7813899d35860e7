"""Indexes: made, dropped, built anew. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from migrator import scan
from migrator.hazards import tree
from migrator.hazards.finding import Finding, Fix
from migrator.hazards.seen import Seen, called

# Before 14.4, CREATE INDEX CONCURRENTLY and REINDEX CONCURRENTLY may leave rows out (release notes of 14.4).
_FORGETFUL = range(140000, 140004)


def create_index(seen: Seen) -> Iterator[Finding]:
    """CREATE INDEX."""
    node, relation = seen.node, seen.node["relation"]
    found = seen.table(relation)
    if found is None:
        return
    if node.get("concurrent"):
        yield from _forgetful(seen)
        return
    name = node.get("idxname")
    there = next((one for one in found[1].indexes if one.name == name), None) if found[1] else None
    if node.get("if_not_exists") and there is not None:
        if not there.valid:
            schema = found[1].schema if found[1] else None
            yield seen.finding(
                "invalid-index-kept",
                f"an INVALID index {there.name} is there already, so nothing is made: no query uses it, and each write "
                "pays for it",
                f"-- in a file of its own:\nDROP INDEX CONCURRENTLY {tree.written(schema, there.name)};\n"
                f"-- in the next file, of its own, too:\n{_concurrently(seen.statement.text)};",
            )
        return
    used = seen.in_use(relation)
    if used is None:
        return
    why = f"it reads all of {used[1]}, and nobody writes to the table meanwhile"
    if found[1] is not None and found[1].kind == "p":
        if not relation.get("inh"):  # ON ONLY: of the parent alone, which holds no rows
            return
        whole = seen.statement.text
        only = re.sub(r"(?i)\bon\s+", "ON ONLY ", whole, count=1)
        part = re.sub(r"(?i)\bon\s+\S+", "ON <partition>", _concurrently(whole), count=1)
        yield seen.finding(
            "create-index-partitioned",
            f"it reads all of {used[1]}, and nobody writes to any partition meanwhile",
            f"{only};\n-- for each partition, in a file of its own:\n{part};\n"
            f"-- then, in the next file, for each:\nALTER INDEX {tree.quoted(name or '<index>')} ATTACH PARTITION "
            "<index of the partition>;",
        )
        return
    yield seen.finding("create-index", why, fix=Fix(text=_concurrently(seen.statement.text), alone=True))


def drop_index(seen: Seen) -> Iterator[Finding]:
    """DROP INDEX."""
    if seen.node.get("concurrent"):
        return
    for listed in seen.node["objects"]:
        names = tree.strings(listed["List"]["items"])
        index = seen.world.index(names[-2] if len(names) > 1 else None, names[-1])
        if seen.certain and index is None:
            continue
        table = index.index_of[1] if index and index.index_of else "its table"
        if index and index.index_of and index.index_of in seen.world.dropped:
            continue
        if not seen.certain and (names[-2] if len(names) > 1 else "public", names[-1]) in seen.world.new:
            continue
        yield seen.finding(
            "drop-index",
            f"it locks {table} for a moment, against readers, too, and has to wait for all who use it",
            f"-- in a file of its own:\nDROP INDEX CONCURRENTLY {tree.written(*names)};",
        )


def reindex(seen: Seen) -> Iterator[Finding]:
    """REINDEX."""
    node = seen.node
    options = [one.get("DefElem", {}).get("defname") for one in node.get("params", [])]
    if "concurrently" in options:
        yield from _forgetful(seen)
        return
    text = seen.statement.text
    kind = {"REINDEX_OBJECT_INDEX": "index", "REINDEX_OBJECT_TABLE": "table"}.get(node["kind"])
    if kind is None:
        what = "every table of it"
    else:
        names = node["relation"].get("schemaname"), node["relation"]["relname"]
        if kind == "index":
            index = seen.world.index(*names)
            if seen.certain and index is None:
                return
            key = index.index_of if index else None
            found = seen.world.relation(key) if key else None
            if key is not None and (seen.world.is_new(key) or (found is not None and found.is_small)):
                return
            what = called(key[1], found) if key else f"the table of {tree.written(*names)}"
        else:
            used = seen.in_use(node["relation"])
            if used is None:
                return
            what = used[1]
    safe = re.sub(r"(?is)^(reindex\s+(?:\([^)]*\)\s*)?\w+)\s", r"\1 CONCURRENTLY ", text, count=1)
    yield seen.finding(
        "reindex",
        f"indexes of {what} are built anew; nobody writes meanwhile, and reading by such an index waits, too",
        f"-- in a file of its own:\n{safe};",
        fix=Fix(text=safe, alone=True) if kind else None,
    )


def _forgetful(seen: Seen) -> Iterator[Finding]:
    facts = seen.world.facts
    if facts is not None and facts.server_version in _FORGETFUL:
        yield seen.finding(
            "concurrent-index-corruption",
            f"PostgreSQL 14.{facts.server_version % 100} may leave rows out of an index that is built CONCURRENTLY "
            "(repaired in 14.4)",
            f"-- update the server to 14.4 or later; then:\n{seen.statement.text};",
        )


def _concurrently(text: str) -> str:
    """A CREATE INDEX with CONCURRENTLY; without IF NOT EXISTS it keeps failing on what is there."""
    found = re.match(r"(?is)\s*create\s+(?:unique\s+)?index\b", scan.bare(text))
    assert found is not None
    return f"{text[: found.end()]} CONCURRENTLY{text[found.end() :]}"
