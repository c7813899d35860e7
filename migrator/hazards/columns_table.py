"""The rules about indexes, columns and constraints. Pure."""

from __future__ import annotations

from migrator.hazards.finding import Rule, Severity

NOBODY = "Nobody reads or writes the table meanwhile"
BATCHES = (
    "UPDATE orders SET ref = gen_random_uuid()\n"
    " WHERE ctid = ANY (ARRAY(SELECT ctid FROM orders WHERE ref IS NULL LIMIT 1000 FOR UPDATE SKIP LOCKED));"
)


def rules() -> tuple[Rule, ...]:
    """All of them, in the order in which they are shown."""
    blocking, breaking, notice = Severity.BLOCKING, Severity.BREAKING, Severity.NOTICE
    return (
        Rule(
            name="create-index",
            severity=blocking,
            title="CREATE INDEX without CONCURRENTLY",
            why="The table is read whole and nobody writes to it until the transaction ends.",
            safe="CONCURRENTLY, in a file of its own, as it can't run in a transaction. If it fails, what it leaves is "
            "dropped before the next try.",
            example="CREATE INDEX orders_customer_idx ON orders (customer_id);",
            safe_example="CREATE INDEX CONCURRENTLY orders_customer_idx ON orders (customer_id);",
        ),
        Rule(
            name="create-index-partitioned",
            severity=blocking,
            title="CREATE INDEX on a partitioned table",
            why="All partitions are read and nobody writes to any of them meanwhile; CONCURRENTLY isn't possible here.",
            safe="The index of the table alone (ONLY), one per partition CONCURRENTLY, then ATTACH.",
            example="CREATE INDEX events_at_idx ON events (at);",
            safe_example="CREATE INDEX events_at_idx ON ONLY events (at);\n"
            "CREATE INDEX CONCURRENTLY events_2026_at_idx ON events_2026 (at);\n"
            "ALTER INDEX events_at_idx ATTACH PARTITION events_2026_at_idx;",
        ),
        Rule(
            name="invalid-index-kept",
            severity=breaking,
            title="CREATE INDEX IF NOT EXISTS where an INVALID index is",
            why="A build that was broken off has left an index that no query uses; IF NOT EXISTS takes it for done.",
            safe="Drop it CONCURRENTLY, then build it.",
            example="CREATE INDEX IF NOT EXISTS orders_customer_idx ON orders (customer_id);",
            safe_example="DROP INDEX CONCURRENTLY orders_customer_idx;\n"
            "CREATE INDEX CONCURRENTLY orders_customer_idx ON orders (customer_id);",
        ),
        Rule(
            name="concurrent-index-corruption",
            severity=breaking,
            title="CONCURRENTLY on PostgreSQL 14.0 to 14.3",
            why="These versions may leave rows out of an index that is built CONCURRENTLY, without a word.",
            safe="Update the server to 14.4 or later before.",
            example="CREATE INDEX CONCURRENTLY orders_customer_idx ON orders (customer_id);",
            safe_example="CREATE INDEX CONCURRENTLY orders_customer_idx ON orders (customer_id);  -- on 14.4 or later",
        ),
        Rule(
            name="drop-index",
            severity=notice,
            title="DROP INDEX without CONCURRENTLY",
            why="It is quick, but locks the table against readers, too, and waits for all who use it.",
            safe="CONCURRENTLY, in a file of its own.",
            example="DROP INDEX orders_customer_idx;",
            safe_example="DROP INDEX CONCURRENTLY orders_customer_idx;",
        ),
        Rule(
            name="reindex",
            severity=blocking,
            title="REINDEX without CONCURRENTLY",
            why="Nobody writes while an index is built anew, and who would read by it waits, too.",
            safe="CONCURRENTLY, in a file of its own.",
            example="REINDEX TABLE orders;",
            safe_example="REINDEX TABLE CONCURRENTLY orders;",
        ),
        Rule(
            name="set-not-null",
            severity=blocking,
            title="SET NOT NULL",
            why=f"The table is read whole to see that there is no null. {NOBODY}. Not so if a valid CHECK says already "
            "that the column is not null.",
            safe="A CHECK that is NOT VALID, validated in the next file, then SET NOT NULL, which believes it.",
            example="ALTER TABLE orders ALTER COLUMN total SET NOT NULL;",
            safe_example="ALTER TABLE orders ADD CONSTRAINT orders_total_not_null CHECK (total IS NOT NULL) NOT VALID;\n"
            "-- in the next file:\nALTER TABLE orders VALIDATE CONSTRAINT orders_total_not_null;\n"
            "-- in the next file:\nALTER TABLE orders ALTER COLUMN total SET NOT NULL;\n"
            "ALTER TABLE orders DROP CONSTRAINT orders_total_not_null;",
        ),
        Rule(
            name="add-column-not-null",
            severity=breaking,
            title="ADD COLUMN NOT NULL without a default",
            why="It fails as soon as there is a row; and the running release, which doesn't know the column, can insert "
            "nothing any more.",
            safe="A default; or the column without NOT NULL, which a later release adds.",
            example="ALTER TABLE orders ADD COLUMN currency text NOT NULL;",
            safe_example="ALTER TABLE orders ADD COLUMN currency text DEFAULT 'EUR' NOT NULL;",
        ),
        Rule(
            name="add-column-volatile-default",
            severity=blocking,
            title="ADD COLUMN with a default that differs from row to row",
            why=f"Every row is written anew. {NOBODY}. A constant, and `now()`, are free: they stand in the catalog.",
            safe="The column, then its default, then the old rows in batches.",
            example="ALTER TABLE orders ADD COLUMN ref uuid DEFAULT gen_random_uuid();",
            safe_example="ALTER TABLE orders ADD COLUMN ref uuid;\n"
            "ALTER TABLE orders ALTER COLUMN ref SET DEFAULT gen_random_uuid();\n"
            f"-- then, in transactions of their own, until it says UPDATE 0:\n{BATCHES}",
        ),
        Rule(
            name="add-column-serial",
            severity=blocking,
            title="ADD COLUMN serial, or GENERATED AS IDENTITY",
            why=f"Every row is written anew to number it. {NOBODY}.",
            safe="A plain column, a sequence as its default, the old rows in batches.",
            example="ALTER TABLE orders ADD COLUMN number bigserial;",
            safe_example="ALTER TABLE orders ADD COLUMN number bigint;\n"
            "CREATE SEQUENCE orders_number_seq OWNED BY orders.number;\n"
            "ALTER TABLE orders ALTER COLUMN number SET DEFAULT nextval('orders_number_seq');",
        ),
        Rule(
            name="add-column-generated",
            severity=blocking,
            title="ADD COLUMN GENERATED ALWAYS AS (...) STORED",
            why=f"Every row is written anew to compute it. {NOBODY}.",
            safe="A plain column that a trigger fills, the old rows in batches; or VIRTUAL, from PostgreSQL 18 on.",
            example="ALTER TABLE orders ADD COLUMN gross int GENERATED ALWAYS AS (total * 119 / 100) STORED;",
            safe_example="ALTER TABLE orders ADD COLUMN gross int;\n"
            "-- a trigger BEFORE INSERT OR UPDATE: NEW.gross := (NEW.total * 119 / 100);",
        ),
        Rule(
            name="add-column-domain",
            severity=blocking,
            title="ADD COLUMN of a domain with constraints",
            why=f"Every row is written anew, even if all are null. {NOBODY}. Only the catalogs can tell.",
            safe="The type that the domain stands for, and its CHECK as one of the table's, NOT VALID and validated later.",
            example="ALTER TABLE orders ADD COLUMN email email_address;",
            safe_example="ALTER TABLE orders ADD COLUMN email text;\n"
            "ALTER TABLE orders ADD CONSTRAINT orders_email_check CHECK (email LIKE '%@%') NOT VALID;\n"
            "-- in the next file:\nALTER TABLE orders VALIDATE CONSTRAINT orders_email_check;",
        ),
        Rule(
            name="add-column-check",
            severity=blocking,
            title="ADD COLUMN with a CHECK",
            why=f"The table is read whole to check it. {NOBODY}.",
            safe="The column, then the CHECK NOT VALID, validated in the next file.",
            example="ALTER TABLE orders ADD COLUMN discount int CHECK (discount >= 0);",
            safe_example="ALTER TABLE orders ADD COLUMN discount int;\n"
            "ALTER TABLE orders ADD CONSTRAINT orders_discount_check CHECK (discount >= 0) NOT VALID;\n"
            "-- in the next file:\nALTER TABLE orders VALIDATE CONSTRAINT orders_discount_check;",
        ),
        Rule(
            name="add-column-unique",
            severity=blocking,
            title="ADD COLUMN UNIQUE or PRIMARY KEY",
            why=f"An index over the whole table is built. {NOBODY}.",
            safe="The column, a unique index CONCURRENTLY, then the constraint USING INDEX.",
            example="ALTER TABLE orders ADD COLUMN ref text UNIQUE;",
            safe_example="ALTER TABLE orders ADD COLUMN ref text;\n-- in a file of its own:\n"
            "CREATE UNIQUE INDEX CONCURRENTLY orders_ref_key ON orders (ref);\n"
            "-- in the next file:\nALTER TABLE orders ADD CONSTRAINT orders_ref_key UNIQUE USING INDEX orders_ref_key;",
        ),
        Rule(
            name="add-column-references",
            severity=blocking,
            title="ADD COLUMN with a default that REFERENCES a table",
            why=f"Each row is looked up in the other table. {NOBODY}, and nobody writes to the other one. Without a default "
            "nothing is looked up.",
            safe="The column, then the foreign key NOT VALID, validated in the next file.",
            example="ALTER TABLE orders ADD COLUMN shop_id int DEFAULT 1 REFERENCES shops;",
            safe_example="ALTER TABLE orders ADD COLUMN shop_id int DEFAULT 1;\n"
            "ALTER TABLE orders ADD CONSTRAINT orders_shop_id_fkey FOREIGN KEY (shop_id) REFERENCES shops NOT VALID;\n"
            "-- in the next file:\nALTER TABLE orders VALIDATE CONSTRAINT orders_shop_id_fkey;",
        ),
        Rule(
            name="change-column-type",
            severity=blocking,
            title="ALTER COLUMN TYPE that changes what is on disk",
            why=f"Every row and every index is written anew. {NOBODY}. Free are: a longer varchar, varchar to text and "
            "back without a length, numeric with more digits before the point or without any limit, more digits of a "
            "second, a longer varbit, cidr to inet, and timestamp to timestamptz or back where TimeZone is UTC and no "
            "index holds it; but a CHECK on the column is checked anew.",
            safe="A new column that a trigger keeps, the old rows in batches, then an exchange by name.",
            example="ALTER TABLE orders ALTER COLUMN id TYPE bigint;",
            safe_example="ALTER TABLE orders ADD COLUMN id_new bigint;\n"
            "-- a trigger BEFORE INSERT OR UPDATE keeps it: NEW.id_new := NEW.id;\n"
            "-- then the old rows, in batches; and once no release uses the old column, exchange them",
        ),
        Rule(
            name="drop-column",
            severity=breaking,
            title="DROP COLUMN",
            why="The running release still reads and writes it.",
            safe="Release code without it first; drop it in a later release.",
            example="ALTER TABLE orders DROP COLUMN note;",
            safe_example="-- in a later release than the one that stops using it:\nALTER TABLE orders DROP COLUMN note;",
        ),
        Rule(
            name="drop-default",
            severity=breaking,
            title="DROP DEFAULT of a column that can't be null",
            why="An INSERT of the running release that leaves it out fails.",
            safe="Release code that always gives it first.",
            example="ALTER TABLE orders ALTER COLUMN state DROP DEFAULT;",
            safe_example="-- in a later release:\nALTER TABLE orders ALTER COLUMN state DROP DEFAULT;",
        ),
        Rule(
            name="add-check",
            severity=blocking,
            title="ADD CHECK",
            why=f"The table is read whole to check it. {NOBODY}.",
            safe="NOT VALID, which counts for all that is written from then on; validated in the next file, beside "
            "readers and writers.",
            example="ALTER TABLE orders ADD CONSTRAINT orders_total_check CHECK (total >= 0);",
            safe_example="ALTER TABLE orders ADD CONSTRAINT orders_total_check CHECK (total >= 0) NOT VALID;\n"
            "-- in the next file:\nALTER TABLE orders VALIDATE CONSTRAINT orders_total_check;",
        ),
        Rule(
            name="add-foreign-key",
            severity=blocking,
            title="ADD FOREIGN KEY",
            why="Each row is looked up in the other table, and nobody writes to either meanwhile.",
            safe="NOT VALID, validated in the next file.",
            example="ALTER TABLE orders ADD CONSTRAINT orders_shop_fk FOREIGN KEY (shop_id) REFERENCES shops;",
            safe_example="ALTER TABLE orders ADD CONSTRAINT orders_shop_fk FOREIGN KEY (shop_id) REFERENCES shops NOT VALID;\n"
            "-- in the next file:\nALTER TABLE orders VALIDATE CONSTRAINT orders_shop_fk;",
        ),
        Rule(
            name="foreign-key-without-index",
            severity=notice,
            title="A foreign key whose columns no index begins with",
            why="Each DELETE in the other table, and each UPDATE of its key, reads this one whole.",
            safe="The index first, CONCURRENTLY.",
            example="ALTER TABLE orders ADD FOREIGN KEY (shop_id) REFERENCES shops NOT VALID;",
            safe_example="CREATE INDEX CONCURRENTLY ON orders (shop_id);",
        ),
        Rule(
            name="drop-foreign-key",
            severity=notice,
            title="DROP CONSTRAINT of a foreign key",
            why="It is quick, but locks both tables against readers, too.",
            safe="A file that does nothing else.",
            example="ALTER TABLE orders DROP CONSTRAINT orders_shop_fk;",
            safe_example="ALTER TABLE orders DROP CONSTRAINT orders_shop_fk;  -- alone in its file",
        ),
        Rule(
            name="add-unique",
            severity=blocking,
            title="ADD UNIQUE, ADD PRIMARY KEY",
            why=f"An index over the whole table is built. {NOBODY}.",
            safe="A unique index CONCURRENTLY, then the constraint USING INDEX.",
            example="ALTER TABLE orders ADD CONSTRAINT orders_ref_key UNIQUE (ref);",
            safe_example="-- in a file of its own:\nCREATE UNIQUE INDEX CONCURRENTLY orders_ref_key ON orders (ref);\n"
            "-- in the next file:\nALTER TABLE orders ADD CONSTRAINT orders_ref_key UNIQUE USING INDEX orders_ref_key;",
        ),
        Rule(
            name="primary-key-nullable",
            severity=blocking,
            title="ADD PRIMARY KEY USING INDEX over columns that may be null",
            why=f"They become NOT NULL along the way, for which the table is read whole. {NOBODY}.",
            safe="Make them NOT NULL by a CHECK first.",
            example="ALTER TABLE orders ADD PRIMARY KEY USING INDEX orders_id_key;",
            safe_example="ALTER TABLE orders ADD CONSTRAINT orders_id_not_null CHECK (id IS NOT NULL) NOT VALID;\n"
            "-- in the next file:\nALTER TABLE orders VALIDATE CONSTRAINT orders_id_not_null;\n"
            "-- in the next file:\nALTER TABLE orders ALTER COLUMN id SET NOT NULL;\n"
            "ALTER TABLE orders ADD PRIMARY KEY USING INDEX orders_id_key;",
        ),
        Rule(
            name="add-exclusion",
            severity=blocking,
            title="ADD EXCLUDE",
            why=f"An index is built and each row looked up in it: ten seconds for 200,000 rows. {NOBODY}, and there is no "
            "NOT VALID.",
            safe="A new table with the constraint, filled in batches, then exchanged by name.",
            example="ALTER TABLE bookings ADD EXCLUDE USING gist (room WITH =, during WITH &&);",
            safe_example="CREATE TABLE bookings_new (LIKE bookings INCLUDING ALL, "
            "EXCLUDE USING gist (room WITH =, during WITH &&));",
        ),
    )
