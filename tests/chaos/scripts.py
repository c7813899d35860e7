"""The migrations of a run: each leaves marks that show who made them, how often, and whether whole."""

import random
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Kind(StrEnum):
    PLAIN = "plain"
    SLOW = "slow"
    LARGE = "large"  # in many packets
    ALONE = "alone"  # CREATE INDEX CONCURRENTLY, which takes its time
    DROP = "drop"  # DROP INDEX CONCURRENTLY
    DATA = "data"  # COPY data, slow rows, and a CREATE INDEX CONCURRENTLY
    LOCK = "lock"  # of tables that an app uses


# What was there before the first migration, and is in use all the time.
APP = "create table public.app (id int primary key); create table public.stock (id int references public.app)"


class Trouble(StrEnum):
    NONE = "none"
    FIXED_FILE = "fixed file"  # fails until somebody edits the file
    FIXED_DATA = "fixed data"  # CREATE UNIQUE INDEX CONCURRENTLY fails until somebody removes the duplicates
    STAYS = "stays"  # fails for good


@dataclass(frozen=True, kw_only=True)
class Script:
    number: int
    kind: Kind
    text: str
    fixed_text: str | None = None
    fixing_sql: str | None = None
    fails: bool = False

    @property
    def filename(self) -> str:
        return f"{self.number:03}_{self.kind}.sql"

    @property
    def in_steps(self) -> bool:
        return self.kind in (Kind.ALONE, Kind.DROP, Kind.DATA)

    def write(self, directory: Path, *, fixed: bool = False) -> None:
        """In one step, as a deployment does."""
        made = directory / ".new"
        made.write_text(self.fixed_text if fixed and self.fixed_text else self.text)
        made.rename(directory / self.filename)


def mark(number: int, place: str) -> str:
    return (
        f"insert into public.marks select {number}, '{place}', token, holder, pg_current_xact_id()::text,"
        " clock_timestamp() from migrator.migration_locks;\n"
    )


def make(chance: random.Random, *, alone: bool, trouble: Trouble) -> list[Script]:
    """Some files, of which the first makes the table of marks."""
    first = "create table public.marks (n int, place text, token bigint, holder text, xact text, at timestamptz);\n"
    scripts = [Script(number=0, kind=Kind.PLAIN, text=first + mark(0, "a") + mark(0, "b"))]
    kinds = (
        [Kind.PLAIN] * 3
        + [Kind.SLOW] * 2
        + [Kind.LOCK] * 2
        + [Kind.LARGE]
        + ([Kind.ALONE] * 3 + [Kind.DROP] + [Kind.DATA] * 2) * alone
    )
    drawn = chance.choices(kinds, k=chance.randint(6, 11))
    # Some plain ones come in numbers, so that several are on their way to the server at once.
    planned = [one for kind in drawn for one in [kind] * (chance.randint(1, 12) if kind is Kind.PLAIN else 1)]
    count = 1 + len(planned)
    faulty = count - 1 if trouble is Trouble.STAYS else chance.randint(2, count - 1)
    indexes: list[int] = []
    for number, drawn_kind in enumerate(planned, 1):
        kind = drawn_kind
        if number == faulty and trouble is Trouble.FIXED_DATA:
            scripts.append(_with_duplicates(number))
            continue
        if number == faulty and trouble is not Trouble.NONE:
            kind = chance.choice([Kind.PLAIN, Kind.SLOW])
        if kind is Kind.DROP and not indexes:
            kind = Kind.ALONE
        between = _between(chance, kind, number, indexes)
        whole = mark(number, "a") + between + mark(number, "b")
        if number == faulty and trouble in (Trouble.FIXED_FILE, Trouble.STAYS):
            broken = mark(number, "a") + between + "select 1 / 0;\n" + mark(number, "b")
            fixed = whole if trouble is Trouble.FIXED_FILE else None
            scripts.append(Script(number=number, kind=kind, text=broken, fixed_text=fixed, fails=True))
        else:
            scripts.append(Script(number=number, kind=kind, text=whole))
    return scripts


def _between(chance: random.Random, kind: Kind, number: int, indexes: list[int]) -> str:
    table = f"create table t_{number} (id int);\ninsert into t_{number} select generate_series(1, 20);\n"
    match kind:
        case Kind.PLAIN:
            return table
        case Kind.SLOW:
            return f"{table}select pg_sleep({chance.uniform(0.2, 1.5):.2f});\n"
        case Kind.LARGE:
            return table + "-- as long as a dump is, in many packets\n" * 10_000
        case Kind.ALONE:
            indexes.append(number)
            pause_s = chance.uniform(0.005, 0.06)
            return (
                f"{table}create function slow_{number}(int) returns int immutable language plpgsql as\n"
                f"  $$ begin perform pg_sleep({pause_s:.3f}); return $1; end $$;\n"
                f"create index concurrently i_{number} on t_{number} (slow_{number}(id));\n"
            )
        case Kind.DATA:
            return _data(chance, number)
        case Kind.LOCK:
            tables = chance.choice([["app"], ["stock"], ["app", "stock"], ["stock", "app"]])
            return "".join(f"alter table public.{name} add column c_{number} int;\n" for name in tables)
        case Kind.DROP:
            return f"drop index concurrently i_{indexes.pop()};\n"


def _data(chance: random.Random, number: int) -> str:
    """Fails for good, and so is noticed, if a row is there twice or not at all."""
    copy = f"copy t_{number} from stdin;\n" + "{}\\.\n"
    rows = range(1, 41)
    return (
        f"create table t_{number} (id int primary key);\n"
        f"create function slow_{number}() returns trigger language plpgsql as\n"
        f"  $$ begin perform pg_sleep({chance.uniform(0, 0.03):.3f}); return new; end $$;\n"
        f"create trigger slow before insert on t_{number} for each row execute function slow_{number}();\n"
        + copy.format("".join(f"{n}\n" for n in rows[:15]))
        + f"create index concurrently i_{number} on t_{number} ((id + 1));\n"
        + "".join(f"insert into t_{number} values ({n});\n" for n in rows[15:25])
        + copy.format("".join(f"{n}\n" for n in rows[25:]))
        + f"do $$ begin if (select count(*) from t_{number}) <> 40 then raise 'rows are missing'; end if; end $$;\n"
    )


def _with_duplicates(number: int) -> Script:
    text = (
        mark(number, "a")
        + f"create table d_{number} (id int);\ninsert into d_{number} values (1), (1), (2);\n"
        + f"create unique index concurrently u_{number} on d_{number} (id);\n"
        + mark(number, "b")
    )
    fixing = f"delete from d_{number} a using d_{number} b where a.id = b.id and a.ctid > b.ctid"
    return Script(number=number, kind=Kind.ALONE, text=text, fixing_sql=fixing, fails=True)
