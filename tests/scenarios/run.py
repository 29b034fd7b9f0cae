#!/usr/bin/env python3
"""Runs every scenario of this folder. `run.py --help` says how to choose."""

from __future__ import annotations

import sys

# Importing a file registers its scenarios, in this order: the shortest way to a failure first.
import quickstart  # noqa: F401
import exit_codes  # noqa: F401
import leases  # noqa: F401
import secrecy  # noqa: F401
import lies  # noqa: F401
import increments  # noqa: F401
import killed  # noqa: F401
from scenario import run_all

if __name__ == "__main__":
    sys.exit(run_all(sys.argv[1:]))
