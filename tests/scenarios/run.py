#!/usr/bin/env python3
"""Runs the scenarios of this folder that are of one kind. `run.py --help` says how to choose."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

from scenario import parser, run_all

# The first word of a file's name says which servers its scenarios need, or that they belong to tests/soak. All others are
# of the first kind, which needs none.
KINDS = ("files", "engine", "vault", "recovery", "soak")


def files_of(kind: str) -> list[str]:
    texts = {path.stem: path.read_text() for path in Path(__file__).parent.glob("*.py")}
    named = [file for file, text in texts.items() if re.search(r"^@scenario\(", text, re.MULTILINE)]
    chosen = [file for file in named if (word if (word := file.split("_")[0]) in KINDS else "files") == kind]
    # The longest goes first: all others fit beside it.
    return sorted(chosen, key=lambda file: (file != "killed", file))


if __name__ == "__main__":
    made = parser()
    made.add_argument("--kind", choices=KINDS, default="files", help="files, which needs no server, if not given")
    made.add_argument("--file", help="the scenarios of this file, of whatever kind")
    options = made.parse_args()
    files = [options.file] if options.file else files_of(options.kind)
    # Importing a file registers its scenarios, and those of the files that it imports from, which are run there.
    for file in files:
        importlib.import_module(file)
    sys.exit(run_all(options, files))
