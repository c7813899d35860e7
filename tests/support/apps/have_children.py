"""Has two children, one of them a zombie and one that ends with its input, then becomes what its arguments say."""

import os
import sys

zombie = os.fork()
if zombie == 0:
    os._exit(3)
other = os.fork()
if other == 0:
    os.read(0, 1)
    os._exit(4)
os.waitid(os.P_PID, zombie, os.WEXITED | os.WNOWAIT)
print(zombie, other, flush=True)
os.execvp(sys.argv[1], sys.argv[1:])
