"""Becomes root for good, as sudo does, so that its parent can't signal it; ends with code 5 at the end of its input."""

import os
import sys

os.setresuid(0, 0, 0)
print("ready", flush=True)
sys.stdin.read()
sys.exit(5)
