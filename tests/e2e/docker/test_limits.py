"""With little to live on: the app has what it needs, and the migrations work or say what is missing."""

import pytest

from tests.e2e.docker.conftest import SLEEPING, app
from tests.support.waiting import wait_until

TABLE = {"_1_a": "create table a (id int);"}
# What a cautious operator gives.
HARDENED = ("--user", "65532", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--read-only")


def completed(container, database):
    """It migrated, said so, and passes its health check."""
    container.wait_for_phase("completed")
    assert database.fetch("select to_regclass('a') is not null") == "t"
    assert container.exec("entrypoint", "--healthcheck").stdout.startswith("healthy: ")


@pytest.mark.parametrize(
    ("options", "env"),
    [
        ((*HARDENED, "--tmpfs", "/tmp:noexec"), {}),
        (
            (*HARDENED, "--tmpfs", "/run/app:noexec,uid=65532"),
            {"ENTRYPOINT_STATE_DIR": "/run/app/entrypoint"},
        ),
        (("--user", "0", "--cap-drop", "ALL"), {}),
        (("--cpus", "0.25"), {}),
        (("--pids-limit", "12"), {}),
        (("--ulimit", "nofile=32:32"), {}),
        (("--memory", "128m", "--memory-swap", "128m"), {}),
        (("--tmpfs", "/tmp:size=8k,mode=1777"), {}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_it_migrates_with_what_it_is_given(containers, app_image, database, mounted, *, options, env):
    options = [*options, *database.options, *mounted(**TABLE)]
    running = containers.run(app_image, *app("wait"), options=options, **database.env, **env)

    completed(running, database)
    assert running.stop() == 0
    assert [line for line in running.log if line["level"] not in ("info", "debug")] == []
    assert len(running.log) == running.stderr.count("\n")


def test_without_any_place_to_write_it_migrates_and_says_what_is_missing(
    containers, app_image, database, mounted
):
    options = [*HARDENED, *database.options, *mounted(**TABLE)]
    running = containers.run(app_image, *app("wait"), options=options, **database.env)
    wait_until(
        lambda: [line["phase"] for line in running.events("status.changed")][-1:] == ["completed"],
        what="the migrations",
    )

    assert "Read-only file system" in running.events("marker.failed")[0]["reason"]
    assert running.exec("entrypoint", "--healthcheck", check=False).returncode == 1
    assert running.stop() == 0


def test_without_a_network_the_app_runs_and_the_status_says_what_is_in_the_way(
    containers, app_image, mounted
):
    env = {"NODE_ENV": "production", "DATABASE_URL": "postgresql://me@db/shop"}
    options = [*HARDENED, "--tmpfs", "/tmp:noexec", "--network", "none", *mounted(**TABLE)]
    running = containers.run(app_image, *app("wait"), options=options, **env)
    said = "cannot reach the database at db/shop: "

    wait_until(
        lambda: said in str((running.status() or {}).get("migrations")), what="the reason in the status"
    )
    assert running.stop() == 0


# A value of its own in one statement: it can't be sent in parts.
HUGE = "create table a as select '" + "x" * 90_000_000 + "' as b;"
GREEDY = "python3 -c 'held = [bytearray(10 ** 6) for _ in range(10 ** 6)]'"
BY_THE_KERNEL = "the container's memory was used up"
# Its own limit, or the container's if the kernel met that one between two looks.
OUT_OF_MEMORY = ("out of memory at 64 MiB", "the migrator used more than 64 MiB", BY_THE_KERNEL)


@pytest.mark.parametrize(
    ("files", "env"),
    [({"_1_a": HUGE}, {}), (TABLE, {"MIGRATION_COMMAND": GREEDY})],
    ids=["a huge statement", "a greedy tool"],
)
def test_a_migration_that_eats_memory_is_stopped_and_the_app_survives(
    containers, app_image, database, mounted, *, files, env
):
    # Killed by the kernel, the migrator would be tried again.
    env = {**database.env, **env, "MIGRATION_RETRY_COUNT": "0"}
    options = ["--memory", "128m", "--memory-swap", "128m", *database.options, *mounted(**files)]
    running = containers.run(app_image, *app("wait"), options=options, **env)
    status = running.wait_for_phase("failed")

    error = status["migrations"]["error"]
    assert any(words in error for words in OUT_OF_MEMORY), error
    assert status["app"]["status"] == "running"
    # Some engines call a container so as soon as the kernel has killed anybody in it.
    assert running.inspect(".State.OOMKilled") is False or BY_THE_KERNEL in error
    assert running.stop() == 0


def test_the_kernel_takes_the_migration_and_not_the_app(containers, app_image, database, mounted):
    # The app needs so much that the migrator's half of the container isn't there.
    options = ["--memory", "128m", "--memory-swap", "128m", *database.options, *mounted(_1_a=HUGE)]
    env = {**database.env, "MIGRATION_RETRY_COUNT": "0"}
    running = containers.run(app_image, *app("hungry", "80"), options=options, **env)
    # From the log: a look into the container would take memory, too.
    wait_until(
        lambda: "failed" in [line["phase"] for line in running.events("status.changed")],
        what="the kernel's kill",
    )

    assert BY_THE_KERNEL in running.events("status.changed")[-1]["error"]
    assert running.is_running()
    assert running.stop() == 0


def test_a_disk_that_fills_up_hurts_nothing_but_the_marker(containers, app_image, database, mounted):
    options = [
        "--tmpfs",
        "/tmp:size=64k,mode=1777",
        *database.options,
        *mounted(_1_a="select pg_sleep(600);"),
    ]
    running = containers.run(app_image, *app("wait"), options=options, **database.env)
    running.wait_for_phase("applying")
    running.exec("sh", "-c", "cat /dev/zero >/tmp/full", check=False)
    database.fetch(f"select pg_terminate_backend(pid) {SLEEPING}")
    warning = running.wait_for_event("marker.failed")

    assert warning["reason"] == "No space left on device"
    assert running.status()["app"]["status"] == "running"
    running.exec("rm", "/tmp/full")
    assert running.stop() == 0


def test_on_a_full_disk_everything_but_the_marker_works(containers, app_image, database, mounted):
    # One page: the directory is made, and the file in it isn't.
    options = ["--tmpfs", "/tmp:size=4k,mode=1777", *database.options, *mounted(**TABLE)]
    running = containers.run(
        app_image,
        "sh",
        "-c",
        "cat /dev/zero >/tmp/full; echo ready; exec sleep 60",
        options=options,
        **database.env,
    )
    running.wait_for_output("ready")

    completed(running, database)
    assert running.stop() == 143
