"""The bundle in images that have no Python: an app, migrations, and what of it the app may notice (nothing)."""

from __future__ import annotations

import json

import pytest

from tests.e2e.bundle.conftest import HARDENED, run_once, script
from tests.support import docker
from tests.support.waiting import wait_until

WAIT = ("sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done")


def test_migrations_are_applied_beside_an_app(image_without_python, containers, server, mounted):
    files = mounted(_1_create="create table t (id int);", _2_index="create index concurrently on t (id);")

    running = containers.run(
        image_without_python, *WAIT, options=[*HARDENED, *server.options, *files], **server.env
    )
    status = running.wait_for_phase("completed", timeout_s=60)

    assert status["migrations"]["applied"] == 2
    assert server.fetch("select count(*) from migrator.migration_history") == "2"
    assert "(id)" in server.fetch("select indexdef from pg_indexes where tablename = 't'")
    assert json.loads(running.exec("migrator", "status", "--json").stdout)
    assert running.exec("entrypoint", "--healthcheck").returncode == 0
    assert running.stop() == 0


def test_a_hazard_is_found_by_the_parser(image_without_python, mounted):
    files = mounted(_1_create="create table t (id int);", _2_index="create index on t (id);")

    said = docker.docker(
        "run", "--rm", "--entrypoint", "/opt/entrypoint/bin/migrator", *HARDENED, *files, image_without_python,
        "lint", "--json", check=False,
    )  # fmt: skip

    assert "index" in said.stdout
    assert json.loads(said.stdout)


@pytest.mark.parametrize(
    ("setting", "table"),
    [
        ({"MIGRATION_RUNNER": "exec:ours"}, "by_runner"),
        ({"MIGRATION_COMMAND": "python3 by_hand.py"}, "by_hand"),
    ],
    ids=["a runner in site-packages", "a command with the bundle's Python"],
)
def test_somebodys_own_python_migrates(in_musl, containers, server, setting, table):
    running = containers.run(in_musl, *WAIT, options=[*HARDENED, *server.options], **server.env, **setting)
    running.wait_for_phase("completed", timeout_s=60)

    assert server.fetch(f"select count(*) from {table}") == "0"


def test_the_app_gets_its_environment_byte_for_byte(image_without_python):
    given = {
        "LD_LIBRARY_PATH": "/nowhere/lib",
        "LD_BIND_NOW": "1",
        "GLIBC_TUNABLES": "glibc.malloc.perturb=90",
        "\1D_PRELOAD": "as what our loader makes of LD_PRELOAD while it works",
        "PYTHONHOME": "/nowhere",
        "PYTHONPATH": "/nowhere/packages",
        "PYTHONSTARTUP": "/nowhere/startup.py",
        "PYTHONINSPECT": "1",
        "PYTHONVERBOSE": "1",
        "PYTHONMALLOC": "nonsense",
        "PYTHONUTF8": "nonsense",
        "LC_ALL": "xx_XX.nonsense",
        "EMPTY": "",
        "MANY": "a\nb=c\td",
    }
    options = tuple(word for name, value in given.items() for word in ("--env", f"{name}={value}"))
    bare = run_once(
        image_without_python,
        "/proc/self/environ",
        options=(*options, "--hostname", "h", "--entrypoint", "cat"),
    )

    ours = run_once(image_without_python, "cat", "/proc/self/environ", options=(*options, "--hostname", "h"))

    added = [
        "ENTRYPOINT_STATUS_FILE=/tmp/entrypoint/status.json",
        "ENTRYPOINT_SOCKET=/tmp/entrypoint/entrypoint.sock",
    ]
    # Docker's own order differs from run to run.
    assert sorted(ours.split("\0")) == sorted([*bare.split("\0"), *added])


def test_a_library_is_preloaded_into_the_app_alone(in_musl, containers):
    running = containers.run(in_musl, "sh", "-c", "app; cat /proc/1/maps", LD_PRELOAD="/lib/preloaded.so")

    assert running.wait() == 0
    said, maps = running.stdout.split("\n", 1)
    assert said == "preloaded: 1, /lib/preloaded.so"
    assert "/opt/entrypoint/lib/libc.so.6" in maps
    assert "preloaded" not in maps
    assert all(line.startswith("{") for line in running.stderr.splitlines())  # no complaint of a loader's


def test_the_image_has_no_say_in_what_is_loaded(in_musl):
    done = docker.docker(
        "run", "--rm", "--entrypoint", "sh", in_musl,
        "-c", "echo /nowhere/agent.so >/etc/ld.so.preload; exec python3 -c ''",
    )  # fmt: skip

    assert done.stderr == ""


def test_the_malloc_of_the_app_is_tuned_alone(in_musl):
    said = run_once(
        in_musl,
        *script(
            """
            import ctypes
            malloc = ctypes.CDLL(None).malloc
            malloc.restype = ctypes.c_void_p
            print(ctypes.string_at(malloc(64), 64).count(90 ^ 255))
            """
        ),
        options=("--env", "GLIBC_TUNABLES=glibc.malloc.perturb=90"),
    )

    assert int(said) < 64


_SECURE = """
import asyncpg, os, ssl
paths = {line.split()[-1] for line in open("/proc/self/maps") if "/" in line}
print(os.getuid(), os.geteuid(), [path for path in paths if not path.startswith("/tmp/x/")])
"""


def test_a_program_with_rights_of_its_own_takes_no_library_of_the_image(image_without_python):
    """As one that a security module has put into another domain (AT_SECURE); $ORIGIN counts for nothing there."""
    said = run_once(
        image_without_python,
        "-c",
        "cp -r /opt/entrypoint /tmp/x && chmod u+s /tmp/x/bin/python3 && exec python3 -c '"
        'import os; os.setuid(65532); os.execv("/tmp/x/bin/python3", ["x", "-c", os.environ["TRY"]])\'',
        options=("--entrypoint", "sh", "--env", f"TRY={_SECURE}"),
    )

    assert said == "65532 0 []\n"


@pytest.mark.parametrize("path", ["/opt/entrypoint/bin/python3", "opt/../opt/entrypoint/bin/python3"])
def test_its_own_libraries_are_found_without_proc(in_musl, path):
    said = run_once(
        in_musl,
        "-c",
        f"mkdir -p /tmp/r/opt && cp -r /opt/entrypoint /tmp/r/opt/ && chroot /tmp/r {path} -c 'import ssl, sys; print(sys.prefix)'",
        options=("--entrypoint", "sh"),
    )

    assert said == "/opt/entrypoint\n"


def test_what_wheels_and_name_services_are_linked_with_comes_along(in_musl):
    """The libraries that every glibc has: PEP 600, and libnss_compat, which old images name."""
    said = run_once(
        in_musl,
        *script(
            """
            import ctypes, pwd
            for name in "dl.so.2 pthread.so.0 resolv.so.2 rt.so.1 util.so.1 m.so.6 gcc_s.so.1".split():
                ctypes.CDLL("lib" + name)
            with open("/etc/nsswitch.conf", "w") as file:
                file.write("passwd: compat\\n")
            with open("/etc/passwd", "w") as file:
                file.write("somebody:x:7:7::/:/bin/sh\\n")
            print(pwd.getpwuid(7).pw_name)
            """
        ),
    )

    assert said == "somebody\n"


def test_processes_go_by_their_own_names(image_without_python, containers):
    running = containers.run(image_without_python, *WAIT)
    running.wait_for_event("app.spawned")

    assert running.exec("cat", "/proc/1/comm").stdout == "entrypoint\n"
    assert running.exec("cat", "/proc/1/cmdline").stdout.split("\0")[:3] == [
        "/opt/entrypoint/bin/entrypoint",
        "--",
        "sh",
    ]


def test_an_orphan_is_reaped(image_without_python, containers):
    running = containers.run(image_without_python, "sh", "-c", "sh -c 'sleep 0.3 & echo $!'; sleep 60")
    [pid] = wait_until(lambda: running.stdout.splitlines()[:1], what="the orphan's pid")

    # A zombie would still be there.
    wait_until(
        lambda: running.exec("cat", f"/proc/{pid}/comm", check=False).returncode == 1, what="the orphan's end"
    )


def test_nothing_is_loaded_from_the_image(image_without_python):
    found = run_once(
        image_without_python,
        *script(
            """
            import asyncpg, ctypes, lzma, psutil, socket, ssl, structlog, uvloop, zlib
            from migrator import parser
            assert parser.split("select 1")
            assert socket.gethostbyname("localhost") == "127.0.0.1"
            print(*sorted({line.split()[-1] for line in open("/proc/self/maps") if "/" in line}), sep="\\n")
            """
        ),
    )

    assert found.splitlines()
    assert [path for path in found.splitlines() if not path.startswith("/opt/entrypoint/")] == []


def test_certificates_come_along_where_the_image_has_none(in_musl, in_debian):
    count = script("from migrator import trust; print(len(trust.context().get_ca_certs()))")

    assert int(run_once(in_musl, *count)) > 100
    assert int(run_once(in_musl, *count, options=("--env", "SSL_CERT_FILE=/none"))) == 0
    assert int(run_once(in_debian, *count)) > 0


def test_an_image_that_forgets_its_command_shows_nobody_what_lies_in_it(image):
    shown = docker.docker("run", "--rm", image, timeout_s=20)

    assert shown.stdout.startswith("usage: entrypoint ")


def test_it_works_wherever_it_is_moved_and_by_a_link(in_musl):
    moved = run_once(
        in_musl,
        "-c",
        "cp -r /opt/entrypoint /tmp/x && ln -s /tmp/x/bin/entrypoint /tmp/y && cd /tmp && "
        "SKIP_MIGRATIONS=1 ./y -- /tmp/x/bin/python3 -c 'import migrator, sys; print(sys.executable, migrator.__file__)'",
        options=("--entrypoint", "sh"),
    )

    assert moved == "/tmp/x/bin/python3 /tmp/x/site-packages/migrator/__init__.py\n"


def test_half_of_it_says_what_is_missing(in_musl):
    done = docker.docker(
        "run", "--rm", "--entrypoint", "sh", in_musl, "-c", "cp -r /opt/entrypoint/bin /tmp/ && /tmp/bin/entrypoint -- sh",
        check=False,
    )  # fmt: skip

    assert done.returncode == 127
    assert "copy the whole directory" in done.stderr


def test_a_damaged_loader_is_said_to_be_one(in_musl):
    said = run_once(
        in_musl,
        *script(
            """
            import pathlib, shutil, subprocess
            shutil.copytree("/opt/entrypoint", "/tmp/x")
            [loader] = pathlib.Path("/tmp/x/lib").glob("ld-*")
            whole = loader.read_bytes()
            for content in (b"", bytes(5000), whole[:18] + b"\\7" * 2 + whole[20:], whole[:100000], whole):
                loader.write_bytes(content)
                done = subprocess.run(
                    ["/tmp/x/bin/python3", "-c", ""], capture_output=True, text=True, check=False
                )
                print(done.returncode, done.stderr.partition(" isn't ")[2].partition(";")[0].strip())
            """
        ),
    )

    other = "127 a dynamic loader for this program"
    assert said.splitlines() == [other, other, other, "127 whole", "0 "]
