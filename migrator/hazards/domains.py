"""What ALTER DOMAIN does to every table that uses the domain. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from migrator.hazards import tree
from migrator.hazards.finding import Finding
from migrator.hazards.seen import Seen, called
from migrator.hazards.tree import quoted

_DOMAINS_VALIDATED_BESIDE_WRITERS = 180000


def alter_domain(seen: Seen) -> Iterator[Finding]:
    """ALTER DOMAIN ADD CONSTRAINT, SET NOT NULL, VALIDATE CONSTRAINT."""
    node = seen.node
    subtype = node.get("subtype")
    constraint = node.get("def", {}).get("Constraint", {})
    version = seen.world.facts.server_version if seen.world.facts else 0
    # From 18 on it lets writers pass.
    validates = subtype == "V" and version < _DOMAINS_VALIDATED_BESIDE_WRITERS
    if not (subtype in ("C", "O") or validates) or constraint.get("skip_validation"):
        return
    names = tree.strings(node["typeName"])
    if names[-1] in seen.world.new_types:
        return
    relations = seen.world.facts.relations if seen.world.facts else ()
    users = [
        one
        for one in relations
        if one.kind in "rpm" and any(column.type_name == names[-1] for column in one.columns.values())
    ]
    if seen.certain and all(one.is_small for one in users):
        return
    tables = (
        ", ".join(called(one.name, one) for one in users if not one.is_small) or "every table that uses it"
    )
    domain = tree.written(*names)
    add = f"{seen.statement.text} NOT VALID"
    if subtype == "O":
        name = quoted(f"{names[-1]}_not_null")
        add = f"ALTER DOMAIN {domain} ADD CONSTRAINT {name} CHECK (VALUE IS NOT NULL) NOT VALID"
    beside = version >= _DOMAINS_VALIDATED_BESIDE_WRITERS
    later = "-- in the next file, ALTER DOMAIN ... VALIDATE CONSTRAINT" if beside else (
        "-- that counts for all that is written from then on; VALIDATE CONSTRAINT would stop writers, too, before "
        "PostgreSQL 18"
    )  # fmt: skip
    yield seen.finding(
        "domain-constraint",
        f"all of {tables} is read to check it, and nobody writes to any of them meanwhile",
        f"-- leave it NOT VALID, or run this when few write:\n{seen.statement.text};"
        if validates
        else f"{add};\n{later}",
    )
