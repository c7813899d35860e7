"""The wait before our own loading is short, and loses no signal."""

import os
import signal
import subprocess
import time

from entrypoint import patience
from tests.support.waiting import wait_until


def test_a_signal_ends_the_wait_and_is_still_pending_afterwards():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
        patience.wait_for_processor(os.getpid())

        assert signal.SIGUSR1 in signal.sigpending()
        signal.sigwait({signal.SIGUSR1})
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})


def test_it_knows_how_long_each_of_our_processors_has_idled():
    ticks = patience._idle_ticks()

    assert ticks.keys() == os.sched_getaffinity(0)
    assert all(count > 0 for count in ticks.values())


def test_a_busy_processor_is_waited_for_in_vain_but_not_for_long():
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    hog = os.fork()
    if hog == 0:
        while True:
            pass
    try:
        began_s = time.monotonic()
        patience.wait_for_processor(os.getpid())
        taken_s = time.monotonic() - began_s
    finally:
        os.sched_setaffinity(0, before)
        os.kill(hog, signal.SIGKILL)
        os.waitpid(hog, 0)

    assert patience.AT_MOST_S / 2 < taken_s < 5


def test_a_process_that_runs_wants_a_processor_and_one_that_sleeps_does_not():
    sleeper = subprocess.Popen(["sleep", "60"])
    try:
        assert patience._wants_processor(os.getpid())
        wait_until(lambda: not patience._wants_processor(sleeper.pid), what="the sleep")
    finally:
        sleeper.kill()
        sleeper.wait()
