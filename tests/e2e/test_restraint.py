"""With little to live on: it works, or says what is missing, and the app runs in either case."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

import pytest

from tests.conftest import needs
from tests.support.processes import app
from tests.support.waiting import wait_until

CGROUPS = Path("/sys/fs/cgroup")


@pytest.fixture
def env(database, migrations):
    """Settings of a container that has one migration to do."""
    directory = migrations(_1_a="create table a (id int);")
    return {"NODE_ENV": "production", "DATABASE_URL": database, "MIGRATIONS_DIR": str(directory)}


@pytest.fixture
def cgroup():
    """Make a cgroup with a limit in it: the command that enters it, or None where cgroups can't be had."""
    made = []

    def make(controller, version_1, version_2):
        directory = CGROUPS / controller
        limits = version_1
        if not directory.is_dir():
            directory, limits = CGROUPS, version_2
        directory = directory / f"test-{uuid.uuid4().hex[:12]}"
        try:
            directory.mkdir()
            made.append(directory)
            for name, value in limits.items():
                (directory / name).write_text(value)
        except OSError:  # read-only, or the controller isn't handed down to us
            return None
        return ["sh", "-c", f'echo $$ >{directory}/cgroup.procs && exec "$@"', "sh"]

    yield make
    for directory in made:
        wait_until(lambda directory=directory: _removed(directory), what="an empty cgroup")


def _removed(directory):
    try:
        directory.rmdir()
    except OSError:
        return False
    return True


def _lives_well(running, phase="completed"):
    """Migrated, and the app has its signals and its exit code."""
    running.wait_for_output("ready")
    marker = running.wait_for_phase(phase)
    running.send(signal.SIGTERM)

    assert running.wait() == 3
    assert "Traceback" not in running.stderr
    assert "internal error" not in running.stderr
    return marker


def test_without_any_variable_the_app_runs_and_the_reason_is_told(start, pid1):
    running = start(app("wait", "3"), pid1=pid1)

    assert "NODE_ENV" in _lives_well(running, "skipped")["migrations"]["reason"]


def test_without_a_database_the_app_runs_and_the_missing_variable_is_named(start, pid1):
    running = start(app("wait", "3"), pid1=pid1, env={"NODE_ENV": "production"})

    assert "DATABASE_URL" in _lives_well(running, "failed")["migrations"]["error"]


def test_on_a_read_only_root_it_migrates_and_says_where_it_cant_write(start, pid1, env, tmp_path):
    # Every mount on the way to our state directory, in a mount namespace of its own.
    script = (
        'mount --make-rprivate / && for one in / /tmp "$0"; do\n'
        '  mount --bind "$one" "$one" && mount -o remount,bind,ro "$one" || exit 99\n'
        'done; cd / && cd "$OLDPWD" && ! touch "$0/x" 2>/dev/null && exec "$@"'
    )
    wrapper = [needs("unshare"), "--mount", "sh", "-c", script, str(tmp_path)]
    running = start(app("wait", "3"), pid1=pid1, env=env, wrapper=wrapper)
    running.wait_for_output("ready")
    wait_until(lambda: _phases(running)[-1:] == ["completed"], what="the migrations")
    running.send(signal.SIGTERM)

    assert running.wait() == 3
    assert "ENTRYPOINT_STATE_DIR" in running.stderr or "Read-only" in running.stderr
    assert running.events("marker.failed")
    assert "Traceback" not in running.stderr


def test_without_proc_the_app_runs_and_is_told_of_every_signal(start, pid1, env):
    script = 'mount --make-rprivate / && mount -t tmpfs none /proc && exec "$@"'
    wrapper = [needs("unshare"), "--mount", "sh", "-c", script, "sh"]
    running = start(app("wait", "3"), pid1=pid1, env=env, wrapper=wrapper)

    _lives_well(running)


def test_without_home(start, pid1, env):
    running = start(app("wait", "3"), pid1=pid1, env=env, wrapper=["env", "--unset=HOME"])

    _lives_well(running)


@pytest.fixture
def state_dir_of():
    """Make a state directory that a user other than root can get at, unlike pytest's own."""
    made = []

    def make(uid):
        made.append(tempfile.mkdtemp(prefix="entrypoint-test-"))
        os.chown(made[-1], uid, uid)
        return made[-1]

    yield make
    for directory in made:
        shutil.rmtree(directory)


def test_as_a_user_that_nobody_knows(start, pid1, env, state_dir_of):
    if os.geteuid() != 0:
        pytest.skip("needs root, to run as somebody else")
    # The checkout may be anywhere: reading is all that is left to it.
    drop = [needs("setpriv"), "--reuid=54321", "--regid=54321", "--clear-groups"]
    drop += ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]
    drop += ["--bounding-set=-all,+dac_read_search", "--no-new-privs"]
    env = {**env, "ENTRYPOINT_STATE_DIR": state_dir_of(54321)}
    running = start(app("wait", "3"), pid1=pid1, env=env, wrapper=drop)

    _lives_well(running)


def test_without_any_capability(start, pid1, env):
    wrapper = [needs("setpriv"), "--no-new-privs"]
    if os.geteuid() == 0:
        wrapper += ["--inh-caps=-all", "--bounding-set=-all"]
    running = start(app("wait", "3"), pid1=pid1, env=env, wrapper=wrapper)

    _lives_well(running)


def test_with_eight_processes_at_most(start, pid1, env, cgroup, state_dir_of):
    wrapper = cgroup("pids", {"pids.max": "8"}, {"pids.max": "8"})
    if wrapper is None:
        # Of a user of its own: the limit counts all of a user's processes, and root has none.
        uid = 54322 + pid1
        env = {**env, "ENTRYPOINT_STATE_DIR": state_dir_of(uid)}
        caps = ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]
        wrapper = [needs("prlimit"), "--nproc=8", needs("setpriv")]
        wrapper += [f"--reuid={uid}", f"--regid={uid}", "--clear-groups", *caps]
    running = start(app("wait", "3"), pid1=pid1, env=env, wrapper=wrapper)

    _lives_well(running)


def test_with_no_process_to_spare_the_app_runs_and_the_migrations_fail_with_a_reason(
    start, pid1, env, cgroup
):
    # The entrypoint and the app, and that was it.
    wrapper = cgroup("pids", {"pids.max": "2"}, {"pids.max": "2"})
    if wrapper is None:
        pytest.skip("there is no pids cgroup to be had; a limit of 8 is tested in any case")
    running = start(app("wait", "3"), pid1=pid1, env=env, wrapper=wrapper)
    running.wait_for_output("ready")
    marker = running.wait_for_phase("failed")

    assert "cannot start the overseer" in marker["migrations"]["error"]
    running.send(signal.SIGTERM)
    assert running.wait() == 3


def test_with_64_mebibytes(start, pid1, env, cgroup):
    # Without a memory cgroup an approximation: so much of its own memory for each process.
    wrapper = cgroup(
        "memory",
        {"memory.limit_in_bytes": str(64 << 20)},
        {"memory.max": str(64 << 20), "memory.swap.max": "0"},
    ) or [needs("prlimit"), f"--data={64 << 20}"]
    running = start(app("wait", "3"), pid1=pid1, env=env, wrapper=wrapper)

    running.wait_for_output("ready")
    marker = running.wait_for_phase("completed", "failed", timeout_s=60)
    if marker["migrations"]["phase"] == "failed":
        assert "memory" in marker["migrations"]["error"]
    running.send(signal.SIGTERM)
    assert running.wait() == 3
    assert "Traceback" not in running.stderr


def test_with_a_quarter_of_a_processor(start, pid1, env, cgroup):
    wrapper = cgroup(
        "cpu", {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "25000"}, {"cpu.max": "25000 100000"}
    )
    rivals = []
    if wrapper is None:  # then three others want the same one
        one_cpu = [needs("taskset"), "--cpu-list", str(min(os.sched_getaffinity(0)))]
        rivals = [subprocess.Popen([*one_cpu, sys.executable, "-c", "while True: pass"]) for _ in range(3)]
        wrapper = one_cpu
    try:
        _lives_well(start(app("wait", "3"), pid1=pid1, env=env, wrapper=wrapper))
    finally:
        for rival in rivals:
            rival.kill()
            rival.wait()


def _phases(running):
    return [line.get("phase") for line in running.log if line["event"] == "status.changed"]
