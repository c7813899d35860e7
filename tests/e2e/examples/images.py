"""The examples' images, built from their Dockerfiles for real, on home-made bases in place of a registry's."""

import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.conftest import needs
from tests.e2e.examples.apps import EXAMPLES, Example
from tests.support import docker

# As the official image: node and npm in /usr/local, and a user with the number 1000.
_NODE = f"""FROM {docker.BARE}
COPY node /usr/local/bin/
COPY npm /usr/local/lib/node_modules/npm
RUN ln -s ../lib/node_modules/npm/bin/npm-cli.js /usr/local/bin/npm && useradd --create-home --uid 1000 node && node --version
"""


def node_base() -> str:
    """Debian with this machine's Node.js, made once per version and engine; its name."""
    program = Path(needs("node")).resolve()
    version = subprocess.run([program, "--version"], capture_output=True, text=True).stdout.strip()
    npm = subprocess.run([needs("npm"), "root", "--global"], capture_output=True, text=True).stdout.strip()
    name = f"entrypoint-test/node:{version}"
    if docker.docker("image", "inspect", name, check=False).returncode == 0:
        return name
    docker.ensure_bare()
    with tempfile.TemporaryDirectory() as directory:
        context = Path(directory)
        shutil.copy(program, context / "node")
        shutil.copytree(Path(npm) / "npm", context / "npm", symlinks=True)
        (context / "Dockerfile").write_text(_NODE)
        return docker.build(name, context)


def build(example: Example, ours: str, *options: str) -> str:
    """The example's image with our bundle from `ours`; its name."""
    base = docker.ensure_base() if example.is_python else node_base()
    kind = "PYTHON_IMAGE" if example.is_python else "NODE_IMAGE"
    arguments = [f"ENTRYPOINT_IMAGE={ours}", f"{kind}={base}"]
    given = [word for argument in arguments for word in ("--build-arg", argument)]
    name = f"entrypoint-test/{docker.checkout()}-example-{example.name}"
    return docker.build(name, EXAMPLES / example.name, *given, *options)
