"""A few short runs of chaos; `make chaos` makes many."""

import os
import random

import pytest

from tests.chaos.run import field_of_battle

RUNS = 3


@pytest.fixture
def battle():
    with field_of_battle() as run:
        yield run


@pytest.fixture(scope="module")
def first_seed():
    return int(os.environ.get("CHAOS_SEED") or random.SystemRandom().randrange(10**6))


@pytest.mark.parametrize("number", range(RUNS))
def test_whatever_breaks_every_migration_is_applied_once_and_nobody_lies(battle, first_seed, number):
    seed = first_seed + number
    print(f"CHAOS_SEED={seed}")  # shown if the test fails

    outcome = battle(seed)

    assert not outcome.violations, f"{outcome.violations}\n{outcome.story}"


def test_over_the_rest_api_the_same(battle, first_seed):
    print(f"CHAOS_SEED={first_seed}")

    outcome = battle(first_seed, rest=True)

    assert not outcome.violations, f"{outcome.violations}\n{outcome.story}"
