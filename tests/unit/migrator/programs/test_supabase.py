"""The Supabase CLI's words."""

import pytest

from migrator.programs import supabase


@pytest.mark.parametrize(
    ("text", "major"),
    [
        ("2.122.1", 2),
        ("3.1.0\nA new version of Supabase CLI is available: v3.2.0", 3),
        ("v3.1.0", 3),
        ("supabase", None),
        ("", None),
    ],
)
def test_the_version(text, major):
    assert supabase.major_of(text) == major


@pytest.mark.parametrize(
    ("major", "last"),
    [(2, "--db-url=postgresql://h/d"), (3, "--remote=postgresql://h/d"), (4, "--remote=postgresql://h/d")],
)
def test_the_words_of_each_version(major, last):
    argv = supabase.push("supabase", major, "postgresql://h/d", "/app")

    assert argv == ["supabase", "db", "push", "--yes", "--include-all", "--workdir=/app", last]
