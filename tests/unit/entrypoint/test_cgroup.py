"""Control groups: what the kernel's files say, and what is made of it in a directory tree."""

import pytest

from entrypoint import cgroup
from entrypoint.cgroup import UNIFIED, Cgroup, Hierarchies, Mount
from tests.support.stores import quiet_log

MIB = 1024 * 1024
# Beyond the greatest pid that Linux gives (PID_MAX_LIMIT): what the group kills must be no process here.
NOBODY = 2**30

V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid,relatime - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "31 23 0:28 / /sys/fs/cgroup ro,relatime - tmpfs tmpfs ro,mode=755\n"
    "32 31 0:29 /docker/ab /sys/fs/cgroup/cpu,cpuacct ro,relatime master:9 - cgroup cgroup rw,cpu,cpuacct\n"
    "33 31 0:30 /docker/ab /sys/fs/cgroup/memory ro,relatime - cgroup cgroup rw,memory\n"
)


@pytest.mark.parametrize(
    ("text", "own"),
    [
        pytest.param("0::/\n", {UNIFIED: "/"}, id="version 2"),
        pytest.param("0::/a:b/c\n", {UNIFIED: "/a:b/c"}, id="a colon in the path"),
        pytest.param(
            "5:cpu,cpuacct:/docker/ab\n1:name=systemd:/x\n0::/\n",
            {"cpu": "/docker/ab", "cpuacct": "/docker/ab", "name=systemd": "/x", UNIFIED: "/"},
            id="version 1 beside it",
        ),
        pytest.param("", {}, id="no /proc"),
        pytest.param("nonsense\n", {}, id="nonsense"),
    ],
)
def test_our_own_groups_are_read(text, own):
    assert cgroup.parse_own(text) == own


@pytest.mark.parametrize(
    ("text", "mounts"),
    [
        pytest.param(V2, {UNIFIED: Mount(root="/", point="/sys/fs/cgroup")}, id="version 2"),
        pytest.param(
            V1,
            {
                "cpu": Mount(root="/docker/ab", point="/sys/fs/cgroup/cpu,cpuacct"),
                "cpuacct": Mount(root="/docker/ab", point="/sys/fs/cgroup/cpu,cpuacct"),
                "rw": Mount(root="/docker/ab", point="/sys/fs/cgroup/cpu,cpuacct"),
                "memory": Mount(root="/docker/ab", point="/sys/fs/cgroup/memory"),
            },
            id="version 1",
        ),
        pytest.param(
            V2.replace("/sys/fs/cgroup", r"/a\040b"), {UNIFIED: Mount(root="/", point="/a b")}, id="a space"
        ),
        pytest.param("36 35 98:0 /mnt /mnt rw - ext3 /dev/root rw\n", {}, id="something else"),
        pytest.param("nonsense\n - x\n", {}, id="nonsense"),
    ],
)
def test_the_mounts_are_read(text, mounts):
    assert cgroup.parse_mounts(text) == mounts


@pytest.mark.parametrize(
    ("path", "root", "below"),
    [
        ("/", "/", "/"),
        ("/a/b", "/", "/a/b"),
        ("/docker/ab", "/docker/ab", "/"),
        ("/docker/ab/c", "/docker/ab", "/c"),
        ("/docker/abc", "/docker/ab", None),
        ("/", "/docker/ab", None),
        ("/../other", "/", None),
    ],
)
def test_our_group_is_found_below_the_mount(path, root, below):
    assert cgroup.below_mount(path, Mount(root=root, point="/sys/fs/cgroup")) == below


def hierarchies(tmp_path, own, **points):
    (tmp_path / "own").write_text(own)
    lines = [
        f"1 1 0:1 / {tmp_path / name} rw - {'cgroup2 x rw' if name == 'unified' else f'cgroup x rw,{name}'}\n"
        for name in points
    ]
    (tmp_path / "mountinfo").write_text("".join(lines))
    for name, files in points.items():
        for file, content in files.items():
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
    return Hierarchies.read(str(tmp_path / "own"), str(tmp_path / "mountinfo"))


@pytest.mark.parametrize(
    ("own", "points", "limit"),
    [
        pytest.param("0::/\n", {"unified": {"memory.max": f"{64 * MIB}\n"}}, 64 * MIB, id="version 2"),
        pytest.param("0::/\n", {"unified": {"memory.max": "max\n"}}, None, id="no limit"),
        pytest.param(
            "0::/a/b\n",
            {"unified": {"a/b/memory.max": "max", "a/memory.max": "5000", "cgroup.procs": ""}},
            5000,
            id="the limit of a group above",
        ),
        pytest.param(
            "4:memory:/\n0::/\n",
            {"memory": {"memory.limit_in_bytes": "7000\n"}, "unified": {"cgroup.procs": ""}},
            7000,
            id="version 1",
        ),
        pytest.param(
            "4:memory:/\n",
            {"memory": {"memory.limit_in_bytes": "9223372036854771712\n"}},
            None,
            id="v1 without",
        ),
        pytest.param("", {}, None, id="no /proc"),
    ],
)
def test_the_containers_memory_limit_is_the_least_that_we_can_see(tmp_path, own, points, limit):
    assert cgroup.memory_limit_bytes(hierarchies(tmp_path, own, **points)) == limit


def make(found):
    return Cgroup.make(found, "m", memory_bytes=100 * MIB, max_tasks=512, log=quiet_log())


def prepare(directory, *files):
    """A directory as the kernel would make it."""
    directory.mkdir()
    for file in files:
        (directory / file).write_text("")


def test_a_group_of_version_2_gets_its_limits_and_the_killing_of_all_for_itself_alone(tmp_path):
    found = hierarchies(tmp_path, "0::/\n", unified={"cgroup.subtree_control": "", "memory.oom.group": "0"})
    files = ("memory.max", "memory.oom.group", "pids.max", "cpu.weight", "cgroup.procs")
    prepare(tmp_path / "unified" / "m", *files, "cgroup.kill", "memory.events")

    group = make(found)
    group.add(NOBODY)
    values = [(tmp_path / "unified" / "m" / file).read_text() for file in files]
    group.kill()
    (tmp_path / "unified" / "m" / "memory.events").write_text("oom 3\noom_kill 2\noom_group_kill 1\n")

    assert values == [str(132 * MIB), "1", "512", "10", str(NOBODY)]
    assert (tmp_path / "unified" / "m" / "cgroup.kill").read_text() == "1"
    assert (tmp_path / "unified" / "memory.oom.group").read_text() == "0"
    assert group.oom_kills() == 2


def test_a_group_below_one_that_somebody_else_keeps_is_not_made(tmp_path):
    found = hierarchies(tmp_path, "0::/user.slice/session\n", unified={"user.slice/session/cgroup.procs": ""})

    assert make(found) is None
    assert not (tmp_path / "unified" / "user.slice" / "session" / "m").exists()


def test_a_group_that_cant_be_made_is_just_not_there(tmp_path):
    found = hierarchies(tmp_path, "0::/\n", unified={"m": "a file in the way"})

    assert make(found) is None


def test_a_hierarchy_that_takes_no_limit_is_left_again(tmp_path):
    found = hierarchies(tmp_path, "4:pids:/\n", pids={"cgroup.procs": ""})

    assert make(found) is None
    assert not (tmp_path / "pids" / "m").exists()


def test_a_group_is_removed_once_it_is_empty(tmp_path):
    found = hierarchies(tmp_path, "0::/\n", unified={"cgroup.procs": ""})
    group = make(found)
    (tmp_path / "unified" / "m" / "somebody").write_text("")

    assert not group.remove()
    (tmp_path / "unified" / "m" / "somebody").unlink()
    assert group.remove()
    assert group.remove()


@pytest.mark.parametrize(
    ("own", "files", "count"),
    [
        ("0::/\n", {"unified": {"memory.events": "oom 3\noom_kill 2\n"}}, 2),
        ("4:memory:/\n", {"memory": {"memory.oom_control": "under_oom 0\noom_kill 5\n"}}, 5),
        ("4:memory:/\n", {"memory": {"memory.oom_control": "under_oom 0\n"}}, 0),
        ("", {}, 0),
    ],
)
def test_how_often_the_kernel_killed_in_our_own_group(tmp_path, own, files, count):
    assert cgroup.oom_kills(hierarchies(tmp_path, own, **files)) == count
