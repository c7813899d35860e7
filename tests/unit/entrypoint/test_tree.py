"""Who belongs to a tree of processes."""

import pytest

from entrypoint import tree
from entrypoint.tree import Process


def process(pid, parent, started=1):
    return Process(pid=pid, parent=parent, state="S", started=started, rss_pages=1)


@pytest.mark.parametrize(
    "name", ["python", "a b", "evil) S 1 (x", "", "(("], ids=["plain", "space", "forged", "empty", "brackets"]
)
def test_a_line_of_stat_is_read_whatever_the_process_calls_itself(name):
    line = f"42 ({name}) R 7 42 42 0 -1 4194304 0 0 0 0 0 0 0 0 30 10 1 0 9001 12345678 250 0 0\n".encode()

    assert tree.parse_stat(line) == Process(pid=42, parent=7, state="R", started=9001, rss_pages=250)


@pytest.mark.parametrize("line", [b"", b"42", b"42 (x) R 7", b"x (y) R 7 " + b"a " * 30])
def test_what_is_no_line_of_stat_is_refused(line):
    with pytest.raises(ValueError):
        tree.parse_stat(line)


def test_a_tree_is_the_roots_and_all_below_them():
    processes = {one.pid: one for one in (process(1, 0), process(5, 1), process(6, 5), process(7, 6))}

    assert {pid for pid, _ in tree.members(processes, [5, 99])} == {5, 6, 7}


def test_parents_that_go_in_circles_end_the_walk_all_the_same():
    # Read one after the other, two lines may be from different moments.
    processes = {5: process(5, 6), 6: process(6, 5)}

    assert {pid for pid, _ in tree.members(processes, [5])} == {5, 6}


def test_without_proc_there_is_nothing_to_see(tmp_path):
    assert tree.snapshot(str(tmp_path / "none")) == {}
