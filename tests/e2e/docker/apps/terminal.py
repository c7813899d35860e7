"""Tells the size of its terminal, at the start and at each change, and every Ctrl-C; SIGTERM ends it with code 5."""

import os
import signal
import sys


def say(what):
    size = os.get_terminal_size(0)
    os.write(1, f"{what} {size.columns}x{size.lines}\n".encode())


signal.signal(signal.SIGWINCH, lambda *_: say("size"))
signal.signal(signal.SIGINT, lambda *_: say("interrupted"))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
say("ready")
while True:
    signal.pause()
