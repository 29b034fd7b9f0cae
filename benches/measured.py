"""Runs a command and writes what it took to a file: `measured.py FILE COMMAND…`. Ends with the command's exit code.

A program of its own, because a process starts with the peak memory of the one that forked it: under compare.py, which
holds data, no tool would seem to need less than that. This one is small.
"""

import json
import os
import sys
import time

report, command = sys.argv[1], sys.argv[2:]
started = time.monotonic()
process = os.posix_spawnp(command[0], command, os.environ)
_, status, usage = os.wait4(process, 0)
seconds = time.monotonic() - started
with open(report, "w") as file:
    cpu = usage.ru_utime + usage.ru_stime
    json.dump({"seconds": seconds, "cpu": cpu, "memory": usage.ru_maxrss * 1024}, file)
sys.exit(os.waitstatus_to_exitcode(status))
