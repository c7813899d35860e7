"""Long texts keep their beginning and their end, and half a secret is never shown."""

import pytest

from migrator import shorten


def test_a_text_that_fits_is_kept():
    assert shorten.middle("x" * 100, 100) == "x" * 100


def test_the_middle_of_a_long_text_gives_way_to_a_mark():
    text = "cannot apply 1_a.sql: line 3" + " and so on" * 200 + " remedy: add it"

    shown = shorten.middle(text, 200)

    assert shown.startswith("cannot apply 1_a.sql: line 3 and")
    assert " [...] " in shown
    assert shown.endswith(" remedy: add it")
    assert len(shown) <= 200


@pytest.mark.parametrize("limit", range(20, 60))
def test_a_mask_is_never_cut(limit):
    shown = shorten.middle("a *** " * 20, limit)

    assert set(shown.split()) <= {"a", "***", "[...]"}
    assert len(shown) <= limit


@pytest.mark.parametrize("limit", range(20, 60))
def test_what_is_not_masked_yet_is_cut_between_words(limit):
    shown = shorten.middle("Bearer s3cret-and-more " * 20, limit, unmasked=True)

    assert set(shown.split()) <= {"Bearer", "s3cret-and-more", "[...]"}
    assert len(shown) <= limit


def test_one_long_word_that_is_not_masked_yet_is_not_shown_at_all():
    assert shorten.middle("s3cret" * 100, 50, unmasked=True) == "[...]"
