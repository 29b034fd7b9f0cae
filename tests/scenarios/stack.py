"""A throw-away stack: a folder with a devstack.yaml, data, a repository, and devstack to act on it."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import shutil
import subprocess
import termios
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scenario import Broken, World, must

# Far above anything these small stacks need: a command that hangs must fail its scenario, not the whole test run.
LONGEST = 300


@dataclass(frozen=True)
class Outcome:
    arguments: tuple[str, ...]
    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        """Both streams: where a message goes is not what the scenarios are about."""
        return self.out + self.err

    def json(self) -> Any:
        try:
            return json.loads(self.out)
        except json.JSONDecodeError as error:
            raise Broken(f"`devstack {' '.join(self.arguments)}` did not print JSON: {error}\n{self.out}") from error


@dataclass(frozen=True)
class Entry:
    """A line of the journal: the one place that knows how it is written."""

    kind: str
    verb: str
    resource: str
    ended: str

    @classmethod
    def read(cls, line: bytes) -> Entry:
        try:
            [(kind, fields)] = json.loads(line)["entry"].items()
        except (ValueError, KeyError, AttributeError) as error:
            raise Broken(f"a whole line of the journal is not a record: {line!r}") from error
        return cls(kind, fields.get("verb", ""), fields.get("resource", ""), str(fields.get("ended", "")))

    def __str__(self) -> str:
        return " ".join(part for part in (self.kind, self.verb, self.resource) if part)


class Stack:
    """`Stack.write` makes one; every scenario that needs another shape writes its own devstack.yaml."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self.folder = folder
        self.environment: dict[str, str] = {}

    @property
    def file(self) -> Path:
        return self.folder / "devstack.yaml"

    @property
    def repository(self) -> Path:
        return self.folder / "backups"

    @property
    def passphrase(self) -> Path:
        return self.folder / "key/passphrase"

    @property
    def journal(self) -> Path:
        return self.folder / ".devstack/journal.jsonl"

    def command(self, *arguments: str) -> list[str]:
        return [str(self.world.binary), "--file", str(self.file), *arguments]

    def whole_environment(self) -> dict[str, str]:
        # Neither the caller's colours nor its home may change what is seen.
        return os.environ | {"NO_COLOR": "1", "HOME": str(self.folder)} | self.environment

    def devstack(self, *arguments: str, expect: int | set[int] | None = 0) -> Outcome:
        """Runs it to its end; `expect` is the exit code, or the set of those that are right, or None for any."""
        started = time.monotonic()
        done = subprocess.run(
            self.command(*arguments), cwd=self.folder, env=self.whole_environment(), stdin=subprocess.DEVNULL,
            capture_output=True, text=True, errors="replace", timeout=LONGEST,
        )
        outcome = Outcome(arguments, done.returncode, done.stdout, done.stderr)
        print(f"$ devstack {' '.join(arguments)}   → {outcome.code}, {time.monotonic() - started:.1f} s")
        print(outcome.said)
        if expect is not None:
            right = expect if isinstance(expect, set) else {expect}
            must(outcome.code in right, f"`devstack {' '.join(arguments)}` ended with {outcome.code}, not with {right}")
        return outcome

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Starts it in a process group of its own, so that a signal reaches its children as well."""
        print(f"$ devstack {' '.join(arguments)} &")
        return subprocess.Popen(
            self.command(*arguments), cwd=self.folder, env=self.whole_environment(), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
        )

    def at_a_terminal(self, *arguments: str, answers: list[tuple[str, Callable[[], None], str]]) -> Outcome:
        """Runs it at a terminal of its own. Each answer: what the question ends with, what happens in the world while it
        waits for an answer, and what is answered."""
        ours, theirs = pty.openpty()

        def take_over() -> None:
            # The terminal of its session: a passphrase is asked for there, whatever its input is.
            os.setsid()
            fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

        process = subprocess.Popen(
            self.command(*arguments), cwd=self.folder, env=self.whole_environment(), stdin=theirs, stdout=theirs,
            stderr=theirs, preexec_fn=take_over,
        )
        os.close(theirs)
        said = b""
        for question, meanwhile, answer in [*answers, ("", lambda: None, "")]:
            while not question or not said.rstrip().endswith(question.encode()):
                try:
                    part = os.read(ours, 65536)
                except OSError:  # how Linux says that nobody holds the other end any more
                    part = b""
                if not part:
                    must(not question, f"it ended before it asked {question!r}: {said.decode(errors='replace')}")
                    break
                said += part
            if question:
                meanwhile()
                os.write(ours, answer.encode() + b"\n")
        code = process.wait(LONGEST)
        os.close(ours)
        print(f"$ devstack {' '.join(arguments)}   (at a terminal) → {code}\n{said.decode(errors='replace')}")
        return Outcome(arguments, code, said.decode(errors="replace"), "")

    def converged(self) -> None:
        """Nothing is left to do: the plan is empty."""
        self.devstack("plan", "--detailed-exitcode", expect=0)

    def runs(self) -> dict[str, Run]:
        return runs_in(self.devstack("backups", "--format", "json").json())

    def journal_entries(self) -> list[Entry]:
        """The whole lines of the journal; a line that a kill cut short is not one."""
        try:
            lines = self.journal.read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            return []
        return [Entry.read(line) for line in lines]

    def is_taking(self, service: str) -> bool:
        """A take of the service has begun, and has not ended."""
        resource = f"{service}/backup"
        kinds = [entry.kind for entry in self.journal_entries() if (entry.verb, entry.resource) == ("take", resource)]
        return bool(kinds) and kinds[-1] == "step_started"

    def copy_to(self, folder: Path) -> Stack:
        """The same stack elsewhere, its repository and cache included."""
        shutil.copytree(self.folder, folder, symlinks=True)
        other = Stack(self.world, folder)
        other.environment = dict(self.environment)
        return other


@dataclass(frozen=True)
class Run:
    run: str
    complete: bool
    verified: bool
    said: dict[str, Any]


def runs_in(document: Any) -> dict[str, Run]:
    """The runs in what `backups --format json` prints: every object with a manifest and `complete`. The one place that
    knows that shape."""
    found: dict[str, Run] = {}

    def look(value: Any) -> None:
        if isinstance(value, dict):
            manifest = value.get("manifest")
            if isinstance(manifest, dict) and isinstance(value.get("complete"), bool):
                run = manifest["run"]
                found[run] = Run(run, value["complete"], value["verified"], value)
            for inner in value.values():
                look(inner)
        elif isinstance(value, list):
            for inner in value:
                look(inner)

    look(document)
    return found


def wait_until(happened: Callable[[], bool], what: str, seconds: float = 180.0) -> None:
    """Waits for a condition in a tight loop, and fails loudly when it never comes. So long that a busy machine is no reason."""
    end = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > end:
            raise Broken(f"waited {seconds:.0f} s in vain: {what}")
        time.sleep(0.001)


DECLARED = """\
version: 1
stack: {stack}
services:
{services}
repositories:
  local:
    path: ./backups
    keys:
{keys}
backup:
  regular:
    services: all
    schedule: {{ cron: "{cron}" }}
    to: [local]
{retention}recovery:
  rpo: 48h
  rto: 30m
"""

PASSPHRASE = "{ passphrase: { file: ./key/passphrase } }"
SQLITE_SHOP = "  shop: { source: { sqlite: { path: data/shop.db } } }"
FILES_SITE = "  site: { source: { files: { paths: [data/site] } } }"


def write_stack(
    world: World,
    folder: Path,
    *,
    services: list[str] | None = None,
    keys: list[str] | None = None,
    passphrase: str | None = "correct horse battery staple",
    retention: str = "",
    cron: str = "0 0 * * *",
    stack: str = "scenario",
) -> Stack:
    """Writes devstack.yaml and the passphrase's file. One slot a day, so that no second run falls due in a scenario."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Stack(world, folder)
    made.file.write_text(
        DECLARED.format(
            stack=stack,
            services="\n".join(services or [SQLITE_SHOP, FILES_SITE]),
            keys="\n".join(f"      - {key}" for key in keys or [PASSPHRASE]),
            cron=cron,
            retention=f"    retention: {retention}\n" if retention else "",
        )
    )
    if passphrase is not None:
        made.passphrase.parent.mkdir(mode=0o700, exist_ok=True)
        made.passphrase.touch(mode=0o600)
        made.passphrase.write_text(passphrase + "\n")
    return made
