"""Lines that never wait for their reader."""

import fcntl
import os

import pytest

from migrator.log import _masked
from migrator.writer import Writer

PAGE = 4096


@pytest.fixture
def pipe():
    """Both ends of a pipe that holds four pages."""
    read_fd, write_fd = os.pipe()
    fcntl.fcntl(write_fd, fcntl.F_SETPIPE_SZ, 4 * PAGE)
    yield read_fd, write_fd
    os.close(read_fd)
    os.close(write_fd)


def test_a_line_for_which_there_is_no_room_is_dropped_and_counted(pipe):
    read_fd, write_fd = pipe
    writer = Writer(write_fd)

    for _ in range(5):
        writer.msg("x" * (PAGE - 1))

    assert writer.dropped == 1
    assert len(os.read(read_fd, 8 * PAGE)) == 4 * PAGE


def test_a_line_longer_than_the_room_that_is_left_doesnt_block(pipe):
    read_fd, write_fd = pipe
    writer = Writer(write_fd)

    writer.msg("x" * (3 * PAGE - 1))
    writer.msg("y" * (2 * PAGE))  # poll promises one page, and a blocking write would wait for the other
    os.read(read_fd, 8 * PAGE)
    writer.msg("z")

    assert os.read(read_fd, 8 * PAGE) == b"\nz\n"


def test_the_apps_own_descriptor_stays_blocking(pipe):
    Writer(pipe[1])

    assert os.get_blocking(pipe[1])


def test_a_closed_reader_is_nobodys_problem():
    read_fd, write_fd = os.pipe()
    writer = Writer(write_fd)
    os.close(read_fd)

    writer.msg("x")

    assert writer.dropped == 1
    os.close(write_fd)


def test_only_words_that_arent_ours_are_masked():
    shown = _masked(
        {"level": "info", "event": "a.b", "component": "c", "reason": "info"}, mask=lambda _: "***"
    )

    assert shown == {"level": "info", "event": "a.b", "component": "c", "reason": "***"}


def test_a_text_is_shortened_after_its_secrets_are_masked():
    secret = "s3cret" * 10
    for offset in range(0, 60, 7):
        for event in ("migrator.said", "migration.failed"):
            said = {"event": event, "text": "x" * (600 + offset) + (secret + " ") * 200}

            shown = _masked(said, mask=lambda text: text.replace(secret, "***"))

            assert "s3c" not in shown["text"]
            assert "[...]" in shown["text"] or event == "migration.failed"
            assert len(shown["text"]) <= 4000
