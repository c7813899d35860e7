"""The examples are short, and none is forgotten."""

import subprocess

import pytest

from tests.support.processes import REPO

DIRECTORIES = sorted(path for path in (REPO / "examples").iterdir() if path.is_dir())


@pytest.mark.parametrize("directory", DIRECTORIES, ids=lambda path: path.name)
def test_an_example_has_a_readme_of_one_screen_and_is_listed(directory):
    lines = (directory / "README.md").read_text().splitlines()

    assert len(lines) <= 24
    assert max(map(len, lines)) <= 150
    assert f"(../../examples/{directory.name})" in (REPO / "docs" / "how-to" / "deploy.md").read_text()


def test_nothing_that_is_installed_or_built_is_committed():
    listed = subprocess.run(
        ["git", "ls-files", "examples"], cwd=REPO, capture_output=True, text=True, check=True
    )

    assert len(listed.stdout.splitlines()) < 60
    assert not [path for path in listed.stdout.splitlines() if "node_modules/" in path or "/.next/" in path]
