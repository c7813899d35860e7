"""Has a child that has ended, and collects it only at SIGTERM; ends with that child's exit code."""

import os
import signal

signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
child = os.fork()
if child == 0:
    os._exit(42)
print("ready", flush=True)
signal.sigwait({signal.SIGTERM})
os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
