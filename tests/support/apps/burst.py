"""Has as many children as the first argument says end together with it, at the end of its input; code: the second."""

import os
import sys

for _ in range(int(sys.argv[1])):
    if os.fork() == 0:
        if os.fork() == 0:
            os.read(0, 1)
        os._exit(0)
    os.wait()
print("ready", flush=True)
os.read(0, 1)
os._exit(int(sys.argv[2]))
