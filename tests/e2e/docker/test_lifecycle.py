"""The image as Docker runs it: from start to stop."""


def test_docker_stop_ends_the_app_within_the_grace(containers, image):
    running = containers.run(image, "sleep", "60")
    running.wait_for_event("app.spawned")

    assert running.stop() == 143
    assert running.events("stop.finished")
