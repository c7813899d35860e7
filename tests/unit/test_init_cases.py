"""The table of what an init must get right is whole, and names tests that exist."""

import ast
import re

from tests.support.processes import REPO

PAGE = REPO / "docs" / "explanation" / "init-cases.md"
# As many as the research into other inits found.
COUNT = 68


def _rows() -> list[tuple[int, str]]:
    """Each case's number and its proof."""
    rows = re.findall(r"^\| (\d+) \| [^|]+ \| ([^|]*) \|$", PAGE.read_text(), re.MULTILINE)
    return [(int(number), proof) for number, proof in rows]


def _named_tests() -> list[tuple[str, str]]:
    return re.findall(r"`([\w/]+\.py)::(\w+)`", PAGE.read_text())


def test_every_case_is_there_once_and_has_a_proof():
    assert [number for number, _ in _rows()] == list(range(1, COUNT + 1))
    assert [number for number, proof in _rows() if not proof.strip()] == []


def test_every_test_that_is_named_exists():
    defined = {
        file: {
            node.name
            for node in ast.walk(ast.parse((REPO / "tests" / file).read_text()))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        for file in {file for file, _ in _named_tests()}
    }

    assert [name for file, name in _named_tests() if name not in defined[file]] == []


def test_every_known_failure_of_another_init_is_a_case_of_ours():
    directory = REPO / "tests" / "e2e" / "pid1"
    text = "".join(path.read_text() for path in directory.glob("test_*.py"))
    table = next(
        node.value
        for node in ast.parse((directory / "conftest.py").read_text()).body
        if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == "KNOWN_TO_FAIL"
    )
    assert isinstance(table, ast.Dict)
    cases = [str(ast.literal_eval(key)).partition("[")[0] for key in table.keys if key is not None]

    assert [case for case in cases if f"def {case}(" not in text] == []
