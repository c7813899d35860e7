"""A host with no IPv4 address, from a network with no IPv6: in a network namespace of the test's own."""

import subprocess
import sys

import pytest

from migrator import reach
from tests.conftest import needs
from tests.support.processes import clean_env, log_lines


@pytest.fixture
def without_ipv6(tmp_path):
    """Run the migrator where `hosts` is /etc/hosts, and no network can be reached but our own machine."""

    def run(url, directory, hosts):
        names = tmp_path / "hosts"
        names.write_text(hosts)
        command = f"mount --bind {names} /etc/hosts && exec {sys.executable} -m migrator up"
        return subprocess.run(
            [needs("unshare"), "--user", "--map-root-user", "--mount", "--net", "sh", "-c", command],
            env=clean_env(DATABASE_URL=url, MIGRATIONS_DIR=str(directory)),
            capture_output=True,
            text=True,
            timeout=30,
        )

    return run


@pytest.mark.parametrize(
    ("host", "told"),
    [
        (
            "db.abcdefgh.supabase.co",
            "use the session pooler URL, postgresql://postgres.abcdefgh@aws-...pooler",
        ),
        ("db.example.com", "use a host with an IPv4 address"),
    ],
)
def test_a_host_that_only_ipv6_reaches_is_told_with_the_remedy(without_ipv6, migrations, host, told):
    url = f"postgresql://postgres:s3cret@{host}:5432/postgres"

    done = without_ipv6(url, migrations(_1_a="select 1;"), f"2001:db8::1 {host}\n")

    (line,) = [line for line in log_lines(done.stderr) if line["event"] == "migration.failed"]
    assert done.returncode == 69
    assert f"{host} has only an IPv6 address, and this network has no IPv6; {told}" in line["reason"]
    assert "s3cret" not in done.stderr


def test_a_host_with_both_is_just_unreachable(without_ipv6, migrations):
    done = without_ipv6(
        "postgresql://postgres@db.example.com:5432/postgres",
        migrations(_1_a="select 1;"),
        "2001:db8::1 db.example.com\n192.0.2.1 db.example.com\n",
    )

    assert done.returncode == 69
    assert "IPv6" not in done.stderr
    assert "cannot reach the database at db.example.com:5432/postgres" in done.stderr


async def test_what_is_no_matter_of_routes_is_not_explained():
    assert await reach.without_ipv6(["localhost"], ConnectionRefusedError(111, "refused")) is None
