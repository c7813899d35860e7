"""What the settings mean in this place: time to stop, and whether migrations would run. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator

from entrypoint.check.facts import Directory, Facts
from entrypoint.check.finding import Verdict, fail, ok, warn
from migrator.dsn import Kind
from migrator.variables import LOOKED_UP_DIRS

DOCKER_S = 10.0
KUBERNETES_S = 30.0
# Left over for KILL, reaping and the last words after our own grace.
MARGIN_S = 1.0


def grace(seen: Facts) -> Iterator[Verdict]:
    """Our time to stop against the engine's."""
    grace_s, delay_s = seen.options.stop_grace_s, seen.options.stop_delay_s
    ours_s = grace_s + delay_s
    ours = f"we take up to {ours_s:g} s" + (f" ({delay_s:g} of them before the signal)" if delay_s else "")
    engine_s, who, more = _engine(seen, math.ceil(ours_s + 5 * MARGIN_S))
    told = seen.railway and seen.draining is not None
    unseen = "" if told else " unless told otherwise (which can't be seen from inside)"
    if ours_s + MARGIN_S <= engine_s:
        yield ok(f"{ours}, {who} {engine_s:g} s{unseen}")
        return
    ends_s = math.floor(engine_s * 0.8 - delay_s)
    remedy = f"set ENTRYPOINT_STOP_GRACE={ends_s}, or {more}" if ends_s >= 1 else more
    yield warn(f"{ours}, {who} {engine_s:g} s{unseen}, and then kills everything", remedy)


def _engine(seen: Facts, wanted_s: int) -> tuple[float, str, str]:
    """How long we are given to stop, by whom, and how to be given `wanted_s`."""
    if seen.railway:
        try:
            given_s = max(0.0, float(seen.draining or 0))
        except ValueError:
            return 0.0, "Railway understands no such number and gives", "correct it"
        return given_s, "Railway gives", f"set RAILWAY_DEPLOYMENT_DRAINING_SECONDS={wanted_s}"
    if seen.kubernetes:
        return KUBERNETES_S, "Kubernetes gives", f"terminationGracePeriodSeconds: {wanted_s}"
    return DOCKER_S, "Docker gives", f"docker stop -t {wanted_s} (Compose: stop_grace_period: {wanted_s}s)"


def settings(seen: Facts) -> Iterator[Verdict]:
    """Every wrong variable."""
    for problem in seen.settings.problems:
        yield fail(problem, "correct it: until then no migration runs")
    for complaint in seen.settings.complaints:
        yield warn(complaint, "correct it: until then the default does")
    for doubt in seen.settings.unread:
        yield warn(doubt, "or leave it, if it is your app's")
    if not (seen.settings.problems or seen.settings.complaints or seen.settings.unread):
        yield ok("nothing wrong")


def migrations(seen: Facts) -> Iterator[Verdict]:
    """Whether migrations would run here, and why not."""
    settings, environment = seen.settings, seen.options.names["environment"]
    if settings.skip_reason is not None and environment is None and "NODE_ENV" in settings.skip_reason:
        yield warn(f"none would run here: {settings.skip_reason}", "set NODE_ENV=production, if they should")
    elif settings.skip_reason is not None:
        yield ok(f"none would run here: {settings.skip_reason}")
    elif settings.problems:
        yield fail("none would run here, and they count as failed", "correct the settings above")
    else:
        yield ok(f"they would run: {environment}, MIGRATION_MODE={seen.options.mode}")


def files(seen: Facts) -> Iterator[Verdict]:
    """Whether there is anything to migrate with."""
    wanted, runner = seen.settings.skip_reason is None, seen.settings.runner
    if runner not in ("direct", "rest"):
        # What a program needs only it knows; of scripts, some have places outside of these directories.
        yield ok(f"MIGRATION_RUNNER={runner} decides what it needs")
        return
    if not seen.directories:
        message = f"neither {' nor '.join(LOOKED_UP_DIRS)} is in {seen.cwd}"
        remedy = "COPY it into the image's WORKDIR, or set MIGRATIONS_DIR"
        yield warn(message, remedy) if wanted else ok(message)
    for directory in seen.directories:
        yield _directory(directory, wanted=wanted)


def _directory(directory: Directory, *, wanted: bool) -> Verdict:
    if directory.error is not None:
        message = f"cannot read {directory.path}: {directory.error}"
        return fail(message, "correct MIGRATIONS_DIR or its rights") if wanted else ok(message)
    if directory.files == 0 and wanted:
        return warn(f"{directory.path} holds no .sql file", "COPY them into the image")
    return ok(f"{directory.path}: {directory.files} .sql file{'' if directory.files == 1 else 's'}")


def database(seen: Facts) -> Iterator[Verdict]:
    """By which way to which database, without going there."""
    wanted = seen.settings.skip_reason is None
    if seen.missing:
        message, remedy = (
            f"not installed: {', '.join(seen.missing)}",
            "install entrypoint with its dependencies",
        )
        yield fail(message, remedy) if wanted else warn(message, remedy)
    if seen.absent_files:
        yield fail(f"{seen.database_name} names {', '.join(seen.absent_files)}: not there", "mount it")
    if seen.rest is not None:
        yield ok(f"over the REST API of {seen.rest}; not connected to")
    elif seen.rest_error is not None:
        yield fail(seen.rest_error, "correct it, or set a database URL")
    elif seen.settings.embedded:
        yield ok(f"direct, to a private Postgres ({seen.database_name}=embedded)")
    elif seen.database is not None:
        way = "direct" if seen.database.kind is Kind.DIRECT else f"direct, through a {seen.database.kind}"
        yield ok(f"{way}, to {seen.database.place} ({seen.database_name}); not connected to")
    elif seen.database_name is not None:
        yield fail(f"{seen.database_name} is no database URL", "correct it; `settings` says what is wrong")
    else:
        message, remedy = "no database is set", "set DATABASE_URL to a postgresql:// URL"
        if seen.settings.runner in ("direct", "rest"):
            remedy = f"{remedy}, or {seen.lacks_of_project}"
        yield fail(message, remedy) if wanted else ok(message)
