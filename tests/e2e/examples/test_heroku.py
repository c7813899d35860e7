"""Heroku: the lines of the Procfile, by a shell, as its dynos run them."""

import os
import signal
import subprocess
import sys

import psutil
import pytest

from tests.e2e.examples.apps import EXAMPLES, FASTAPI, PYTHONS
from tests.e2e.examples.platforms import readme, wait_for_probe
from tests.support.postgres import fetch, free_port
from tests.support.processes import clean_env, log_lines, name_of
from tests.support.waiting import wait_until

PROCFILE = dict(line.split(": ", 1) for line in (EXAMPLES / "heroku" / "Procfile").read_text().splitlines())
CONFIG = dict(
    pair.split("=", 1)
    for line in readme("heroku").splitlines()
    if "config:set" in line
    for pair in line.split("config:set ")[1].split()
)


@pytest.fixture
def dyno(shop, tmp_path):
    """The words and the rest of a process that runs a line of the Procfile; its `DATABASE_URL` as the add-on's."""
    if not (PYTHONS / "uvicorn").exists():
        pytest.skip("needs uvicorn and others; make examples installs them")
    # One environment holds both there; here each has its own.
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (programs / "python").chmod(0o755)
    app = FASTAPI.lay_out(tmp_path / "app")
    env = clean_env(
        DATABASE_URL=shop.replace("postgresql://", "postgres://"),
        DYNO="web.1",
        PORT=str(free_port()),
        ENTRYPOINT_STATE_DIR=str(tmp_path / "state"),
        **CONFIG,
    )
    env["PATH"] = f"{programs}:{PYTHONS}:{env['PATH']}"
    return {"args": ["bash", "-c"], "cwd": app, "env": env}


def _run(dyno, kind, **env):
    return subprocess.run(
        [*dyno["args"], PROCFILE[kind]],
        cwd=dyno["cwd"],
        env={**dyno["env"], **env},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_release_phase_migrates_and_again_and_after_a_rollback(dyno, shop):
    first, again = _run(dyno, "release"), _run(dyno, "release")
    (dyno["cwd"] / "migrations" / "20260212093000_add_price.sql").unlink()
    after_rollback = _run(dyno, "release")

    assert [one.returncode for one in (first, again, after_rollback)] == [0, 0, 0], after_rollback.stderr
    applied = [line["event"] for line in log_lines(first.stderr)].count("migration.applied")
    assert applied == 2
    assert "migration.applied" not in again.stderr
    assert fetch(shop, "select count(*) from migrator.migration_history") == [(2,)]


def test_a_bad_migration_fails_the_release(dyno):
    (dyno["cwd"] / "migrations" / "99990101000000_bad.sql").write_text("select nonsense")

    assert _run(dyno, "release").returncode == 1


def test_the_web_dyno_serves_where_it_is_told_to_and_ends_well_when_every_process_is_told_to(dyno):
    port = int(dyno["env"]["PORT"])
    with subprocess.Popen([*dyno["args"], PROCFILE["web"]], cwd=dyno["cwd"], env=dyno["env"]) as process:
        wait_for_probe(port, "/api/health")
        wait_until(lambda: _is_alone(process.pid), what="the end of the migrations")
        for one in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
            os.kill(one.pid, signal.SIGTERM)

        assert process.wait(int(CONFIG["ENTRYPOINT_STOP_GRACE"])) == 0
    assert int(CONFIG["ENTRYPOINT_STOP_GRACE"]) < 30


def _is_alone(pid):
    """Whether nobody but the app is left below the entrypoint."""
    return [name_of(one) for one in psutil.Process(pid).children(recursive=True)] == ["uvicorn"]
