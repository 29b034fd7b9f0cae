"""No green where restic is red, and no forgetting of what was seen: whatever is damaged, missing or removed, of this stack's or of
anybody's, is told by the look that finds it and by every look after it, until the same bytes were seen well."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from content import find_tree, make_database, make_site, must_be_the_same_tree
from oracle import Restic
from oracle import run as program
from scenario import Broken, World, must, scenario
from stack import Stack, write_stack

SEED = 29
PASSWORD = "correct horse battery staple"
DAMAGES = 200 if os.environ.get("DEVSTACK_TEST_LONG") else 15
# A snapshot of long ago makes every part due at the next apply; then none is for hours, however slow the machine is.
EVERY = "    verify: { data_every: 90d }\n"
LONG_AGO = "2020-01-01 00:00:00"


class Shared(Stack):
    """A repository that a stack shares with restic itself."""

    # Names of packs: those that came with the stack's second run, and with restic's own snapshots.
    of_second: frozenset[str] = frozenset()
    of_restic: frozenset[str] = frozenset()
    with_trees: frozenset[str] = frozenset()

    @property
    def restic(self) -> Restic:
        return Restic(self.repository, PASSWORD)

    def is_red(self, *, read_data: bool) -> bool:
        try:
            self.restic.check(read_data=read_data)
        except Broken as red:
            print(f"restic is red: {red}")
            return True
        return False

    def copy_to(self, folder: Path) -> Shared:
        """Files of the repository are shared by hard links, so whoever changes one writes a new one."""
        shutil.copytree(self.folder, folder, symlinks=True, copy_function=link_what_is_never_written)
        copy = Shared(self.world, folder)
        copy.of_second, copy.of_restic, copy.with_trees = self.of_second, self.of_restic, self.with_trees
        return copy

    def packs(self) -> list[Path]:
        return sorted(path for path in (self.repository / "data").rglob("*") if path.is_file())

    def own_pack(self) -> Path:
        """The largest that only the second run needs: of its data."""
        return max((path for path in self.packs() if path.name in self.of_second), key=lambda path: path.stat().st_size)

    def their_packs(self) -> list[Path]:
        return [path for path in self.packs() if path.name in self.of_restic]

    def tree_packs(self) -> list[Path]:
        return [path for path in self.packs() if path.name in self.with_trees]

    def without(self, packs: list[Path], meanwhile: Callable[[], object]) -> None:
        """The packs are away while something is done, and come back."""
        place = self.folder / "away"
        place.mkdir()
        away = [(path, place / path.name) for path in packs]
        for path, other in away:
            path.rename(other)
        meanwhile()
        for path, other in away:
            other.rename(path)

    def rebuild_index(self) -> None:
        self.restic("repair", "index")


def link_what_is_never_written(source: str, target: str) -> None:
    if "/backups/" in source:
        os.link(source, target)
    else:
        shutil.copy2(source, target)


def rewrite(path: Path, content: bytes) -> None:
    """As a new file: the old one is another copy's too."""
    path.unlink()
    path.write_bytes(content)


def shared_stack(world: World, name: str = "sound", retention: str = "") -> Shared:
    """Two runs of a stack, and three snapshots of restic's own beside them: of a folder in three states."""
    chance = random.Random(SEED)
    folder = world.folder / name
    written = write_stack(world, folder, passphrase=PASSWORD, retention=retention)
    # No objective that nothing here measures: a stack with whole backups is OK.
    text = written.file.read_text().replace("    to: [local]\n", "    to: [local]\n" + EVERY)
    written.file.write_text("".join(line for line in text.splitlines(True) if "rto:" not in line))
    stack = Shared(world, folder)
    make_database(stack.folder / "data/shop.db", chance, 0.5)
    make_site(stack.folder / "data/site", chance, files=6)
    stack.devstack("apply", "--yes")
    with sqlite3.connect(stack.folder / "data/shop.db") as database:
        database.execute("update items set body = 'changed' where id % 3 = 0")
    database.close()
    before = stack.packs()
    stack.devstack("backup")
    stack.of_second = frozenset(path.name for path in stack.packs() if path not in before)
    before = stack.packs()
    theirs = folder / "theirs"
    for state in range(3):
        for part in range(3):
            file = theirs / f"part-{part}/file"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(chance.randbytes(80_000 + 1_000 * state))
        stack.restic("backup", *(["--time", LONG_AGO] if state == 0 else []), str(theirs))
    stack.of_restic = frozenset(path.name for path in stack.packs() if path not in before)
    # Of every index: restic lists them by their ids, in no order of time.
    indexed = [json.loads(stack.restic("cat", "index", index)) for index in stack.restic("list", "index").decode().split()]
    packs = [pack for index in indexed for pack in index["packs"] if pack["id"] in stack.of_restic]
    stack.with_trees = frozenset(pack["id"] for pack in packs if any(blob["type"] == "tree" for blob in pack["blobs"]))
    return stack


# What is wrong with a repository, each made with restic's own means, and whether restic's `check` and `check --read-data` are red over it.
Fixture = Callable[[Shared, random.Random], None]


def missing_index(stack: Shared, _: random.Random) -> None:
    for path in (stack.repository / "index").iterdir():
        path.unlink()


def index_lacks_packs(stack: Shared, chance: random.Random) -> None:
    stack.without(chance.sample(stack.packs(), 3), stack.rebuild_index)


def index_lacks_their_packs(stack: Shared, chance: random.Random) -> None:
    stack.without(chance.sample(stack.their_packs(), 1), stack.rebuild_index)


def empty_index(stack: Shared, _: random.Random) -> None:
    stack.without(stack.packs(), stack.rebuild_index)


def missing_blobs(stack: Shared, chance: random.Random) -> None:
    for path in chance.sample(stack.their_packs(), 1):
        path.unlink()
    stack.rebuild_index()


def missing_pack(stack: Shared, chance: random.Random) -> None:
    chance.choice(stack.packs()).unlink()


def missing_tree_pack(stack: Shared, chance: random.Random) -> None:
    chance.choice(stack.tree_packs()).unlink()


def truncated_pack(stack: Shared, chance: random.Random) -> None:
    path = chance.choice(stack.packs())
    content = path.read_bytes()
    rewrite(path, content[: len(content) // 2])


def longer_pack(stack: Shared, chance: random.Random) -> None:
    path = chance.choice(stack.their_packs())
    rewrite(path, path.read_bytes() + b"more")


def flipped_data_of_theirs(stack: Shared, chance: random.Random) -> None:
    flip_a_bit(chance.choice([path for path in stack.their_packs() if path.name not in stack.with_trees]), chance)


def flipped_tree_of_theirs(stack: Shared, chance: random.Random) -> None:
    flip_a_bit(chance.choice(stack.tree_packs()), chance)


def broken_snapshot(stack: Shared, chance: random.Random) -> None:
    path = chance.choice(sorted((stack.repository / "snapshots").iterdir()))
    content = path.read_bytes()
    rewrite(path, content[: len(content) - 7])


def broken_index(stack: Shared, chance: random.Random) -> None:
    flip_a_bit(chance.choice(sorted((stack.repository / "index").iterdir())), chance)


def packs_in_two_indexes(stack: Shared, _: random.Random) -> None:
    old = {path: path.read_bytes() for path in (stack.repository / "index").iterdir()}
    stack.restic("repair", "index", "--read-all-packs")
    for path, content in old.items():
        if not path.exists():
            path.write_bytes(content)


def unreferenced_packs(stack: Shared, _: random.Random) -> None:
    theirs = stack.their_packs()
    stack.restic("forget", "--unsafe-allow-remove-all", "--path", str(stack.folder.parent / "sound/theirs"))
    stack.without(theirs, stack.rebuild_index)


FIXTURES: dict[Fixture, tuple[bool, bool]] = {
    missing_index: (True, True),
    index_lacks_packs: (True, True),
    index_lacks_their_packs: (True, True),
    empty_index: (True, True),
    missing_blobs: (True, True),
    missing_pack: (True, True),
    missing_tree_pack: (True, True),
    truncated_pack: (True, True),
    longer_pack: (True, True),
    flipped_data_of_theirs: (False, True),
    flipped_tree_of_theirs: (True, True),
    broken_snapshot: (True, True),
    broken_index: (True, True),
    packs_in_two_indexes: (False, False),
    unreferenced_packs: (False, False),
}


def flip_a_bit(path: Path, chance: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    rewrite(path, bytes(content))


@dataclass
class Judged:
    check: bool
    read: bool


def must_not_be_green(stack: Shared, what: str, known: tuple[bool, bool] | None = None) -> Judged:
    """restic's word first, then devstack's, each on the same bytes; and what was seen is remembered afterwards."""
    read = stack.is_red(read_data=True)
    check = read and stack.is_red(read_data=False)
    if known is not None:
        must((check, read) == known, f"{what}: restic's check and check --read-data are {(check, read)}, not {known}")
    if not read:
        ended = stack.devstack("apply", "--yes", expect=None), stack.devstack("verify", "--all", "--data", expect=None)
        if known is not None:
            must([one.code for one in ended] == [0, 0], f"{what}: restic is green, devstack {[one.code for one in ended]}")
        return Judged(check, read)
    # Before anything else has looked: all parts are due, and nothing is known yet.
    applied = stack.devstack("apply", "--yes", expect=None)
    must(applied.code != 0, f"{what}: restic's check --read-data is red, and apply over data_every is green")
    # Nothing is due any more, and it is said all the same.
    must(stack.devstack("plan", expect=None).code != 0, f"{what}: plan is green")
    if check:
        must(stack.devstack("verify", expect=None).code != 0, f"{what}: restic's check is red, and verify is green")
    whole = stack.devstack("verify", "--all", "--data", expect=None)
    must(whole.code != 0, f"{what}: restic's check --read-data is red, and verify --all --data is green")
    return Judged(check, read)


@scenario("restic")
def nothing_is_green_where_restic_is_red_over_a_repository_that_it_knows_to_be_broken(world: World) -> None:
    sound = shared_stack(world)
    must(not sound.is_red(read_data=True), "restic is red over a sound repository")
    for fixture, known in FIXTURES.items():
        what = fixture.__name__.replace("_", " ")
        with world.part(what):
            broken = sound.copy_to(world.folder / "broken")
            fixture(broken, random.Random(SEED))
            must_not_be_green(broken, what, known)
            shutil.rmtree(broken.folder)
    world.note(f"{len(FIXTURES)} fixtures")


def random_damage(stack: Shared, chance: random.Random) -> str:
    folders = {"data": 8, "index": 2, "snapshots": 2, "keys": 1, "config": 1}
    kind = chance.choices(list(folders), list(folders.values()))[0]
    place = stack.repository / kind
    files = [place] if kind == "config" else sorted(path for path in place.rglob("*") if path.is_file())
    path = chance.choice(files)
    content = path.read_bytes()
    how = chance.choice(["flip", "flip", "truncate", "lengthen", "delete", "empty", "swap"])
    if how == "swap" and len(files) < 2:
        how = "flip"
    match how:
        case "flip":
            flip_a_bit(path, chance)
        case "truncate":
            rewrite(path, content[: chance.randrange(len(content))])
        case "lengthen":
            rewrite(path, content + chance.randbytes(chance.randrange(1, 90)))
        case "delete":
            path.unlink()
        case "empty":
            rewrite(path, b"")
        case "swap":
            other = chance.choice([one for one in files if one != path])
            theirs = other.read_bytes()
            rewrite(path, theirs)
            rewrite(other, content)
    return f"{how} {path.relative_to(stack.repository)}"


@scenario("restic")
def nothing_is_green_where_restic_is_red_after_random_damage(world: World) -> None:
    sound = shared_stack(world)
    came = Counter[str]()
    for number in range(DAMAGES):
        chance = random.Random(SEED * 1_000 + number)
        broken = sound.copy_to(world.folder / "broken")
        what = f"damage {number}: {random_damage(broken, chance)}"
        print(f"--- {what}")
        judged = must_not_be_green(broken, what)
        came["check" if judged.check else "read" if judged.read else "green"] += 1
        shutil.rmtree(broken.folder)
    must(came["check"] and came["read"], f"chance has made no damage of a kind: {came}")
    world.note(f"{DAMAGES} damages: {came['check']} that check sees, {came['read']} only --read-data, {came['green']} neither")


def must_be_told(stack: Stack, word: str, *what: str, apply: int) -> None:
    looks = [(["plan"], 8), (["status", "--live"], 8), (["apply", "--yes"], apply), (["status"], 8)]
    for look, code in looks:
        said = stack.devstack(*look, expect=code).said
        for text in (word, *what):
            must(text in said, f"`{' '.join(look)}` does not say {text}: {said}")
        must("as declared" not in said, f"`{' '.join(look)}` says that all is as declared: {said}")


def must_be_well(stack: Stack) -> None:
    for look in (["plan"], ["apply", "--yes"], ["status", "--live"], ["plan", "--detailed-exitcode"]):
        said = stack.devstack(*look, expect=0).said
        must("DAMAGED" not in said and "REMOVED" not in said, f"`{' '.join(look)}` still tells damage: {said}")
        must(said.startswith("OK\n"), f"`{' '.join(look)}` does not begin with OK: {said}")


@scenario("restic")
def damage_that_was_seen_stays_known_until_the_same_bytes_are_seen_well(world: World) -> None:
    sound = shared_stack(world)
    sound.devstack("apply", "--yes")
    must_be_well(sound)
    newest = sorted(sound.runs())[-1]

    with world.part("a pack that is gone is damage at the next look, and well when it is back"):
        stack = sound.copy_to(world.folder / "gone")
        path = stack.own_pack()
        away = world.folder / path.name
        path.rename(away)
        must_be_told(stack, "DAMAGED", path.name, newest, apply=8)
        must(not stack.runs()[newest].verified, "a run that lacks a pack counts as verified")
        away.rename(path)
        must_be_well(stack)

    with world.part("a bit of an old pack is known after other looks, on another machine, until it is read well again"):
        stack = sound.copy_to(world.folder / "bit")
        path = stack.own_pack()
        content = path.read_bytes()
        flip_a_bit(path, random.Random(1))
        # Nothing is due now: only what reads all sees it.
        must_be_well(stack)
        stack.devstack("verify", "--all", "--data", expect=8)
        must_be_told(stack, "DAMAGED", path.name, apply=8)
        shutil.rmtree(stack.folder / ".devstack")
        must_be_told(stack, "DAMAGED", path.name, apply=8)
        must(path.name in stack.devstack("verify", expect=8).said, "a verification that does not read it calls it well")
        rewrite(path, content)
        must_be_told(stack, "DAMAGED", path.name, apply=8)
        stack.devstack("verify", "--all", "--data", expect=0)
        must_be_well(stack)

    with world.part("what a restore meets is known from then on, in one line, whether beside, in place or in a recovery"):
        in_place = ["restore", "shop", "--backup", newest, "--in-place", "--yes", "--approve", "restore:shop"]
        for name, command in (
            ("beside", ["restore", "shop", "--to", str(world.folder / "out")]),
            # A copy of what is there would share the chunk, and say so before.
            ("in-place", [*in_place, "--without-safety"]),
            ("recovery", ["recover", "--backup", newest, "--yes"]),
        ):
            stack = sound.copy_to(world.folder / f"met-{name}")
            path = stack.own_pack()
            content = path.read_bytes()
            rewrite(path, bytes(byte ^ (at % 97 == 0) for at, byte in enumerate(content)))
            must_be_well(stack)
            if name == "recovery":
                for file in (stack.folder / "data").glob("shop.db*"):
                    file.unlink()
            refused = stack.devstack(*command, expect=8).said
            [told] = [line for line in refused.splitlines() if line.startswith("  FAILED ")]
            must(path.name in told and len(told) < 600, f"it is not told which file in a line: {told}")
            for noise in ("rustic_core", "Backtrace", ".rs:", "aead"):
                must(noise not in refused, f"the library's own words are told: {refused}")
            must(f"--backup RUN" in refused or name == "recovery", f"what to do next is not told: {refused}")
            for look in (["status"], ["plan"]):
                said = stack.devstack(*look, expect={7, 8}).said
                must("damaged" in said.splitlines()[0] and path.name in said, f"{name}: forgotten by the next {look[0]}: {said}")
            must(not stack.runs()[newest].verified, f"{name}: the run counts as verified")
            rewrite(path, content)
            stack.devstack("verify", "--all", "--data", expect=0)
            must("DAMAGED" not in stack.devstack("status", expect=None).said, f"{name}: damage after it was read well")

    with world.part("what a short verification finds of others' snapshots is remembered, and forgotten once it finds it well"):
        stack = sound.copy_to(world.folder / "foreign")
        index_lacks_their_packs(stack, random.Random(2))
        must_be_well(stack)
        said = stack.devstack("verify", expect=8).said
        must("of no run of this stack" in said, f"whose snapshot is hurt is not told: {said}")
        must_be_told(stack, "DAMAGED", "snapshot", apply=8)
        must(all(run.verified for run in stack.runs().values()), "others' damage is taken for this stack's runs'")
        stack.rebuild_index()
        stack.devstack("verify", expect=0)
        must_be_well(stack)

    with world.part("what was damaged and is gone is damage no longer"):
        stack = sound.copy_to(world.folder / "pruned")
        path = stack.their_packs()[0]
        flip_a_bit(path, random.Random(3))
        stack.devstack("verify", "--all", "--data", expect=8)
        path.unlink()
        must_be_told(stack, "DAMAGED", path.name, apply=8)
        stack.restic("forget", "--unsafe-allow-remove-all", "--path", str(sound.folder / "theirs"))
        stack.rebuild_index()
        must_be_well(stack)


def snapshots_of(stack: Shared, wanted: Callable[[object], bool]) -> list[str]:
    return [snapshot.id for snapshot in stack.restic.snapshots() if wanted(snapshot)]


@scenario("restic")
def runs_that_somebody_else_removed_are_missed_until_it_is_accepted(world: World) -> None:
    sound = shared_stack(world, retention="{ last: 4 }")
    sound.devstack("apply", "--yes")
    must_be_well(sound)
    first, second = sorted(sound.runs())
    tagged = lambda snapshot: "devstack" in snapshot.tags  # noqa: E731

    def remove_all(stack: Shared) -> None:
        stack.restic("forget", *snapshots_of(stack, tagged))

    def remove_one(stack: Shared) -> None:
        stack.restic("forget", *snapshots_of(stack, lambda snapshot: snapshot.is_of(first)))

    def take_the_tags(stack: Shared) -> None:
        stack.restic("tag", "--set", "somebody", *snapshots_of(stack, lambda snapshot: snapshot.is_of(first)))

    def remove_a_manifest(stack: Shared) -> None:
        is_manifest = lambda snapshot: snapshot.is_of(first) and "record:manifest" in snapshot.tags  # noqa: E731
        stack.restic("forget", *snapshots_of(stack, is_manifest))

    for remove, count in ((remove_all, 2), (remove_one, 1), (take_the_tags, 1), (remove_a_manifest, 1)):
        with world.part(remove.__name__.replace("_", " ")):
            stack = sound.copy_to(world.folder / remove.__name__)
            remove(stack)
            # Another machine knows it as well.
            shutil.rmtree(stack.folder / ".devstack")
            runs = "2 runs were" if count == 2 else "1 run was"
            must_be_told(stack, "REMOVED", f"{runs} removed", first, apply=4)
            advice = set(re.findall(r"`devstack (apply [^`]*)`", stack.devstack("status", expect=8).said))
            must(len(advice) == 1, f"what accepts it is not told, or more than that: {advice}")
            kept = stack.restic.snapshots()
            stack.devstack(*advice.pop().split())
            must(len(stack.restic.snapshots()) >= len(kept), "an acceptance has removed something")
            must_be_well(stack)

    with world.part("retention waits, and what devstack forgets itself is not missed"):
        stack = sound.copy_to(world.folder / "retention")
        for _ in range(5):
            stack.devstack("backup")
        must(len(stack.runs()) == 7, f"seven runs were expected: {sorted(stack.runs())}")
        stack.restic("forget", *snapshots_of(stack, lambda snapshot: snapshot.is_of(second)))
        held = stack.devstack("apply", "--yes", expect=4).said
        must(len(stack.runs()) == 6, f"retention did not wait: {held}")
        stack.devstack("apply", "--yes", "--approve", "accept:removed:local")
        # The newest four, and the one that serves the slot.
        must(len(stack.runs()) == 5, f"retention did not go on: {sorted(stack.runs())}")
        must_be_well(stack)
        stack.devstack("forget", sorted(stack.runs())[0], "--yes", "--approve", "forget:local")
        must_be_well(stack)


@scenario("restic")
def a_snapshot_that_restic_gave_another_id_is_the_same_run(world: World) -> None:
    sound = shared_stack(world)
    sound.devstack("apply", "--yes")
    own = lambda snapshot: "devstack" in snapshot.tags  # noqa: E731

    def must_restore(stack: Shared, run: str) -> None:
        target = stack.folder / "back"
        stack.devstack("restore", "site", "--backup", run, "--to", str(target))
        must_be_the_same_tree(find_tree(target, "part-1"), sound.folder / "data/site")

    with world.part("tags added, once and again"):
        stack = sound.copy_to(world.folder / "tagged")
        for tag in ("keep", "longer"):
            stack.restic("tag", "--add", tag, *snapshots_of(stack, own))
        must_be_well(stack)
        must(all(run.verified for run in stack.runs().values()), "what was proven of a tree is not known under its new id")
        stack.devstack("verify", "--all", expect=0)
        must_restore(stack, sorted(stack.runs())[0])

    with world.part("a host rewritten"):
        stack = sound.copy_to(world.folder / "rewritten")
        stack.restic("rewrite", "--new-host", "elsewhere", "--forget", *snapshots_of(stack, own))
        stack.devstack("apply", "--yes", expect=0)
        stack.devstack("verify", "--all", expect=0)
        must_be_well(stack)
        must_restore(stack, sorted(stack.runs())[-1])

    with world.part("repaired, which writes every tree anew"):
        stack = sound.copy_to(world.folder / "repaired")
        stack.restic("repair", "snapshots", "--forget", *snapshots_of(stack, own))
        stack.devstack("verify", "--all", expect=0)
        must_be_well(stack)
        must_restore(stack, sorted(stack.runs())[0])

    with world.part("copied by restic into another repository"):
        stack = sound.copy_to(world.folder / "copied")
        there = stack.repository.with_name("there")
        password = {"RESTIC_PASSWORD": stack.restic.password, "RESTIC_FROM_PASSWORD": stack.restic.password}
        restic = ["restic", "--no-cache", "--quiet", "-r", str(there)]
        program([*restic, "init", "--from-repo", str(stack.repository), "--copy-chunker-params"], environment=password)
        program([*restic, "copy", "--from-repo", str(stack.repository)], environment=password)
        shutil.rmtree(stack.repository)
        there.rename(stack.repository)
        # Another repository than this machine knows, in the same place.
        shutil.rmtree(stack.folder / ".devstack")
        must(all(run.verified for run in stack.runs().values()), "what was proven of a tree is not known in a copy")
        stack.devstack("verify", "--all", expect=0)
        must_restore(stack, sorted(stack.runs())[0])

    with world.part("another tree under its tags is no good run"):
        stack = sound.copy_to(world.folder / "other")
        newest = sorted(stack.runs())[-1]
        [site] = [it for it in stack.restic.snapshots() if it.is_of(newest) and it.names("site")]
        stack.restic("backup", *(f"--tag={tag}" for tag in site.tags), str(stack.folder / "theirs"))
        stack.restic("forget", site.id)
        must(not stack.runs()[newest].verified, "what was proven of one tree is said of another")
        stack.devstack("verify", newest, expect=8)
        must_be_told(stack, "DAMAGED", newest, apply=8)
