"""Never ends by itself, and not because of SIGTERM or SIGINT either."""

import os
import signal
import sys

if "elsewhere" in sys.argv:  # out of the process group that it was started in
    os.setpgid(0, os.getpgid(os.getppid()))
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGINT, signal.SIG_IGN)
print("ready", flush=True)
while True:
    signal.pause()
