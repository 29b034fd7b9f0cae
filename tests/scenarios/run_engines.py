#!/usr/bin/env python3
"""Runs the scenarios with real servers in containers. `run_engines.py --help` says how to choose."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from scenario import run_all

# Importing a file registers its scenarios.
for file in sorted(path.stem for path in Path(__file__).parent.glob("engine_*.py")):
    importlib.import_module(file)

if __name__ == "__main__":
    sys.exit(run_all(sys.argv[1:]))
