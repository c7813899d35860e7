"""HEALTHCHECK: what the engine makes of us."""

from tests.e2e.docker.conftest import PASSWORD, app

# The image's own, as often as a test can wait for. 0 would be the image's, too.
SOON = ("--health-interval", "500ms", "--health-retries", "1", "--health-start-period", "1ms")


def test_the_image_brings_a_health_check_of_its_own(containers, app_image):
    running = containers.run(app_image, *app("wait"))

    assert running.inspect(".Config.Healthcheck.Test")[-1] == "--healthcheck"
    assert running.inspect(".State.Health.Status") in ("starting", "healthy")


def test_healthy_while_it_migrates_and_afterwards(containers, app_image, database, mounted):
    options = [*SOON, *database.options, *mounted(_1_a="select pg_sleep(1);")]
    running = containers.run(app_image, *app("wait"), options=options, **database.env)
    health = running.wait_for_health("healthy")

    assert health["Log"][-1]["Output"].startswith("healthy: app running, migrations ")
    running.wait_for_health("healthy", "healthy: app running, migrations completed\n")
    assert running.stop() == 0


def test_unhealthy_once_the_migrations_have_failed_for_good_and_docker_knows_why(
    containers, app_image, database, mounted
):
    options = [*SOON, *database.options, *mounted(_1_a="select 1/0;")]
    running = containers.run(app_image, *app("wait"), options=options, **database.env)
    # Not the first check, which may have come before there was anything to ask.
    health = running.wait_for_health("unhealthy", "unhealthy: app running, migrations failed (")

    assert health["Log"][-1]["ExitCode"] == 1  # 2 is reserved
    assert "division by zero" in health["Log"][-1]["Output"]
    assert PASSWORD not in str(health)
    assert running.is_running()
    assert running.stop() == 0


def test_unhealthy_without_an_entrypoint_that_answers(containers, app_image):
    # Somebody replaced the ENTRYPOINT, as Railway's start command does, and left the health check.
    running = containers.run(
        app_image, "-I", "-S", "/apps/wait.py", options=[*SOON, "--entrypoint", "python3"]
    )

    running.wait_for_health("unhealthy", "nothing is published in /tmp/entrypoint")
