"""Files that settings name."""

import os

import pytest

from migrator import secret_file


def test_a_plain_file_is_read(tmp_path):
    (tmp_path / "secret").write_text("pässword\n")

    assert secret_file.read(str(tmp_path / "secret")) == "pässword\n"


def test_a_pipe_that_nobody_writes_to_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(OSError, match="plain file"):
        secret_file.read(str(tmp_path / "pipe"))


def test_a_file_without_end_is_refused():
    with pytest.raises(OSError, match="plain file"):
        secret_file.read("/dev/zero")


def test_a_file_too_large_for_a_secret_is_refused(tmp_path):
    (tmp_path / "large").write_bytes(b"x" * (secret_file.MAX_BYTES + 1))

    with pytest.raises(OSError, match="too large"):
        secret_file.read(str(tmp_path / "large"))


def test_text_that_isnt_utf8_is_told_from_an_unreadable_file(tmp_path):
    (tmp_path / "latin1").write_bytes(b"\xe9")

    with pytest.raises(UnicodeDecodeError):
        secret_file.read(str(tmp_path / "latin1"))
