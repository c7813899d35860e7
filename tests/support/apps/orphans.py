"""Leaves as many orphans as the first argument says, ends them all at once, then waits for SIGTERM."""

import os
import signal
import sys

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
read_fd, write_fd = os.pipe()
if os.fork() == 0:
    for _ in range(int(sys.argv[1])):
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.close(write_fd)
            os.read(read_fd, 1)  # until the app closes its end
            os._exit(0)
    os._exit(0)
os.wait()
print("made", flush=True)
os.close(write_fd)
print("ready", flush=True)
while True:
    signal.pause()
