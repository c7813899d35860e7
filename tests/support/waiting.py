"""Waiting for something to become true, instead of sleeping and hoping."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], T], *, timeout_s: float = 20, what: str = "the condition") -> T:
    """What `condition` returns once it is true; AssertionError if it doesn't become so in time."""
    give_up = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > give_up:
            raise AssertionError(f"{what} did not come true within {timeout_s} s; last: {value!r}")
        time.sleep(0.01)
