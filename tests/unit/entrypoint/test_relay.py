"""How many lines may pass, and which of them are JSON."""

import pytest

from entrypoint import relay
from entrypoint.relay import Bucket


def test_a_bucket_lets_a_burst_pass_and_then_so_many_a_second():
    bucket = Bucket(per_s=200, burst=1000, now_s=5.0)

    passed = [
        bucket.take(*one) for one in ((400, 5.0), (900, 5.0), (50, 5.0), (900, 5.5), (9, 5.5), (5000, 99.0))
    ]

    assert passed == [400, 600, 0, 100, 0, 1000]


def test_a_bucket_keeps_what_is_less_than_a_line():
    bucket = Bucket(per_s=10, burst=1, now_s=0.0)

    passed = [bucket.take(1, now_s) for now_s in (0.0, 0.05, 0.125, 0.15)]

    assert passed == [1, 0, 1, 0]


OURS = b'{"timestamp": "t", "level": "info", "component": "c", "event": "a.b", "text": %s}'


@pytest.mark.parametrize(
    ("line", "passes"),
    [
        (OURS % b'"\xc3\xa9"', True),
        (OURS % b"1" + b" ", True),
        (OURS % b"NaN", False),
        (OURS % b"1" + OURS % b"1", False),
        (OURS % b'"\xff"', False),
        (OURS % (b"[" * 100_000), False),
        ((OURS % b"1")[:-1], False),
        (b'{"event": "a.b", "password": "x"}', False),
        (b"{}", False),
        (b"[1]", False),
        (b"text", False),
        (b"", False),
    ],
)
def test_only_a_log_line_of_ours_passes_as_it_is(line, passes):
    assert relay._json_object(line) == (line.decode() if passes else None)
