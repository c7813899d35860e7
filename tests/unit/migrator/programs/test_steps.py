"""Steps against history."""

import pytest

from migrator.errors import PlanError
from migrator.programs import steps
from tests.unit.migrator.test_plan import file, row

A, B, C = file("1_a.sh"), file("2_b.sql"), file("3_c.sh")


def plan_of(history, rerunnable=()):
    return steps.plan_of(
        [A, B, C],
        history,
        refuse_changed=True,
        meaning=lambda _: None,
        is_rerunnable=lambda one: one.filename in rerunnable,
    )


@pytest.mark.parametrize(
    ("history", "pending"),
    [
        ([], [A, B, C]),
        ([row("1_a.sh")], [B, C]),
        ([row("1_a.sh"), row("2_b.sql"), row("3_c.sh")], []),
        ([row("1_a.sh", finished=False, in_doubt=True)], [A, B, C]),
        ([row("1_a.sh", finished=False)], [A, B, C]),
    ],
)
def test_what_is_pending(history, pending):
    assert list(plan_of(history, rerunnable=("1_a.sh",)).pending) == pending


@pytest.mark.parametrize(
    ("unfinished", "words"),
    [
        (
            row("1_a.sh", finished=False, in_doubt=True),
            "1_a.sh was begun on 2026-05-01 09:30 UTC, and how it",
        ),
        (row("1_a.sh", finished=False), "1_a.sh failed on 2026-05-01 09:30 UTC"),
        (row("2_b.sql", finished=False, in_doubt=True), "2_b.sql was begun"),
        (row("2_b.sql", finished=False, statements_done=1), "2_b.sql failed"),
    ],
)
def test_a_step_that_may_be_half_done_stops_everything(unfinished, words):
    with pytest.raises(PlanError, match=words) as refused:
        plan_of([unfinished])

    assert f"repair --not-applied {unfinished.version}`" in str(refused.value)
    assert ("# migrator: rerunnable" in str(refused.value)) == unfinished.filename.endswith(".sh")


def test_an_edited_step_is_refused():
    with pytest.raises(PlanError, match=r"3_c\.sh differs"):
        plan_of([row("3_c.sh", checksum="sha256:b")])
