"""MIGRATION_MODE=gate and =only: the app starts after the migrations, or not at all."""

import signal

import pytest

from tests.support.postgres import fetch, free_port
from tests.support.processes import app
from tests.support.waiting import wait_until

SLOW = "create table before_the_sleep (id int); select pg_sleep(60);"


def _env(url, directory, mode, **extra):
    return {
        "NODE_ENV": "production",
        "DATABASE_URL": url,
        "MIGRATIONS_DIR": str(directory),
        "MIGRATION_MODE": mode,
        **extra,
    }


def test_behind_a_gate_the_app_starts_after_the_migrations(start, pid1, database, migrations):
    directory = migrations(_1_a="select pg_sleep(0.5); create table a (id int);")
    running = start(app("wait", "4"), pid1=pid1, env=_env(database, directory, "gate"))
    before = running.wait_for_phase("connecting", "applying")
    assert (before["app"]["status"], before["app"]["pid"]) == ("starting", None)
    running.wait_for_output("ready")

    names = [line["event"] for line in running.log]
    assert running.marker()["migrations"]["phase"] == "completed"
    assert names.index("migration.applied") < names.index("app.spawned")
    running.send(signal.SIGTERM)
    assert running.wait() == 4


def test_behind_a_gate_too_what_was_ignored_stays_ignored_and_nothing_is_blocked(start):
    shown = ["--", "grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"]
    plain = start(shown, wrapper=("nohup",), env={"SKIP_MIGRATIONS": "1"})
    gated = start(shown, wrapper=("nohup",), env={"SKIP_MIGRATIONS": "1", "MIGRATION_MODE": "gate"})

    assert (plain.wait(), gated.wait()) == (0, 0)
    assert "SigBlk:\t0000000000000000" in gated.stdout
    assert gated.stdout == plain.stdout != ""


FAILING = {"_1_a": "select nonsense;"}
MISFITS = {"_1_a": "select 1;", "_1_b": "select 1;"}


@pytest.mark.parametrize(
    ("mode", "case"),
    [("gate", (FAILING, 1)), ("only", (FAILING, 1)), ("gate", (MISFITS, 65)), ("only", (MISFITS, 65))],
    ids=[
        "a failing file, gate",
        "a failing file, only",
        "files that don't fit, gate",
        "files that don't fit, only",
    ],
)
def test_a_gate_stays_shut_and_the_exit_code_is_the_migrators(start, database, migrations, mode, case):
    files, code = case
    running = start(["--", "echo", "started"], env=_env(database, migrations(**files), mode))

    assert running.wait() == code
    assert running.stdout == ""
    assert running.marker()["migrations"]["status"] == "failed"
    assert running.marker()["app"]["status"] == "exited"


@pytest.mark.parametrize("mode", ["gate", "only"])
def test_wrong_settings_keep_the_gate_shut_with_the_code_for_configuration(start, database, migrations, mode):
    env = _env(database, migrations(_1_a="select 1;"), mode, MIGRATION_TIMEOUT="soon")

    assert start(["--", "echo", "started"], env=env).wait() == 78


@pytest.mark.parametrize("mode", ["gate", "only"])
def test_a_wait_in_vain_ends_with_the_code_that_is_worth_a_retry(start, migrations, mode):
    url = f"postgresql://me@127.0.0.1:{free_port()}/none"
    patience = {"MIGRATION_TIMEOUT": "0.5", "MIGRATION_RETRY_COUNT": "0"}

    running = start(["--", "true"], env=_env(url, migrations(_1_a="select 1;"), mode, **patience))
    assert running.wait() == 75
    assert running.marker()["migrations"]["phase"] == "timed_out"


def test_skipped_migrations_open_the_gate(start):
    running = start(["--", "sh", "-c", "exit 5"], env={"MIGRATION_MODE": "gate", "SKIP_MIGRATIONS": "1"})

    assert running.wait() == 5


def test_a_release_command_passes_the_gate_and_only_migrates_all_the_same(start, database, migrations):
    directory = migrations(_1_a="create table a (id int);")
    release = start(["--", "sh", "-c", "exit 5"], env=_env(database, directory, "gate", RELEASE_COMMAND="1"))
    assert release.wait() == 5
    assert release.marker()["migrations"]["phase"] == "skipped"

    only = start(["--", "sh", "-c", "exit 5"], env=_env(database, directory, "only", RELEASE_COMMAND="1"))
    assert only.wait() == 0
    assert only.marker()["migrations"]["applied"] == 1


def test_a_gated_app_that_cant_start_gives_the_code_of_a_shell(start):
    running = start(["--", "no-such-program"], env={"MIGRATION_MODE": "gate", "SKIP_MIGRATIONS": "1"})

    assert running.wait() == 127


@pytest.mark.parametrize("argv", [[], ["--"], ["--", "echo", "started"]])
def test_only_migrates_and_exits(start, database, migrations, argv):
    running = start(argv, env=_env(database, migrations(_1_a="create table a (id int);"), "only"))

    assert running.wait() == 0
    assert running.stdout == ""
    assert running.marker()["migrations"]["phase"] == "completed"
    assert fetch(database, "select count(*) from a") == [(0,)]


@pytest.mark.parametrize("mode", ["gate", "only"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_the_gate_is_shut_ends_all_with_its_number(start, database, migrations, mode, number):
    running = start(["--", "echo", "started"], env=_env(database, migrations(_1_a=SLOW), mode))
    running.wait_for_phase("applying")
    running.migrator()
    running.send(number)

    assert running.wait(8) == 128 + number
    assert running.stdout == ""
    assert running.marker()["migrations"]["phase"] == "aborted"
    tables = fetch(database, "select count(*) from pg_tables where tablename = 'before_the_sleep'")
    assert tables == [(0,)]


def test_a_wrong_mode_starts_the_app_at_once_and_doesnt_migrate(start, database, migrations):
    running = start(app("wait"), env=_env(database, migrations(_1_a="create table a ();"), "gated"))
    running.wait_for_output("ready")

    assert "MIGRATION_MODE='gated'" in running.wait_for_phase("failed")["migrations"]["error"]


def test_health_while_the_gate_is_shut_is_alive_but_not_ready(start, database, migrations):
    running = start(["--", "true"], env=_env(database, migrations(_1_a=SLOW), "gate"))
    running.wait_for_phase("applying")
    wait_until((running.state_dir / "entrypoint.sock").exists, what="the socket")

    assert [running.request(path)[0] for path in ("/api/health", "/ready", "/live")] == [200, 503, 200]
