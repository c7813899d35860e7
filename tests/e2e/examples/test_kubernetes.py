"""Kubernetes: the manifests by its own schemas, and what the kubelet would do with them, done here."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from tests.conftest import needs
from tests.e2e.examples.apps import EXAMPLES, NODE, Served
from tests.e2e.examples.platforms import probe, read_yaml, schema_tool
from tests.support.postgres import Blocker, fetch, free_port
from tests.support.processes import clean_env
from tests.support.waiting import wait_until

DIRECTORY = EXAMPLES / "kubernetes"
BAD = "99990101000000_bad.sql"


@pytest.fixture(scope="module")
def deployment():
    (document,) = read_yaml(DIRECTORY / "deployment.yaml")
    return document["spec"]


@pytest.fixture(scope="module")
def job():
    (document,) = read_yaml(DIRECTORY / "job.yaml")
    return document["spec"]


@pytest.mark.parametrize("name", ["deployment.yaml", "job.yaml"])
def test_the_manifests_are_right_to_kubernetes_own_schemas(name):
    command = [schema_tool("kubernetes-validate"), "--strict", "--quiet", DIRECTORY / name]
    done = subprocess.run(command, capture_output=True, text=True, env=clean_env())

    assert (done.returncode, done.stdout) == (0, "")


class Pod:
    """One pod's containers as processes, with ports of their own in place of the manifest's."""

    def __init__(self, spec, directory: Path, shop: str) -> None:
        self._spec = spec
        self._ports = {3000: free_port(), 8081: free_port(), 6432: free_port()}
        self._directory = directory
        self._shop = shop
        self.sidecar = spec["initContainers"][0]
        self.main = spec["containers"][0]
        self.env = {}
        for variable in self.main["env"]:
            source = variable.get("valueFrom")
            assert source is None or source["secretKeyRef"]["key"] == variable["name"]
            self.env[variable["name"]] = shop if source else variable["value"]
        own = f"127.0.0.1:{self._ports[6432]}/{urlsplit(shop).path[1:]}"
        self.env["DATABASE_URL"] = f"postgresql://postgres@{own}"
        self.env["ENTRYPOINT_HTTP_PORT"] = str(self._ports[int(self.env["ENTRYPOINT_HTTP_PORT"])])

    @contextlib.contextmanager
    def running_sidecar(self):
        """The sidecar from its command, once its startup probe lets the next container begin."""
        needs("pgbouncer")
        behind = urlsplit(self._shop)
        config = Path(tempfile.mkdtemp(prefix="entrypoint-pod-"))
        (config / "userlist.txt").write_text('"postgres" ""\n')
        (config / "pgbouncer.ini").write_text(
            f"[databases]\n* = host={behind.hostname} port={behind.port}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self._ports[6432]}\nunix_socket_dir =\n"
            f"auth_type = trust\nauth_file = {config}/userlist.txt\npool_mode = transaction\n"
        )
        owner = 65534 if os.geteuid() == 0 else None  # it refuses to run as root
        for path in (config, *config.iterdir()):
            os.chown(path, owner or -1, owner or -1)
        command = [word.replace("/etc/pgbouncer", str(config)) for word in self.sidecar["command"]]
        env = clean_env(PATH=f"{os.environ['PATH']}:/usr/sbin")
        process = subprocess.Popen(command, user=owner, env=env, stderr=subprocess.DEVNULL)
        try:
            limit_s = _budget_s(self.sidecar["startupProbe"])
            port = self._ports[self.sidecar["startupProbe"]["tcpSocket"]["port"]]
            wait_until(lambda: _accepts(port), timeout_s=limit_s, what="the sidecar's startup probe")
            yield process
        finally:
            process.terminate()
            process.wait(10)
            shutil.rmtree(config)

    def start(self, **extra: str) -> Served:
        """The main container, from the image's ENTRYPOINT and CMD."""
        served = Served(NODE, self._directory, {**self.env, "PORT": str(self._ports[3000]), **extra})
        served.port = self._ports[3000]
        return served

    def probe(self, kind: str) -> int:
        """What the kubelet sees."""
        get = self.main[f"{kind}Probe"]["httpGet"]
        numbers = {port["name"]: port["containerPort"] for port in self.main["ports"]}
        return probe(self._ports[numbers[get["port"]]], get["path"])


def _budget_s(wanted) -> int:
    return wanted["periodSeconds"] * wanted["failureThreshold"]


def _accepts(port: int) -> bool:
    return any(
        one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in psutil.net_connections()
    )


@pytest.fixture
def pod(deployment, tmp_path, shop):
    return Pod(deployment["template"]["spec"], tmp_path, shop)


def test_behind_the_gate_only_liveness_passes_and_then_all_do(pod, shop, tmp_path):
    later = tmp_path / "later"
    later.mkdir()
    (later / "99990101000000_wait.sql").write_text("select pg_advisory_xact_lock(8)")
    blocker = Blocker(shop, "select pg_advisory_lock(8)")
    with contextlib.ExitStack() as held, pod.running_sidecar():
        held.callback(blocker.close)
        with pod.start(MIGRATIONS_DIR=f"migrations:{later}") as served:
            served.wait_for_phase("applying")
            wait_until(lambda: pod.probe("liveness"), what="the status port")
            assert [pod.probe(kind) for kind in ("liveness", "startup", "readiness")] == [200, 503, 0]

            held.close()
            wait_until(lambda: pod.probe("startup") == 200, what="the startup probe")
            wait_until(lambda: pod.probe("readiness") == 200, what="the readiness probe")
            assert pod.probe("liveness") == 200
            environ = psutil.Process(served.marker()["app"]["pid"]).environ()
            assert "DIRECT_URL" not in environ
            assert "s3cret" not in "".join(environ.values())
            assert environ["DATABASE_URL"] == pod.env["DATABASE_URL"]


def test_the_pod_goes_on_through_pre_stop_and_ends_in_order_and_in_time(pod, deployment):
    with pod.running_sidecar() as sidecar, pod.start() as served:
        wait_until(lambda: pod.probe("readiness") == 200, what="the readiness probe")
        # preStop only waits: whoever is still routed here is served.
        assert list(pod.main["lifecycle"]["preStop"]) == ["sleep"]
        served.process.send_signal(signal.SIGTERM)
        begun = time.monotonic()
        assert served.wait() == NODE.codes[0]
        took_s = time.monotonic() - begun
        assert sidecar.poll() is None

    grace_s = int(pod.env["ENTRYPOINT_STOP_GRACE"])
    pre_stop_s = pod.main["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert took_s < grace_s
    assert pre_stop_s + grace_s < deployment["template"]["spec"]["terminationGracePeriodSeconds"]


def test_the_startup_probe_is_more_patient_than_the_migrations(pod):
    assert _budget_s(pod.main["startupProbe"]) > 300  # MIGRATION_TIMEOUT's default


def test_a_bad_migration_ends_the_new_pod_with_its_reason_and_never_makes_it_ready(pod, deployment, tmp_path):
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / BAD).write_text("select nonsense")
    reason = tmp_path / "termination-log"
    reason.touch()
    with (
        pod.running_sidecar(),
        pod.start(MIGRATIONS_DIR=f"migrations:{bad}", ENTRYPOINT_TERMINATION_LOG=str(reason)) as served,
    ):
        assert served.wait() == 1
    assert served.stdout == ""
    assert BAD in reason.read_text()
    assert deployment["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


@pytest.fixture
def run_job(job, shop, tmp_path):
    """Run the Job's container to its end; its exit code and what it said."""

    def run(**extra):
        container = job["template"]["spec"]["containers"][0]
        assert "command" not in container
        env = {variable["name"]: variable.get("value", shop) for variable in container["env"]}
        with Served(NODE, tmp_path, {**env, **extra}) as served:
            return served.wait(), served

    return run


def _is_given_up(job, code):
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["containerName"] == job["template"]["spec"]["containers"][0]["name"]
    return rule["action"] == "FailJob" and code in rule["onExitCodes"]["values"]


def test_the_job_migrates_ends_and_starts_no_app(run_job, shop):
    code, served = run_job()

    assert code == 0
    assert not served.events("app.spawned")
    assert fetch(shop, "select count(*) from migrator.migration_history") == [(2,)]


def test_the_job_is_given_up_where_another_pod_would_fail_the_same_way(job, run_job, tmp_path):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / BAD).write_text("select nonsense")
    bad, _ = run_job(MIGRATIONS_DIR=f"migrations:{tmp_path / 'bad'}")
    wrong, _ = run_job(MIGRATION_TIMEOUT="soon")
    (tmp_path / "bad" / "99990101000000_same_version.sql").write_text("select 1")
    twice, _ = run_job(MIGRATIONS_DIR=f"migrations:{tmp_path / 'bad'}")

    assert (bad, wrong, twice) == (1, 78, 65)
    assert all(_is_given_up(job, code) for code in (bad, wrong, twice))


def test_the_job_is_repeated_where_the_database_isnt_there_yet(job, run_job):
    nobody = f"postgresql://me@127.0.0.1:{free_port()}/none"
    code, _ = run_job(DIRECT_URL=nobody, MIGRATION_RETRY_COUNT="0", MIGRATION_TIMEOUT="1")

    assert not _is_given_up(job, code)
