#!/usr/bin/env python3
"""Runs every scenario of this folder. `run.py --help` says how to choose."""

from __future__ import annotations

import importlib
import sys

from scenario import run_all

# Importing a file registers its scenarios. What fails soonest comes first, the longest last.
for file in ("quickstart", "exit_codes", "leases", "lives", "secrecy", "certificates", "lies", "increments", "killed"):
    importlib.import_module(file)

if __name__ == "__main__":
    sys.exit(run_all(sys.argv[1:]))
