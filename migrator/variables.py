"""Every environment variable of the product, once.

Both packages read these, and `docs/reference/variables.md` is printed from them.
"""

from __future__ import annotations

from migrator import signals
from migrator.env import (
    Variable,
    choice,
    command,
    exit_codes,
    flag,
    listed,
    optional_text,
    optional_whole,
    seconds,
    text,
    whole,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MIB = 1024 * 1024

RUNNERS = ("auto", "direct", "rest", "shell", "command", "exec")
LOOKED_UP_DIRS = ("supabase/migrations", "migrations")


def _schema(raw: str) -> str:
    """A plain SQL name, so that it never needs quoting and can't inject anything."""
    letters = raw.replace("_", "a")
    # Without `re`: PID 1 reads this module, too.
    plain = letters.isascii() and letters.isalnum() and letters == letters.lower() and not raw[:1].isdigit()
    if not plain or len(raw) > 63 or raw.startswith("pg_"):
        raise ValueError("must be a lower-case SQL name (letters, digits, _; not starting with pg_)")
    return raw


def _is_one(raw: str) -> bool:
    """A flag that others set, whose other values mean nothing to us."""
    return raw.strip() == "1"


def _runner(raw: str) -> str:
    """One of a few words; the name of a plug-in stands behind a colon."""
    word, colon, plugin = raw.strip().partition(":")
    if word.lower() not in RUNNERS or (colon and (word.lower() != "exec" or not plugin.strip())):
        raise ValueError(f"must be one of {', '.join(RUNNERS)}, or exec:NAME")
    return word.lower() + colon + plugin.strip()


ENABLED = Variable(
    names=("MIGRATION_ENABLED",),
    parse=flag,
    default=True,
    shown_default="true",
    help="`false` starts the app without migrating.",
)
SKIP = Variable(
    names=("SKIP_MIGRATIONS",),
    parse=flag,
    default=False,
    shown_default="false",
    help="`true` starts the app without migrating, whatever `MIGRATION_ENABLED` says.",
)
RELEASE_COMMAND = Variable(
    names=("RELEASE_COMMAND",),
    parse=_is_one,
    default=False,
    shown_default="",
    help="`1` runs the command without migrating beside it, unless `MIGRATION_MODE=only`: Fly sets it where "
    "it runs a `release_command`, which may be a migration itself. Any other value is somebody else's.",
)
ENVIRONMENT = Variable[str | None](
    names=("ENTRYPOINT_ENV", "NODE_ENV", "APP_ENV", "RAILWAY_ENVIRONMENT_NAME"),
    parse=optional_text,
    default=None,
    shown_default="",
    help="What this deployment is called.",
)
ENVIRONMENTS = Variable[tuple[str, ...]](
    names=("MIGRATION_ENVIRONMENTS",),
    parse=listed(","),
    default=("production", "staging"),
    shown_default="production,staging",
    help="The environments in which the entrypoint migrates.",
)
DATABASE = Variable[str | None](
    names=("SUPABASE_DB_URL", "DIRECT_URL", "DATABASE_UNPOOLED_URL", "DATABASE_URL"),
    parse=optional_text,
    default=None,
    shown_default="",
    help="The database, as a `postgresql://` URL; `embedded` starts a private Postgres. "
    "Needs the rights to create and alter what the migrations do.",
    secret=True,
)
REST_URL = Variable[str | None](
    names=("NEXT_PUBLIC_SUPABASE_URL", "SUPABASE_URL"),
    parse=optional_text,
    default=None,
    shown_default="",
    help="The Supabase project, like `https://abcdefgh.supabase.co`. With a service key it is a way to "
    "migrate where no database URL is set: over its REST API.",
)
REST_KEY = Variable[str | None](
    names=("SUPABASE_SERVICE_ROLE_KEY", "SUPABASE_SECRET_KEY"),
    parse=optional_text,
    default=None,
    shown_default="",
    help="The key for that: the secret key (`sb_secret_...`), or the legacy one of `service_role`.",
    secret=True,
)
RUNNER = Variable(
    names=("MIGRATION_RUNNER",),
    parse=_runner,
    default="auto",
    shown_default="auto",
    help="What migrates: `direct` applies the SQL files itself, by the database URL; `rest` does so by the "
    "REST API of a Supabase project; `shell` runs scripts, the Supabase CLI or psql; `command` runs "
    "`MIGRATION_COMMAND`; `exec` or `exec:NAME` a plug-in in Python. `auto` is `command` where that is set, "
    "`shell` with `USE_NODE_MIGRATIONS=false`, `rest` where a project's URL and key are set and no "
    "database URL, else `direct`.",
)
USE_NODE = Variable(
    names=("USE_NODE_MIGRATIONS",),
    parse=flag,
    default=True,
    shown_default="true",
    help="`false` means `MIGRATION_RUNNER=shell`, where that is `auto`.",
)
COMMAND = Variable[tuple[str, ...]](
    names=("MIGRATION_COMMAND",),
    parse=command,
    default=(),
    shown_default="",
    help="What `MIGRATION_RUNNER=command` runs, e.g. `alembic upgrade head`. Split into words as a shell "
    "does, but not given to one; for that write `sh -c '...'`.",
    secret=True,
)
RETRY_EXITS = Variable[frozenset[int]](
    names=("MIGRATION_RETRY_EXITS",),
    parse=exit_codes,
    default=frozenset({69, 75}),
    shown_default="69,75",
    help="Exit codes of a command or script that are worth another attempt.",
)
DIRECTORIES = Variable[tuple[str, ...] | None](
    names=("MIGRATIONS_DIR",),
    parse=listed(":"),
    default=None,
    shown_default="`supabase/migrations`, else `migrations`",
    help="Where the files are; several directories are separated by `:`. "
    "`<dir>/<environment>/` is merged in where it exists.",
)
SCHEMA = Variable(
    names=("MIGRATION_SCHEMA",),
    parse=_schema,
    default="migrator",
    shown_default="migrator",
    help="The schema of `migration_locks` and `migration_history`.",
)
CHANGED_FILES = Variable(
    names=("MIGRATION_CHANGED_FILES",),
    parse=choice("refuse", "warn"),
    default="refuse",
    shown_default="refuse",
    help="What to do when an applied file was edited afterwards.",
)
HAZARDS = Variable(
    names=("MIGRATION_HAZARDS",),
    parse=choice("off", "warn", "refuse"),
    default="warn",
    shown_default="warn",
    help="What to do when a pending file would stop or break the running app: log the "
    "[hazard](hazards.md) (`warn`), or apply nothing (`refuse`).",
)
OUT_OF_ORDER = Variable(
    names=("MIGRATION_OUT_OF_ORDER",),
    parse=choice("allow", "warn", "refuse"),
    default="warn",
    shown_default="warn",
    help="What to do when a pending file has an older version than an applied one, as after a merge.",
)
ROLLBACK_ON_FAILURE = Variable(
    names=("MIGRATION_ROLLBACK_ON_FAILURE",),
    parse=flag,
    default=False,
    shown_default="false",
    help="`true`: if a file fails, what the same run applied before it is undone by its `.down.sql` files.",
)
SUPABASE_HISTORY = Variable(
    names=("MIGRATION_SUPABASE_HISTORY",),
    parse=choice("read", "sync", "off"),
    default="read",
    shown_default="read",
    help="The Supabase CLI's own history (`supabase_migrations.schema_migrations`): with `read` what is "
    "there counts as applied; with `sync` what we apply appears there, too.",
)
MODE = Variable(
    names=("MIGRATION_MODE",),
    parse=choice("parallel", "gate", "only"),
    default="parallel",
    shown_default="parallel",
    help="`gate` starts the app only after the migrations succeeded; `only` migrates and exits.",
)
TIMEOUT = Variable(
    names=("MIGRATION_TIMEOUT",),
    parse=seconds(minimum=0.1),
    default=300.0,
    shown_default="300",
    help="Seconds that one attempt may take.",
)
RETRY_COUNT = Variable(
    names=("MIGRATION_RETRY_COUNT",),
    parse=whole(minimum=0, maximum=1000),
    default=3,
    shown_default="3",
    help="Extra attempts after the first one, for failures that are worth a retry.",
)
RETRY_DELAY = Variable(
    names=("MIGRATION_RETRY_DELAY",),
    parse=seconds(minimum=0),
    default=5.0,
    shown_default="5",
    help="Seconds before the first retry; doubled for each further one, at most 60.",
)
LEASE_TTL = Variable(
    names=("MIGRATION_LEASE_TTL",),
    parse=seconds(minimum=0.5),
    default=30.0,
    shown_default="30",
    help="Seconds without a heartbeat after which another replica may take over. "
    "On a direct connection a dead replica is noticed at once.",
)
FREEZE_BUDGET = Variable(
    names=("MIGRATION_FREEZE_BUDGET_MS",),
    parse=whole(minimum=10, maximum=60_000),
    default=100,
    shown_default="100",
    help="Milliseconds for which a migration may stand in a lock queue, with the app's queries behind it. "
    "Whom it would have to wait for longer it waits for without asking.",
)
MAX_BLOCKING = Variable[int | None](
    names=("MIGRATION_MAX_BLOCKING_MS",),
    parse=optional_whole(minimum=0, maximum=86_400_000),
    default=None,
    shown_default="2000 (off unless `MIGRATION_MODE=parallel`)",
    help="Milliseconds for which others may wait for what a migration holds locked; then it is cancelled and "
    "rolled back, unless its file says `-- migrator: allow-blocking`. `0`: off.",
)
TERMINATE_IDLE = Variable[float | None](
    names=("MIGRATION_TERMINATE_IDLE_BLOCKERS",),
    parse=seconds(minimum=1),
    default=None,
    shown_default="off",
    help="Seconds after which a session that is in the way and idle in a transaction is ended.",
)
MAX_MEMORY = Variable(
    names=("MIGRATION_MAX_MEMORY_MB",),
    parse=whole(minimum=48, maximum=1024 * 1024),
    default=256,
    shown_default="256",
    help="Memory limit of the migrator child, in MiB; at most half of the container's memory is used.",
)
NICE = Variable(
    names=("MIGRATION_NICE",),
    parse=whole(minimum=0, maximum=19),
    default=10,
    shown_default="10",
    help="How much the migrator child gives way to the app on a busy CPU.",
)
STATE_DIR = Variable(
    names=("ENTRYPOINT_STATE_DIR",),
    parse=text,
    default="/tmp/entrypoint",  # noqa: S108 - the contract's default; ownership is checked
    shown_default="/tmp/entrypoint",  # noqa: S108
    help="Holds `status.json` and `entrypoint.sock`.",
)
HTTP_PORT = Variable[int | None](
    names=("ENTRYPOINT_HTTP_PORT",),
    parse=optional_whole(minimum=1, maximum=65535),
    default=None,
    shown_default="off",
    help="Serves what the socket serves on this TCP port too.",
)
STOP_GRACE = Variable(
    names=("ENTRYPOINT_STOP_GRACE",),
    parse=seconds(minimum=0),
    default=10.0,
    shown_default="10",
    help="Seconds from telling the app to stop until whatever is left is killed.",
)
STOP_DELAY = Variable(
    names=("ENTRYPOINT_STOP_DELAY",),
    parse=seconds(minimum=0),
    default=0.0,
    shown_default="0",
    help="Seconds between being asked to stop and telling the app, while `/ready` already says 503: time for "
    "a load balancer to let go. A second signal ends it.",
)
STOP_SIGNAL = Variable[int | None](
    names=("ENTRYPOINT_STOP_SIGNAL",),
    parse=signals.number,
    default=None,
    shown_default="the one we got",
    help="What the app is asked to stop with, e.g. `QUIT` or `RTMIN+3`, when we are by SIGTERM.",
)
SIGNAL_GROUP = Variable(
    names=("ENTRYPOINT_SIGNAL_GROUP",),
    parse=choice("leader", "group"),
    default="leader",
    shown_default="leader",
    help="Who gets the signals: the app's own process (`leader`), or all of its process group (`group`).",
)
REWRITE = Variable[dict[int, int]](
    names=("ENTRYPOINT_REWRITE_SIGNALS",),
    parse=signals.rewriting,
    default={},
    shown_default="",
    help="What the app gets in place of a signal, e.g. `HUP:USR1,WINCH:0`; 0 drops it.",
)
REMAP_EXIT = Variable[dict[str, int]](
    names=("ENTRYPOINT_REMAP_EXIT",),
    parse=signals.remapping,
    default={},
    shown_default="",
    help="Exit codes in place of the app's, e.g. `143=0`; `forwarded=0` stands for 128 + n where we handed "
    "on signal n ourselves.",
)
PDEATHSIG = Variable[int | None](
    names=("ENTRYPOINT_PDEATHSIG",),
    parse=signals.number,
    default=None,
    shown_default="",
    help="The signal that we get when our own parent dies, for runs outside of containers (Linux).",
)
TERMINATION_LOG = Variable(
    names=("ENTRYPOINT_TERMINATION_LOG",),
    parse=text,
    default="/dev/termination-log",
    shown_default="/dev/termination-log",
    help="Gets a short reason at the end, if it exists: Kubernetes shows it.",
)
SCRUB = Variable[tuple[str, ...]](
    names=("ENTRYPOINT_SCRUB_ENV",),
    parse=listed(","),
    default=(),
    shown_default="",
    help="Names, separated by `,`, that are removed from the app's environment.",
)
SERVICE = Variable(
    names=("SERVICE_NAME", "RAILWAY_SERVICE_NAME"),
    parse=text,
    default="app",
    shown_default="app",
    help="`service` in the health document and the logs.",
)
VERSION = Variable[str | None](
    names=("APP_VERSION", "RAILWAY_GIT_COMMIT_SHA"),
    parse=optional_text,
    default=None,
    shown_default="",
    help="`version` in the health document and the logs.",
)
LOG_LEVEL = Variable(
    names=("LOG_LEVEL",),
    parse=choice("debug", "info", "warning", "warn", "error"),
    default="info",
    shown_default="info",
    help="The least important level that is logged.",
)
LOG_FORMAT = Variable[str | None](
    names=("LOG_FORMAT",),
    parse=choice("json", "console"),
    default=None,
    shown_default="json (console on a terminal)",
    help="`json` for machines, `console` for eyes.",
)
LOG_OUTPUT = Variable[str | None](
    names=("LOG_OUTPUT",),
    parse=choice("stdout", "stderr"),
    default=None,
    shown_default="stderr (stdout on Railway)",
    help="Where our own log lines go.",
)

# What decides about migrations: a wrong value in one of these, and none is run.
OF_MIGRATIONS: tuple[Variable[Any], ...] = (
    ENABLED,
    SKIP,
    RELEASE_COMMAND,
    ENVIRONMENT,
    ENVIRONMENTS,
    DATABASE,
    REST_KEY,
    RUNNER,
    USE_NODE,
    COMMAND,
    RETRY_EXITS,
    DIRECTORIES,
    SCHEMA,
    CHANGED_FILES,
    HAZARDS,
    OUT_OF_ORDER,
    ROLLBACK_ON_FAILURE,
    SUPABASE_HISTORY,
    MODE,
    TIMEOUT,
    RETRY_COUNT,
    RETRY_DELAY,
    LEASE_TTL,
    FREEZE_BUDGET,
    MAX_BLOCKING,
    TERMINATE_IDLE,
    MAX_MEMORY,
    NICE,
)

# What decides about anything else: a wrong value is complained about, and the default does in its place.
OF_PID_1: tuple[Variable[Any], ...] = (
    STATE_DIR,
    HTTP_PORT,
    STOP_GRACE,
    STOP_DELAY,
    STOP_SIGNAL,
    SIGNAL_GROUP,
    REWRITE,
    REMAP_EXIT,
    PDEATHSIG,
    TERMINATION_LOG,
    SERVICE,
    VERSION,
    LOG_LEVEL,
    LOG_FORMAT,
    LOG_OUTPUT,
)
