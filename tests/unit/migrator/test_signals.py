"""Signals and exit codes as people write them."""

import signal

import pytest

from migrator import signals


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("TERM", signal.SIGTERM),
        ("sigterm", signal.SIGTERM),
        (" 15 ", 15),
        ("RTMIN", signal.SIGRTMIN),
        ("SIGRTMIN+3", signal.SIGRTMIN + 3),
        ("RTMAX-1", signal.SIGRTMAX - 1),
    ],
)
def test_a_signal_may_be_named_or_numbered(written, number):
    assert signals.number(written) == number


@pytest.mark.parametrize(
    "written", ["", "0", "99", "NOPE", "_BLOCK", "TERM+1", "RTMIN+99", "RTMIN+x", "-15", "SIG", "1.5"]
)
def test_what_is_no_signal_is_refused(written):
    with pytest.raises(ValueError, match="must be a signal"):
        signals.number(written)


@pytest.mark.parametrize("number", sorted(signal.valid_signals()))
def test_a_name_leads_back_to_its_number(number):
    assert signals.number(signals.name(number)) == number


def test_names_are_the_usual_ones():
    numbers = [signal.SIGABRT, signal.SIGCHLD, signal.SIGIO, signal.SIGRTMIN + 3]

    assert [signals.name(number) for number in numbers] == ["SIGABRT", "SIGCHLD", "SIGIO", "SIGRTMIN+3"]


def test_rewriting_is_pairs_of_signals_and_nought_drops_one():
    assert signals.rewriting("HUP:USR1, 28:0,") == {1: 10, 28: 0}


@pytest.mark.parametrize("written", ["HUP", "HUP=USR1", "HUP:", ":HUP", "NOPE:HUP", "HUP:NOPE"])
def test_rewriting_that_makes_no_sense_is_refused(written):
    with pytest.raises(ValueError, match="must be"):
        signals.rewriting(written)


def test_remapping_is_pairs_of_exit_codes_and_a_rule():
    assert signals.remapping("143=0, 007=1,forwarded=0") == {"143": 0, "7": 1, "forwarded": 0}


@pytest.mark.parametrize("written", ["143", "143=", "=0", "256=0", "1=256", "a=0", "1=-1", "0=forwarded"])
def test_remapping_that_makes_no_sense_is_refused(written):
    with pytest.raises(ValueError, match="must be pairs"):
        signals.remapping(written)
