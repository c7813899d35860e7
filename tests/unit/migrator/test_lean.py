"""What a start with nothing to do is spared."""

import subprocess
import sys

import pytest

# Milliseconds each, of about 65 for all that is loaded: docs/explanation/speed.md.
LATE = [
    "migrator.runners",
    "migrator.ahead",
    "migrator.locks",
    "migrator.wants",
    "migrator.options",
    "argparse",
    "structlog",
    "migrator.script",
    "migrator.parser",
    "migrator.embedded",
    "migrator.cluster",
    "migrator.ledger",
    "migrator.foreign",
    "migrator.programs",
    "migrator.words",
    "importlib.resources",
    "tempfile",
    "rich",
    "google.protobuf",
]


@pytest.fixture(scope="module")
def loaded():
    """All modules that are there before the first connection."""
    script = "import sys, uvloop, migrator.__main__, migrator.cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", LATE)
def test_nothing_is_loaded_that_only_pending_migrations_need(loaded, module):
    assert module not in loaded
