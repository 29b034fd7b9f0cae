"""The tools that are compared: what each is told for the same act, at the same zstd level 3."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

PASSWORD = "measured in the open"
PHASES = ["first backup", "unchanged backup", "1 % changed", "full verification", "restore"]


@dataclass
class Tool:
    """One tool with a repository of its own in `home`, for one round."""

    home: Path
    source: Path
    binary: Path = Path()
    environment: dict[str, str] = field(default_factory=dict)
    folder: Path | None = None

    name = "?"
    program = "?"

    @property
    def repository(self) -> Path:
        return self.home / "repository"

    @property
    def target(self) -> Path:
        return self.home / "restored"

    def prepare(self) -> None:
        """What a user does once: not measured."""

    def command(self, phase: str) -> list[str]:
        raise NotImplementedError

    def before(self, phase: str) -> None:
        if phase == "restore":
            shutil.rmtree(self.target, ignore_errors=True)
            self.target.mkdir()

    def inner(self, phase: str) -> dict[str, float]:
        """Times that the tool itself wrote down, by the name that they are shown under."""
        return {}

    def once(self, command: list[str]) -> None:
        subprocess.run(command, env=os.environ | self.environment, cwd=self.folder, check=True, capture_output=True)

    @classmethod
    def version(cls) -> str | None:
        """None where it is not there."""
        if shutil.which(cls.program) is None:
            return None
        flag = "version" if cls.program == "restic" else "--version"
        said = subprocess.run([cls.program, flag], capture_output=True, text=True).stdout
        found = re.search(r"\d+(\.\d+)+", said)
        return found[0] if found else None


class Restic(Tool):
    name = program = "restic"

    def prepare(self) -> None:
        # `auto` is its zstd at the default level, which is 3.
        self.environment = {"RESTIC_PASSWORD": PASSWORD, "RESTIC_COMPRESSION": "auto"}
        self.once([*self.base(), "init"])

    def base(self) -> list[str]:
        return ["restic", "--quiet", "--cache-dir", str(self.home / "cache"), "-r", str(self.repository)]

    def command(self, phase: str) -> list[str]:
        if phase == "full verification":
            return [*self.base(), "check", "--read-data"]
        if phase == "restore":
            return [*self.base(), "restore", "latest", "--target", str(self.target)]
        return [*self.base(), "backup", str(self.source)]


class Borg(Tool):
    name = program = "borg"
    archives = 0

    def prepare(self) -> None:
        self.environment = {"BORG_PASSPHRASE": PASSWORD, "BORG_BASE_DIR": str(self.home / "base")}
        (self.home / "base").mkdir()
        self.once(["borg", "init", "--encryption", "repokey-blake2", str(self.repository)])

    def command(self, phase: str) -> list[str]:
        if phase == "full verification":
            return ["borg", "check", "--verify-data", str(self.repository)]
        if phase == "restore":
            # It extracts into the working folder.
            self.folder = self.target
            return ["borg", "extract", f"{self.repository}::a{self.archives}"]
        self.archives += 1
        return ["borg", "create", "--compression", "zstd,3", f"{self.repository}::a{self.archives}", str(self.source)]


class Rustic(Tool):
    name = program = "rustic"

    def prepare(self) -> None:
        self.environment = {"RUSTIC_PASSWORD": PASSWORD, "RUSTIC_CACHE_DIR": str(self.home / "cache")}
        self.once([*self.base(), "init", "--set-compression", "3"])

    def base(self) -> list[str]:
        return ["rustic", "--no-progress", "--log-level", "warn", "-r", str(self.repository)]

    def command(self, phase: str) -> list[str]:
        if phase == "full verification":
            return [*self.base(), "check", "--read-data"]
        if phase == "restore":
            return [*self.base(), "restore", "latest", str(self.target)]
        return [*self.base(), "backup", str(self.source)]


class Devstack(Tool):
    """Its backup commands also make the repository, prove every run by reading it back, and write manifests: that is in
    its times. The time of the take alone, from its own journal, is shown beside."""

    name = program = "devstack"

    def prepare(self) -> None:
        (self.home / "key").mkdir(mode=0o700)
        key = self.home / "key/passphrase"
        key.touch(mode=0o600)
        key.write_text(PASSWORD + "\n")
        self.environment = {"NO_COLOR": "1"}
        # A slot a day: only the first apply is due.
        (self.home / "devstack.yaml").write_text(
            f"""version: 1
stack: measured
services:
  data: {{ source: {{ files: {{ paths: [{json.dumps(str(self.source))}] }} }} }}
repositories:
  local: {{ path: ./repository, compression: 3, keys: [ {{ passphrase: {{ file: ./key/passphrase }} }} ] }}
backup:
  regular: {{ services: all, schedule: {{ cron: "0 0 * * *" }}, to: [local] }}
"""
        )

    def base(self) -> list[str]:
        return [str(self.binary), "--file", str(self.home / "devstack.yaml")]

    def command(self, phase: str) -> list[str]:
        if phase == "first backup":
            return [*self.base(), "apply", "--yes"]
        if phase == "full verification":
            return [*self.base(), "verify", "--all", "--data"]
        if phase == "restore":
            return [*self.base(), "restore", "data", "--to", str(self.target / "data"), "--yes"]
        return [*self.base(), "backup"]

    def inner(self, phase: str) -> dict[str, float]:
        if phase not in PHASES[:3]:
            return {}
        for line in reversed((self.home / ".devstack/journal.jsonl").read_text().splitlines()):
            ended = json.loads(line)["entry"].get("step_ended", {})
            if ended.get("verb") == "take":
                return {"take alone": seconds(ended["took"])}
        raise SystemExit(f"{self.home}: the journal tells of no take after `{phase}`")


def seconds(span: object) -> float:
    """A span as devstack writes it into JSON: milliseconds, or text such as `1m30s` or `250ms`."""
    if isinstance(span, (int, float)):
        return span / 1000
    units = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
    parts = re.findall(r"([0-9.]+)(ms|[smhdw])", str(span))
    if not parts:
        raise SystemExit(f"{span!r} is not a length of time that this script can read")
    return float(sum(float(number) * units[unit] for number, unit in parts))


PEERS: list[type[Tool]] = [Restic, Borg, Rustic]
