"""What a migrator gone wild can't do, with real processes in an interpreter of their own."""

import json
import os
import signal
import subprocess
import sys
from datetime import datetime

import pytest

from tests.integration.test_child import run_alone
from tests.support.processes import REPO, clean_env
from tests.support.waiting import wait_until

# Leaves its group, its session and its parent, and then says its pid.
DAEMON = """
import os, signal, sys, time
def daemon():
    told, wrote = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.write(3, b'{"phase": "connecting", "reason": "%d"}\\\\n' % os.getpid())
            os.write(wrote, b".")
            time.sleep(60)
        os._exit(0)
    os.wait()
    os.read(told, 1)  # or it might be killed before it has said who it is
"""
# Whether the process of each such report is gone; zombies count as gone.
GONE = """
def gone(*pids):
    def lives(pid):
        try:
            return open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] not in "ZX"
        except OSError:
            return False
    end = time.monotonic() + 5
    while any(map(lives, pids)) and time.monotonic() < end:
        time.sleep(0.01)
    return not any(map(lives, pids))
def cgroups():
    import glob
    return glob.glob(f"/sys/fs/cgroup/**/migrator-{one._mark}", recursive=True)
"""


def alone(code):
    return run_alone(GONE + code.replace("DAEMON", DAEMON))


@pytest.mark.parametrize("subreaper", [True, False], ids=["adopted by the migrator", "adopted by us"])
def test_who_left_the_group_and_the_session_is_killed_with_the_rest(subreaper):
    found, _ = alone(f"""
one, outcome = asyncio.run(run('''DAEMON
if {subreaper}:
    import ctypes
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
daemon()
os._exit(0)'''))
told(code=outcome.code, gone=gone(int(reports[0].reason)), cgroups=cgroups())
""")

    assert found == {"code": 0, "gone": True, "cgroups": []}


def test_who_also_threw_its_environment_away_is_killed_at_the_deadline():
    found, _ = alone("""
policy.MIGRATOR_GRACE_S = 0.2
cgroup.Cgroup.make = lambda *_, **__: None
one, outcome = asyncio.run(run('''DAEMON
import ctypes
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.environ.get("MIGRATOR_MARK"):
    code = open("/proc/self/cmdline").read().split(chr(0))[-2]
    if os.fork() == 0:
        os.execve(sys.executable, [sys.executable, "-I", "-S", "-c", code], {})
else:
    daemon()
time.sleep(60)''', timeout_s=1.0))
told(cause=outcome.cause, code=outcome.code, count=len(reports), gone=gone(*(int(one.reason) for one in reports)))
""")

    assert found == {"cause": "deadline", "code": 137, "count": 1, "gone": True}


# At most 300 processes, and none of them for longer than 20 seconds, should nobody stop it.
BOMB = """'''if 1:
    import os, time
    end = time.monotonic() + 20
    read_fd, write_fd = os.pipe()
    os.write(write_fd, b"x" * 300)
    os.set_blocking(read_fd, False)
    while time.monotonic() < end:
        try:
            token = os.read(read_fd, 1)
            if os.fork() == 0:
                os.setsid()
        except OSError:
            time.sleep(0.01)'''"""


@pytest.mark.parametrize("group", [True, False], ids=["with a group where possible", "without"])
def test_a_fork_bomb_is_stopped_and_leaves_nothing(group):
    found, lines = alone(f"""
if not {group}:
    cgroup.Cgroup.make = lambda *_, **__: None
one, outcome = asyncio.run(run({BOMB}))
mark = f"MIGRATOR_MARK={{one._mark}}".encode()
def left():
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            if mark in open(f"/proc/{{pid}}/environ", "rb").read():
                yield int(pid)
        except OSError:
            pass
told(cause=outcome.cause, code=outcome.code, gone=gone(*left()), cgroups=cgroups())
""")

    assert found == {"cause": "processes", "code": 137, "gone": True, "cgroups": []}
    assert [line["event"] for line in lines].count("migrator.over_processes") == 1


def test_a_group_of_version_1_bounds_the_tasks_where_it_can_be_made():
    found, _ = alone("""
made = cgroup.Hierarchies.read()
if made.ours("pids") is None or not os.access(made.ours("pids"), os.W_OK):
    told(skip=True)
    sys.exit()
policy.MAX_TASKS = 5
one, outcome = asyncio.run(run('''if 1:
    import os, time
    pids = []
    end = time.monotonic() + 5
    while ":pids:/migrator-" not in open("/proc/self/cgroup").read() and time.monotonic() < end:
        time.sleep(0.01)
    try:
        while len(pids) < 20:
            pid = os.fork()
            if pid == 0:
                time.sleep(60)
            pids.append(pid)
    except OSError:
        pass
    os.write(3, b'{"phase": "applying", "applied": %d}' % len(pids) + bytes([10]))'''))
told(born=reports[0].applied, cgroups=cgroups())
""")

    if found.get("skip"):
        pytest.skip("no writable pids hierarchy of version 1 here")
    assert found == {"born": 4, "cgroups": []}


@pytest.mark.parametrize("fd", [1, 2])
def test_a_flood_of_lines_is_thinned_and_counted_and_costs_us_little(fd):
    found, lines = alone(f"""
one, outcome = asyncio.run(run('''if 1:
    import os, time
    end = time.monotonic() + 1.5
    line = b"some words of a tool\\\\n" * 100
    while time.monotonic() < end:
        os.write({fd}, line)'''))
told(code=outcome.code, cpu_s=time.process_time())
""")

    events = [line["event"] for line in lines]
    assert found["code"] == 0
    assert found["cpu_s"] < 1.2
    # A thousand at once and 200 a second, for as long as it took here; a word of what is left out every second.
    times = [datetime.fromisoformat(line["timestamp"]) for line in lines if line["event"] == "migrator.said"]
    took_s = (times[-1] - times[0]).total_seconds()
    assert 1000 <= len(times) <= 1000 + 200 * (took_s + 0.5)
    assert 1 <= events.count("log.dropped") <= took_s + 2
    assert sum(line.get("count", 0) for line in lines if line["event"] == "log.dropped") > 1000


def test_our_own_lines_pass_byte_for_byte_and_the_rest_becomes_json():
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            run_alone.__globals__["SETUP"]
            + r"""
one, outcome = asyncio.run(run(r'''if 1:
    import os
    ours = b'{"timestamp":1,"level":2,  "component":3,"event":4,"a":"\xc3\xa9"}\n'
    os.write(2, ours + b'{"a": 1}\nTraceback:\n\xff\n\n' + b"x" * 200_000 + b"\nend")
    os.write(1, ours)'''))
""",
        ],
        env=clean_env(),
        cwd=REPO,
        capture_output=True,
        timeout=30,
    )

    lines = done.stderr.splitlines()
    said = [json.loads(line).get("text") for line in lines if b"migrator.said" in line]
    assert done.stdout.decode() == '{"timestamp":1,"level":2,  "component":3,"event":4,"a":"é"}\n'
    assert done.stdout.strip() in lines
    long = said.pop(3)
    assert said == ['{"a": 1}', "Traceback:", "\N{REPLACEMENT CHARACTER}", "end"]
    assert len(long) == 1000
    assert set(long.split()) == {"[...]", *(word for word in long.split() if not word.strip("x"))}


def test_lines_for_eyes_are_left_as_they_are():
    found, _ = alone("""
os.environ["LOG_FORMAT"] = "console"
read_fd, write_fd = os.pipe()
real = os.dup(2)
os.dup2(write_fd, 2)
asyncio.run(run('''if 1:
    import os
    os.write(2, b"2026 migration-runner: Migration applied" + bytes([10]))'''))
os.dup2(real, 2)
told(said=os.read(read_fd, 4096).decode().splitlines())
""")

    # Beside our own log, which is JSON here.
    assert [line for line in found["said"] if not line.startswith("{")] == [
        "2026 migration-runner: Migration applied"
    ]


def test_a_report_pipe_full_of_garbage_keeps_nobody_busy_and_the_last_word_counts():
    found, lines = alone("""
one, outcome = asyncio.run(run('''if 1:
    import os, time
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        os.write(3, b"x" * 30000 + bytes([10]) * 30000)
    os.write(3, bytes([10]) + b'{"phase": "completed", "applied": 7}' + bytes([10]))'''))
told(code=outcome.code, applied=outcome.last.applied, cpu_s=time.process_time())
""")

    assert found.pop("cpu_s") < 1.2
    assert found == {"code": 0, "applied": 7}
    assert [line["event"] for line in lines].count("report.unreadable") == 1


def test_a_stopped_child_is_woken_to_end_well():
    found, _ = alone("""
one, outcome = asyncio.run(run('''if 1:
    import os, signal
    def end(*_):
        os.write(3, b'{"phase": "aborted"}' + bytes([10]))
        os._exit(143)
    signal.signal(signal.SIGTERM, end)
    os.kill(os.getpid(), signal.SIGSTOP)
    signal.pause()''', timeout_s=0.5))
told(cause=outcome.cause, code=outcome.code, last=outcome.last.phase)
""")

    assert found == {"cause": "deadline", "code": 143, "last": "aborted"}


def test_a_child_that_stops_itself_whenever_it_is_woken_is_killed():
    found, _ = alone("""
policy.MIGRATOR_GRACE_S = 0.3
one, outcome = asyncio.run(run('''if 1:
    import os, signal
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        os.kill(os.getpid(), signal.SIGSTOP)''', timeout_s=0.5))
told(cause=outcome.cause, code=outcome.code)
""")

    assert found == {"cause": "deadline", "code": 137}


def give_way(code, **env):
    """What the code tells after the migrator has lowered its own limits, as the child of a supervisor."""
    setup = "import json, os, resource, sys\nfrom migrator import __main__ as main\nmain._give_way(); main._stay_with_parent()\n"
    return subprocess.run(
        [sys.executable, "-c", setup + code],
        env=clean_env(MIGRATOR_PARENT_PID=str(os.getpid()), **env),
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_a_file_without_end_is_cut_off(tmp_path):
    # The real limit, with a file that takes no room: only its size counts.
    done = give_way(f"""
with open({str(tmp_path / "big")!r}, "wb") as file:
    file.seek(2**30 - 2)
    try:
        for _ in range(3):
            file.write(b"xx")
            file.flush()
    except OSError as error:
        print(error.errno)
    os.truncate(file.name, 0)
""")

    assert done.stdout == "27\n", done.stderr  # EFBIG


def test_the_migrators_limits_are_only_ever_lowered():
    done = give_way(
        """
print(json.dumps([resource.getrlimit(one) for one in (resource.RLIMIT_CORE, resource.RLIMIT_DATA)]))
print(os.environ.get("MIGRATOR_PARENT_PID"))
""",
        MIGRATION_MAX_MEMORY_MB="256",
        MIGRATOR_MEMORY_LIMIT=str(100 * 1024 * 1024),
    )

    assert done.stdout == f"[[0, 0], [{100 * 1024 * 1024}, {100 * 1024 * 1024}]]\nNone\n", done.stderr


def test_a_migrator_whose_supervisor_died_before_it_could_ask_ends_at_once():
    done = give_way("print('still here')", MIGRATION_NICE="0")
    orphan = subprocess.run(
        [sys.executable, "-c", "from migrator import __main__ as main\nmain._stay_with_parent()"],
        env=clean_env(MIGRATOR_PARENT_PID="999999999"),
        cwd=REPO,
        timeout=30,
    )

    assert done.stdout == "still here\n"
    assert orphan.returncode == 128 + signal.SIGTERM


def test_a_migrator_ends_with_its_supervisor(tmp_path):
    child = "from migrator import __main__ as main\nmain._stay_with_parent()\nprint(main.os.getpid(), flush=True)\nmain.signal.pause()"
    supervisor = (
        "import os, subprocess, sys\n"
        "os.environ['MIGRATOR_PARENT_PID'] = str(os.getpid())\n"
        f"subprocess.run([sys.executable, '-c', {child!r}])"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", supervisor],
        env=clean_env(),
        cwd=REPO,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()

    wait_until(lambda: not _lives(pid), timeout_s=5, what="the end of the migrator")
    parent.stdout.close()


def _lives(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
