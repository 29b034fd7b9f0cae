"""Programs that nobody here wrote, asked for a second opinion: restic, age, gpg."""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from scenario import Broken, must


def run(command: list[str], *, environment: dict[str, str] | None = None, given: bytes = b"", code: int = 0) -> bytes:
    """Runs a program of the machine to its end and gives what it printed; any other exit code than `code` is an error."""
    done = subprocess.run(command, input=given, capture_output=True, env=os.environ | (environment or {}), timeout=600)
    if done.returncode != code:
        said = (done.stdout + done.stderr).decode(errors="replace")
        raise Broken(f"`{' '.join(command)}` ended with {done.returncode}:\n{said}")
    return done.stdout


@dataclass(frozen=True)
class Restic:
    """restic on a repository, with a password; no cache, so that it really reads the repository."""

    repository: Path
    password: str

    def __call__(self, *arguments: str) -> bytes:
        command = ["restic", "--no-cache", "--quiet", "-r", str(self.repository), *arguments]
        return run(command, environment={"RESTIC_PASSWORD": self.password})

    def check(self, *, read_data: bool) -> None:
        self("check", *(["--read-data"] if read_data else []))

    def snapshots(self) -> list[Snapshot]:
        return [
            Snapshot(entry["id"], tuple(entry.get("tags") or []), tuple(entry["paths"]))
            for entry in json.loads(self("snapshots", "--json"))
        ]

    def restore(self, snapshot: str, target: Path) -> None:
        self("restore", snapshot, "--target", str(target))

    def runs_with_pack(self, pack: str) -> set[str]:
        """The short ids of the snapshots that need something in a pack."""
        said = run(
            ["restic", "--no-cache", "-r", str(self.repository), "find", "--pack", pack],
            environment={"RESTIC_PASSWORD": self.password},
        ).decode(errors="replace")
        return set(re.findall(r"snapshot ([0-9a-f]{8})", said))


@dataclass(frozen=True)
class Snapshot:
    id: str
    tags: tuple[str, ...]
    paths: tuple[str, ...]

    def is_of(self, run_id: str) -> bool:
        return f"run:{run_id}" in self.tags

    def names(self, service: str) -> bool:
        return f"service:{service}" in self.tags

    def is_record(self) -> bool:
        return any(tag.startswith("record:") for tag in self.tags)


def service_snapshot(snapshots: list[Snapshot], run_id: str, service: str) -> str:
    """The id of the snapshot of one service in one run, found by its tags."""
    found = [s for s in snapshots if s.is_of(run_id) and s.names(service) and not s.is_record()]
    tags = [snapshot.tags for snapshot in snapshots]
    must(len(found) == 1, f"{len(found)} snapshots are of run {run_id} and service {service}; the tags are {tags}")
    return found[0].id


@dataclass(frozen=True)
class AgeKey:
    """A throw-away age identity."""

    file: Path
    recipient: str

    @classmethod
    def make(cls, folder: Path) -> AgeKey:
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "identity.txt"
        run(["age-keygen", "-o", str(file)])
        file.chmod(0o600)
        recipient = re.search(r"age1[0-9a-z]+", file.read_text())
        must(recipient, "age-keygen wrote no recipient")
        assert recipient
        return cls(file, recipient[0])

    def decrypt(self, file: Path) -> str:
        return run(["age", "-d", "-i", str(self.file), str(file)]).decode()


@dataclass(frozen=True)
class GpgKey:
    """A throw-away gpg key without a passphrase, in a private GNUPGHOME."""

    home: Path
    recipient: str

    @classmethod
    def make(cls, home: Path) -> GpgKey:
        home.mkdir(parents=True, mode=0o700, exist_ok=True)
        recipient = "scenario@shop.example"
        gpg = ["gpg", "--batch", "--homedir", str(home), "--pinentry-mode", "loopback", "--passphrase", ""]
        run([*gpg, "--quick-generate-key", f"Scenario <{recipient}>", "ed25519", "sign", "never"])
        fingerprint = run([*gpg, "--with-colons", "--list-keys", recipient]).decode()
        match = re.search(r"^fpr:+([0-9A-F]{40}):", fingerprint, re.MULTILINE)
        must(match, f"gpg listed no fingerprint:\n{fingerprint}")
        assert match
        run([*gpg, "--quick-add-key", match[1], "cv25519", "encr", "never"])
        return cls(home, recipient)

    def decrypt(self, file: Path) -> str:
        return run(["gpg", "--batch", "--quiet", "--homedir", str(self.home), "-d", str(file)]).decode()

    def stop_agent(self) -> None:
        """The agent of this home only; it would end by itself when its home is gone, a little later."""
        subprocess.run(["gpgconf", "--homedir", str(self.home), "--kill", "gpg-agent"], check=False)
