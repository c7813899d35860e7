"""entrypoint --check, in containers of every kind that can be made here."""

import json
import os
import re
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from entrypoint import board
from entrypoint.check import state
from tests.conftest import needs
from tests.e2e.conftest import AS_PID_1
from tests.support.processes import REPO, app, clean_env

GOOD = {"NODE_ENV": "production", "DATABASE_URL": "postgresql://me:hunter2@db.invalid/shop"}


def check(*arguments, wrapper=(), env=None, bare=False, **options):
    """Run it; never a traceback, never a secret."""
    done = subprocess.run(
        [*wrapper, sys.executable, "-m", "entrypoint", "--check", *arguments],
        env={} if bare else clean_env(**GOOD, **(env or {})),
        capture_output=True,
        text=True,
        timeout=20,
        **{"cwd": REPO, **options},
    )
    assert "Traceback" not in done.stdout + done.stderr
    assert "hunter2" not in done.stdout + done.stderr
    return done


def findings(*, state_dir, wrapper=(), env=None, code=0, **options):
    """What it says, by name: the worst of each."""
    done = check(
        "--json", wrapper=wrapper, env={"ENTRYPOINT_STATE_DIR": str(state_dir), **(env or {})}, **options
    )
    answer = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (code, "")
    assert answer["status"] in (("ok", "warn"), ("fail",))[code]
    order = ["ok", "warn", "fail"]
    return {one["name"]: one for one in sorted(answer["checks"], key=lambda one: order.index(one["status"]))}


def in_mounts(script):
    """A wrapper with mounts of its own: `script` changes them, then the command runs."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount")
    return [needs("unshare"), "--mount", "sh", "-c", f'{script} && exec "$@"', "sh"]


def test_for_people_it_is_one_line_per_finding(tmp_path, pid1):
    wrapper = AS_PID_1 if pid1 else ()
    done = check(wrapper=wrapper, env={"ENTRYPOINT_STATE_DIR": str(tmp_path / "x/y")})

    assert (done.returncode, done.stderr) == (0, "")
    for line in done.stdout.splitlines():
        assert re.match(r"(ok  |warn|fail)  [a-z0-9]+ +\S", line), line
    assert ("we are PID 1" in done.stdout) is pid1
    assert not (tmp_path / "x").exists()


def test_it_leaves_a_state_directory_as_it_was(tmp_path):
    (tmp_path / "status.json").write_text("{}")

    assert findings(state_dir=tmp_path)["state"]["status"] == "ok"
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]


def test_what_a_killed_check_left_behind_does_no_harm(tmp_path):
    left = f"for name in check chk; do touch {tmp_path}/.$name$$; done"

    seen = findings(state_dir=tmp_path, wrapper=["sh", "-c", f'{left}; exec "$@"', "sh"])
    assert seen["state"]["status"] == "ok"
    assert list(tmp_path.iterdir()) == []


def test_a_bug_of_ours_is_a_finding():
    broken = "import sys; from entrypoint.check import look, command; look.gather = None; sys.exit(command.main(as_json=False))"

    done = subprocess.run([sys.executable, "-c", broken], cwd=REPO, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout == "fail  check  cannot look at this container: TypeError; report it, please\n"


def test_beside_a_running_entrypoint_that_goes_on_undisturbed(start):
    needs("nsenter")
    running = start(app("wait"), pid1=True)
    running.wait_for_phase("skipped")
    inside = ["nsenter", "--target", str(running.pid), "--mount", "--pid", "--"]

    seen = findings(state_dir=running.state_dir, wrapper=inside)
    assert seen["pid1"]["message"] == "PID 1 is an entrypoint; we look from beside it"
    assert seen["state"]["status"] == "ok"
    assert running.request("/live")[0] == 200


def test_under_a_shell_it_says_that_no_signal_would_come_through(tmp_path):
    needs("unshare")
    seen = findings(state_dir=tmp_path, wrapper=[*AS_PID_1, "sh", "-c", '"$@"; exit $?', "sh"])

    assert seen["pid1"]["status"] == "warn"
    assert "exec form" in seen["pid1"]["remedy"]


def test_a_read_only_root_and_state_directory(tmp_path):
    wrapper = in_mounts(f"mount -t tmpfs none {tmp_path} && mount -o remount,ro {tmp_path}")

    seen = findings(state_dir=tmp_path / "state", wrapper=wrapper, code=1)
    assert seen["state"]["status"] == "fail"
    assert "Read-only file system" in seen["state"]["message"]
    assert "ENTRYPOINT_STATE_DIR" in seen["state"]["remedy"]


def test_a_full_disk(tmp_path):
    fill = f"{{ dd if=/dev/zero of={tmp_path}/full bs=1k count=128 2>/dev/null; true; }}"
    wrapper = in_mounts(f"mount -t tmpfs -o size=64k none {tmp_path} && {fill}")

    seen = findings(state_dir=tmp_path, wrapper=wrapper, code=1)
    assert "No space left on device" in seen["state"]["message"]


def test_without_proc(tmp_path):
    seen = findings(state_dir=tmp_path, wrapper=in_mounts("umount -l /proc"))

    assert seen["proc"]["status"] == "warn"
    assert seen["pid1"]["status"] == "ok"


def test_a_user_that_nobody_knows_without_a_home(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs root, to become somebody else")
    drop = [needs("setpriv"), "--reuid=54321", "--regid=54321", "--clear-groups"]
    # Only so that this checkout can be read, wherever it is.
    drop += ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]
    tmp_path.chmod(0o777)
    where = tmp_path / "state"

    seen = findings(state_dir=where, wrapper=[*drop, "env", "-u", "HOME"])
    assert seen["user"]["message"] == "uid 54321 (not in /etc/passwd, which is fine)"
    assert seen["home"]["message"] == "not set; we need none"
    assert seen["state"]["status"] == "ok"
    assert not where.exists()


def test_somebody_elses_directory_isnt_writable_and_nothing_is_left_there(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs root, to become somebody else")
    drop = [
        needs("setpriv"),
        "--reuid=54321",
        "--inh-caps=-all,+dac_read_search",
        "--ambient-caps=-all,+dac_read_search",
    ]

    seen = findings(state_dir=tmp_path, wrapper=drop, code=1)
    assert "Permission denied" in seen["state"]["message"]
    assert list(tmp_path.iterdir()) == []


def test_wrong_variables_are_all_named_without_what_is_secret(tmp_path):
    env = {
        "MIGRATION_TIMEOUT": "soon",
        "MIGRATION_NICE": "99",
        "LOG_LEVEL": "loud",
        "ENTRYPOINT_STOP_DELAY": "x",
        "SUPABASE_DB_URL": "mysql://me:hunter2@db/shop",
    }

    done = check("--json", env={"ENTRYPOINT_STATE_DIR": str(tmp_path), **env})
    said = [
        (one["status"], one["message"])
        for one in json.loads(done.stdout)["checks"]
        if one["name"] == "settings"
    ]
    assert done.returncode == 1
    for name in env:
        assert any(name in message for _, message in said), name
    assert {status for status, message in said if "LOG_LEVEL" in message or "DELAY" in message} == {"warn"}


def test_no_environment_at_all():
    done = check(bare=True)

    assert done.returncode == 0
    assert "NODE_ENV is not set" in done.stdout


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-", ">/dev/full", "| true"])
def test_no_standard_stream_is_needed(tmp_path, closed):
    done = check(wrapper=["sh", "-c", f'"$@" {closed}', "sh"], env={"ENTRYPOINT_STATE_DIR": str(tmp_path)})

    assert (done.returncode, done.stderr) == (0, "")


def test_a_path_of_the_socket_that_is_too_long(tmp_path):
    seen = findings(state_dir=tmp_path / ("x" * 100))

    assert seen["state"]["status"] == "warn"
    assert "107 are possible" in seen["state"]["message"]


def test_the_limits_that_are_in_force(tmp_path):
    limits = [needs("prlimit"), "--nofile=64", f"--data={100 * 1024 * 1024}", "--core=0"]

    seen = findings(state_dir=tmp_path, wrapper=limits)
    assert seen["limits"]["status"] == "warn"
    said = check(wrapper=limits, env={"ENTRYPOINT_STATE_DIR": str(tmp_path)}).stdout
    assert "nofile 64" in said
    assert "RLIMIT_DATA gives the migrator 100 MiB, not the 256 MiB" in said


@pytest.fixture
def small_group():
    """A control group of 128 MiB, of whichever version this machine has."""
    for place, limit in (("memory", "memory.limit_in_bytes"), (".", "memory.max")):
        group = Path("/sys/fs/cgroup") / place / f"check-{uuid.uuid4().hex}"
        if (group.parent / "cgroup.procs").exists() and os.access(group.parent, os.W_OK):
            group.mkdir()
            if (group / limit).exists():
                (group / limit).write_text(str(128 * 1024 * 1024))
                yield group
                group.rmdir()
                return
            group.rmdir()
    pytest.skip("a control group with a memory limit can't be made here")


def test_the_memory_limit_of_our_group(tmp_path, small_group):
    wrapper = ["sh", "-c", f'echo $$ > {small_group}/cgroup.procs && exec "$@"', "sh"]

    seen = findings(state_dir=tmp_path, wrapper=wrapper)
    assert seen["memory"]["message"].startswith("limit 128 MiB, in use ")
    assert "the migrator's 64 MiB fit" in seen["memory"]["message"]  # half of it, of the 256 that are set
    small = findings(state_dir=tmp_path, wrapper=wrapper, env={"MIGRATION_MAX_MEMORY_MB": "48"})
    assert "the migrator's 48 MiB fit" in small["memory"]["message"]


@pytest.mark.parametrize("kind", ["new", "file", "below a file", "link", "theirs", "proc"])
def test_it_trusts_the_state_directories_that_the_entrypoint_trusts(tmp_path, kind):
    for name in ("elsewhere", "theirs"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    if kind == "theirs":
        if os.geteuid() != 0:
            pytest.skip("needs root, to give a directory away")
        os.chown(tmp_path / "theirs", 12345, 12345)
    path = {"below a file": str(tmp_path / "file/x"), "proc": "/proc/x"}.get(kind, str(tmp_path / kind))

    error = state.look(path, {os.geteuid(), 0}).error
    try:
        board.prepare_state_dir(path)
    except OSError:
        assert error is not None
    else:
        assert error is None


def test_no_network_is_asked(tmp_path):
    spy = (
        "import os, runpy, sys\n"
        "asked = ('socket.connect', 'socket.getaddrinfo', 'socket.gethostbyname', 'socket.sendto', 'subprocess.Popen')\n"
        "sys.addaudithook(lambda event, _: os._exit(9) if event in asked else None)\n"
        "sys.argv = ['entrypoint', '--check']\n"
        "runpy.run_module('entrypoint', run_name='__main__')\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", spy],
        env=clean_env(**GOOD, ENTRYPOINT_STATE_DIR=str(tmp_path)),
        cwd=REPO,
        capture_output=True,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"not connected to" in done.stdout


@pytest.mark.parametrize(
    ("env", "code", "told"),
    [
        ({"SUPABASE_URL": "https://a.supabase.co"}, 0, "over the REST API of a.supabase.co:443"),
        ({"SUPABASE_URL": "http://a.supabase.co"}, 1, "cannot use SUPABASE_URL: it must begin with https://"),
    ],
)
def test_a_project_in_place_of_a_database_url_is_told(tmp_path, env, code, told):
    key = {"SUPABASE_SECRET_KEY": "sb_secret_hunter2", "MIGRATION_RUNNER": "rest"}

    database = findings(state_dir=tmp_path, env={**env, **key}, code=code)["database"]

    assert told in database["message"]
