"""Prints as JSON what a program inherits; `plain exec` and the entrypoint must give the same."""

import json
import os
import resource
import signal
import sys

with open("/proc/self/status") as file:
    status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
with open("/proc/self/environ", "rb") as file:
    environ = sorted(part.decode("latin-1") for part in file.read().split(b"\0") if part)
with open("/proc/self/oom_score_adj") as file:
    oom_score_adj = int(file.read())
fds = {}
for name in sorted(os.listdir("/proc/self/fd"), key=int):
    try:
        fds[name] = os.readlink(f"/proc/self/fd/{name}")
    except OSError:
        pass  # the one that listed them
found = {
    "blocked": status["SigBlk"],
    # Without the two that glibc keeps for itself: its posix_spawn ignores them, its start sets them up anew.
    "ignored": int(status["SigIgn"], 16) & ~(0b11 << 31),
    "limits": {
        name: resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name[:7] == "RLIMIT_"
    },
    # CPython ignores SIGPIPE and SIGXFSZ by itself, whatever it inherits: see `sh` in the tests.
    "fds": {name: target for name, target in fds.items() if target != f"/proc/{os.getpid()}/fd"},
    "environ": environ,
    "argv": [os.fsencode(word).decode("latin-1") for word in sys.argv[1:]],
    "cwd": os.getcwd(),
    "nice": os.nice(0),
    "oom_score_adj": oom_score_adj,
    "umask": status["Umask"],
    "leads_group": os.getpgrp() == os.getpid(),
    "usr1_default": signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL,
}
print(json.dumps(found), flush=True)
