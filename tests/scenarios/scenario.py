"""What a scenario is, and how scenarios are run: two side by side, each in a process and a folder of its own, a line each,
output only on failure."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import IO

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
    # What has passed of a scenario that is several tests on one stack, which takes minutes to make.
    parts: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """A measured number that the scenario's line shows, whether it passes or not."""
        self.notes.append(text)

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """A test of its own within a scenario. The first that fails ends the scenario and is named."""
        try:
            yield
        except Exception as error:
            raise Broken(f"{name}: {error}") from error
        self.parts.append(name)


@dataclass(frozen=True)
class Scenario:
    name: str
    body: Callable[[World], None]
    needs: tuple[str, ...]
    file: str
    alone: str
    long: bool = False

    def __str__(self) -> str:
        return f"{self.file}: {self.name}"


SCENARIOS: list[Scenario] = []


def scenario(*needs: str, alone: str = "", long: bool = False) -> Callable[[Callable[[World], None]], Callable[[World], None]]:
    """Registers a function whose name, with its underscores as spaces, is the sentence that it proves. `alone` is the reason
    why nothing may run beside it. A `long` one is run by `tests/soak` alone: what it proves is proven of another server, or of
    a part, in `tests/run`, whose time is bounded."""

    def register(body: Callable[[World], None]) -> Callable[[World], None]:
        file = Path(body.__code__.co_filename).stem
        SCENARIOS.append(Scenario(body.__name__.replace("_", " "), body, needs, file, alone, long))
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


def run_one(one: Scenario, options: argparse.Namespace) -> dict[str, object]:
    heard = io.StringIO()
    started = time.monotonic()
    outcome, reason = "passed", ""
    with fresh_folder(options.keep) as folder:
        world = World(options.binary.resolve(), folder)
        try:
            with contextlib.redirect_stdout(heard):
                one.body(world)
        except Exception as error:
            outcome, reason = "failed", f"{type(error).__name__}: {error}"
            heard.write("\n" + traceback.format_exc())
    seconds = time.monotonic() - started
    tail = f"  [{'; '.join(world.notes)}]" if world.notes else ""
    print(f"{outcome:<7} {seconds:6.1f} s  {one}{tail}")
    for name in world.parts:
        print(f"passed             {one.file}: {name}")
    if outcome == "failed":
        print(re.sub(r"(?m)^", "    | ", heard.getvalue().rstrip()))
        if options.keep:
            print(f"    the folder is kept: {folder}")
    parts = [f"{one.file}: {name}" for name in world.parts]
    return {"scenario": str(one), "outcome": outcome, "reason": reason, "seconds": round(seconds, 1), "parts": parts}


def in_a_process(one: Scenario, options: argparse.Namespace, output: IO[str], result: Connection) -> None:
    """What it and its programs print is kept back until it ends, so that the lines of two scenarios do not mix."""
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    with contextlib.redirect_stdout(output):
        result.send(run_one(one, options))


def run_side_by_side(chosen: list[Scenario], options: argparse.Namespace, done: Callable[[dict[str, object]], None]) -> None:
    fork = multiprocessing.get_context("fork")
    waiting = sorted(chosen, key=lambda one: bool(one.alone))
    running: dict[Connection, tuple[multiprocessing.process.BaseProcess, Scenario, IO[str]]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < (1 if waiting[0].alone else options.side_by_side):
                one, output = waiting.pop(0), tempfile.TemporaryFile("w+", buffering=1, errors="replace")
                ours, theirs = fork.Pipe(duplex=False)
                process = fork.Process(target=in_a_process, args=(one, options, output, theirs))
                process.start()
                theirs.close()
                running[ours] = process, one, output
            for ours in wait(list(running)):
                process, one, output = running.pop(ours)
                try:
                    result = ours.recv()
                except EOFError:
                    process.join()
                    result = {"scenario": str(one), "outcome": "failed", "reason": f"its process ended with {process.exitcode}"}
                    print(f"failed            {one}: {result['reason']}")
                with output:
                    output.seek(0)
                    print(output.read(), end="")
                done(result)
    finally:
        for process, _, _ in running.values():
            process.terminate()
        for process, _, _ in running.values():
            process.join()


def end(number: int, _: object) -> None:
    """Told to end, a scenario ends in order: what it has mounted or started must not stay. A second word changes nothing."""
    for word in (signal.SIGTERM, signal.SIGINT):
        signal.signal(word, signal.SIG_IGN)
    sys.exit(128 + number)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description="Scenarios with the real binary.")
    default = Path(os.environ.get("CARGO_TARGET_DIR") or TOP / "target") / "debug/devstack"
    made.add_argument("--binary", type=Path, default=default, help=f"the devstack to test; {default} if not given")
    made.add_argument("--only", default="", metavar="TEXT", help="those with TEXT in their file's or their own name")
    made.add_argument("--side-by-side", type=int, default=2, metavar="N", help="so many at a time; 2 if not given")
    made.add_argument("--keep", action="store_true", help="keep the scenarios' folders")
    made.add_argument("--report", type=Path, help="write the results there as JSON")
    made.add_argument("--missing", action="append", default=[], metavar="PROGRAM=REASON")
    return made


def run_all(options: argparse.Namespace, files: Collection[str]) -> int:
    """Runs the scenarios of these files, which have been imported, and gives the exit code."""
    for word in (signal.SIGTERM, signal.SIGINT):
        signal.signal(word, end)
    sys.stdout.reconfigure(line_buffering=True)
    if not options.binary.exists():
        print(f"{options.binary} does not exist: run `cargo build`, or give --binary", file=sys.stderr)
        return 1
    missing = dict(text.split("=", 1) for text in options.missing)
    results: list[dict[str, object]] = []

    def done(result: dict[str, object]) -> None:
        results.append(result)
        results.extend({"scenario": part, "outcome": "passed"} for part in result.get("parts", []))
        if options.report:
            # Written after each one, so that a runner that is killed has still said what it saw.
            options.report.write_text(json.dumps(results))

    able: list[Scenario] = []
    for one in SCENARIOS:
        if one.file not in files or options.only not in str(one):
            continue
        if one.long and not os.environ.get("DEVSTACK_TEST_LONG"):
            reason = "long: tests/soak runs it"
            print(f"skipped           {one}: {reason}")
            done({"scenario": str(one), "outcome": "skipped", "reason": reason})
        elif lacking := [program for program in one.needs if program in missing or shutil.which(program) is None]:
            reason = "; ".join(f"needs {program} ({missing.get(program, 'not on PATH')})" for program in lacking)
            print(f"skipped           {one}: {reason}")
            done({"scenario": str(one), "outcome": "skipped", "reason": reason})
        else:
            able.append(one)
    run_side_by_side(able, options, done)
    failed = sum(result["outcome"] == "failed" for result in results)
    print(f"{len(results)} scenarios, {failed} failed")
    return 1 if failed or not results else 0
