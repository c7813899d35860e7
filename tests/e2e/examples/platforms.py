"""What platforms do with a manifest, done here: commands that are run, probes that are asked, signals."""

import http.client
import json
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.examples.apps import EXAMPLES, Example
from tests.support.processes import REPO
from tests.support.waiting import wait_until

_SCHEMAS = REPO / ".venv" / "examples" / "schemas" / "bin"
_IN_IMAGE = "/opt/entrypoint/bin/"


def schema_tool(name: str) -> Path:
    """A program that knows schemas."""
    path = _SCHEMAS / name
    if not path.exists():
        pytest.skip(f"needs {name}; make examples installs it")
    return path


def read_yaml(path: Path) -> list[Any]:
    """The documents of a YAML file; ours has no YAML, the schemas' environment has."""
    program = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))"
    command = [schema_tool("python"), "-c", program, path]
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)


def words(command: str) -> list[str]:
    """A command that no shell runs, with our programs where they are here."""
    return here(shlex.split(command))


def here(command: list[str]) -> list[str]:
    """A command of the image's, with our programs where they are here."""
    bin_here = str(REPO / ".venv" / "bin") + "/"
    return [
        bin_here + word.removeprefix(_IN_IMAGE) if word.startswith(_IN_IMAGE) else word for word in command
    ]


def after_entrypoint(command: list[str], example: Example) -> list[str]:
    """The app's part of a command that names the entrypoint itself, since it is run in its place."""
    own = example.image.entrypoint
    assert command[: len(own)] == own
    return command[len(own) :]


def probe(port: int, path: str, headers: Mapping[str, str] | None = None) -> int:
    """The status that a platform sees; 0 if nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path, headers=dict(headers or {}))
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


def wait_for_probe(port: int, path: str, status: int = 200, **headers: str) -> None:
    wait_until(lambda: probe(port, path, headers) == status, what=f"{status} at {path}")


def readme(name: str) -> str:
    return (EXAMPLES / name / "README.md").read_text()
