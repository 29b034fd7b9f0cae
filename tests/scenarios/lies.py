"""Damage of every kind to a file of every kind: `verify --all --data` finds it, names it, and names the runs it hurts."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from content import change_rows, make_database, make_site
from oracle import AgeKey, Restic
from scenario import Broken, World, must, scenario
from stack import PASSPHRASE, Stack, write_stack

SEED = 5
PASSWORD = "correct horse battery staple"


@dataclass(frozen=True)
class Subject:
    """A sound stack with two complete runs, and what restic says of its files."""

    stack: Stack
    runs: tuple[str, ...]
    # By the first eight digits of a snapshot, as restic prints them: the run it belongs to.
    run_of: dict[str, str]
    # Snapshots that hold a service's data, not devstack's own records.
    data_snapshots: tuple[str, ...]

    def files(self, kind: str) -> list[Path]:
        if kind == "config":
            return [self.stack.repository / "config"]
        folder = self.stack.repository / ("data" if kind == "packs" else kind)
        found = sorted(path for path in folder.rglob("*") if path.is_file())
        if kind == "snapshots":
            # Losing one of devstack's own records is another matter: it un-verifies or unseals, and hurts no data.
            found = [path for path in found if path.name in self.data_snapshots]
        return found

    def hurt_by(self, kind: str, damaged: list[Path]) -> set[str]:
        """The runs that restic says need the damaged files; looked up in the sound repository."""
        restic = Restic(self.stack.repository, PASSWORD)
        if kind == "snapshots":
            return {self.run_of[path.name[:8]] for path in damaged}
        if kind == "packs":
            needed = set().union(*(restic.runs_with_pack(path.name) for path in damaged))
            return {self.run_of[snapshot] for snapshot in needed if snapshot in self.run_of}
        return set()


def sound_stack(world: World) -> Subject:
    chance = random.Random(SEED)
    age = AgeKey.make(world.folder / "age")
    stack = write_stack(world, world.folder / "sound", keys=[PASSPHRASE, f"{{ age: {age.recipient} }}"], passphrase=PASSWORD)
    rows = make_database(stack.folder / "data/shop.db", chance, 3)
    make_site(stack.folder / "data/site", chance)
    stack.devstack("apply", "--yes")
    change_rows(stack.folder / "data/shop.db", chance, rows // 2, rows // 4)
    stack.devstack("backup")
    stack.devstack("verify", "--all", "--data", expect=0)

    runs = tuple(sorted(stack.runs()))
    must(len(runs) == 2, f"two runs were expected: {runs}")
    run_of: dict[str, str] = {}
    data: list[str] = []
    for snapshot in Restic(stack.repository, PASSWORD).snapshots():
        for run in runs:
            if snapshot.is_of(run):
                run_of[snapshot.id[:8]] = run
                if not snapshot.is_record():
                    data.append(snapshot.id)
    must(len(data) == 4, f"two runs of two services are four snapshots, and restic lists {len(data)}")
    return Subject(stack, runs, run_of, tuple(data))


Damage = Callable[[list[Path], random.Random], list[Path]]


def writable(path: Path) -> Path:
    path.chmod(0o600)
    return path


def flip_a_byte(files: list[Path], chance: random.Random) -> list[Path]:
    path = writable(chance.choice(files))
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)
    return [path]


def truncate(files: list[Path], chance: random.Random) -> list[Path]:
    path = writable(chance.choice(files))
    content = path.read_bytes()
    path.write_bytes(content[: chance.randrange(len(content))])
    return [path]


def delete(files: list[Path], chance: random.Random) -> list[Path]:
    path = chance.choice(files)
    path.unlink()
    return [path]


def swap_two(files: list[Path], chance: random.Random) -> list[Path]:
    if len(files) < 2:
        raise Broken(f"two files are needed to swap them, and there are {files}")
    one, two = chance.sample(files, 2)
    first, second = one.read_bytes(), two.read_bytes()
    writable(one).write_bytes(second)
    writable(two).write_bytes(first)
    return [one, two]


DAMAGES: dict[str, Damage] = {"flip": flip_a_byte, "truncate": truncate, "delete": delete, "swap": swap_two}


def blobs_are_hurt(whole: Path, damaged: Path) -> bool:
    """A pack ends with its header and the header's length in four bytes; what a run reads is found by the index and lies before,
    so that a run is not hurt by what is wrong there. https://restic.readthedocs.io/en/stable/100_references.html#pack-format"""
    if not damaged.exists():
        return True
    content = whole.read_bytes()
    blobs = len(content) - 4 - int.from_bytes(content[-4:], "little")
    return damaged.read_bytes()[:blobs] != content[:blobs]


def must_be_caught(world: World, subject: Subject, kind: str, name: str, damage: Damage, seed: int) -> None:
    folder = world.folder / "damaged"
    broken = subject.stack.copy_to(folder)
    copy = Subject(broken, subject.runs, subject.run_of, subject.data_snapshots)
    damaged = damage(copy.files(kind), random.Random(seed))
    what = f"{name} of {', '.join(str(path.relative_to(broken.repository))[:24] for path in damaged)}, seed {seed}"
    print(f"--- {what}")
    # A missing key may be the one that would have opened the repository; and nobody can tell a key that was deleted from
    # one that was never there. Where it is the declared one, it is missing: 3. Damage is always 8.
    right = {3, 8} if (kind, name) == ("keys", "delete") else {8}
    ended = broken.devstack("verify", "--all", "--data", expect=None)
    if (kind, name) == ("index", "delete") and ended.code == 0:
        # An index file may list only records that newer ones have superseded. restic, which nobody here wrote, is asked
        # whether anything is hurt.
        Restic(broken.repository, PASSWORD).check(read_data=True)
        shutil.rmtree(folder)
        return
    must(ended.code in right, f"{what}: verify ended with {ended.code}, not with {right}")
    if ended.code == 8:
        for path in damaged:
            # Nothing in a repository tells the name of an index file that is gone: the packs it listed are named instead.
            if not (kind == "index" and name == "delete"):
                must(path.name[:8] in ended.said, f"{what}: verify does not name the file {path.name}")
        sound = {path: subject.stack.repository / path.relative_to(broken.repository) for path in damaged}
        hurt = subject.hurt_by(kind, [whole for path, whole in sound.items() if kind != "packs" or blobs_are_hurt(whole, path)])
        for run in sorted(hurt):
            must(run in ended.said, f"{what}: verify does not name run {run}, which this hurts")
    shutil.rmtree(folder)


def every_damage_to(world: World, kind: str, rounds: int) -> None:
    subject = sound_stack(world)
    tried = 0
    for number in range(rounds):
        for name, damage in DAMAGES.items():
            if kind == "config" and name == "swap":
                continue  # there is one config only
            must_be_caught(world, subject, kind, name, damage, SEED * 1_000 + number)
            tried += 1
    # The copies were damaged, the original never.
    subject.stack.devstack("verify", "--all", "--data", expect=0)
    world.note(f"{tried} damages")


@scenario("restic", "age-keygen")
def damage_to_a_key_is_caught(world: World) -> None:
    every_damage_to(world, "keys", 2)


@scenario("restic", "age-keygen")
def damage_to_the_config_is_caught(world: World) -> None:
    every_damage_to(world, "config", 2)


@scenario("restic", "age-keygen")
def damage_to_a_snapshot_is_caught(world: World) -> None:
    every_damage_to(world, "snapshots", 2)


@scenario("restic", "age-keygen")
def damage_to_an_index_is_caught(world: World) -> None:
    every_damage_to(world, "index", 2)


@scenario("restic", "age-keygen")
def damage_to_a_data_pack_is_caught(world: World) -> None:
    every_damage_to(world, "packs", 4)
