"""Runs `cargo test`, shows what it prints, and takes the counts from what it really printed."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass, field

RUNNING = re.compile(r"^\s*(?:Running (?P<target>\S+(?: \S+)?) \(|Doc-tests (?P<doc>\S+))")
RESULT = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored;")
TEST = re.compile(r"^test (?P<name>.+?) \.\.\. (?P<word>ok|FAILED|ignored)(?:, (?P<reason>.*))?$")


@dataclass(frozen=True)
class Name:
    """A test's name is unique in its binary only."""

    target: str
    test: str


@dataclass
class CargoRun:
    passed: int = 0
    failed: int = 0
    ignored: int = 0
    exit_code: int = 0
    # With the reason that stands in `#[ignore = "…"]`, or an empty one.
    ignored_tests: dict[Name, str] = field(default_factory=dict)
    failed_tests: list[Name] = field(default_factory=list)

    @property
    def broke(self) -> bool:
        """Cargo failed and no test did: it did not build, or a test binary died before it could report."""
        return self.exit_code != 0 and self.failed == 0


def read(lines: list[str]) -> CargoRun:
    """The counts in cargo's output; `exit_code` is the caller's to set."""
    run = CargoRun()
    target = "?"
    for line in lines:
        if match := RUNNING.match(line):
            target = match["target"] or f"doc {match['doc']}"
        elif match := RESULT.match(line):
            passed, failed, ignored = (int(number) for number in match.groups())
            run.passed, run.failed, run.ignored = run.passed + passed, run.failed + failed, run.ignored + ignored
        elif match := TEST.match(line):
            if match["word"] == "ignored":
                run.ignored_tests[Name(target, match["name"])] = match["reason"] or ""
            elif match["word"] == "FAILED":
                run.failed_tests.append(Name(target, match["name"]))
    return run


def cargo_test(arguments: list[str]) -> CargoRun:
    command = ["cargo", "test", "--no-fail-fast", *arguments]
    # Colours would hide the words that are looked for.
    environment = os.environ | {"CARGO_TERM_COLOR": "never"}
    lines: list[str] = []
    # Both streams in one, since "Running …" goes to stderr and says whose the following results are.
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace", env=environment,
    ) as cargo:
        assert cargo.stdout is not None
        for line in cargo.stdout:
            print(line, end="", flush=True)
            lines.append(line.rstrip("\n"))
    run = read(lines)
    run.exit_code = cargo.returncode
    return run
