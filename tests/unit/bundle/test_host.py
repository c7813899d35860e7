import subprocess
import sys

import pytest

from bundle import host
from tests.support.processes import REPO


@pytest.mark.parametrize(
    ("program", "remedy"),
    [("cc", "apt-get install gcc libc6-dev"), ("strip", "apt-get install binutils")],
)
def test_what_is_missing_is_said_with_its_remedy(tmp_path, monkeypatch, program, remedy):
    for other in {"cc", "strip"} - {program}:
        (tmp_path / other).write_text("#!/bin/sh\n")
        (tmp_path / other).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(host.CannotBuild, match=f"cannot find {program}; {remedy}"):
        host.look()
    assert remedy.removeprefix("apt-get install ") in host.missing_packages()


def test_another_directory_is_never_replaced(tmp_path):
    (tmp_path / "precious").write_text("x")

    done = subprocess.run(
        [sys.executable, "-m", "bundle", str(tmp_path)], cwd=REPO, capture_output=True, text=True
    )

    assert done.returncode == 1
    assert done.stderr == f"bundle: cannot replace {tmp_path}: it holds something else than a bundle\n"
    assert (tmp_path / "precious").read_text() == "x"
