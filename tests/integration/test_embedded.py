"""The private Postgres, by hand."""

import asyncio
import io
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from migrator import embedded
from migrator.errors import Unavailable
from tests.support.postgres import binaries, fetch
from tests.support.processes import clean_env, log_lines, start_migrator
from tests.support.waiting import wait_until


def migrator(state_dir, directory, *arguments, cwd=None):
    return subprocess.run(
        [sys.executable, "-P", "-m", "migrator", *arguments],
        cwd=cwd,
        env=clean_env(
            DATABASE_URL="embedded", MIGRATIONS_DIR=str(directory), ENTRYPOINT_STATE_DIR=str(state_dir)
        ),
        capture_output=True,
        text=True,
        timeout=90,
    )


def test_the_private_postgres_runs_while_we_do_and_keeps_what_it_was_told(open_dir, tmp_path, migrations):
    directory = migrations(_1_a="create table a (id int);", _2_b="create index concurrently i on a (id);")
    app = tmp_path / "app"
    app.mkdir()
    (app / "migrator.py").write_text("raise SystemExit('the migrator of the app')")

    first = migrator(open_dir, directory, "up")
    second = migrator(open_dir, directory, "up")
    status = migrator(open_dir, directory, "status", cwd=app)

    assert (first.returncode, first.stdout) == (0, "2 applied, 2 in all, nothing pending\n"), first.stderr
    assert (second.returncode, second.stdout) == (0, "0 applied, 2 in all, nothing pending\n"), second.stderr
    assert "2 migrations, 0 pending" in status.stdout, status.stderr
    assert not [
        one
        for one in psutil.process_iter(["cmdline"])
        if str(open_dir) in " ".join(one.info["cmdline"] or [])
    ]


def test_programs_that_others_cannot_reach_are_copied_with_the_libraries_they_need(tmp_path):
    # A clone in /root, say: 0700.
    package = embedded.find_binaries().parents[1]
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    for part in (package / "pginstall", package.with_name(f"{package.name}.libs")):
        shutil.copytree(part, closed / part.relative_to(package.parent), symlinks=True)

    binaries = embedded._readable_by_all(closed / package.name / "pginstall" / "bin", tmp_path)

    assert tmp_path / "closed" not in binaries.parents
    closed.rename(tmp_path / "gone")
    shown = subprocess.run([binaries / "initdb", "--version"], capture_output=True, text=True)
    assert shown.stdout.startswith("initdb (PostgreSQL)"), shown.stderr


def test_as_root_a_directory_that_others_cannot_reach_is_refused_by_name(migrations):
    if os.geteuid() != 0:
        pytest.skip("only root runs the server as somebody else")
    # Not tmp_path, which may be too long for a socket.
    with tempfile.TemporaryDirectory(prefix="closed-") as closed:
        done = migrator(Path(closed, "state"), migrations(_1_a="select 1;"), "up")

    assert done.returncode == 78
    assert "keeps out; set ENTRYPOINT_STATE_DIR" in done.stderr


@pytest.fixture
def directory(open_dir):
    return open_dir


@pytest.fixture
def start(directory):
    """Start the server; it is ended with the test."""
    started = []

    def start_one(programs, *options, **popen):
        command = [
            sys.executable,
            "-m",
            "migrator.embedded",
            str(directory / "state"),
            str(programs),
            *options,
        ]
        started.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **popen))
        return started[-1]

    yield start_one
    for one in started:
        one.kill()
        one.communicate(timeout=10)
    wait_until(lambda: not processes_of(directory), what="the end of all servers")


def processes_of(directory):
    """Whoever has the directory in its command, children of a killed one too."""
    return [
        one
        for one in psutil.process_iter(["cmdline"])
        if str(directory) in " ".join(one.info["cmdline"] or [])
    ]


@pytest.fixture
def slow_programs(directory):
    """Real programs, but an initdb that stops in the middle: with what Postgres takes for a cluster."""
    programs = directory / "bin"
    programs.mkdir(mode=0o755)
    (programs / "postgres").symlink_to(binaries() / "postgres")
    (programs / "initdb").write_text(
        '#!/bin/sh\ncd "${1#--pgdata=}" && echo 15 > PG_VERSION && echo > began && exec sleep 60\n'
    )
    (programs / "initdb").chmod(0o755)
    return programs


def has_begun(directory):
    return [*directory.glob("state/*/began")]


def accepts(directory):
    return asyncio.run(embedded.answers(directory / "state"))


def test_an_initdb_that_was_killed_in_the_middle_leaves_nothing_that_looks_like_a_cluster(
    directory, start, slow_programs
):
    killed = start(slow_programs)
    wait_until(lambda: has_begun(directory), what="initdb")
    killed.kill()
    wait_until(lambda: not processes_of(directory / "state"), what="the end of initdb, which has no parent")

    start(binaries())

    wait_until(lambda: accepts(directory), what="the server")
    assert {one.name for one in (directory / "state").iterdir()} <= {
        "postgres", "postgres-data", "postgres.lock", "postgres-program"
    }  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_while_it_prepares_it_ends_at_once_and_without_a_word(directory, start, slow_programs, number):
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})  # as whoever spawns it may have it
    running = start(slow_programs)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    wait_until(lambda: has_begun(directory), what="initdb")

    running.send_signal(number)
    _, said = running.communicate(timeout=10)

    assert (running.returncode, said) == (-number, "")
    wait_until(lambda: not processes_of(directory / "state"), what="the end of initdb")


def test_two_that_start_at_once_do_not_collide(directory, start):
    both = [start(binaries()), start(binaries())]
    wait_until(lambda: accepts(directory), what="the server")
    first, second = sorted(both, key=lambda one: "migrator.embedded" in psutil.Process(one.pid).cmdline())
    assert "waiting for another embedded Postgres" in second.stderr.readline()

    first.send_signal(signal.SIGINT)
    first.communicate(timeout=10)

    wait_until(
        lambda: psutil.Process(second.pid).name() == "postgres" and accepts(directory), what="the other"
    )


def test_a_server_that_is_starting_up_is_not_ready(directory, start):
    prepared = start(binaries())
    wait_until(lambda: accepts(directory), what="the server")
    prepared.send_signal(signal.SIGINT)
    prepared.communicate(timeout=10)
    # A standby that lets nobody in says what one says that isn't there yet, for as long as we like.
    (directory / "state" / "postgres-data" / "standby.signal").touch()
    starting = start(binaries(), "hot_standby=off")
    wait_until((directory / "state" / "postgres" / ".s.PGSQL.5432").exists, what="the socket")

    assert not accepts(directory)
    with pytest.raises(
        Unavailable, match=r"it accepted no connection within 0.2 s; try again when .* or remove"
    ):
        asyncio.run(embedded._wait_ready(starting, directory / "state", io.BytesIO(), 0.2))


def blocked_by_a_file(directory):
    (directory / "state").write_text("")
    return directory / "state"


def with_something_else(directory):
    (directory / "postgres-data").mkdir()
    (directory / "postgres-data" / "notes.txt").touch()
    if os.geteuid() == 0:
        os.chown(directory / "postgres-data", 65534, 65534)
    return directory


def of_somebody_else(directory):
    if os.geteuid() != 0:
        pytest.skip("needs root")
    with_something_else(directory)
    os.chown(directory / "postgres-data", 1234, 1234)
    return directory


@pytest.mark.parametrize(
    ("place", "told"),
    [
        (blocked_by_a_file, "Not a directory"),
        (with_something_else, "something else is there; remove it, or set ENTRYPOINT_STATE_DIR"),
        (of_somebody_else, "it belongs to another user (uid 1234, not 65534); remove it, or set"),
        (lambda one: one / ("x" * 100), "bytes, and 107 are allowed; set ENTRYPOINT_STATE_DIR to a shorter"),
    ],
)
def test_what_keeps_it_from_starting_is_one_message_with_a_remedy(directory, migrations, place, told):
    done = migrator(place(directory), migrations(_1_a="select 1;"), "up")

    assert done.returncode == 78
    (line,) = log_lines(done.stderr)
    assert done.stderr.count("\n") == 1
    assert line["reason"].startswith(("cannot start the embedded Postgres", "cannot make the embedded"))
    assert told in line["reason"]
    assert "ENTRYPOINT_STATE_DIR" in line["reason"]


def test_a_full_disk_is_told_as_such(directory, start):
    limited = start(
        binaries(), preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    )
    _, said = limited.communicate(timeout=30)

    assert limited.returncode == 78
    assert said.startswith("migrator: cannot make the embedded Postgres")
    assert "File too large" in said
    assert said.endswith("is a writable directory with 100 MB to spare\n")
    assert said.count("\n") == 1
    assert [one.name for one in (directory / "state").glob("postgres-data*")] == []


def test_a_missing_program_is_told_by_name(directory, start, slow_programs):
    (slow_programs / "initdb").unlink()

    _, said = start(slow_programs).communicate(timeout=30)

    assert said == (
        f"migrator: cannot start the embedded Postgres: {slow_programs}/initdb isn't there or can't be "
        "executed; pip install --force-reinstall 'entrypoint[embedded]'\n"
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_by_hand_rolls_back_first_and_then_ends_the_server(directory, migrations, number):
    state_dir = directory / "state"
    process = start_migrator(
        "embedded",
        migrations(_1_a="create table a (); select pg_sleep(60);"),
        ENTRYPOINT_STATE_DIR=str(state_dir),
        process_group=0,
    )
    url = f"postgresql://postgres@/postgres?host={state_dir}/postgres"
    wait_until(lambda: accepts(directory), what="the server")
    wait_until(
        lambda: fetch(
            url,
            "select 1 from pg_stat_activity where query like '%pg_sleep(60)%' and state = 'active'"
            " and pid <> pg_backend_pid()",
        ),
        what="the slow migration",
    )
    os.killpg(process.pid, number)  # a terminal tells everybody in its foreground group
    _, said = process.communicate(timeout=20)

    assert process.returncode == 128 + number
    assert "stopped while applying 1_a.sql: rolled back" in said
    assert "Traceback" not in said
    assert not processes_of(state_dir)
