"""Next.js with nothing but a Supabase project's URL and key, as its first user has it."""

import json

import pytest

from tests.e2e.examples.apps import NEXTJS, Served
from tests.support.postgres import fetch
from tests.support.postgrest import SECRET_KEY, running_project
from tests.support.processes import run_migrator


@pytest.fixture
def project(postgres, database):
    with running_project(postgres, database) as found:
        yield found


@pytest.fixture
def env(project):
    """Under the names that the first user has set."""
    return {
        "NEXT_PUBLIC_SUPABASE_URL": project.url,
        "SUPABASE_SERVICE_ROLE_KEY": SECRET_KEY,
        "NODE_ENV": "production",
    }


def test_once_the_door_is_open_the_projects_url_and_key_are_enough(project, env, tmp_path):
    opened = run_migrator(project.database, tmp_path, "install", "--rest")
    assert opened.returncode == 0, opened.stderr
    with Served(NEXTJS, tmp_path, env) as served:
        served.wait_for_phase("completed")
        served.wait_for_page()
        status, _, body = served.get("/api/health")

        assert status == 200
        assert json.loads(body)["migrations"]["applied"] == 2
        assert SECRET_KEY not in served.stderr + served.stdout + body.decode()
    granted = "select count(*) from information_schema.role_table_grants where table_name = 'products' and grantee = 'anon'"
    assert fetch(project.database, granted) != [(0,)]


def test_with_the_door_shut_the_app_serves_and_health_says_what_to_do(env, tmp_path):
    with Served(NEXTJS, tmp_path, env) as served:
        served.wait_for_phase("failed")
        served.wait_for_page()
        status, _, body = served.get("/api/health")

        assert status == 503
        assert "migrator install --rest" in json.loads(body)["migrations"]["error"]
