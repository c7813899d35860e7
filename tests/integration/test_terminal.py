"""What a person sees who runs the migrator at a terminal."""

import fcntl
import os
import re
import struct
import subprocess
import sys
import termios

import pytest

from tests.support.postgres import UNTIL_GATE_OPENS, fetch, open_gate, shut_gate
from tests.support.processes import clean_env
from tests.support.waiting import wait_until

FILES = {"_1_a": "select 1;", "_2_b": "select pg_sleep(s) from gate;", "_3_c": "select 1;"}
BAR = "[######--------------] 1/3 2_b.sql"


class Screen:
    """A terminal of 80 columns for a program's standard error."""

    def __init__(self) -> None:
        self._ours, self.theirs = os.openpty()
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        os.set_blocking(self._ours, False)
        self.raw = ""

    def read(self) -> str:
        """All that came so far."""
        try:
            self.raw += os.read(self._ours, 65536).decode()
        except OSError:  # nothing more, for now or for good
            pass
        return self.raw

    def lines(self) -> list[str]:
        """What is to be seen: `\\r` goes back, `ESC [K` erases to the right."""
        lines, column = [""], 0
        for piece in re.findall(r"\r|\n|\x1b\[K|[^\r\n\x1b]+", self.read()):
            if piece == "\r":
                column = 0
            elif piece == "\n":
                lines.append("")
            elif piece == "\x1b[K":
                lines[-1] = lines[-1][:column]
            else:
                lines[-1] = lines[-1][:column].ljust(column) + piece + lines[-1][column + len(piece) :]
                column += len(piece)
        return lines

    def close(self) -> None:
        os.close(self._ours)
        os.close(self.theirs)


@pytest.fixture
def screen():
    opened = Screen()
    yield opened
    opened.close()


def start(url, directory, screen, **env):
    return subprocess.Popen(
        [sys.executable, "-m", "migrator", "up"],
        env=clean_env(
            DATABASE_URL=url, MIGRATIONS_DIR=str(directory), **{"NO_COLOR": "1", "TERM": "xterm", **env}
        ),
        stdout=subprocess.PIPE,
        stderr=screen.theirs,
        text=True,
    )


def test_a_bar_shows_the_file_at_work_and_how_far_it_is_and_tears_no_line(database, migrations, screen):
    shut_gate(database)
    running = start(database, migrations(**{**FILES, "_2_b": UNTIL_GATE_OPENS}), screen)

    later = re.escape(BAR).replace("1/3", r"1/3\ [1-9]\d*\ s")
    wait_until(lambda: re.search(later, screen.read()), what="the bar after a second")
    open_gate(database)
    stdout, _ = running.communicate(timeout=20)

    assert running.returncode == 0
    assert stdout == "3 applied, 3 in all, nothing pending\n"
    *lines, last = screen.lines()
    assert last == ""
    assert [line for line in lines if "[#" in line or "[-" in line] == []
    assert len(lines) == len([line for line in lines if re.match(r"\d{4}-\d\d-\d\dT\S+ \[\w+ *\] ", line)])
    assert sum("Migration applied" in line for line in lines) == 3


@pytest.mark.parametrize(
    "env", [{"LOG_FORMAT": "json"}, {"TERM": "dumb", "NO_COLOR": ""}, {"LOG_OUTPUT": "stdout"}]
)
def test_where_it_can_not_be_seen_or_read_there_is_no_bar(database, migrations, screen, env):
    fetch(database, "create table gate (s float); insert into gate values (0.5);")
    running = start(database, migrations(**FILES), screen, **env)

    running.communicate(timeout=20)

    assert running.returncode == 0
    assert "\x1b" not in screen.read()
    assert "] 1/3 " not in screen.read()


def test_an_error_is_shown_with_a_mark_under_its_place(database, migrations, screen):
    running = start(database, migrations(_1_a="create table a (id int);\nselect id, nmae from a;"), screen)

    running.communicate(timeout=20)
    lines = screen.lines()
    at = next(
        number for number, line in enumerate(lines) if "cannot apply 1_a.sql: line 2, column 12" in line
    )

    assert running.returncode == 1
    assert lines[at + 1 : at + 4] == [
        "      select id, nmae from a",
        "                 ^",
        "    rolled back: nothing of this file was applied",
    ]
