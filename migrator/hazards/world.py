"""What is known at one statement of the pending files: the catalogs, and what the statements before it did. Pure."""

from __future__ import annotations

import re

from msgspec import Struct, field
from msgspec.structs import replace

from migrator.hazards import tree
from migrator.hazards.facts import Constraint, Facts, Relation, Type
from migrator.hazards.tree import Node

Key = tuple[str, str]

_NULL_TEST = "NullTest"


class World(Struct):
    """The database as the next statement will find it, as far as it matters.

    Attributes:
        facts: None where no database is at hand; then a table is known to be new only within its own file.
        new: What the files made themselves: nobody uses it yet.
        path: The search path that the file has set; None: it hasn't.
        strong_locks: What the file's own transaction holds under ACCESS EXCLUSIVE: table and line.
    """

    facts: Facts | None
    new: set[Key] = field(default_factory=set)
    temporary: set[Key] = field(default_factory=set)
    dropped: set[Key] = field(default_factory=set)
    new_types: set[str] = field(default_factory=set)
    renamed: dict[Key, Key] = field(default_factory=dict)
    path: tuple[str, ...] | None = None
    strong_locks: dict[str, int] = field(default_factory=dict)
    unvalidated: dict[tuple[Key, str], int] = field(default_factory=dict)
    added: dict[Key, list[Constraint]] = field(default_factory=dict)
    secured: set[Key] = field(default_factory=set)
    policies: set[Key] = field(default_factory=set)
    new_columns: set[tuple[Key, str]] = field(default_factory=set)

    def begin_file(self) -> None:
        """What belongs to a session or a transaction ends with its file."""
        self.path = None
        self.strong_locks.clear()
        self.new -= self.temporary
        self.temporary.clear()
        self.unvalidated.clear()
        if self.facts is None:
            self.new.clear()
            self.new_types.clear()

    def key(self, relation: Node) -> Key:
        """Schema and name of a RangeVar, by which the world knows it."""
        return self.key_of(relation.get("schemaname"), relation["relname"])

    def key_of(self, schema: str | None, name: str) -> Key:
        """Schema and name, by which the world knows it."""
        if schema is None:
            for one in (*(self.path or ()), self.default_schema):
                if (one, name) in self.new:
                    return one, name
            found = self._find(None, name)
            schema = found.schema if found else (self.path or (self.default_schema,))[0]
        return self.renamed.get((schema, name), (schema, name))

    @property
    def default_schema(self) -> str:
        """Where a name without a schema goes."""
        return self.facts.default_schema if self.facts else "public"

    def is_new(self, key: Key) -> bool:
        """Whether the files themselves made it, or it isn't there at all, so that nobody uses it."""
        if key in self.new:
            return True
        return self.facts is not None and self.relation(key) is None

    def relation(self, key: Key) -> Relation | None:
        """What the catalogs know of it, with what the files did to its constraints; None: nothing."""
        found = self._find(*key)
        if found is None or key in self.dropped:
            return None
        return replace(found, constraints=(*found.constraints, *self.added.get(key, ())))

    def constraints(self, key: Key) -> tuple[Constraint, ...]:
        """Its constraints, from the catalogs and from the files."""
        found = self.relation(key)
        return found.constraints if found else tuple(self.added.get(key, ()))

    def proves_not_null(self, key: Key, column: str) -> bool:
        """Whether no row can hold a null there, by what is declared."""
        found = self.relation(key)
        if found and column in found.columns and found.columns[column].not_null:
            return True
        return any(one.valid and column in one.not_null for one in self.constraints(key))

    def type(self, schema: str | None, name: str) -> Type | None:
        """A type that isn't PostgreSQL's own, if the catalogs know one of that name."""
        types = self.facts.types if self.facts else ()
        return next((one for one in types if one.name == name and schema in (None, one.schema)), None)

    def index(self, schema: str | None, name: str) -> Relation | None:
        """The index of that name."""
        found = self._find(schema, name)
        return found if found and found.kind in "iI" else None

    def _find(self, schema: str | None, name: str) -> Relation | None:
        relations = [one for one in (self.facts.relations if self.facts else ()) if one.name == name]
        if schema is not None:
            return next((one for one in relations if one.schema == schema), None)
        if self.path is not None:
            return next((one for place in self.path for one in relations if one.schema == place), None)
        return next((one for one in relations if one.visible), None)

    # What a statement leaves behind.

    def create(self, relation: Node, *, unless_there: bool = False) -> None:
        """A relation was made; `unless_there`: IF NOT EXISTS."""
        is_temporary = relation.get("relpersistence") == "t"
        schema = None if is_temporary else relation.get("schemaname")
        key = (schema or (self.path or (self.default_schema,))[0], relation["relname"])
        if is_temporary and key not in self.new:
            self.temporary.add(key)
        if unless_there and self.facts is not None and self.relation(key) is not None:
            return
        self.new.add(key)

    def drop(self, key: Key) -> None:
        """It is gone; what is made under that name is new."""
        self.new.discard(key)
        self.dropped.add(key)

    def rename(self, key: Key, other: Key) -> None:
        """It has another name from now on."""
        if key in self.new:
            self.new.discard(key)
            self.new.add(other)
        else:
            self.renamed[other] = key

    def add_constraint(self, key: Key, constraint: Constraint) -> None:
        """It has one more."""
        self.added.setdefault(key, []).append(constraint)

    def validate(self, key: Key, name: str) -> None:
        """One of its constraints is valid from now on."""
        found = self.relation(key)
        for one in found.constraints if found else self.added.get(key, []):
            if one.name == name and not one.valid:
                self.add_constraint(key, replace(one, valid=True))

    def set_path(self, node: Node) -> None:
        """A SET search_path."""
        if node.get("kind") != "VAR_SET_VALUE":
            self.path = None
            return
        values = [one.get("A_Const", {}).get("sval", {}).get("sval", "") for one in node.get("args", [])]
        self.path = tuple(value for value in values if value) or ("",)


def not_null_columns(expression: Node) -> tuple[str, ...]:
    """The columns of which a CHECK says that they are not null: `a IS NOT NULL`, also joined by AND."""
    if _NULL_TEST in expression:
        test = expression[_NULL_TEST]
        fields = tree.strings(test.get("arg", {}).get("ColumnRef", {}).get("fields"))
        return tuple(fields[-1:]) if test.get("nulltesttype") == "IS_NOT_NULL" else ()
    joined = expression.get("BoolExpr", {})
    if joined.get("boolop") == "AND_EXPR":
        return tuple(column for one in joined.get("args", []) for column in not_null_columns(one))
    return ()


_STORED_TEST = re.compile(r"\{NULLTEST :arg \{VAR :varno 1 :varattno (\d+) [^{}]*\} :nulltesttype 1 ")


def not_null_numbers(stored: str) -> list[int]:
    """The same of a CHECK as pg_constraint.conbin holds it: the numbers of the columns."""
    if ":boolop or" in stored or ":boolop not" in stored:
        return []
    if stored.startswith(("{NULLTEST ", "{BOOLEXPR :boolop and ")):
        return [int(number) for number in _STORED_TEST.findall(stored)]
    return []
