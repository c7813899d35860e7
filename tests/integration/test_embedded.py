"""The private Postgres, by hand."""

import os
import shutil
import subprocess
import sys

import psutil
import pytest

from migrator import embedded
from tests.support.processes import clean_env


def migrator(state_dir, directory, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "migrator", *arguments],
        env=clean_env(
            DATABASE_URL="embedded", MIGRATIONS_DIR=str(directory), ENTRYPOINT_STATE_DIR=str(state_dir)
        ),
        capture_output=True,
        text=True,
        timeout=90,
    )


def test_the_private_postgres_runs_while_we_do_and_keeps_what_it_was_told(tmp_path, migrations):
    for path in (tmp_path, *tmp_path.parents):  # the server runs as somebody else if we are root
        if os.geteuid() == 0 and str(path).startswith("/tmp/"):
            path.chmod(path.stat().st_mode | 0o011)
    state_dir = tmp_path / "state"
    directory = migrations(_1_a="create table a (id int);", _2_b="create index concurrently i on a (id);")

    first = migrator(state_dir, directory, "up")
    second = migrator(state_dir, directory, "up")
    status = migrator(state_dir, directory, "status")

    assert (first.returncode, first.stdout) == (0, "2 applied, 2 in all, nothing pending\n"), first.stderr
    assert (second.returncode, second.stdout) == (0, "0 applied, 2 in all, nothing pending\n"), second.stderr
    assert "2 migrations, 0 pending" in status.stdout
    assert not [
        one
        for one in psutil.process_iter(["cmdline"])
        if str(state_dir) in " ".join(one.info["cmdline"] or [])
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


def test_as_root_a_directory_that_others_cannot_reach_is_refused_by_name(tmp_path, migrations):
    if os.geteuid() != 0:
        pytest.skip("only root runs the server as somebody else")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)

    done = migrator(closed / "state", migrations(_1_a="select 1;"), "up")

    assert done.returncode == 69
    assert "keeps out; set ENTRYPOINT_STATE_DIR" in done.stderr
