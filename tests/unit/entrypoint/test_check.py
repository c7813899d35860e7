"""What --check makes of a container: tables of facts, and the reading of control groups from files."""

import json

import pytest
from msgspec.structs import replace

from entrypoint.check import cgroups
from entrypoint.check.command import CHECKS, document, judge, lines, overall
from entrypoint.check.facts import Cgroup, Directory, Facts, Memory, State, is_entrypoint
from entrypoint.check.finding import Finding
from entrypoint.options import Options
from entrypoint.settings import Settings
from migrator import dsn, endpoint

MIB = 1024 * 1024
NOWHERE = Cgroup(version=0, memory=(), pids_limit=None, pids_used=None, cpus=None, writable=False)


REST = endpoint.parse("https://a.supabase.co", "SUPABASE_URL", "sb_secret_hunter2", "SUPABASE_SECRET_KEY")


def settings(**environ):
    return Settings.from_env({"NODE_ENV": "production", **environ}, open)


def options(**environ):
    return Options.read({"NODE_ENV": "production", "ENTRYPOINT_STOP_GRACE": "8"} | environ)


GOOD = Facts(
    platform="linux",
    pid=1,
    proc=True,
    first=("/usr/bin/python3", "-m", "entrypoint", "--check"),
    first_uid=1000,
    subreaper=True,
    pidfd_error=None,
    state=State(path="/run/x", error=None, socket_error=None),
    limits={
        "nofile": (1024, 4096),
        "nproc": (None, None),
        "data": (None, None),
        "as": (None, None),
        "core": (0, 0),
    },
    cgroup=NOWHERE,
    settings=settings(),
    options=options(),
    kubernetes=False,
    railway=False,
    draining=None,
    directories=(Directory(path="migrations", files=4, error=None),),
    missing=(),
    database_name="DATABASE_URL",
    database=dsn.parse("postgresql://user:hunter2@db.example.com/shop", "DATABASE_URL"),
    rest=None,
    rest_error=None,
    lacks_of_project="SUPABASE_SERVICE_ROLE_KEY to a key",
    absent_files=(),
    termination_log=None,
    terminal=False,
    closed=(),
    uid=1000,
    user="node",
    home_error=None,
    root_read_only=False,
    cwd="/app",
)


def found(name, **changes):
    """The worst of what is said under this name."""
    findings = [one for one in judge(replace(GOOD, **changes)) if one.name == name]
    return next(one for one in findings if one.status == overall(findings))


def memory(limit_mib, used_mib=0, oom_group=False):
    return Memory(limit_bytes=limit_mib and limit_mib * MIB, used_bytes=used_mib * MIB, oom_group=oom_group)


def group(*levels, version=2, **changes):
    return replace(NOWHERE, version=version, memory=levels, **changes)


def test_the_migrator_takes_half_of_the_container_at_the_most():
    seen = replace(GOOD, cgroup=group(memory(384, 12)), settings=settings(MIGRATION_MAX_MEMORY_MB="512"))

    assert [one.message for one in judge(seen) if one.name == "memory"] == [
        "limit 384 MiB, in use 12 MiB; the migrator's 192 MiB fit beside that"
    ]


def test_where_all_is_well_there_is_one_line_for_each_check_and_nothing_to_do():
    findings = judge(GOOD)

    assert [one.name for one in findings] == list(CHECKS)
    assert {(one.status, one.remedy) for one in findings} == {("ok", None)}


TINI, SHELL, OURS = (
    ("/usr/bin/tini", "--", "sh"),
    ("/bin/sh", "-c", "entrypoint -- x"),
    ("/opt/bin/entrypoint", "--"),
)


@pytest.mark.parametrize(
    ("name", "changes", "status", "said"),
    [
        ("pid1", {}, "ok", "we are PID 1"),
        ("pid1", {"pid": 7, "first": OURS}, "ok", "look from beside it"),
        ("pid1", {"pid": 7, "first": TINI}, "ok", "PID 1 is tini; as a subreaper"),
        ("pid1", {"pid": 7, "first": SHELL}, "warn", "PID 1 is sh, and a shell passes no signals on"),
        ("pid1", {"pid": 7, "first": ()}, "ok", "somebody we can't see"),
        ("pid1", {"pid": 7, "first": TINI, "subreaper": False}, "fail", "orphans of the app escape us"),
        ("pid1", {"pid": 7, "first": (), "subreaper": False, "platform": "darwin"}, "warn", "only Linux"),
        (
            "pidfd",
            {"pidfd_error": "Operation not permitted"},
            "ok",
            "no pidfd_open (Operation not permitted)",
        ),
        ("user", {"user": None, "uid": 4711}, "ok", "uid 4711 (not in /etc/passwd, which is fine)"),
        ("user", {"pid": 7, "first": OURS, "uid": 0, "user": "root"}, "warn", "runs as uid 1000"),
        ("user", {"pid": 7, "first": OURS}, "ok", "uid 1000 (node)"),
        ("home", {"home_error": "not set"}, "ok", "not set; we need none"),
        ("root", {"root_read_only": True}, "ok", "read-only"),
        ("proc", {"proc": False}, "warn", "not mounted"),
        (
            "state",
            {"state": State(path="/x", error="full", socket_error=None)},
            "fail",
            "cannot use /x: full",
        ),
        (
            "state",
            {"state": State(path="/x", error=None, socket_error="too long")},
            "warn",
            "no socket in /x",
        ),
        ("limits", {}, "ok", "nofile 1024, nproc unlimited, data unlimited, as unlimited, core 0;"),
        ("limits", {"limits": {"nofile": (64, 64)}}, "warn", "64 open files are few"),
        ("limits", {"limits": {"nproc": (4, 4)}}, "warn", "4 processes for uid 1000"),
        ("limits", {"limits": {"nproc": (4, 4)}, "uid": 0}, "ok", "nproc 4"),
        (
            "limits",
            {"limits": {"data": (64 * MIB, 64 * MIB)}},
            "warn",
            "RLIMIT_DATA gives the migrator 64 MiB",
        ),
        ("limits", {"limits": {"data": (9 * MIB, 9 * MIB)}}, "fail", "and 48 MiB is the least"),
        ("limits", {"limits": {"data": (64 * MIB, None)}}, "ok", "data 64 MiB"),
        ("limits", {"limits": {"as": (200 * MIB, None)}}, "warn", "RLIMIT_AS gives the migrator 200 MiB"),
        ("memory", {}, "ok", "no limit (no cgroup to be seen)"),
        (
            "memory",
            {"cgroup": group(memory(None))},
            "ok",
            "no limit (cgroup v2); the migrator may take 256 MiB",
        ),
        (
            "memory",
            {"cgroup": group(memory(512, 100))},
            "ok",
            "limit 512 MiB, in use 100 MiB; the migrator's 256 MiB fit",
        ),
        ("memory", {"cgroup": group(memory(512, 300))}, "warn", "don't fit beside that"),
        ("memory", {"cgroup": group(memory(512), memory(300, 200))}, "warn", "limit 300 MiB, in use 200 MiB"),
        ("oom", {"cgroup": group(memory(512))}, "ok", "isn't set"),
        (
            "oom",
            {"cgroup": group(memory(512), memory(None, oom_group=True))},
            "warn",
            "kills everything, the app too",
        ),
        (
            "oom",
            {"cgroup": group(memory(512, oom_group=None), version=1)},
            "ok",
            "cgroup v1 has no memory.oom.group",
        ),
        ("pids", {"cgroup": group(pids_limit=100, pids_used=3)}, "ok", "limit 100, in use 3"),
        ("pids", {"cgroup": group(pids_limit=8, pids_used=3)}, "warn", "limit 8, in use 3"),
        ("cpu", {"cgroup": group(cpus=0.25)}, "ok", "quota 0.25 CPUs"),
        ("cgroup", {"cgroup": group(writable=True, version=1)}, "ok", "a group of its own"),
        ("cgroup", {}, "ok", "not writable"),
        (
            "grace",
            {},
            "ok",
            "we take up to 8 s, Docker gives 10 s unless told otherwise (which can't be seen",
        ),
        ("grace", {"options": options(ENTRYPOINT_STOP_GRACE="10")}, "warn", "then kills everything"),
        (
            "grace",
            {"options": options(ENTRYPOINT_STOP_DELAY="4")},
            "warn",
            "we take up to 12 s (4 of them before the signal)",
        ),
        ("grace", {"kubernetes": True}, "ok", "Kubernetes gives 30 s"),
        (
            "grace",
            {"kubernetes": True, "options": options(ENTRYPOINT_STOP_DELAY="22")},
            "warn",
            "Kubernetes gives 30 s",
        ),
        ("grace", {"railway": True}, "warn", "Railway gives 0 s unless told otherwise"),
        ("grace", {"railway": True, "draining": "15"}, "ok", "we take up to 8 s, Railway gives 15 s"),
        ("grace", {"railway": True, "draining": "soon"}, "warn", "Railway understands no such number"),
        (
            "settings",
            {"settings": settings(MIGRATION_TIMEOUT="soon")},
            "fail",
            "cannot use MIGRATION_TIMEOUT='soon'",
        ),
        ("settings", {"settings": settings(LOG_LEVEL="loud")}, "warn", "cannot use LOG_LEVEL='loud'"),
        ("settings", {"settings": settings(ENTRYPOINT_STOP_DELAY="soon")}, "warn", "ENTRYPOINT_STOP_DELAY"),
        (
            "settings",
            {"settings": settings(MIGRATION_TIMOUT="5")},
            "warn",
            "nothing here reads MIGRATION_TIMOUT",
        ),
        ("migrations", {}, "ok", "they would run: production, MIGRATION_MODE=parallel"),
        (
            "migrations",
            {"settings": settings(NODE_ENV=""), "options": options(NODE_ENV="")},
            "warn",
            "NODE_ENV is not set",
        ),
        ("migrations", {"settings": settings(NODE_ENV="test")}, "ok", "none would run here: NODE_ENV=test"),
        (
            "migrations",
            {"settings": settings(SKIP_MIGRATIONS="1")},
            "ok",
            "none would run here: SKIP_MIGRATIONS=1",
        ),
        ("migrations", {"settings": settings(MIGRATION_NICE="x")}, "fail", "count as failed"),
        ("files", {}, "ok", "migrations: 4 .sql files"),
        ("files", {"directories": ()}, "warn", "neither supabase/migrations nor migrations is in /app"),
        ("files", {"directories": (), "settings": settings(NODE_ENV="test")}, "ok", "neither"),
        (
            "files",
            {"directories": (), "settings": settings(NODE_ENV="production", MIGRATION_COMMAND="x up")},
            "ok",
            "MIGRATION_RUNNER=command decides what it needs",
        ),
        (
            "files",
            {"directories": (Directory(path="m", files=0, error=None),)},
            "warn",
            "m holds no .sql file",
        ),
        (
            "files",
            {"directories": (Directory(path="m", files=0, error="gone"),)},
            "fail",
            "cannot read m: gone",
        ),
        ("database", {}, "ok", "direct, to db.example.com/shop (DATABASE_URL)"),
        ("database", {"database": None, "database_name": None}, "fail", "no database is set"),
        ("database", {"database": None}, "fail", "DATABASE_URL is no database URL"),
        ("database", {"rest": REST}, "ok", "over the REST API of a.supabase.co:443"),
        ("database", {"rest_error": "cannot use SUPABASE_URL: no"}, "fail", "cannot use SUPABASE_URL"),
        ("database", {"missing": ("asyncpg",)}, "fail", "not installed: asyncpg"),
        ("database", {"absent_files": ("/ca.pem",)}, "fail", "names /ca.pem: not there"),
        ("database", {"settings": settings(DATABASE_URL="embedded")}, "ok", "a private Postgres"),
        ("terminal", {"terminal": True}, "ok", "the app gets its foreground"),
        ("terminal", {"closed": (0, 2)}, "ok", "closed: 0, 2"),
        ("termination", {"termination_log": ""}, "ok", "writable"),
        ("termination", {"termination_log": "we may not write to it"}, "warn", "may not"),
    ],
)
def test_each_fact_is_judged(name, changes, status, said):
    finding = found(name, **changes)

    assert (finding.status, said in finding.message) == (status, True), finding
    assert (finding.remedy is None) == (status == "ok")


@pytest.mark.parametrize(
    ("name", "changes", "remedy"),
    [
        ("grace", {"options": options(ENTRYPOINT_STOP_GRACE="10")}, "set ENTRYPOINT_STOP_GRACE=8, or docker stop -t 15"),
        ("grace", {"options": options(ENTRYPOINT_STOP_DELAY="9")}, "docker stop -t 22"),
        ("grace", {"railway": True}, "set RAILWAY_DEPLOYMENT_DRAINING_SECONDS=13"),
        ("grace", {"kubernetes": True, "options": options(ENTRYPOINT_STOP_DELAY="25")}, "terminationGracePeriodSeconds: 38"),
        ("database", {"database": None, "database_name": None}, "set DATABASE_URL to a postgresql:// URL, or SUPABASE_SERVICE_ROLE_KEY to a key"),
        ("memory", {"cgroup": group(memory(512, 300))}, "set MIGRATION_MAX_MEMORY_MB=106, or raise the container's limit to 576 MiB"),
        ("memory", {"cgroup": group(memory(128, 100))}, "raise the container's limit to 384 MiB"),
    ],
)  # fmt: skip
def test_a_remedy_is_something_to_type(name, changes, remedy):
    assert found(name, **changes).remedy.startswith(remedy)


@pytest.mark.parametrize("engine_s", [*range(2, 40)])
def test_the_grace_that_is_advised_is_one_that_is_accepted(engine_s):
    advice = found("grace", railway=True, draining=str(engine_s), options=options(ENTRYPOINT_STOP_GRACE="60"))
    advised = advice.remedy.split(",")[0].removeprefix("set ENTRYPOINT_STOP_GRACE=")

    changes = {"railway": True, "draining": str(engine_s)}
    assert found("grace", **changes, options=options(ENTRYPOINT_STOP_GRACE=advised)).status == "ok"


@pytest.mark.parametrize(
    ("command", "ours"),
    [
        (["/opt/venv/bin/python", "/opt/venv/bin/entrypoint", "--", "node"], True),
        (["python3", "-P", "-m", "entrypoint", "node"], True),
        (["node", "--", "entrypoint"], False),
        (["sh", "-c", "entrypoint -- node"], False),
        ([], False),
    ],
)
def test_an_entrypoint_is_known_by_its_command_line(command, ours):
    assert is_entrypoint(command) is ours


def test_the_arguments_of_pid_1_are_not_shown():
    assert "hunter2" not in found("pid1", pid=7, first=("node", "--password=hunter2")).message


def test_the_worst_finding_decides_and_a_line_stays_a_line():
    findings = [
        Finding(name="a", status="ok", message="x\ny", remedy=None),
        Finding(name="bc", status="warn", message="z", remedy="do it"),
    ]

    assert lines(findings) == "ok    a   x?y\nwarn  bc  z; do it"
    assert json.loads(document(findings))["status"] == "warn"
    assert overall([*findings, replace(findings[0], status="fail")]) == "fail"
    assert overall([]) == "ok"


def tree(root, files):
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content)
    return str(root)


V2_MOUNT = "30 23 0:26 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw,nsdelegate\n"
V1_MOUNTS = (
    "35 31 0:32 /docker/7f /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
    "36 31 0:33 /docker/7f /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n"
    "39 31 0:36 /docker/7f /sys/fs/cgroup/pids ro - cgroup cgroup rw,pids\n"
)


def test_version_2_in_a_namespace_of_its_own(tmp_path):
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/\n",
            "proc/self/mountinfo": V2_MOUNT,
            "sys/fs/cgroup/memory.max": f"{512 * MIB}\n",
            "sys/fs/cgroup/memory.current": f"{100 * MIB}\n",
            "sys/fs/cgroup/memory.stat": f"anon 7\ninactive_file {40 * MIB}\n",
            "sys/fs/cgroup/memory.oom.group": "1\n",
            "sys/fs/cgroup/pids.max": "100\n",
            "sys/fs/cgroup/pids.current": "7\n",
            "sys/fs/cgroup/cpu.max": "25000 100000\n",
        },
    )

    seen = cgroups.look(root)
    assert seen.memory == (Memory(limit_bytes=512 * MIB, used_bytes=60 * MIB, oom_group=True),)
    assert (seen.version, seen.pids_limit, seen.pids_used, seen.cpus) == (2, 100, 7, 0.25)


def test_version_2_parents_count_as_far_as_they_are_visible(tmp_path):
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/pod/app\n",
            "proc/self/mountinfo": V2_MOUNT,
            "sys/fs/cgroup/pod/app/memory.max": "max\n",
            "sys/fs/cgroup/pod/app/pids.max": "50\n",
            "sys/fs/cgroup/pod/app/pids.current": "1\n",
            "sys/fs/cgroup/pod/memory.max": f"{64 * MIB}\n",
            "sys/fs/cgroup/pod/pids.max": "60\n",
            "sys/fs/cgroup/pod/pids.current": "58\n",
            "sys/fs/cgroup/pod/cpu.max": "max 100000\n",
        },
    )

    seen = cgroups.look(root)
    assert [one.limit_bytes for one in seen.memory] == [None, 64 * MIB, None]
    assert (seen.pids_limit, seen.pids_used, seen.cpus) == (60, 58, None)


def test_version_1_as_docker_mounts_it(tmp_path):
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "12:memory:/docker/7f\n11:cpu,cpuacct:/docker/7f\n4:pids:/docker/7f\n0::/\n",
            "proc/self/mountinfo": V1_MOUNTS,
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{9 * MIB}\n",
            "sys/fs/cgroup/memory/memory.stat": f"hierarchical_memory_limit {64 * MIB}\ntotal_inactive_file 0\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "150000\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/pids/pids.max": "max\n",
        },
    )

    seen = cgroups.look(root)
    assert seen.memory == (Memory(limit_bytes=64 * MIB, used_bytes=9 * MIB, oom_group=None),)
    assert (seen.version, seen.pids_limit, seen.cpus) == (1, None, 1.5)


@pytest.mark.parametrize(
    ("files", "version"),
    [
        ({"sys/fs/cgroup/cgroup.controllers": "memory", "sys/fs/cgroup/memory.max": "1048576"}, 2),
        ({"sys/fs/cgroup/memory/memory.limit_in_bytes": "1048576"}, 1),
    ],
)
def test_without_proc_the_usual_place_is_asked(tmp_path, files, version):
    seen = cgroups.look(tree(tmp_path, files))

    assert (seen.version, [one.limit_bytes for one in seen.memory]) == (version, [MIB])


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"proc/self/cgroup": "nonsense\n::\n", "proc/self/mountinfo": "- - -\n30 - cgroup2\n"},
        {
            "proc/self/cgroup": "0::/../../x\n",
            "proc/self/mountinfo": V2_MOUNT,
            "sys/fs/cgroup/cpu.max": "0 0\n",
        },
    ],
)
def test_nonsense_is_no_limit(tmp_path, files):
    seen = cgroups.look(tree(tmp_path, files))

    assert (seen.pids_limit, seen.cpus, {one.limit_bytes for one in seen.memory} - {None}) == (
        None,
        None,
        set(),
    )
