"""The reference says what the code does."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import REPO

REFERENCE = REPO / "docs" / "reference"
SOURCES = sorted(path for package in ("entrypoint", "migrator") for path in (REPO / package).rglob("*.py"))
LEVELS = {"debug", "info", "warning", "error"}


def logged_events() -> dict[str, set[str]]:
    """Every event in the code, with the levels at which it is logged."""
    events: dict[str, set[str]] = {}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            first = node.args[0]
            is_event = isinstance(first, ast.Constant) and re.fullmatch(r"[a-z]+\.[a-z_]+", str(first.value))
            if is_event and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS:
                events.setdefault(first.value, set()).add(node.func.attr)
            elif is_event and isinstance(node.func, ast.Call):  # getattr(log, level)("event")
                events.setdefault(first.value, set())
    return events


def test_the_generated_pages_are_up_to_date():
    done = subprocess.run(
        [sys.executable, REPO / "docs" / "generate.py", "--check"], capture_output=True, text=True, cwd=REPO
    )

    assert (done.returncode, done.stdout) == (0, "")


def test_the_log_reference_lists_every_event_and_no_other():
    listed = set(re.findall(r"^\| `([a-z]+\.[a-z_]+)` \|", (REFERENCE / "logs.md").read_text(), re.MULTILINE))

    assert listed == set(logged_events())


@pytest.mark.parametrize("program", ["entrypoint", "migrator"])
def test_every_option_and_command_of_the_help_is_in_the_reference(program):
    shown = subprocess.run(
        [sys.executable, "-m", program, "--help"], capture_output=True, text=True, cwd=REPO
    ).stdout
    options = set(re.findall(r"(?<![\w-])--[a-z]+", shown))
    commands = set(re.findall(r"^    ([a-z]+)  ", shown, re.MULTILINE))
    page = (REFERENCE / "commands.md").read_text()

    assert options
    assert commands or program == "entrypoint"
    assert [word for word in options | commands if word not in page] == []


def test_every_page_that_is_linked_exists():
    missing = [
        f"{page.relative_to(REPO)} -> {target}"
        for page in [REPO / "README.md", REPO / "CONTRIBUTING.md", *(REPO / "docs").rglob("*.md")]
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text())
        if not (page.parent / target).exists()
    ]

    assert missing == []


def test_no_page_mentions_a_variable_that_does_not_exist():
    known = set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", (REPO / "migrator" / "variables.py").read_text()))
    known |= {"ENTRYPOINT_STATUS_FILE", "ENTRYPOINT_SOCKET", "TEST_DATABASE_URL", "NAME_FILE"}
    ours = re.compile(r"\b(?:MIGRATION|MIGRATIONS|ENTRYPOINT|LOG)_[A-Z_]+\b")
    pages = [REPO / "README.md", *(path for path in (REPO / "docs").rglob("*.md"))]
    unknown = {
        (str(page.relative_to(REPO)), name)
        for page in pages
        for name in ours.findall(page.read_text())
        if name not in known and name.removesuffix("_FILE") not in known
    }

    assert unknown == set()


def test_every_source_file_stays_readable_in_one_sitting():
    long = {
        str(path.relative_to(REPO)): lines
        for path in SOURCES
        if (lines := len(Path(path).read_text().splitlines())) > (600 if path.stem == "variables" else 400)
    }

    assert long == {}
