"""Signals go through a pipe that may be full."""

import fcntl
import os
import signal

import pytest

from entrypoint.loop import Loop

NUMBERS = frozenset({signal.SIGUSR1, signal.SIGUSR2})
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def heard():
    """A loop whose pipe holds a page of signals, and the list of those that it handed on."""
    got = []
    loop = Loop()
    loop.take_signals(NUMBERS, got.append)
    write_fd = signal.set_wakeup_fd(-1)
    loop._wake_bytes = fcntl.fcntl(write_fd, fcntl.F_SETPIPE_SZ, PAGE_BYTES)
    signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
    yield loop, got
    signal.set_wakeup_fd(-1)
    for number in NUMBERS:
        signal.signal(number, signal.SIG_DFL)
    for fd in (write_fd, loop._wake):
        os.close(fd)


def test_each_signal_is_handed_on_once_and_in_order(heard):
    loop, got = heard
    for _ in range(100):
        signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGUSR2)
    loop.run_once()

    assert got == [signal.SIGUSR1, signal.SIGUSR2] * 100


def test_a_signal_that_found_the_pipe_full_is_handed_on_all_the_same(heard):
    loop, got = heard
    for _ in range(PAGE_BYTES + 10):
        signal.raise_signal(signal.SIGUSR1)
    signal.raise_signal(signal.SIGUSR2)
    loop.run_once()

    assert got.count(signal.SIGUSR2) == 1
    assert got.count(signal.SIGUSR1) == PAGE_BYTES


def test_what_was_handed_on_is_forgotten(heard):
    loop, got = heard
    signal.raise_signal(signal.SIGUSR2)
    loop.run_once()
    for _ in range(PAGE_BYTES + 10):
        signal.raise_signal(signal.SIGUSR1)
    loop.run_once()

    assert got.count(signal.SIGUSR2) == 1
