"""What a migration file is called."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from migrator import naming
from migrator.errors import PlanError
from migrator.migration import Migration

NOW = datetime(2026, 5, 1, 9, 30, 59, tzinfo=UTC)


@pytest.mark.parametrize(
    ("given", "slug"),
    [
        ("create users", "create_users"),
        ("Add e-mail (not null)!", "add_e_mail_not_null"),
        ("../../etc/passwd", "etc_passwd"),
        ("größe", "größe"),
        ("x.down", "x_down"),
        ("a" * 300, "a" * 200),
    ],
)
def test_a_name_becomes_a_part_of_a_file_name(given, slug):
    assert naming.slug(given) == slug


@pytest.mark.parametrize("given", ["", "!!", " / "])
def test_a_name_of_which_nothing_is_left_is_refused(given):
    with pytest.raises(ValueError, match="neither letters nor digits"):
        naming.slug(given)


@pytest.mark.parametrize(
    ("taken", "version"),
    [
        pytest.param([], "20260501093059", id="the time"),
        pytest.param(["20260501093059"], "20260501093100", id="the next second if it is taken"),
        pytest.param(["20260501235959"], "20260502000000", id="after what a fast clock made"),
        pytest.param(["20269999999999"], "20270000000000", id="after fourteen digits that are no date"),
        pytest.param(["0001", "17000000000000000"], "20260501093059", id="whatever other forms there are"),
    ],
)
def test_a_new_file_comes_after_all_of_its_form(taken, version):
    assert naming.next_version(NOW, taken) == version


def test_what_comes_later_as_text_is_told():
    assert naming.later("20260501093059", ["3", "0001", "9"]) == ["3", "9"]


def files(*names):
    return [
        Migration(version=name.partition("_")[0], name="", path=Path(name), checksum="sha256:a")
        for name in names
    ]


@pytest.mark.parametrize("given", ["20260101", "20260101_a.sql", "migrations/20260101_a.sql", "20260101_a"])
def test_a_file_is_found_by_version_name_or_path(given):
    assert naming.find(given, files("1_x.sql", "20260101_a.sql")).filename == "20260101_a.sql"


@pytest.mark.parametrize(
    ("given", "names", "told"),
    [
        ("2026", ["1_x.sql", "20260101_a.sql"], "did you mean 20260101_a.sql?"),
        ("1", ["0001_x.sql", "0002_y.sql"], "did you mean 0001_x.sql?"),
        ("7", ["1_x.sql", "3_y.sql"], "the files are 1_x.sql to 3_y.sql"),
        ("7", ["1_x.sql"], "the files are 1_x.sql"),
        ("7", [], "there are no migration files; see MIGRATIONS_DIR"),
    ],
)
def test_a_version_that_is_not_there_is_told_with_what_is(given, names, told):
    with pytest.raises(PlanError) as caught:
        naming.find(given, files(*names))

    assert str(caught.value) == f"cannot find a file of version {given}: {told}"
