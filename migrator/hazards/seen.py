"""A statement as the rules see it, and the findings that they make of it. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct, field

from migrator.hazards import tree
from migrator.hazards.facts import Relation
from migrator.hazards.finding import Finding, Fix, Severity
from migrator.hazards.table import RULES
from migrator.hazards.tree import Node
from migrator.hazards.world import Key, World
from migrator.statements import Statement

# What isn't known without a database.
_DOUBTS = {
    Severity.BLOCKING: "unless the table is new or small",
    Severity.BREAKING: "if it is in use",
    Severity.NOTICE: "if it is in use",
}


class Seen(Struct, frozen=True, kw_only=True):
    """One statement and what is around it.

    Attributes:
        node: The inside of its tree; `kind`: what that is.
        line: From 1, as is `column`.
        trees: All statements of the file, as kind and inside; this is the `number`th, from 0.
        in_transaction: It shares one with the rest of its file.
        in_supabase: The file is one of a Supabase project.
        secured: Tables that some pending file enables row-level security for.
    """

    statement: Statement
    kind: str
    node: Node
    filename: str
    line: int
    column: int
    world: World
    trees: Sequence[tuple[str, Node]] = ()
    number: int = 0
    in_transaction: bool = True
    in_supabase: bool = False
    secured: frozenset[Key] = field(default_factory=frozenset)

    @property
    def rest(self) -> Sequence[tuple[str, Node]]:
        """The statements after it in the file."""
        return self.trees[self.number + 1 :]

    @property
    def certain(self) -> bool:
        """Whether the catalogs were asked."""
        return self.world.facts is not None

    def finding(self, rule: str, why: str, safe: str = "", *, fix: Fix | None = None) -> Finding:
        """A finding about this statement; without a `safe` form, the one that `fix` stands for."""
        assert rule in RULES, rule
        return Finding(
            rule=rule,
            severity=RULES[rule].severity,
            filename=self.filename,
            line=self.line,
            column=self.column,
            offset=self.statement.offset,
            statement=self.statement.first_line,
            why=why if self.certain else f"{_DOUBTS[RULES[rule].severity]}: {why}",
            safe=safe or (written_out(self, fix) if fix else ""),
            fix=fix,
            certain=self.certain,
        )

    def table(self, relation: Node) -> tuple[Key, Relation | None] | None:
        """A table that somebody may be using, and what is known of it; None if nobody can be."""
        key = self.world.key(relation)
        return None if self.world.is_new(key) else (key, self.world.relation(key))

    def in_use(self, relation: Node) -> tuple[Key, str] | None:
        """The same for what takes as long as the table is large: its key and how to call it; None if small."""
        found = self.table(relation)
        if found is None or (found[1] is not None and found[1].is_small):
            return None
        return found[0], called(tree.relation_name(relation), found[1])


def called(name: str, relation: Relation | None) -> str:
    """A table for people, with its size: `orders (1.2 GB, about 8,000,000 rows)`."""
    return f"{name} ({relation.shown_size})" if relation is not None else name


def written_out(seen: Seen, fix: Fix) -> str:
    """What a fix comes to, as SQL for people."""
    first = edited(seen, [fix])
    lines = [f"-- in a file of its own:\n{first}" if fix.alone else first]
    lines += ["-- in the next file:\n" + "\n".join(statements) for statements in fix.then]
    return "\n".join(lines)


def edited(seen: Seen, fixes: Sequence[Fix]) -> str:
    """The statement, with its semicolon, as the fixes want it."""
    text = seen.statement.text
    return edited_text(text, seen.node, fixes) + ";"


def edited_text(text: str, node: Node, fixes: Sequence[Fix]) -> str:
    """The statement without its semicolon, as the fixes want it."""
    whole = [fix for fix in fixes if fix.clause is None]
    if whole:
        return whole[0].text
    _, spans = tree.clauses(text, node["relation"])
    for fix in sorted(fixes, key=lambda one: -(one.clause or 0)):
        if (fix.clause or 0) >= len(spans):
            return f"{text}\n-- with this in place of one of its clauses:\n-- {fix.text}"
        begin, end = spans[fix.clause or 0]
        text = text[:begin] + fix.text + text[end:]
    return text
