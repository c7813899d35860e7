"""All statements of the pending files, in order, under all rules. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from msgspec.structs import replace

from migrator.hazards import effects, rules
from migrator.hazards.facts import Facts
from migrator.hazards.finding import Finding
from migrator.hazards.parsed import Parsed, Step
from migrator.hazards.seen import Seen
from migrator.hazards.world import Key, World

_OUT_OF_BLOCK = "-- out of the DO block:"


def check(files: Sequence[Parsed], facts: Facts | None) -> list[Finding]:
    """The hazards of the files, without those that a file allows itself.

    Args:
        files: In the order in which they are applied.
        facts: What the database knows of `parsed.names` of them; None: there is none at hand.
    """
    world = World(facts=facts)
    secured = frozenset(_secured(files, world.default_schema))
    found: list[Finding] = []
    for parsed in files:
        world.begin_file()
        trees = [(step.kind, step.node) for step in parsed.steps]
        for number, step in enumerate(parsed.steps):
            seen = Seen(
                statement=step.statement,
                kind=step.kind,
                node=step.node,
                filename=parsed.path.name,
                line=step.line,
                column=step.column,
                world=world,
                trees=trees,
                number=number,
                in_transaction=parsed.in_transaction,
                in_supabase=parsed.in_supabase,
                secured=secured,
            )
            told = [one for one in _look(seen) if one.rule not in parsed.allowed]
            if step.in_block:
                found += [replace(one, fix=None, safe=f"{_OUT_OF_BLOCK}\n{one.safe}") for one in told]
                effects.take_perhaps(seen)
            else:
                found += told
                effects.take(seen)
    return found


def _look(seen: Seen) -> Iterable[Finding]:
    look = rules.LOOKS.get(seen.kind)
    return look(seen) if look else ()


def _secured(files: Sequence[Parsed], default_schema: str) -> Iterator[Key]:
    """The tables that some file enables row-level security for."""
    for parsed in files:
        for step in parsed.steps:
            if step.kind == "AlterTableStmt" and _enables(step):
                relation = step.node["relation"]
                yield relation.get("schemaname") or default_schema, relation["relname"]


def _enables(step: Step) -> bool:
    return any(one["AlterTableCmd"]["subtype"] == "AT_EnableRowSecurity" for one in step.node["cmds"])
