"""PID 1's loop under more signals than its pipe has room for."""

import subprocess
import sys

from tests.support.processes import REPO, clean_env

FLOODED = """
import ctypes, os, resource, signal
from entrypoint import loop as loops

# The same proportions as in earnest, but smaller: the pipe (64 KiB) has more room than the kernel's queue.
loops._FLOOD = 100
_, hard = resource.getrlimit(resource.RLIMIT_SIGPENDING)
resource.setrlimit(resource.RLIMIT_SIGPENDING, (3000, hard))
libc = ctypes.CDLL(None)
number, sent, came = signal.SIGRTMIN + 2, 0, 0
loop = loops.Loop()

def send(count):
    global sent
    for _ in range(count):
        if libc.sigqueue(os.getpid(), number, None) == -1:  # the queue is full: the sender waits
            return
        sent += 1

def take(taken):
    global came
    came += 1
    if came == 1:
        send(100_000)

signal.pthread_sigmask(signal.SIG_BLOCK, {number})
send(200)
loop.take_signals(frozenset({number}), take)
loop.at("end", loops.clock() + 5, lambda: None)
while (came == 0 or came < sent) and loop.has_timer("end"):
    loop.run_once()
print(came == sent > 200)
"""


def test_a_flood_of_queued_signals_waits_in_the_kernel_and_none_is_lost():
    done = subprocess.run(
        [sys.executable, "-c", FLOODED],
        env=clean_env(),
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=30,
    )

    assert (done.stdout, done.stderr) == ("True\n", "")
