"""The apps of examples/, run as their Dockerfiles say, as processes of this machine."""

import http.client
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import needs
from tests.e2e.examples import dockerfile
from tests.support.postgres import free_port
from tests.support.processes import REPO, Entrypoint
from tests.support.waiting import wait_until

EXAMPLES = REPO / "examples"
PYTHONS = REPO / ".venv" / "examples" / "bin"


@dataclass(frozen=True)
class Example:
    """An app.

    Attributes:
        name: Its directory.
        codes: What it ends with after SIGTERM and after SIGINT, as its README says.
        port: The variables that say where it listens.
    """

    name: str
    codes: tuple[int, int]
    port: str = "PORT"

    @property
    def image(self) -> dockerfile.Image:
        return dockerfile.read(EXAMPLES / self.name / "Dockerfile")

    @property
    def is_python(self) -> bool:
        return self in (FASTAPI, DJANGO)

    def lay_out(self, directory: Path) -> Path:
        """What the image has in its WORKDIR."""
        source = EXAMPLES / self.name
        if self.name != "nextjs":
            shutil.copytree(source, directory)
            return directory
        built = source / ".next"
        if not (built / "standalone" / "server.js").exists():
            pytest.skip("needs a built Next.js app; make examples builds it")
        # As the Dockerfile copies it; its 40 MB as links.
        shutil.copytree(built / "standalone", directory, copy_function=os.link, symlinks=True)
        shutil.copytree(built / "static", directory / ".next" / "static", copy_function=os.link)
        shutil.copytree(source / "supabase" / "migrations", directory / "supabase" / "migrations")
        return directory


NEXTJS = Example("nextjs", (143, 130))
FASTAPI = Example("fastapi", (143, 0), port="UVICORN_PORT")
NODE = Example("node", (0, 0))
DJANGO = Example("django", (0, 0))
ALL = (NEXTJS, FASTAPI, NODE, DJANGO)


class Served(Entrypoint):
    """An example under the entrypoint, in the environment of its image and nothing else of this machine's."""

    def __init__(
        self, example: Example, directory: Path, env: Mapping[str, str], command: list[str] | None = None
    ) -> None:
        image = example.image
        needs("node")
        if not (PYTHONS / "uvicorn").exists():
            pytest.skip("needs uvicorn and others; make examples installs them")
        app = directory / "app"
        self.port = free_port()
        super().__init__(
            ["--", *(command or image.command)],
            directory / "state",
            {
                **image.env,
                "PATH": f"{PYTHONS}:{os.environ['PATH']}",
                "DJANGO_SECRET_KEY": "k3y-of-django",
                example.port: str(self.port),
                **env,
            },
            cwd=app if app.exists() else example.lay_out(app),
        )

    def get(self, path: str) -> tuple[int, str, bytes]:
        """Status, content type and body of the app's answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.headers.get("content-type", ""), response.read()
        finally:
            connection.close()

    def wait_for_page(self) -> None:
        """Return once the app answers."""

        def answers() -> bool:
            assert self.process.poll() is None, self.stderr[-2000:]
            try:
                status, _, body = self.get("/")
            except OSError:
                return False
            return status == 200 and b"Shop" in body

        wait_until(answers, what=f"a page of the app's (stderr: {self.stderr[-2000:]})")
