"""Next.js, FastAPI, Django and plain Node as their examples have them, under the entrypoint."""

import contextlib
import json
import re
import shlex
import signal
import socket
import threading

import pytest

from entrypoint import server
from tests.e2e.examples.apps import ALL, DJANGO, EXAMPLES, FASTAPI, NEXTJS, Served
from tests.support.postgres import Blocker, fetch, free_port
from tests.support.waiting import wait_until

EVERY = pytest.mark.parametrize("example", ALL, ids=lambda example: example.name)
# Section by section what the status reference promises.
KEYS = {
    "": {"status", "timestamp", "service", "environment", "version", "uptime", "migrations", "app"},
    "migrations": {
        *(
            "status",
            "lastChecked",
            "phase",
            "applied",
            "pending",
            "current",
            "attempt",
            "durationMs",
            "error",
        ),
        "reason",
    },
    "app": {"status", "pid", "uptime", "exitCode", "reason"},
}


def _held_up(example, url, directory):
    """Who keeps the migrations waiting, and the settings with which they do."""
    if example is DJANGO:
        return Blocker(url, "begin; create table django_migrations (id int)"), {}
    (directory / "later").mkdir()
    (directory / "later" / "99990101000000_wait.sql").write_text("select pg_advisory_xact_lock(8)")
    return Blocker(url, "select pg_advisory_lock(8)"), _with_more(example, directory / "later")


def _with_more(example, directory):
    own = "supabase/migrations" if example is NEXTJS else "migrations"
    return {"MIGRATIONS_DIR": f"{own}:{directory}"}


def _failing(example, url, directory):
    """The settings with which its migrations fail for good."""
    if example is DJANGO:
        fetch(url, "create table shop_product (id int); select 1")
        return {}
    (directory / "broken").mkdir()
    (directory / "broken" / "99990101000000_broken.sql").write_text("alter table no_such_table add x int;")
    return _with_more(example, directory / "broken")


def _same_as_on_the_socket(served):
    """The app's answer, once it is what the socket says in the same second."""

    def same():
        ours, theirs = served.request("/api/health"), served.get("/api/health")
        return theirs if (ours[0], ours[2]) == (theirs[0], theirs[2]) else None

    return wait_until(same, what="the same answer of app and socket")


@EVERY
def test_the_app_answers_at_once_and_tells_all_of_its_migrations(example, shop, tmp_path):
    blocker, settings = _held_up(example, shop, tmp_path)
    env = {"DATABASE_URL": shop, "SERVICE_NAME": "shop", "APP_VERSION": "1.0.0", **settings}
    with contextlib.ExitStack() as held, Served(example, tmp_path, env) as served:
        held.callback(blocker.close)
        served.wait_for_phase("applying", "waiting_for_lock")
        served.wait_for_page()
        status, kind, body = _same_as_on_the_socket(served)
        assert (status, kind) == (200, "application/json")
        assert json.loads(body)["migrations"]["status"] == "running"

        held.close()
        served.wait_for_phase("completed")
        status, _, body = _same_as_on_the_socket(served)
        health = json.loads(body)
        names = {"service": "shop", "environment": "production", "version": "1.0.0"}
        assert status == 200
        assert {key: set(health[key] if key else health) for key in KEYS} == KEYS
        assert {key: health[key] for key in names} == names
        assert (health["status"], health["migrations"]["status"]) == ("ok", "completed")
        assert health["migrations"]["applied"] == (None if example is DJANGO else 3)
        assert health["app"]["status"] == "running"
        served.process.send_signal(signal.SIGTERM)
        assert served.wait() == example.codes[0]
    assert "s3cret" not in served.stderr + served.stdout + body.decode()
    assert "k3y-of-django" not in served.stderr + served.stdout + body.decode()
    table = "shop_product" if example is DJANGO else "products"
    columns = fetch(shop, "select column_name from information_schema.columns where table_name = $1", table)
    assert ("price_cents",) in columns


@EVERY
def test_after_a_migration_that_failed_for_good_it_says_503_and_serves_its_pages(example, shop, tmp_path):
    settings = _failing(example, shop, tmp_path)
    with Served(example, tmp_path, {"DATABASE_URL": shop, **settings}) as served:
        served.wait_for_phase("failed")
        served.wait_for_page()
        status, _, body = _same_as_on_the_socket(served)

        assert status == 503
        assert json.loads(body)["migrations"]["status"] == "failed"
        named = "shop_product" if example is DJANGO else "no_such_table"
        assert named in json.loads(body)["migrations"]["error"]
        assert served.get("/")[0] == 200
        (served.state_dir / "entrypoint.sock").unlink()
        assert served.get("/api/health")[0] == 503  # by the file


@EVERY
def test_without_the_socket_it_reads_the_file_and_without_both_it_lives(example, tmp_path):
    with Served(example, tmp_path, {"SKIP_MIGRATIONS": "true"}) as served:
        served.wait_for_phase("skipped")
        served.wait_for_page()
        (served.state_dir / "entrypoint.sock").unlink()
        status, kind, body = served.get("/api/health")
        assert (status, kind, body) == (
            200,
            "application/json",
            (served.state_dir / "status.json").read_bytes(),
        )

        (served.state_dir / "status.json").unlink()
        status, kind, body = served.get("/api/health")
        assert (status, kind, json.loads(body)["status"]) == (200, "application/json", "ok")
        assert example is not NEXTJS or json.loads(body)["migrations"]["status"] == "unknown"


@EVERY
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_asked_to_stop_it_answers_what_it_has_begun_and_ends_as_its_readme_says(example, number, tmp_path):
    """A health check is on its way, and the socket that the app asks answers only after the signal."""
    answer = b'{"status": "ok", "late": true}'
    slow = tmp_path / "slow.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(slow))
        listener.listen()
        listener.settimeout(20)
        command = ["env", f"ENTRYPOINT_SOCKET={slow}", *example.image.command]
        with Served(example, tmp_path, {"SKIP_MIGRATIONS": "true"}, command) as served:
            served.wait_for_page()
            asked = []
            client = threading.Thread(target=lambda: asked.append(served.get("/api/health")))
            client.start()
            app, _ = listener.accept()
            with app:
                # PID 1 needs no parser for it, which it would keep for good.
                assert app.recv(4096) in (server.OWN_REQUEST, server.NODE_REQUEST)
                served.process.send_signal(number)
                served.wait_for_event("stop.started")
                head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(answer)
                app.sendall(head + answer)
            client.join(20)

            assert served.wait() == example.codes[number == signal.SIGINT]
            assert asked[0][0] == 200
            assert asked[0][2] == answer


def test_next_js_listens_on_every_address_whatever_docker_calls_the_container(tmp_path):
    image = NEXTJS.image

    assert image.env["HOSTNAME"] == "0.0.0.0"
    with Served(NEXTJS, tmp_path, {"SKIP_MIGRATIONS": "true", "HOSTNAME": "127.0.0.2"}) as served:
        served.wait_for_output("Ready")
        with pytest.raises(ConnectionRefusedError):
            served.get("/")
    command = ["env", "HOSTNAME=0.0.0.0", *image.command]  # the README's way where the platform insists
    with Served(NEXTJS, tmp_path, {"SKIP_MIGRATIONS": "true", "HOSTNAME": "127.0.0.2"}, command) as served:
        served.wait_for_page()


def test_uvicorn_listens_where_the_platform_says_by_the_command_of_the_readme(tmp_path):
    command = re.search(r"`(sh -c '[^']+')`", (EXAMPLES / "fastapi" / "README.md").read_text())[1]
    port = str(free_port())
    with Served(FASTAPI, tmp_path, {"SKIP_MIGRATIONS": "true", "PORT": port}, shlex.split(command)) as served:
        served.port = int(port)
        served.wait_for_page()


def test_what_the_python_examples_share_is_the_same_file():
    assert (EXAMPLES / "django/shop/health.py").read_text() == (EXAMPLES / "fastapi/health.py").read_text()


@EVERY
def test_the_image_takes_the_bundle_by_one_line_and_runs_as_nobody_in_particular(example):
    image = example.image

    assert [line for line in image.copied if "/opt/entrypoint" in line] == [
        ["--from=entrypoint", "/opt/entrypoint", "/opt/entrypoint"]
    ]
    assert image.entrypoint == ["/opt/entrypoint/bin/entrypoint", "--"]
    assert image.healthcheck == ["/opt/entrypoint/bin/entrypoint", "--healthcheck"]
    assert image.env["PATH"].endswith("$PATH:/opt/entrypoint/bin")  # behind the app's own python3
    assert int(image.env["ENTRYPOINT_STOP_GRACE"]) < 10  # what Docker gives
    assert image.user.isdecimal()  # Kubernetes can't tell whether a name is root
