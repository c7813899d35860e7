"""Holds as many MiB as the argument says, tells how often it has looked at them, and ends at SIGTERM."""

import signal
import sys

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
held = b"x" * (int(sys.argv[1]) << 20)
print("ready", flush=True)
while True:
    signal.pause()
