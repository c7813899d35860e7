"""Files against history."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from migrator import plan
from migrator.errors import PlanError
from migrator.migration import Migration
from migrator.plan import HistoryRow

WHEN = datetime(2026, 5, 1, 9, 30, tzinfo=UTC)


def file(name, checksum="sha256:a"):
    version, _, rest = name.partition("_")
    return Migration(
        version=version, name=rest.removesuffix(".sql"), path=Path("/m") / name, checksum=checksum
    )


def row(name, checksum="sha256:a", **fields):
    return HistoryRow(
        version=name.partition("_")[0], filename=name, checksum=checksum, executed_at=WHEN, **fields
    )


def make(migrations, history, *, refuse_changed=True, **more):
    return plan.make(
        migrations, history, refuse_changed=refuse_changed, meaning=lambda one: f"meaning:{one.name}", **more
    )


A, B, C = file("1_a.sql"), file("2_b.sql"), file("3_c.sql")


@pytest.mark.parametrize(
    ("history", "pending", "applied"),
    [
        pytest.param([], [A, B, C], 0, id="nothing is applied"),
        pytest.param([row("1_a.sql")], [B, C], 1, id="the first is"),
        pytest.param([row("1_a.sql"), row("2_b.sql"), row("3_c.sql")], [], 3, id="all are"),
        pytest.param([row("3_c.sql"), row("1_a.sql")], [B], 2, id="in any order"),
        pytest.param([row("1_renamed.sql")], [B, C], 1, id="a renamed file is the same migration"),
        pytest.param([row("0_gone.sql")], [A, B, C], 0, id="a missing file isn't counted"),
        pytest.param(
            [row("1_a.sql"), row("2_b.sql", finished=False, statements_done=1)],
            [B, C],
            1,
            id="a half done one is gone on with",
        ),
    ],
)
def test_what_is_not_on_record_is_pending(history, pending, applied):
    made = make([A, B, C], history)

    assert (list(made.pending), made.applied) == (pending, applied)


@pytest.mark.parametrize(
    ("recorded", "changed"),
    [
        ("sha256:a", False),
        ("sha256:b", True),
        ("sha256:a meaning:z", False),
        ("sha256:b meaning:a", False),
        ("sha256:b meaning:z", True),
    ],
)
def test_a_file_is_changed_if_it_means_something_else(recorded, changed):
    made = make([A], [row("1_a.sql", recorded)], refuse_changed=False)

    assert bool(made.warnings) == changed


def test_what_a_file_means_is_asked_only_if_its_checksum_differs():
    def never(_):
        raise AssertionError

    plan.make([A], [row("1_a.sql", "sha256:a meaning:z")], refuse_changed=True, meaning=never)


def test_a_changed_applied_file_is_refused_with_name_and_date():
    with pytest.raises(PlanError) as caught:
        make([file("1_a.sql", "sha256:b"), B], [row("1_a.sql")])

    assert str(caught.value) == (
        "cannot go on: 1_a.sql differs from what was applied on 2026-05-01 09:30 UTC; restore the file and add a "
        "new migration instead, or take it as it is now (`migrator repair` shows how), or set "
        "MIGRATION_CHANGED_FILES=warn"
    )


def test_all_changed_files_are_named():
    with pytest.raises(PlanError, match=r"1_a\.sql differs.*; 2_b\.sql differs"):
        make([file("1_a.sql", "x"), file("2_b.sql", "x")], [row("1_a.sql"), row("2_b.sql")])


def test_a_changed_file_can_be_a_mere_warning():
    made = make([file("1_a.sql", "sha256:b"), B], [row("1_a.sql")], refuse_changed=False)

    assert made.pending == (B,)
    assert made.warnings == ("1_a.sql differs from what was applied on 2026-05-01 09:30 UTC",)


def test_a_missing_file_is_a_warning():
    made = make([B], [row("2_b.sql"), row("1_a.sql")])

    assert made.warnings == (
        "1_a.sql was applied on 2026-05-01 09:30 UTC, but the file is missing; restore it, or see `migrator repair`",
    )


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        ([row("7_x.sql")], "7_x.sql"),
        ([row("7_x.sql"), row("0_y.sql")], "2 migrations, the first one 0_y.sql"),
    ],
)
def test_a_history_that_knows_none_of_the_files_is_told_once(rows, named):
    (warning,) = make([A, B], rows).warnings

    assert warning.startswith(
        f"the database has {named} on record, and none of the files here: is it the right"
    )


@pytest.mark.parametrize(
    ("files", "rows", "elsewhere"),
    [
        ([A, B], [row("1_a.sql"), row("7_x.sql")], ()),
        ([A, B], [row("7_x.sql")], ("1",)),
        ([A, B], [row("7_x.sql", finished=False, statements_done=1)], ()),
        ([], [row("7_x.sql")], ()),
    ],
    ids=["one is known", "one is known elsewhere", "half done", "no files"],
)
def test_otherwise_each_missing_file_is_told(files, rows, elsewhere):
    (warning,) = make(files, rows, elsewhere=elsewhere).warnings

    assert warning.startswith("7_x.sql was ")


def test_a_file_of_a_newer_release_is_missing_for_a_reason():
    made = make([A], [row("1_a.sql"), row("2_b.sql")])

    (warning,) = made.warnings
    assert warning.startswith("2_b.sql was applied on 2026-05-01 09:30 UTC, but the file is missing; ")
    assert warning.endswith("it is newer than all files here, as when an older release is back")


def test_what_another_tool_applied_without_a_file_of_ours_is_neither_missing_nor_changed():
    made = make([A], [row("1_a.sql", plan.NO_CHECKSUM), row("2_b.sql", plan.NO_CHECKSUM)])

    assert (made.pending, made.applied, made.warnings) == ((), 1, ())


def test_a_file_that_comes_out_of_order_is_a_warning():
    made = make([A, B, C], [row("1_a.sql"), row("3_c.sql")])

    assert made.pending == (B,)
    assert made.warnings == ("2_b.sql comes out of order: 3_c.sql is applied already",)


def test_order_is_that_of_versions_as_text():
    made = make([file("1_a.sql"), file("10_b.sql"), file("2_c.sql")], [row("2_c.sql")])

    assert [warning.partition(" ")[0] for warning in made.warnings] == ["1_a.sql", "10_b.sql"]


def test_a_file_that_ended_its_own_transaction_is_not_touched_again():
    with pytest.raises(PlanError, match=r"1_a\.sql ended its own transaction on 2026.*`migrator repair`"):
        make([A], [row("1_a.sql", finished=False)])


@pytest.mark.parametrize(
    ("done", "said"),
    [
        (0, "1_a.sql was begun on 2026-05-01 09:30 UTC; `migrator up` goes on there"),
        (2, "1_a.sql was applied up to statement 2 on 2026-05-01 09:30 UTC; `migrator up` goes on there"),
    ],
)
def test_how_far_a_half_done_file_came_is_told(done, said):
    history = [row("1_a.sql", finished=False, statements_done=done)]

    assert [one.text for one in plan.findings([A], history, meaning=lambda _: None)] == [said]


def test_a_half_done_file_that_was_edited_is_refused():
    with pytest.raises(
        PlanError, match=r"1_a\.sql was applied up to statement 2 and edited since; restore it"
    ):
        make(
            [file("1_a.sql", "sha256:b")],
            [row("1_a.sql", finished=False, statements_done=2)],
            refuse_changed=False,
        )


def test_a_file_whose_undoing_broke_off_is_not_touched():
    with pytest.raises(PlanError, match=r"undoing 1_a\.sql broke off; `migrator down` finishes that"):
        make([A], [row("1_a.sql", finished=False, in_doubt=True)])


def test_what_comes_out_of_order_can_be_passed_over_or_refused():
    history = [row("1_a.sql"), row("3_c.sql")]

    assert make([A, B, C], history, out_of_order="allow").warnings == ()
    with pytest.raises(PlanError) as caught:
        make([A, B, C], history, out_of_order="refuse")
    assert str(caught.value) == (
        "cannot go on: 2_b.sql comes out of order: 3_c.sql is applied already; rename what comes late to a version "
        "after that, or set MIGRATION_OUT_OF_ORDER=warn"
    )
    assert make([A, B, C], [row("1_a.sql")], out_of_order="refuse").pending == (B, C)


def test_up_to_a_version_leaves_the_rest_pending():
    made = make([A, B, C], [row("1_a.sql")]).up_to("2")

    assert (made.pending, made.held) == ((B,), 1)


@pytest.mark.parametrize("version", ["2", "02", "4"])
def test_there_must_be_a_file_of_the_version_to_go_up_to(version):
    if version == "2":
        plan.require([A, B, C], version)
        return
    with pytest.raises(PlanError, match=f"cannot go up to {version}: .*the last one is 3_c.sql"):
        plan.require([A, B, C], version)


@pytest.mark.parametrize(
    ("history", "found"),
    [
        pytest.param([], [], id="nothing is applied"),
        pytest.param([row("1_a.sql"), row("2_b.sql")], [], id="what is pending is no finding"),
        pytest.param([row("1_a.sql", "sha256:x")], [("changed", "1_a.sql")], id="changed"),
        pytest.param([row("0_x.sql"), row("1_a.sql")], [("missing", "0_x.sql")], id="missing"),
        pytest.param([row("2_b.sql")], [("out of order", "1_a.sql")], id="out of order"),
        pytest.param(
            [row("1_a.sql", finished=False, statements_done=1)], [("half done", "1_a.sql")], id="half"
        ),
        pytest.param(
            [row("1_a.sql", finished=False)], [("half done", "1_a.sql")], id="ended its transaction"
        ),
        pytest.param(
            [row("0_x.sql", finished=False)], [("half done", "0_x.sql")], id="half done and missing"
        ),
        pytest.param(
            [row("1_a.sql", "x", finished=False, statements_done=1)],
            [("half done", "1_a.sql")],
            id="half, edited",
        ),
        pytest.param(
            [row("0_x.sql"), row("1_a.sql", "sha256:x"), row("3_c.sql")],
            [("changed", "1_a.sql"), ("missing", "0_x.sql"), ("out of order", "2_b.sql")],
            id="several",
        ),
    ],
)
def test_all_that_is_odd_is_found_whatever_else_is(history, found):
    made = plan.findings([A, B, C], history, meaning=lambda _: None)

    assert [(finding.kind, finding.filename) for finding in made] == found
    assert all(finding.filename in finding.text for finding in made)


@pytest.mark.parametrize(
    ("history", "elsewhere", "pending", "applied"),
    [
        pytest.param([], {"1"}, [B, C], 1, id="it counts as applied"),
        pytest.param([row("1_a.sql", "sha256:a")], {"1", "2"}, [C], 2, id="beside ours"),
        pytest.param([], {"1", "2", "3", "9"}, [], 3, id="what we have no file for isn't counted"),
        pytest.param(
            [row("2_b.sql", finished=False, statements_done=1)],
            {"1", "2"},
            [B, C],
            1,
            id="what is half done on our record stays so",
        ),
    ],
)
def test_another_tools_history_is_heard(history, elsewhere, pending, applied):
    made = plan.make([A, B, C], history, refuse_changed=True, meaning=lambda _one: None, elsewhere=elsewhere)

    assert (made.pending, made.applied) == (tuple(pending), applied)
