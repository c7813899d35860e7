"""Print the parts of docs/reference that the code knows best.

`python docs/generate.py` writes them; with `--check` it exits 1 if one of them isn't up to date.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from entrypoint.board import APP_NEXT
from entrypoint.status import MIGRATION_NEXT
from migrator import errors, variables
from migrator.commands import plan
from migrator.env import Variable
from migrator.hazards.finding import Rule
from migrator.hazards.table import RULES
from migrator.report import STATUS_OF

REFERENCE = Path(__file__).parent / "reference"
NOTE = "<!-- Printed by docs/generate.py from the code; edit it there. -->\n"


def variables_page() -> str:
    """Every environment variable."""
    rows = [
        f"| {_names(variable)} | {_default(variable)} | {variable.help} |"
        for variable in vars(variables).values()
        if isinstance(variable, Variable)
    ]
    return f"""# Variables

{NOTE}
All settings are environment variables. Where several names are given, the first one that is set wins; an empty
value counts as not set. Every secret (marked **S**) can also come from a file: `NAME_FILE` holds its path, and
setting both `NAME` and `NAME_FILE` is an error. Wrong values are one message that names each variable, what it holds
and what is allowed. The app starts all the same. If it is one that decides about migrations, none is run and they are
reported as failed; in place of any other the default is used. A name that nobody reads, and that is almost one of
these, is a warning.

| variable | default | |
|---|---|---|
{chr(10).join(rows)}

The app's environment is what the entrypoint was given, and two more: `ENTRYPOINT_STATUS_FILE` (the marker file)
and `ENTRYPOINT_SOCKET` (the unix socket). Where a database variable is `embedded`, the app sees the private
Postgres's URL in its place.
"""


def exit_codes_page() -> str:
    """What our programs exit with."""
    kinds: dict[int, list[type[errors.MigratorError]]] = {}
    for kind in vars(errors).values():
        if (
            isinstance(kind, type)
            and issubclass(kind, errors.MigratorError)
            and kind is not errors.MigratorError
        ):
            kinds.setdefault(kind.exit_code, []).append(kind)
    rows = [
        f"| {code} | {' '.join(str(kind.__doc__).splitlines()[0] for kind in kinds[code])} "
        f"| {'yes' if any(kind.retryable for kind in kinds[code]) else 'no'} |"
        for code in sorted(kinds)
    ]
    return f"""# Exit codes

{NOTE}
## entrypoint

The exit code is the app's, whatever becomes of the migrations.

| code | meaning |
|---|---|
| 0-125 | the app's own |
| 126 | the app's program is there and can't be executed |
| 127 | the app's program isn't there |
| 128 + n | the app was killed by signal n |
| 2 | no app was given, or an option is unknown |

With `MIGRATION_MODE=only`, or `gate` and migrations that failed, no app runs; the exit code is the migrator's,
or 75 if its time was over while it waited for others or for the database.
`entrypoint --healthcheck`, `entrypoint --status` and `entrypoint --check` exit 0 or 1.

## migrator

| code | meaning | worth a retry |
|---|---|---|
| 0 | Done, or nothing to do. | |
| 2 | The command line makes no sense. | no |
| {plan.PENDING} | `migrator plan --exit-code`: something is pending. | no |
{chr(10).join(rows)}
| 130, 143 | Stopped by SIGINT or SIGTERM; what was being applied was cancelled on the server. | yes |

The entrypoint repeats an attempt (`MIGRATION_RETRY_COUNT`) after the codes that are worth it, after the migrator's
death by a signal, and after a timeout that came while it was waiting for somebody else.
"""


def states_page() -> str:
    """The states and how they follow each other."""
    phases = "\n".join(f"| `{phase}` | `{STATUS_OF[phase]}` |" for phase in STATUS_OF)
    migration = "\n".join(
        f"    {one} --> {next_}" for one, after in MIGRATION_NEXT.items() for next_ in sorted(after)
    )
    app = "\n".join(f"    {one} --> {next_}" for one, after in APP_NEXT.items() for next_ in sorted(after))
    return f"""# States

{NOTE}
## Migrations

`migrations.phase` in the health document says exactly how far they are, `migrations.status` says it in five words.
`failed` and `timed_out` read `running` as long as another attempt follows.

| phase | status |
|---|---|
{phases}

```mermaid
stateDiagram-v2
    [*] --> pending
{migration}
```

## App

```mermaid
stateDiagram-v2
    [*] --> starting
{app}
```
"""


def hazards_page() -> str:
    """Every rule of `migrator lint`."""
    listed = "\n".join(
        f"| [{rule.name}](#{rule.name}) | {rule.severity} | {rule.title} |" for rule in RULES.values()
    )
    rules = "\n".join(_rule(rule) for rule in RULES.values())
    return f"""# Hazards

{NOTE}
What `migrator lint` finds in migration files, and `migrator up` before it applies anything (`MIGRATION_HAZARDS`).
[How it is told, and what isn't](../explanation/hazards.md).

A table that the pending files make themselves, an empty one, and one of at most 2 MB is in nobody's way, and what the
catalogs prove to be free is not told. `blocking`: readers or writers of the app stand still for as long as it takes.
`breaking`: what the running release relies on is gone afterwards. `notice`: worth knowing; `migrator lint --all` shows it.

A file that is meant to have one says so, and why, before its first statement:

```sql
-- migrator: allow=update-whole-table because the app is stopped for this release
```

| rule | | |
|---|---|---|
{listed}

{rules}"""


def _rule(rule: Rule) -> str:
    return f"""## {rule.name}

{rule.title} ({rule.severity}). {rule.why}

```sql
{rule.example}
```

Instead: {rule.safe}

```sql
{rule.safe_example}
```
"""


PAGES = {
    "variables.md": variables_page,
    "exit-codes.md": exit_codes_page,
    "states.md": states_page,
    "hazards.md": hazards_page,
}


def main() -> int:
    """Write the pages, or compare them."""
    parser = argparse.ArgumentParser(description="Print the generated pages of docs/reference.")
    parser.add_argument("--check", action="store_true", help="only compare")
    only_check = parser.parse_args().check
    stale = [name for name, page in PAGES.items() if _read(REFERENCE / name) != page()]
    for name in stale:
        if only_check:
            print(f"docs/reference/{name} isn't up to date; run python docs/generate.py")
        else:
            (REFERENCE / name).write_text(PAGES[name](), "utf-8")
    return 1 if stale and only_check else 0


def _read(path: Path) -> str:
    return path.read_text("utf-8") if path.exists() else ""


def _names(variable: Variable[object]) -> str:
    mark = " **S**" if variable.secret else ""
    return ", ".join(f"`{name}`" for name in variable.names) + mark


def _default(variable: Variable[object]) -> str:
    shown = variable.shown_default
    return shown if not shown or "`" in shown or " " in shown else f"`{shown}`"


if __name__ == "__main__":
    sys.exit(main())
