"""A short soak: whatever happens at whatever moment, nothing is left and every exit code is explained."""

import random

import pytest

from tests import soak
from tests.conftest import needs


@pytest.mark.parametrize("seed", [1, random.SystemRandom().randrange(10**6)], ids=["known", "new"])
def test_twenty_lives_leave_nothing_and_end_with_a_possible_code(seed, capsys):
    needs("unshare")

    wrong = soak.soak(20, seed, jobs=4)

    assert not wrong, f"python -m tests.soak --count 20 --seed {seed}: " + "\n".join(wrong)
