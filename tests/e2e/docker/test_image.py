"""The image itself: what it says about itself, what it may do, and what isn't in it."""

import json

import pytest

from tests.support import docker as support
from tests.support.docker import docker
from tests.support.processes import REPO


@pytest.fixture(scope="module")
def config(image):
    return json.loads(docker("image", "inspect", image).stdout)[0]["Config"]


def test_it_says_what_it_is(config):
    labels = config["Labels"]
    own = {name.removeprefix("org.opencontainers.image."): value for name, value in labels.items()}

    assert {
        "title",
        "description",
        "licenses",
        "version",
        "revision",
        "created",
        "source",
        "base.name",
    } <= own.keys()
    assert own["licenses"] == "Apache-2.0"


def test_its_check_of_itself_finds_nothing_but_what_is_the_users(image):
    found = json.loads(docker("run", "--rm", image, "--check", "--json", check=False).stdout)

    assert {check["name"] for check in found["checks"] if check["status"] != "ok"} <= {
        "files",
        "database",
        "cgroup",
    }


def test_labels_are_told_by_whoever_builds_it(image):
    told = {
        "VERSION": "1.2.3",
        "REVISION": "abc123",
        "CREATED": "2026-01-02T03:04:05Z",
        "SOURCE": "https://example.org/x",
    }
    options = [word for name, value in told.items() for word in ("--build-arg", f"{name}={value}")]
    name = f"{image}-labelled"
    support.build(name, REPO, "--build-arg", f"BASE={support.BASE}", *options)
    try:
        labels = json.loads(docker("image", "inspect", "--format", "{{json .Config.Labels}}", name).stdout)
    finally:
        docker("image", "rm", name)

    assert {name: labels[f"org.opencontainers.image.{name.lower()}"] for name in told} == told


def test_it_runs_as_nobody_in_particular_and_can_be_stopped(config):
    assert config["User"].split(":")[0] == "10001"
    assert config["StopSignal"] == "SIGTERM"
    assert config["Entrypoint"][-1] == "--"
    assert config["Entrypoint"][0].split("/")[-1] == "entrypoint"  # exec form: no shell in between
    assert config["Cmd"]


def find(image, *expression, user="0"):
    """Paths in the image, where anything of ours or of the build could be."""
    places = ["/opt", "/app", "/usr/local", "/home", "/root", "/src", "/tmp", "/var/tmp", "/var/cache"]
    done = docker(
        "run", "--rm", "--user", user, "--entrypoint", "find", image, *places, *expression, check=False
    )
    return done.stdout.split()


def test_nothing_of_ours_has_more_rights_than_whoever_runs_it(image):
    assert find(image, "-perm", "/6000", "-type", "f") == []


def test_the_app_cant_change_what_runs_as_pid_1(image):
    # The app runs as the same user: what it could write, somebody who breaks into it could, too.
    assert set(find(image, "-writable", "!", "-type", "l", user="10001")) <= {"/tmp", "/var/tmp"}


def test_nothing_of_the_build_is_left(image):
    caches = find(image, "-path", "*/pip/*", "-o", "-name", "*.whl", "-o", "-name", "*.deb")
    sources = find(
        image, "-path", "/src*", "-o", "-path", "/opt/*", "-name", "test_*.py", "-o", "-path", "/opt/*.c"
    )

    assert caches + sources == []


def test_our_commands_are_found_by_whoever_has_another_path(image):
    for program in ("entrypoint", "migrator"):
        for shell in (["sh", "-c"], ["bash", "-lc"]):
            done = docker("run", "--rm", "--entrypoint", shell[0], image, shell[1], f"{program} --version")
            assert done.stdout.strip()
