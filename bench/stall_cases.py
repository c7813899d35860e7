"""The cases of bench/stall.py: a migration, and who is in its way."""

from __future__ import annotations

import dataclasses

import blockers

ADD_COLUMN = "alter table busy add column email text;\n"
COLUMN_ADDED = "exists (select from pg_attribute where attrelid = 'busy'::regclass and attname = 'email')"


@dataclasses.dataclass(frozen=True)
class Case:
    """A migration, and who is in its way.

    Args:
        told: In words.
        text: The migration.
        proof: An SQL expression that is true once it is done.
        blocker: Who is in its way.
        ends: Whether they ever end by themselves.
        setup: SQL beside `load.tables()`.
        alone: The text can't run in a transaction.
        heavy: It takes long itself, so the table is large, and the migration is one to be refused.
    """

    told: str
    text: str
    proof: str
    blocker: blockers.Blocker
    ends: bool = True
    setup: str = ""
    alone: bool = False
    heavy: bool = False


CASES = {
    "long-reader": Case("a column, behind an idle reader", ADD_COLUMN, COLUMN_ADDED, blockers.long_reader),
    "long-writer": Case("a column, behind an idle writer", ADD_COLUMN, COLUMN_ADDED, blockers.long_writer),
    "short-readers": Case(
        "a column, among readers of whom there is always one",
        ADD_COLUMN,
        COLUMN_ADDED,
        blockers.short_readers,
        ends=False,
    ),
    "autovacuum": Case(
        "a column, during an autovacuum", ADD_COLUMN, COLUMN_ADDED, blockers.autovacuum, ends=False
    ),
    "two-tables": Case(
        "a column in each of two tables, behind a reader of the second",
        f"alter table other add column email text;\n{ADD_COLUMN}",
        COLUMN_ADDED,
        blockers.long_reader,
    ),
    "foreign-key": Case(
        "a foreign key to a parent in use, behind its writer",
        "alter table child add constraint child_busy foreign key (busy_id) references busy (id);\n",
        "exists (select from pg_constraint where conname = 'child_busy')",
        blockers.long_writer,
        setup="create table child (id int primary key, busy_id int)",
    ),
    "create-index": Case(
        "CREATE INDEX CONCURRENTLY, behind an old snapshot",
        "create index concurrently busy_quantity on busy (quantity);\n",
        "exists (select from pg_index where indexrelid = to_regclass('busy_quantity') and indisvalid)",
        blockers.old_snapshot,
        alone=True,
    ),
    "drop-index": Case(
        "DROP INDEX CONCURRENTLY, behind an idle reader",
        "drop index concurrently busy_quantity;\n",
        "to_regclass('busy_quantity') is null",
        blockers.long_reader,
        setup="create index busy_quantity on busy (quantity)",
        alone=True,
    ),
    "prepared": Case(
        "a column, behind a prepared transaction", ADD_COLUMN, COLUMN_ADDED, blockers.prepared_transaction
    ),
    "dump": Case("a column, during a dump", ADD_COLUMN, COLUMN_ADDED, blockers.dump),
    "rewrite": Case(
        "a type that rewrites a large table",
        "alter table busy alter column quantity type bigint;\n",
        "(select atttypid = 'bigint'::regtype from pg_attribute "
        "where attrelid = 'busy'::regclass and attname = 'quantity')",
        blockers.nobody,
        ends=False,
        heavy=True,
    ),
    "backfill": Case(
        "an UPDATE of a whole large table",
        "update busy set quantity = 1;\n",
        "not exists (select from busy where quantity <> 1)",
        blockers.nobody,
        ends=False,
        heavy=True,
    ),
}
