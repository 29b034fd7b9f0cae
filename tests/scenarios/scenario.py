"""What a scenario is, and how scenarios are run: each in a fresh folder, a line each, output only on failure."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]


class Broken(AssertionError):
    """What was promised and did not hold. The message says what was seen."""


def must(holds: object, message: str) -> None:
    """An assertion that `python3 -O` cannot switch off."""
    if not holds:
        raise Broken(message)


@dataclass
class World:
    """What a scenario is given: the binary under test, a folder of its own, and a place for numbers to be told."""

    binary: Path
    folder: Path
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """A measured number that the scenario's line shows, whether it passes or not."""
        self.notes.append(text)


@dataclass(frozen=True)
class Scenario:
    name: str
    body: Callable[[World], None]
    needs: tuple[str, ...]
    file: str


SCENARIOS: list[Scenario] = []


def scenario(*needs: str) -> Callable[[Callable[[World], None]], Callable[[World], None]]:
    """Registers a function whose name, with its underscores as spaces, is the sentence that it proves."""

    def register(body: Callable[[World], None]) -> Callable[[World], None]:
        file = Path(body.__code__.co_filename).stem
        SCENARIOS.append(Scenario(body.__name__.replace("_", " "), body, needs, file))
        return body

    return register


@contextlib.contextmanager
def fresh_folder(keep: bool) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="devstack-scenario-"))
    try:
        yield folder
    finally:
        if not keep:
            # What a scenario left read-only must not make the clean-up fail.
            shutil.rmtree(folder, onerror=lambda _, path, __: print(f"could not remove {path}"))


def run_one(one: Scenario, binary: Path, keep: bool) -> dict[str, object]:
    heard = io.StringIO()
    started = time.monotonic()
    outcome, reason, notes = "passed", "", []
    with fresh_folder(keep) as folder:
        world = World(binary, folder)
        try:
            with contextlib.redirect_stdout(heard):
                one.body(world)
        except Exception as error:  # a scenario that dies of anything has failed, and the next one still runs
            outcome, reason = "failed", f"{type(error).__name__}: {error}"
            heard.write("\n" + traceback.format_exc())
        notes = world.notes
    seconds = time.monotonic() - started
    tail = f"  [{'; '.join(notes)}]" if notes else ""
    print(f"{outcome:<7} {seconds:6.1f} s  {one.file}: {one.name}{tail}", flush=True)
    if outcome == "failed":
        print(re.sub(r"(?m)^", "    | ", heard.getvalue().rstrip()), flush=True)
        if keep:
            print(f"    the folder is kept: {folder}")
    return {"scenario": f"{one.file}: {one.name}", "outcome": outcome, "reason": reason, "seconds": round(seconds, 1)}


def run_all(arguments: list[str], chosen: Iterable[Scenario] | None = None) -> int:
    # Told to end, it ends its scenario first: what that has mounted or started must not stay.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    parser = argparse.ArgumentParser(description="Scenarios with the real binary.")
    default = Path(os.environ.get("CARGO_TARGET_DIR") or TOP / "target") / "release/devstack"
    parser.add_argument("--binary", type=Path, default=default, help=f"the devstack to test; {default} if not given")
    parser.add_argument("--only", default="", metavar="TEXT", help="those with TEXT in their file's or their own name")
    parser.add_argument("--keep", action="store_true", help="keep the scenarios' folders")
    parser.add_argument("--report", type=Path, help="write the results there as JSON")
    parser.add_argument("--missing", action="append", default=[], metavar="PROGRAM=REASON")
    options = parser.parse_args(arguments)
    if not options.binary.exists():
        print(f"{options.binary} does not exist: run `cargo build --release`, or give --binary", file=sys.stderr)
        return 1
    missing = dict(text.split("=", 1) for text in options.missing)
    results: list[dict[str, object]] = []
    for one in chosen if chosen is not None else SCENARIOS:
        if options.only not in f"{one.file}: {one.name}":
            continue
        lacking = [p for p in one.needs if p in missing or shutil.which(p) is None]
        if lacking:
            reason = "; ".join(f"needs {p} ({missing.get(p, 'not on PATH')})" for p in lacking)
            print(f"skipped           {one.file}: {one.name}: {reason}", flush=True)
            results.append({"scenario": f"{one.file}: {one.name}", "outcome": "skipped", "reason": reason})
            continue
        results.append(run_one(one, options.binary.resolve(), options.keep))
        if options.report:
            # Written after each one, so that a runner that is killed has still said what it saw.
            options.report.write_text(json.dumps(results))
    failed = sum(result["outcome"] == "failed" for result in results)
    print(f"{len(results)} scenarios, {failed} failed", flush=True)
    return 1 if failed or not results else 0
