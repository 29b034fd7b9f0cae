"""Reads the argument list of every process of the machine, over and over, until its standard input is closed; then
prints what it saw as JSON. A program of its own, so that the scenario's work does not slow it down."""

from __future__ import annotations

import base64
import json
import os
import select
import sys


def watch() -> dict[str, object]:
    seen: set[bytes] = set()
    passes = reads = 0
    while not select.select([sys.stdin], [], [], 0)[0]:
        passes += 1
        for name in os.listdir("/proc"):
            if not name.isdigit():
                continue
            try:
                descriptor = os.open(f"/proc/{name}/cmdline", os.O_RDONLY)
            except OSError:
                continue  # it has ended since it was listed
            try:
                seen.add(os.read(descriptor, 1 << 20))
            except OSError:
                continue
            finally:
                os.close(descriptor)
            reads += 1
        if passes == 1:
            print("watching", flush=True)
    return {"passes": passes, "reads": reads, "seen": [base64.b64encode(line).decode() for line in seen]}


if __name__ == "__main__":
    json.dump(watch(), sys.stdout)
