"""Marker file and socket: what they promise, and that the app doesn't depend on them."""

import json
import os
import signal
import socket
import stat
import subprocess

import psutil
import pytest

from tests.conftest import needs
from tests.support.postgres import free_port
from tests.support.processes import app
from tests.support.waiting import wait_until


def _ends_well(running, code=4):
    running.wait_for_output("ready")
    running.wait_for_event("status.changed")
    running.send(signal.SIGTERM)
    assert running.wait() == code
    assert "internal error" not in running.stderr


def _warnings(running):
    return [line for line in running.log if line["level"] == "warning"]


def test_the_app_is_told_where_marker_and_socket_are(start):
    running = start(["--", "sh", "-c", "echo $ENTRYPOINT_STATUS_FILE $ENTRYPOINT_SOCKET"])

    assert running.wait() == 0
    assert running.stdout.split() == [
        f"{running.state_dir}/status.json",
        f"{running.state_dir}/entrypoint.sock",
    ]


def test_a_relative_state_directory_is_told_to_the_app_as_an_absolute_one(start, tmp_path):
    running = start(
        ["--", "sh", "-c", "cd /; echo $ENTRYPOINT_STATUS_FILE"],
        cwd=tmp_path,
        env={"ENTRYPOINT_STATE_DIR": "relative"},
    )

    assert running.wait() == 0
    assert running.stdout.strip() == f"{tmp_path}/relative/status.json"
    assert (tmp_path / "relative/status.json").exists()


def test_the_socket_is_open_to_our_own_user_only_and_the_marker_readable_to_all(start):
    running = start(app("wait", "4"), preexec_fn=lambda: os.umask(0))
    running.wait_for_phase("skipped")
    found = (running.state_dir / "entrypoint.sock").stat()

    assert stat.S_IMODE(found.st_mode) == 0o600
    assert found.st_uid == os.geteuid()
    assert stat.S_IMODE((running.state_dir / "status.json").stat().st_mode) == 0o644
    _ends_well(running)
    assert sorted(path.name for path in running.state_dir.iterdir()) == ["status.json"]


def test_a_reader_sees_the_marker_whole_at_any_moment(start):
    running = start(app("wait"), env={"SERVICE_NAME": "x" * 20_000})
    running.wait_for_phase("skipped")
    path = running.state_dir / "status.json"
    inodes = set()

    # A request after FRESH_S makes a new document; each one is a rename.
    def read():
        running.request("/api/health")
        for _ in range(200):
            with path.open("rb") as file:
                inodes.add(os.fstat(file.fileno()).st_ino)
                assert json.load(file)["service"] == "x" * 20_000
        return len(inodes) > 2

    wait_until(read, what="two renames")


def test_marker_and_socket_give_the_same_bytes(start):
    running = start(app("wait"))
    running.wait_for_phase("skipped")

    _, _, body = running.request("/api/health")
    assert (running.state_dir / "status.json").read_bytes() == body


@pytest.mark.parametrize("kind", ["file", "below a file", "link", "proc"])
def test_a_state_directory_that_cant_be_used_is_a_warning(start, tmp_path, kind):
    (tmp_path / "file").write_text("")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    path = {
        "file": tmp_path / "file",
        "below a file": tmp_path / "file/x",
        "link": tmp_path / "link",
        "proc": "/proc/x",
    }

    running = start(app("wait", "4"), env={"ENTRYPOINT_STATE_DIR": str(path[kind])})

    _ends_well(running)
    assert [line["event"] for line in _warnings(running)] == ["marker.failed"]
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_state_directory_of_another_user_is_a_warning(start, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs root, to give a directory away")
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    os.chown(theirs, 12345, 12345)

    running = start(app("wait", "4"), env={"ENTRYPOINT_STATE_DIR": str(theirs)})

    _ends_well(running)
    assert "another user" in _warnings(running)[0]["reason"]
    assert list(theirs.iterdir()) == []


def test_a_state_directory_on_a_read_only_disk_is_a_warning(start, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount")
    disk = tmp_path / "disk"
    disk.mkdir()
    script = f'mount -t tmpfs -o size=64k,mode=755 none {disk} && mount -o remount,ro {disk} && exec "$@"'

    running = start(
        app("wait", "4"),
        wrapper=[needs("unshare"), "--mount", "sh", "-c", script, "sh"],
        env={"ENTRYPOINT_STATE_DIR": str(disk)},
    )

    _ends_well(running)
    assert [line["event"] for line in _warnings(running)] == ["marker.failed"]


def test_a_full_disk_is_one_warning(start, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount")
    disk = tmp_path / "disk"
    disk.mkdir()
    script = (
        f"mount -t tmpfs -o size=64k,mode=755 none {disk} && "
        f'{{ dd if=/dev/zero of={disk}/full bs=1k count=128 2>/dev/null; exec "$@"; }}'
    )

    running = start(
        app("wait", "4"),
        wrapper=[needs("unshare"), "--mount", "sh", "-c", script, "sh"],
        env={"ENTRYPOINT_STATE_DIR": str(disk)},
    )

    _ends_well(running)
    assert [line["event"] for line in _warnings(running)] == ["marker.failed"]
    assert "No space left" in _warnings(running)[0]["reason"]


def test_a_file_size_limit_of_nought_doesnt_kill_the_app(start):
    # Our own marker meets the limit too, and the kernel's SIGXFSZ for it was handed to the app. Into a pipe,
    # since a log file has the same limit.
    read_fd, write_fd = os.pipe()
    running = start(
        ["--", "sleep", "0.7"], wrapper=["sh", "-c", 'ulimit -f 0; exec "$@"', "sh"], stderr=write_fd
    )
    os.close(write_fd)

    assert running.wait() == 0
    with open(read_fd) as said:
        assert "marker.failed" in said.read()


def test_a_socket_path_that_is_too_long_is_a_warning_and_the_marker_is_there(start, tmp_path):
    deep = tmp_path / ("d" * 90) / "state"
    running = start(app("wait", "4"), env={"ENTRYPOINT_STATE_DIR": str(deep)})
    running.wait_for_phase("skipped")

    _ends_well(running)
    assert [line["event"] for line in _warnings(running)] == ["socket.failed"]


def test_a_socket_that_a_dead_entrypoint_left_is_replaced(start, tmp_path):
    state = tmp_path / "state"
    first = start(app("wait"), env={"ENTRYPOINT_STATE_DIR": str(state)})
    child = psutil.Process(first.wait_for_phase("skipped")["app"]["pid"])
    first.send(signal.SIGKILL)
    first.wait()
    assert (state / "entrypoint.sock").is_socket()

    second = start(app("wait", "4"), env={"ENTRYPOINT_STATE_DIR": str(state)})
    second.wait_for_event("status.changed")

    assert second.request("/live")[0] == 200
    _ends_well(second)
    os.kill(child.pid, signal.SIGTERM)


def test_the_app_never_reads_the_status_of_a_killed_entrypoint_as_ours(start, tmp_path):
    state = tmp_path / "state"
    env = {"ENTRYPOINT_STATE_DIR": str(state)}
    first = start(app("wait"), env=env)
    left = psutil.Process(first.wait_for_phase("skipped")["app"]["pid"])
    first.send(signal.SIGKILL)
    first.wait()
    assert (state / "status.json").exists()

    # What a shell reads in its first instruction, before we have loaded what writes the next one.
    second = start(["--", "sh", "-c", 'cat "$ENTRYPOINT_STATUS_FILE"'], env=env)
    second.wait()

    assert f'"pid": {left.pid},' not in second.stdout
    left.kill()


def test_the_socket_of_a_living_entrypoint_isnt_stolen(start, tmp_path):
    state = tmp_path / "state"
    env = {"ENTRYPOINT_STATE_DIR": str(state)}
    first = start(app("wait"), env={**env, "SERVICE_NAME": "first"})
    first.wait_for_phase("skipped")
    second = start(app("wait", "4"), env=env)

    _ends_well(second)
    assert "another entrypoint" in _warnings(second)[0]["reason"]
    assert json.loads(first.request("/api/health")[2])["service"] == "first"
    assert json.loads((state / "status.json").read_bytes())["service"] == "first"


def test_text_that_isnt_utf8_in_a_variable_doesnt_break_the_document(start):
    running = start(app("wait", "4"), env={"SERVICE_NAME": "caf\udce9"})

    assert running.wait_for_phase("skipped")["service"] == "caf\udce9"
    _ends_well(running)


def test_a_client_that_hangs_up_in_the_middle_doesnt_kill_the_app(start):
    # Writing to it raises SIGPIPE, which was handed to the app. `sleep` dies of it, unlike Python.
    running = start(["--", "sleep", "30"])
    running.wait_for_phase("skipped")
    for _ in range(100):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(running.state_dir / "entrypoint.sock"))
            client.send(b"GET /api/health HTTP/1.1\r\nHost: a\r\n\r\n" * 5)
    assert running.request("/live")[0] == 200
    running.send(signal.SIGTERM)

    assert running.wait() == 128 + signal.SIGTERM


def test_no_descriptor_left_for_clients_is_one_json_line_and_not_the_end(start):
    running = start(app("wait", "4"), wrapper=["sh", "-c", 'ulimit -n 16; exec "$@"', "sh"])
    running.wait_for_phase("skipped")
    clients = [socket.socket(socket.AF_UNIX) for _ in range(20)]
    for client in clients:
        client.connect(str(running.state_dir / "entrypoint.sock"))
    running.wait_for_event("loop.failed")
    for client in clients:
        client.close()

    _ends_well(running)
    assert running.stderr.count("\n") == len(running.log)


def test_the_tcp_port_serves_the_same(start, tmp_path):
    port = free_port()
    running = start(app("wait", "4"), env={"ENTRYPOINT_HTTP_PORT": str(port)})
    running.wait_for_phase("skipped")
    fetched = subprocess.run(
        [needs("curl"), "-sS", "--noproxy", "*", f"http://127.0.0.1:{port}/api/health"],
        capture_output=True,
        check=True,
    )

    assert json.loads(fetched.stdout)["status"] == "ok"
    _ends_well(running)


def test_a_tcp_port_in_use_is_a_warning(start):
    with socket.create_server(("0.0.0.0", 0)) as taken:
        running = start(app("wait", "4"), env={"ENTRYPOINT_HTTP_PORT": str(taken.getsockname()[1])})
        _ends_well(running)

    assert [line["event"] for line in _warnings(running)] == ["socket.failed"]
