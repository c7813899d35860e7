"""Prints the number of every signal it gets; ends with code 0 at the one named as argument."""

import signal
import sys

numbers = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
print("ready", flush=True)
last = int(sys.argv[1]) if len(sys.argv) > 1 else signal.SIGTERM
number = 0
while number != last:
    number = int(signal.sigwait(numbers))
    print(f"got {number}", flush=True)
