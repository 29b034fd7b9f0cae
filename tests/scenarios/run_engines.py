#!/usr/bin/env python3
"""Runs the scenarios with real servers in containers, two files of them side by side. `run_engines.py --help` says how to
choose."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from scenario import run_all

HERE = Path(__file__).parent
# The first word of a file's name is the part of the test command that it belongs to.
KINDS = ("engine", "vault", "recovery")
# Most of a scenario is waiting for servers to start: two at a time keep two processors busy.
SIDE_BY_SIDE = 2


def without_report(arguments: list[str]) -> tuple[list[str], Path | None]:
    if "--report" not in arguments:
        return arguments, None
    at = arguments.index("--report")
    return arguments[:at] + arguments[at + 2 :], Path(arguments[at + 1])


def run_file(file: str, arguments: list[str]) -> list[dict[str, object]]:
    """In a process of its own, since a scenario's output is caught by taking the process's."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, __file__, *arguments, "--file", file, "--report", str(report)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        # In one piece, so that the lines of two files do not mix.
        print("\n".join(line for line in done.stdout.splitlines() if not line.endswith(" failed") or "scenarios" not in line), flush=True)
        results = json.loads(report.read_text()) if report.exists() else []
    if done.returncode != 0 and not any(result["outcome"] == "failed" for result in results):
        results.append({"scenario": f"{file}: the whole file", "outcome": "failed", "reason": f"ended with {done.returncode}"})
    return results


def main(arguments: list[str]) -> int:
    kind = "engine"
    if "--kind" in arguments:
        at = arguments.index("--kind")
        kind = arguments[at + 1]
        arguments = arguments[:at] + arguments[at + 2 :]
        if kind not in KINDS:
            print(f"no kind is called {kind}; there are {', '.join(KINDS)}", file=sys.stderr)
            return 2
    # What its scenarios stand on has the name of no scenario in it.
    files = sorted(path.stem for path in HERE.glob(f"{kind}_*.py") if "@scenario(" in path.read_text())
    if "--file" in arguments or "--help" in arguments or "--only" in arguments:
        chosen = files
        if "--file" in arguments:
            at = arguments.index("--file")
            chosen = [arguments[at + 1]]
            arguments = arguments[:at] + arguments[at + 2 :]
        # Importing a file registers its scenarios; what it imports from another file of scenarios is run there.
        for file in chosen:
            importlib.import_module(file)
        if len(chosen) == 1:
            from scenario import SCENARIOS

            return run_all(arguments, [one for one in SCENARIOS if one.file == chosen[0]])
        return run_all(arguments)
    arguments, report = without_report(arguments)
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        results = [result for results in pool.map(lambda file: run_file(file, arguments), files) for result in results]
    if report:
        report.write_text(json.dumps(results))
    failed = sum(result["outcome"] == "failed" for result in results)
    print(f"{len(results)} scenarios, {failed} failed", flush=True)
    return 1 if failed or not results else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
