"""The migrations beside the app, over a project's REST API."""

import asyncio

import pytest

from tests.support.postgres import fetch
from tests.support.postgrest import SECRET_KEY, running_project
from tests.support.processes import app
from tests.support.stores import install_for_rest


@pytest.fixture
def project(postgres, database):
    """A project; our functions aren't in it yet."""
    with running_project(postgres, database) as project:
        yield project


def _env(project, directory):
    return {"NODE_ENV": "production", "MIGRATIONS_DIR": str(directory), **project.env(SECRET_KEY)}


def test_a_project_is_migrated_beside_the_running_app_and_its_key_is_nowhere(start, project, migrations):
    asyncio.run(install_for_rest(project.database))
    directory = migrations(_1_a="create table a (id int);", _2_b="insert into a values (1);")
    running = start(app("wait", "4"), env=_env(project, directory))
    running.wait_for_output("ready")
    marker = running.wait_for_phase("completed")

    assert (marker["migrations"]["applied"], marker["migrations"]["pending"]) == (2, 0)
    assert fetch(project.database, "select count(*) from a") == [(1,)]
    assert SECRET_KEY not in running.stderr + str(marker)


def test_a_project_without_our_functions_fails_once_and_says_what_to_do(start, project, migrations):
    running = start(app("wait", "4"), env=_env(project, migrations(_1_a="select 1;")))
    marker = running.wait_for_phase("failed")

    assert "run `migrator install --rest`" in marker["migrations"]["error"]
    assert marker["migrations"]["attempt"] == 1
    assert marker["app"]["status"] == "running"
