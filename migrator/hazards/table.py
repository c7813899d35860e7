"""All rules by name, as docs/reference/hazards.md prints them. Pure."""

from __future__ import annotations

from migrator.hazards import columns_table
from migrator.hazards.columns_table import BATCHES, NOBODY
from migrator.hazards.finding import Rule, Severity


def _rules() -> tuple[Rule, ...]:
    """Those about whole tables, rows, names and rights."""
    blocking, breaking, notice = Severity.BLOCKING, Severity.BREAKING, Severity.NOTICE
    return (
        Rule(
            name="validate-in-same-transaction",
            severity=blocking,
            title="VALIDATE CONSTRAINT in the file that added it",
            why="The lock of the first statement is held until the second has read the whole table.",
            safe="VALIDATE in the next file.",
            example="ALTER TABLE orders ADD CONSTRAINT c CHECK (total >= 0) NOT VALID;\n"
            "ALTER TABLE orders VALIDATE CONSTRAINT c;",
            safe_example="ALTER TABLE orders ADD CONSTRAINT c CHECK (total >= 0) NOT VALID;\n"
            "-- in the next file:\nALTER TABLE orders VALIDATE CONSTRAINT c;",
        ),
        Rule(
            name="domain-constraint",
            severity=blocking,
            title="ALTER DOMAIN ADD CONSTRAINT, SET NOT NULL, VALIDATE CONSTRAINT",
            why="Every table that uses the domain is read whole, and nobody writes to any of them meanwhile. From "
            "PostgreSQL 18 on, VALIDATE lets writers pass.",
            safe="NOT VALID, which counts for all that is written from then on; VALIDATE when few write.",
            example="ALTER DOMAIN email ADD CONSTRAINT email_at CHECK (VALUE LIKE '%@%');",
            safe_example="ALTER DOMAIN email ADD CONSTRAINT email_at CHECK (VALUE LIKE '%@%') NOT VALID;",
        ),
        Rule(
            name="rewrite-table",
            severity=blocking,
            title="VACUUM FULL, CLUSTER, SET LOGGED or UNLOGGED, SET TABLESPACE, SET ACCESS METHOD",
            why=f"The table is written anew. {NOBODY}.",
            safe="pg_repack, or a new table that is filled in batches and exchanged by name.",
            example="VACUUM FULL orders;",
            safe_example="-- pg_repack --table=orders\nVACUUM (ANALYZE) orders;",
        ),
        Rule(
            name="refresh-materialized-view",
            severity=blocking,
            title="REFRESH MATERIALIZED VIEW without CONCURRENTLY",
            why="Nobody reads it until it is made.",
            safe="CONCURRENTLY, which needs a unique index without an expression or WHERE.",
            example="REFRESH MATERIALIZED VIEW totals;",
            safe_example="REFRESH MATERIALIZED VIEW CONCURRENTLY totals;",
        ),
        Rule(
            name="truncate",
            severity=breaking,
            title="TRUNCATE",
            why="The running release finds its rows gone, at once and for readers of older snapshots, too; CASCADE empties "
            "every table that refers to it.",
            safe="DELETE in batches of what isn't needed.",
            example="TRUNCATE sessions;",
            safe_example="DELETE FROM sessions WHERE ctid = ANY (ARRAY(SELECT ctid FROM sessions LIMIT 1000));",
        ),
        Rule(
            name="create-partition",
            severity=notice,
            title="CREATE TABLE ... PARTITION OF",
            why="Nobody reads or writes the parent until the transaction ends.",
            safe="A table of the same shape, attached in the next file: that lets readers and writers pass.",
            example="CREATE TABLE events_2027 PARTITION OF events FOR VALUES FROM ('2027-01-01') TO ('2028-01-01');",
            safe_example="CREATE TABLE events_2027 (LIKE events INCLUDING ALL);\n-- in the next file:\n"
            "ALTER TABLE events ATTACH PARTITION events_2027 FOR VALUES FROM ('2027-01-01') TO ('2028-01-01');",
        ),
        Rule(
            name="attach-partition",
            severity=blocking,
            title="ATTACH PARTITION without a CHECK that says that it fits",
            why="The table is read whole, and so is the default partition if there is one. Nobody reads or writes them "
            "meanwhile.",
            safe="A CHECK of the bounds, NOT VALID, validated in the next file; then ATTACH reads nothing.",
            example="ALTER TABLE events ATTACH PARTITION events_2027 FOR VALUES FROM ('2027-01-01') TO ('2028-01-01');",
            safe_example="ALTER TABLE events_2027 ADD CONSTRAINT events_2027_fits\n"
            "  CHECK (at IS NOT NULL AND at >= '2027-01-01' AND at < '2028-01-01') NOT VALID;\n"
            "-- in the next file:\nALTER TABLE events_2027 VALIDATE CONSTRAINT events_2027_fits;\n"
            "-- in the next file:\n"
            "ALTER TABLE events ATTACH PARTITION events_2027 FOR VALUES FROM ('2027-01-01') TO ('2028-01-01');",
        ),
        Rule(
            name="detach-partition",
            severity=notice,
            title="DETACH PARTITION without CONCURRENTLY",
            why="Nobody reads or writes the parent or the partition until the transaction ends.",
            safe="CONCURRENTLY (PostgreSQL 14 or later, and no default partition), in a file of its own.",
            example="ALTER TABLE events DETACH PARTITION events_2020;",
            safe_example="ALTER TABLE events DETACH PARTITION events_2020 CONCURRENTLY;",
        ),
        Rule(
            name="update-whole-table",
            severity=blocking,
            title="UPDATE of a whole table",
            why="Every row is locked for writers until the transaction ends, and their requests wait in the app's pool, so "
            "that readers starve, too: 9.8 s for two million rows. Told where there is no WHERE, and where the "
            "statistics say that it may let more than 5,000 rows through.",
            safe="Batches, each in a transaction of its own.",
            example="UPDATE orders SET ref = gen_random_uuid();",
            safe_example=BATCHES,
        ),
        Rule(
            name="delete-whole-table",
            severity=blocking,
            title="DELETE of a whole table",
            why="As UPDATE of a whole table.",
            safe="Batches, each in a transaction of its own.",
            example="DELETE FROM sessions;",
            safe_example="DELETE FROM sessions\n"
            " WHERE ctid = ANY (ARRAY(SELECT ctid FROM sessions LIMIT 1000 FOR UPDATE SKIP LOCKED));",
        ),
        Rule(
            name="work-under-lock",
            severity=blocking,
            title="Reading a large table after an ALTER in the same file",
            why="What the ALTER has locked stays locked until the transaction ends.",
            safe="A file of its own for either.",
            example="ALTER TABLE orders ADD COLUMN note text;\nINSERT INTO totals SELECT sum(total) FROM orders;",
            safe_example="ALTER TABLE orders ADD COLUMN note text;\n-- in the next file:\n"
            "INSERT INTO totals SELECT sum(total) FROM orders;",
        ),
        Rule(
            name="drop-table",
            severity=breaking,
            title="DROP TABLE",
            why="The running release still reads and writes it. Its foreign keys lock the tables they refer to as well.",
            safe="Release code without it first; drop it in a later release, its foreign keys before.",
            example="DROP TABLE coupons;",
            safe_example="-- in a later release than the one that stops using it:\nDROP TABLE coupons;",
        ),
        Rule(
            name="drop-object",
            severity=breaking,
            title="DROP of a view, function, type, sequence, schema or extension",
            why="The running release may still use it. Not told where the same file makes it again.",
            safe="Release code without it first; drop it in a later release.",
            example="DROP VIEW active_orders;",
            safe_example="-- in a later release than the one that stops using it:\nDROP VIEW active_orders;",
        ),
        Rule(
            name="rename-column",
            severity=breaking,
            title="RENAME COLUMN",
            why="The running release knows the old name only.",
            safe="A column of the new name that a trigger keeps; drop the old one in a later release.",
            example="ALTER TABLE orders RENAME COLUMN note TO remark;",
            safe_example="ALTER TABLE orders ADD COLUMN remark text;\n"
            "-- a trigger BEFORE INSERT OR UPDATE keeps both alike; fill the new one in batches",
        ),
        Rule(
            name="rename-table",
            severity=breaking,
            title="RENAME of a table or view",
            why="The running release knows the old name only.",
            safe="A view of the old name in the same file; simple views can be written to.",
            example="ALTER TABLE orders RENAME TO purchases;",
            safe_example="ALTER TABLE orders RENAME TO purchases;\n"
            "CREATE VIEW orders WITH (security_invoker) AS SELECT * FROM purchases;",
        ),
        Rule(
            name="rename-object",
            severity=breaking,
            title="RENAME of a schema, type, function or enum value",
            why="The running release knows the old name only.",
            safe="One of the new name beside it; drop the old one in a later release.",
            example="ALTER TYPE state RENAME VALUE 'open' TO 'pending';",
            safe_example="ALTER TYPE state ADD VALUE 'pending';",
        ),
        Rule(
            name="set-schema",
            severity=breaking,
            title="SET SCHEMA of a table",
            why="The running release looks for it where it was.",
            safe="A view where it was, in the same file.",
            example="ALTER TABLE orders SET SCHEMA shop;",
            safe_example="ALTER TABLE orders SET SCHEMA shop;\n"
            "CREATE VIEW orders WITH (security_invoker) AS SELECT * FROM shop.orders;",
        ),
        Rule(
            name="enum-value-used-at-once",
            severity=breaking,
            title="ALTER TYPE ADD VALUE, and its use in the same file",
            why="A new value can't be used in the transaction that adds it: the file fails.",
            safe="ADD VALUE in a file before.",
            example="ALTER TYPE state ADD VALUE 'lost';\nALTER TABLE orders ALTER COLUMN state SET DEFAULT 'lost';",
            safe_example="ALTER TYPE state ADD VALUE 'lost';\n-- in the next file:\n"
            "ALTER TABLE orders ALTER COLUMN state SET DEFAULT 'lost';",
        ),
        Rule(
            name="replace-stored-function",
            severity=breaking,
            title="CREATE OR REPLACE FUNCTION that an index or a generated column has computed with",
            why="What was computed before stays, so that queries by the index don't find what is there.",
            safe="Build the index anew afterwards, CONCURRENTLY; or a function of another name.",
            example="CREATE OR REPLACE FUNCTION normal(t text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT lower(t)';",
            safe_example="-- afterwards, in a file of its own:\nREINDEX INDEX CONCURRENTLY users_normal_idx;",
        ),
        Rule(
            name="revoke",
            severity=notice,
            title="REVOKE on a table",
            why="Whoever still needs the right loses it at once.",
            safe="Once nobody needs it any more.",
            example="REVOKE SELECT ON orders FROM web;",
            safe_example="-- in a later release:\nREVOKE SELECT ON orders FROM web;",
        ),
        Rule(
            name="table-without-rls",
            severity=breaking,
            title="A new table in `public` of a Supabase project without row-level security",
            why="Supabase serves `public` through its API: whoever has the project's public key, which is in every web page, "
            "reads and writes the table. Told where the roles `anon` and `authenticated` exist, or the file lies in "
            "`supabase/migrations`.",
            safe="ENABLE ROW LEVEL SECURITY in the same file, and policies.",
            example="CREATE TABLE notes (id bigint PRIMARY KEY, body text);",
            safe_example="CREATE TABLE notes (id bigint PRIMARY KEY, body text);\n"
            "ALTER TABLE notes ENABLE ROW LEVEL SECURITY;",
        ),
        Rule(
            name="rls-without-policy",
            severity=breaking,
            title="ENABLE ROW LEVEL SECURITY on a table that has no policy",
            why="Everybody but the owner sees an empty table from that moment on.",
            safe="The policies first, in the same file.",
            example="ALTER TABLE notes ENABLE ROW LEVEL SECURITY;",
            safe_example="CREATE POLICY notes_own ON notes TO web USING (true);\nALTER TABLE notes ENABLE ROW LEVEL SECURITY;",
        ),
    )


RULES = {rule.name: rule for rule in (*columns_table.rules(), *_rules())}
