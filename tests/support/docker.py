"""A real Docker engine: home-made images, and containers and networks that end with their test.

No image registry is needed: the base image comes from debootstrap. Images stay on the engine, since they take
minutes to make; `docker image rm $(docker image ls -q 'entrypoint-test/*')` takes them away.
"""

import fcntl
import hashlib
import json
import os
import shutil
import ssl
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from tests.support.processes import REPO, log_lines
from tests.support.waiting import wait_until

T = TypeVar("T")

SUITE = "bookworm"
# Debian and nothing but what certificates need: no Python, no Node.
BARE = f"entrypoint-test/bare:{SUITE}"
# For our Dockerfile's BASE.
BASE = f"entrypoint-test/base:{SUITE}"
POSTGRES = f"entrypoint-test/postgres:{SUITE}"

# The test machine's certificates may be its own, and so may be its mirrors'.
_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
_TRUST = f"ENV PIP_CERT={_CERTIFICATES} NODE_EXTRA_CA_CERTS={_CERTIFICATES}\n"
_INSTALL = "RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends {} >/dev/null && apt-get clean\n"

_BASE = f"FROM {BARE}\n" + _INSTALL.format("python3-venv")

# Trust is enough here: the network is the test's own. The password is for looking for it where it mustn't be.
_POSTGRES = (
    f"FROM {BARE}\n"
    + _INSTALL.format("postgresql")
    + """\
USER postgres
RUN rm -rf /var/lib/postgresql/data && /usr/lib/postgresql/*/bin/initdb -D /var/lib/postgresql/data -A trust -E UTF8 >/dev/null \\
 && echo 'host all all all trust' >>/var/lib/postgresql/data/pg_hba.conf
STOPSIGNAL SIGINT
CMD ["sh", "-c", "exec /usr/lib/postgresql/*/bin/postgres -D /var/lib/postgresql/data -c listen_addresses='*' -c fsync=off"]
"""
)


def docker(
    *arguments: str, check: bool = True, timeout_s: float = 60, **options: Any
) -> subprocess.CompletedProcess[str]:
    """The `docker` command, to its end; AssertionError with its words if it fails."""
    options = {"stdin": subprocess.DEVNULL, **options} if "input" not in options else options
    done = subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, timeout=timeout_s, **options
    )
    if check and done.returncode != 0:
        raise AssertionError(
            f"docker {' '.join(arguments)}: exit code {done.returncode}\n{done.stderr}{done.stdout}"
        )
    return done


def engine_problem() -> str | None:
    """Why there is no engine to talk to; None if there is one."""
    if shutil.which("docker") is None:
        return "no docker command"
    try:
        done = docker("info", "--format", "{{.ServerVersion}}", check=False)
    except subprocess.TimeoutExpired:
        return "docker info doesn't answer"
    return None if done.returncode == 0 else done.stderr.strip()


# Images


def ensure_bare() -> str:
    """Debian with certificates, made once per engine; its name."""
    with _one_at_a_time():
        if not _exists(BARE):
            _bootstrap()
    return BARE


def ensure_base() -> str:
    """Debian with Python, made once per engine; its name."""
    return _ensure(BASE, _BASE)


def ensure_postgres() -> str:
    """A Postgres server that accepts everybody on its network, made once per engine; its name."""
    return _ensure(POSTGRES, _POSTGRES)


def build_ours() -> str:
    """Our image from our Dockerfile upon the home-made base; its name. A second build comes from the cache."""
    name = f"entrypoint-test/{checkout()}"
    build(name, REPO, "--build-arg", f"BASE={ensure_base()}")
    return name


def build(name: str, context: Path, *options: str, timeout_s: float = 600) -> str:
    """Build the Dockerfile in `context`; `name`. The image that had the name before is gone."""
    with _one_at_a_time():
        return _build(name, context, *options, timeout_s=timeout_s)


def _build(name: str, context: Path, *options: str, timeout_s: float = 600) -> str:
    before = _id(name)
    # The host's network, for mirrors that only the host can reach; the classic builder, which needs no plug-in.
    env = {**os.environ, "DOCKER_BUILDKIT": "0"}
    docker("build", "--network", "host", "--tag", name, *options, str(context), timeout_s=timeout_s, env=env)
    if before and before != _id(name):
        docker("image", "rm", before, check=False)
    return name


def derive(
    name: str,
    dockerfile: str,
    files: Mapping[str, str] | None = None,
    make: Callable[[str, Path], str] = build,
) -> str:
    """Build an image of a test's own from the text of a Dockerfile and of the files that it copies; its name."""
    with tempfile.TemporaryDirectory() as directory:
        context = Path(directory)
        (context / "Dockerfile").write_text(dockerfile)
        for path, content in (files or {}).items():
            (context / path).parent.mkdir(parents=True, exist_ok=True)
            (context / path).write_text(content)
        return make(name, context)


def checkout() -> str:
    """What tells this work tree from another one that uses the same engine."""
    return hashlib.sha256(str(REPO).encode()).hexdigest()[:8]


def _ensure(name: str, dockerfile: str) -> str:
    ensure_bare()
    with _one_at_a_time():
        if not _exists(name):
            derive(name, dockerfile, make=_build)
    return name


def _exists(name: str) -> bool:
    return bool(_id(name))


def _id(name: str) -> str:
    return docker("image", "inspect", "--format", "{{.Id}}", name, check=False).stdout.strip()


def _bootstrap() -> None:
    """Debian's own way to make a root directory; sudo where we aren't root."""
    as_root = [] if os.geteuid() == 0 else ["sudo"]
    root = Path(tempfile.mkdtemp(prefix="entrypoint-test-"))
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    try:
        include = ["--variant=minbase", "--include=ca-certificates"]
        _run([*as_root, "debootstrap", *include, SUITE, str(root)], env={**os.environ, "PATH": path})
        ours = ssl.get_default_verify_paths().cafile or _CERTIFICATES
        _run([*as_root, "cp", ours, f"{root}{_CERTIFICATES}"])
        _run([*as_root, "sh", "-c", f"rm -rf {root}/var/cache/apt/archives/*.deb {root}/var/lib/apt/lists/*"])
        with subprocess.Popen([*as_root, "tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE) as tar:
            docker("import", "--change", _TRUST.strip(), "-", BARE, stdin=tar.stdout, timeout_s=300)
    finally:
        subprocess.run([*as_root, "rm", "-rf", "--one-file-system", str(root)], check=False)


def _run(command: Sequence[str], **options: Any) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, **options)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: {(done.stdout + done.stderr)[-2000:]}")


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Two test runs on one engine make an image once."""
    with Path(tempfile.gettempdir(), f"entrypoint-test-images.{os.getuid()}").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


# Containers


class Container:
    """A container, and what it writes: `stdout` and `stderr` are followed into files."""

    def __init__(self, name: str, directory: Path) -> None:
        """Of a container that was started as `name`; `directory` is for its output."""
        self.name = name
        self._paths = (directory / f"{name}.stdout", directory / f"{name}.stderr")
        self._follower: subprocess.Popen[bytes] | None = None
        self._follow()

    def _follow(self) -> None:
        with self._paths[0].open("wb") as stdout, self._paths[1].open("wb") as stderr:
            self._follower = subprocess.Popen(
                ["docker", "logs", "--follow", self.name],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
            )

    @property
    def stdout(self) -> str:
        return self._paths[0].read_text(errors="replace")

    @property
    def stderr(self) -> str:
        return self._paths[1].read_text(errors="replace")

    @property
    def log(self) -> list[dict[str, Any]]:
        """Our lines on standard error; the last one only if it is whole."""
        return log_lines(self.stderr[: self.stderr.rfind("\n") + 1])

    def events(self, name: str) -> list[dict[str, Any]]:
        return [line for line in self.log if line["event"] == name]

    def inspect(self, template: str = "") -> Any:
        """What `docker inspect` says, or the part of it that a template names, e.g. `.State.ExitCode`."""
        return json.loads(docker("inspect", "--format", f"{{{{json {template or '.'}}}}}", self.name).stdout)

    def exec(
        self, *command: str, user: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        return docker("exec", *(["--user", user] if user else []), self.name, *command, check=check)

    def status(self) -> dict[str, Any]:
        """What the entrypoint publishes; empty while it publishes nothing."""
        done = self.exec("entrypoint", "--status", "--json", check=False)
        return json.loads(done.stdout) if done.returncode == 0 else {}

    def address(self, network: str) -> str:
        return str(self.inspect(f'(index .NetworkSettings.Networks "{network}").IPAddress'))

    def send(self, signal: str) -> None:
        """To the container's PID 1, by the engine."""
        docker("kill", "--signal", signal, self.name)

    def stop(self, grace_s: int = 10) -> int:
        """As `docker stop` does; the exit code."""
        docker("stop", "--time", str(grace_s), self.name)
        return self.wait()

    def start(self) -> None:
        """Again, after its end; the output of all its lives is followed."""
        docker("start", self.name)
        self._follow()

    def wait(self, timeout_s: float = 60) -> int:
        """The exit code, once it has ended and all of its output is here."""
        code = int(docker("wait", self.name, timeout_s=timeout_s).stdout)
        assert self._follower is not None
        self._follower.wait(20)
        return code

    def is_running(self) -> bool:
        return bool(self.inspect(".State.Running"))

    def wait_for_output(self, text: str, timeout_s: float = 30) -> None:
        self._wait(lambda: text in self.stdout, f"{text!r} on stdout", timeout_s)

    def wait_for_event(self, name: str, timeout_s: float = 30) -> dict[str, Any]:
        return self._wait(lambda: self.events(name), f"the event {name}", timeout_s)[-1]

    def wait_for_phase(self, *phases: str, timeout_s: float = 30) -> dict[str, Any]:
        """The status once `migrations.phase` is one of these.

        Nobody looks into the container before its log says so: that would take the processor, memory and
        processes from the one that is waited for, again and again.
        """

        def look() -> dict[str, Any] | None:
            if not any(line["phase"] in phases for line in self.events("status.changed")):
                return None
            status = self.status()
            return status if status and status["migrations"]["phase"] in phases else None

        found = self._wait(look, f"phase {' or '.join(phases)}", timeout_s)
        assert found is not None
        return found

    def wait_for_health(self, wanted: str, said: str = "") -> dict[str, Any]:
        """The engine's record of the health checks, once it says `healthy` or `unhealthy` and the last check `said`."""

        def look() -> dict[str, Any] | None:
            health: dict[str, Any] = self.inspect(".State.Health")
            return health if health["Status"] == wanted and said in health["Log"][-1]["Output"] else None

        found = self._wait(look, f"{wanted} by the engine, for {said!r}", 30)
        assert found is not None
        return found

    def _wait(self, condition: Callable[[], T], what: str, timeout_s: float) -> T:
        try:
            return wait_until(condition, timeout_s=timeout_s, what=what)
        except AssertionError as error:
            raise AssertionError(
                f"{error}\n{self.name}: {self.stdout[-1000:]}\n{self.stderr[-3000:]}"
            ) from None

    def remove(self) -> None:
        docker("rm", "--force", "--volumes", self.name, check=False)
        if self._follower is not None:
            with suppress(subprocess.TimeoutExpired):
                self._follower.wait(10)
            self._follower.kill()
            self._follower.wait(5)


class Containers:
    """Starts containers and makes networks for one test, and takes all of them away."""

    def __init__(self, directory: Path) -> None:
        """`directory` is for their output."""
        self._directory = directory
        self._started: list[Container] = []
        self._networks: list[str] = []
        # Nobody else's container is ever named so.
        self.prefix = f"entrypoint-test-{uuid.uuid4().hex[:10]}"

    def run(
        self, image: str, *command: str, options: Sequence[str] = (), name: str = "", **env: str
    ) -> Container:
        """`docker run --detach`; `env` are variables, `options` any of Docker's, `name` is seen on the network."""
        full = self.new_name(name)
        given = [word for key, value in env.items() for word in ("--env", f"{key}={value}")]
        alias = ["--network-alias", name] if name and "--network" in options else []
        # Created first: what can't be started is removed all the same.
        docker("create", "--name", full, *alias, *given, *options, image, *command)
        try:
            docker("start", full)
        except AssertionError:
            docker("rm", "--force", full)
            raise
        container = Container(full, self._directory)
        self._started.append(container)
        return container

    def new_name(self, name: str = "") -> str:
        """A name for a container that the test starts by itself; it is removed as well."""
        return f"{self.prefix}-{name or 'c'}-{uuid.uuid4().hex[:4]}"

    def network(self) -> str:
        """A new network on which containers find each other by name."""
        name = f"{self.prefix}-{len(self._networks)}"
        docker("network", "create", name)
        self._networks.append(name)
        return name

    def close(self) -> None:
        """Take all of them away; once is enough, more often does no harm."""
        for container in self._started:
            container.remove()
        found = docker(
            "ps", "--all", "--quiet", "--filter", f"name={self.prefix}", check=False
        ).stdout.split()
        if found:
            docker("rm", "--force", "--volumes", *found, check=False)
        for network in self._networks:
            docker("network", "rm", network, check=False)
        self._started, self._networks = [], []
