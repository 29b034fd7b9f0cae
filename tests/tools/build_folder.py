"""Where cargo keeps what it makes on the way: one folder for all clones of the machine, so that dependencies are built once.

Where CARGO_TARGET_DIR or CARGO_BUILD_BUILD_DIR are set, these say where. Programs and tests that are ready still lie in the
clone's own `target/`.

Cargo names what it makes by version, features, profile and compiler, so that clones with different lock files share what is
the same in both. A clone's own crates it names by their place *within* the clone, which is the same in all of them: only the
path of tests/tools/rustc, through which they are built, keeps them apart. The oldest of them go.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "devstack-tests"
SET_BY_USER = ("CARGO_TARGET_DIR", "CARGO_BUILD_TARGET_DIR", "CARGO_BUILD_BUILD_DIR")
GIGABYTE = 1 << 30
# Of this package in all clones: one clone's are about a gigabyte.
LARGEST_OWN = 4 * GIGABYTE
# What goes beyond is of lock files that nobody has any more: then all is made anew once.
LARGEST = 12 * GIGABYTE


def environment(folder: Path, clone: Path) -> dict[str, str]:
    """What cargo is given to work there for this clone."""
    return {"CARGO_BUILD_BUILD_DIR": str(folder), "RUSTC_WORKSPACE_WRAPPER": str(clone / "tests/tools/rustc")}


def name_of(clone: Path) -> str:
    """For clippy, in whose place no wrapper can stand: what tells this clone's lint from another's."""
    return f"clone_{hashlib.sha256(str(clone).encode()).hexdigest()[:12]}"


def chosen() -> Path | None:
    """The folder, made and within its limits; None where the user has chosen another. It is kept from being cleaned away by
    others for as long as this process lives."""
    if any(os.environ.get(name) for name in SET_BY_USER):
        return None
    compiler = subprocess.run(["rustc", "-vV"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True).stdout
    folder = CACHE / f"build-{hashlib.sha256(compiler).hexdigest()[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    for other in CACHE.glob("build-*"):
        if other.is_dir() and other != folder and lock(other):
            shutil.rmtree(other, ignore_errors=True)
    if (held := lock(folder)) is not None:
        keep_within(folder, LARGEST_OWN, LARGEST)
        fcntl.flock(held, fcntl.LOCK_SH)
    else:
        # Another clone works here. It has cleaned up; as long as one of the two lives nobody else does.
        share(folder)
    return folder


def lock_file(folder: Path) -> int:
    # Beside the folder, which may go away under it.
    return os.open(folder.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)


def lock(folder: Path) -> int | None:
    """For this process alone, if nobody else has it."""
    held = lock_file(folder)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(held)
        return None
    return held


def share(folder: Path) -> None:
    fcntl.flock(lock_file(folder), fcntl.LOCK_SH)


def keep_within(folder: Path, largest_own: int, largest: int) -> None:
    for profile in folder.iterdir():
        if profile.is_dir():
            remove_oldest_of_our_own(profile, largest_own)
    if sum(size(path) for path in folder.rglob("*")) > largest:
        for path in folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()


def remove_oldest_of_our_own(profile: Path, largest: int) -> None:
    """Cargo's note of what it has made (`.fingerprint/NAME-HASH`) has the package's name whatever the target is called, and
    goes first: what has no note is made anew."""
    total = 0
    # What is made incrementally is huge, and of no use to any other clone.
    shutil.rmtree(profile / "incremental", ignore_errors=True)
    made: dict[str, list[Path]] = {}
    for path in (profile / "deps").glob("*"):
        made.setdefault(path.name.split(".")[0].rpartition("-")[2], []).append(path)
    for note in sorted((profile / ".fingerprint").glob("devstack-*"), key=lambda path: -path.stat().st_mtime):
        files = made.get(note.name.rpartition("-")[2], [])
        total += sum(size(path) for path in files)
        if total > largest:
            shutil.rmtree(note, ignore_errors=True)
            for path in files:
                path.unlink(missing_ok=True)


def size(path: Path) -> int:
    try:
        return 0 if path.is_symlink() or path.is_dir() else path.stat().st_size
    except FileNotFoundError:
        return 0
