"""Many containers and one database, on a network that isn't always there."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.docker.conftest import PASSWORD, app
from tests.support import docker as support
from tests.support.docker import docker
from tests.support.waiting import wait_until

REPLICAS = 5
RELEASES = {
    "1": {"migrations/1_orders.sql": "create table orders (id bigserial primary key, item text not null);"},
    "2": {
        "migrations/2_note.sql": "alter table orders add column note text;",
        "migrations/3_index.sql": "create index concurrently orders_item on orders (item);",
        "migrations/4_backfill.sql": "update orders set note = 'none' where note is null;",
    },
}
RELEASES["2"] |= RELEASES["1"]


@pytest.fixture(scope="module")
def releases(app_image):
    """An image for each release of a shop: its code, and its migrations."""
    install = "RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends python3-psycopg2 >/dev/null\n"
    base = support.derive(f"{app_image}-psycopg", f"FROM {app_image}\nUSER 0\n{install}USER 10001\n")
    recipe = "FROM {}\nCOPY migrations /app/migrations\nENV APP_VERSION={}\nCMD {}\n"
    command = json.dumps(["python3", "/apps/shop.py"])
    return {
        name: support.derive(f"{app_image}-{name}", recipe.format(base, name, command), files)
        for name, files in RELEASES.items()
    }


def history(database):
    return database.fetch("select filename from migrator.migration_history order by filename").split()


def test_five_replicas_roll_to_the_next_release_under_load_without_a_failed_request(
    containers, releases, database
):
    def start(release):
        # /ready says no for a second before the app hears of the end: time for the balancer to look.
        env = {
            **database.env,
            "ENTRYPOINT_HTTP_PORT": "9000",
            "ENTRYPOINT_STOP_DELAY": "1",
            "SERVICE_NAME": "shop",
        }
        options = [*database.options, "--network-alias", "shop"]
        return containers.run(releases[release], options=options, **env)

    def start_ready(release):
        replica = start(release)
        replica.wait_for_phase("completed", timeout_s=60)
        return replica

    with ThreadPoolExecutor(REPLICAS) as at_once:
        old = list(at_once.map(start_ready, ["1"] * REPLICAS))
        balancer = containers.run(
            releases["1"], "-S", "/apps/balance.py", options=[*database.options, "--entrypoint", "python3"]
        )
        balancer.wait_for_output("serving")
        new = []
        for wave in (old[:2], old[2:4], old[4:]):
            new += at_once.map(start_ready, ["2"] * len(wave))
            assert list(at_once.map(lambda replica: replica.stop(grace_s=20), wave)) == [0] * len(wave)
    docker("stop", "--time", "30", balancer.name)
    balancer.wait()
    seen = json.loads(balancer.stdout.splitlines()[-1])

    assert seen["failures"] == []
    assert seen["answers"]["release 1"] > 50
    assert seen["answers"]["release 2"] > 50
    assert int(database.fetch("select count(*) from orders")) == sum(seen["answers"].values())
    assert history(database) == ["1_orders.sql", "2_note.sql", "3_index.sql", "4_backfill.sql"]
    assert [replica.stop() for replica in new] == [0] * REPLICAS
    for replica in old + new:
        assert len(replica.log) == replica.stderr.count("\n")
        assert [line for line in replica.log if line["level"] == "error"] == []
        assert PASSWORD not in replica.stdout + replica.stderr


@pytest.fixture
def cut(database):
    """Take a container off the database's network, and back; ways of `docker network`."""

    def off(container):
        docker("network", "disconnect", "--force", database.network, container.name)

    def back(container):
        docker("network", "connect", database.network, container.name)

    return off, back


def test_a_database_that_is_cut_off_and_back_has_each_migration_once(
    containers, app_image, database, mounted, cut
):
    off, back = cut
    # The second one tells that it is at work, goes on while nobody hears it, and is told from the history.
    files = mounted(
        _1_a="create table a (id int); insert into a values (1);",
        _2_b="insert into a values (2); select pg_sleep(4);",
        _3_c="insert into a values (3);",
    )
    running = containers.run(app_image, *app("wait"), options=[*database.options, *files], **database.env)
    wait_until(
        lambda: (running.status() or {}).get("migrations", {}).get("current") == "2_b.sql",
        what="the second file",
    )
    off(running)
    wait_until(lambda: "2_b.sql" in history(database), what="the server's end of it")

    status = running.status()
    assert status["migrations"]["status"] == "running"  # nobody knows better
    assert status["app"]["status"] == "running"
    back(running)
    running.wait_for_phase("completed", timeout_s=60)
    assert database.fetch("select string_agg(id::text, ',' order by id) from a") == "1,2,3"
    assert history(database) == ["1_a.sql", "2_b.sql", "3_c.sql"]
    assert running.stop() == 0
    assert len(running.log) == running.stderr.count("\n")


def test_a_database_that_comes_later_is_waited_for(containers, app_image, database, mounted, cut):
    _, back = cut
    running = containers.run(
        app_image, *app("wait"), options=mounted(_1_a="create table a (id int);"), **database.env
    )
    said = "cannot reach the database"
    wait_until(
        lambda: said in str((running.status() or {}).get("migrations")), what="the reason in the status"
    )
    back(running)

    running.wait_for_phase("completed", timeout_s=60)
    assert history(database) == ["1_a.sql"]
    assert running.stop() == 0
