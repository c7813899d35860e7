"""Waits for SIGTERM, then ends with the code given as argument (0)."""

import signal
import sys

signal.signal(signal.SIGTERM, lambda *_: sys.exit(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
print("ready", flush=True)
while True:
    signal.pause()
