"""What Docker shows of a container: every line of ours is JSON, and none holds a secret."""

import json

import pytest

from tests.e2e.docker.conftest import PASSWORD, app
from tests.support.docker import docker

KEYS = {"timestamp", "level", "message", "component", "instanceId", "event"}
OF_A_ROLE = "hunter3-in-a-file"
API_KEY = "sb_secret_hunter4aaaaaaaaaaaaaaaaaaaaaaa"
SECRETS = (PASSWORD, OF_A_ROLE, API_KEY)

ENDS = {
    "it went well": ({"_1_a": "select 1;"}, {}, "completed"),
    "a file is wrong": (
        {"_1_a": f"create role r password '{OF_A_ROLE}'; select 1/0;"},
        {},
        "failed",
    ),
    "the statement that is wrong holds the secret": (
        {"_1_a": f"create role r password '{OF_A_ROLE}' nonsense;"},
        {},
        "failed",
    ),
    "the server repeats the secret": ({"_1_a": f"select '{PASSWORD}'::int;"}, {}, "failed"),
    "a setting is wrong": (
        {"_1_a": "select 1;"},
        {"DATABASE_URL": f"postgresq://me:{PASSWORD}@db/x"},
        "failed",
    ),
    "a tool prints it": (
        {"_1_a": "select 1;"},
        {"MIGRATION_COMMAND": "sh -c 'env; env >&2; exit 3'"},
        "failed",
    ),
    "there is no such server": (
        {"_1_a": "select 1;"},
        {
            "DATABASE_URL": f"postgresql://me:{PASSWORD}@nowhere.invalid/x",
            "MIGRATION_TIMEOUT": "3",
            "MIGRATION_RETRY_COUNT": "0",
        },
        "timed_out",
    ),
}


@pytest.mark.parametrize("case", ENDS)
def test_neither_logs_nor_status_nor_health_nor_processes_show_a_secret(
    containers, app_image, database, mounted, case
):
    files, env, phase = ENDS[case]
    health = ("--health-interval", "500ms", "--health-start-period", "1ms", "--health-retries", "1")
    given = {**database.env, "SUPABASE_SERVICE_ROLE_KEY": API_KEY, "LOG_LEVEL": "debug", **env}
    options = [*health, *database.options, *mounted(**files)]
    running = containers.run(app_image, *app("wait"), options=options, **given)
    status = running.wait_for_phase(phase)
    is_well = phase == "completed"
    checked = running.wait_for_health(
        "healthy" if is_well else "unhealthy", f"migrations {status['migrations']['status']}"
    )
    shown = {
        "processes": docker("top", running.name, "-eo", "pid,args").stdout,
        "status": json.dumps(status) + running.exec("entrypoint", "--status").stdout,
        "check": running.exec("entrypoint", "--check", check=False).stdout,
        "health": json.dumps(checked),
    }
    running.stop()
    shown["logs"] = running.stdout + running.stderr

    assert [name for name, text in shown.items() if any(secret in text for secret in SECRETS)] == []
    assert running.stdout == "ready\n"
    for line in running.stderr.splitlines():
        assert json.loads(line).keys() >= KEYS


def test_docker_inspect_shows_no_secret_that_came_from_a_file(
    containers, app_image, database, mounted, tmp_path
):
    secret = tmp_path / "url"
    secret.write_text(database.url + "\n")
    options = [*database.options, *mounted(_1_a="select 1;"), "--volume", f"{secret}:/run/secrets/url:ro"]
    env = {"DATABASE_URL_FILE": "/run/secrets/url", "NODE_ENV": "production"}
    running = containers.run(app_image, *app("wait"), options=options, **env)
    running.wait_for_phase("completed")

    assert PASSWORD not in docker("inspect", running.name).stdout
    assert running.stop() == 0


def test_the_image_was_built_without_anything_secret(image):
    # Whatever the machine that built it has in its environment.
    shown = docker("image", "inspect", image).stdout + docker("history", "--no-trunc", image).stdout

    assert not [
        word
        for word in ("PASSWORD=", "TOKEN=", "SECRET", "://")
        if word in shown.replace("https://example", "")
    ]
