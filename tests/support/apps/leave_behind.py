"""Leaves a child in its process group, one that ignores SIGTERM if asked to, and ends with code 3."""

import os
import signal
import sys

signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
read_fd, write_fd = os.pipe()
child = os.fork()
if child == 0:
    if "stubborn" not in sys.argv:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    if "elsewhere" in sys.argv:
        os.setsid()
    os.write(write_fd, b"1")
    while True:
        signal.pause()
os.read(read_fd, 1)
print(f"left {child}", flush=True)
if "wait" in sys.argv:
    signal.sigwait({signal.SIGTERM})
os._exit(3)
