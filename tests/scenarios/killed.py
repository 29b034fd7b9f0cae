#!/usr/bin/env python3
"""Nothing is lost: devstack is killed at every journal record and at random moments, and goes on where it was.

    killed.py [--seed S] [--runs N] [--binary PATH] [--keep]

After each kill the next apply converges, restic finds nothing wrong, and every run that was ever reported complete
restores byte for byte to the copy of the sources that was kept for it.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import scenario as scenarios
from content import change_rows, find_database, find_tree, make_database, make_site, must_be_the_same_tree, must_hold_the_same_rows
from oracle import Restic, service_snapshot
from scenario import World, must, scenario
from stack import Run, Stack, runs_in, write_stack

SEED, RUNS = 1, 20
# How many kills a stack lives for: often few, so that it is made from nothing often; sometimes many, so that a
# repository which was killed many times is seen too.
LIVES = [1, 1, 2, 4, 8]
# With a rule that forgets, this many runs have to stay. Two more than these can be forgotten without the approval that
# is asked for above 30 %.
KEPT = 5
# How many kills a stack lives for when it forgets.
FORGETTING_LIFE = 4
# No command on these small stacks takes so long; one that does hangs.
LONGEST = 120

GENERATED = "{ passphrase: { file: ./key/passphrase, generate: true } }"


@dataclass
class Life:
    """A stack from nothing, copies of its sources, and the runs that it has ever reported complete."""

    stack: Stack
    forgets: bool
    chance: random.Random
    rows: int = 0
    # Copies of the sources, by number; the newest is what the sources are now.
    copies: list[Path] = field(default_factory=list)
    # Every run that was ever listed, with the number of the copy it was taken from.
    copy_of: dict[str, int] = field(default_factory=dict)
    complete: dict[str, int] = field(default_factory=dict)

    @property
    def restic(self) -> Restic:
        return Restic(self.stack.repository, self.stack.passphrase.read_text().rstrip("\n"))

    def change_sources(self) -> None:
        data = self.stack.folder / "data"
        if not self.copies:
            self.rows = make_database(data / "shop.db", self.chance, 4)
        else:
            change_rows(data / "shop.db", self.chance, self.chance.randrange(self.rows // 2), self.rows // 20)
        make_site(data / "site", self.chance)
        copy = self.stack.world.folder / "copies" / f"{self.stack.folder.name}-{len(self.copies)}"
        shutil.copytree(data, copy, symlinks=True)
        self.copies.append(copy)

    def take_in(self, runs: dict[str, Run]) -> None:
        """A run that is new was taken from the newest copy, for the sources change only after a look."""
        for name, run in runs.items():
            self.copy_of.setdefault(name, len(self.copies) - 1)
            if run.complete:
                self.complete.setdefault(name, self.copy_of[name])

    def look(self) -> dict[str, Run]:
        runs = self.stack.runs()
        self.take_in(runs)
        return runs

    def look_after_a_kill(self) -> None:
        """Seen before anything mends it: what is reported complete now may never be lost again."""
        listed = self.stack.devstack("backups", "--format", "json", expect=None)
        if listed.code == 0:
            runs = runs_in(listed.json())
            self.take_in(runs)
            must_list(sealed_by_the_journal(self.stack), runs)
        else:
            # A repository that was killed before its first key was there cannot be read. Later ones can.
            must(not self.complete, f"`backups` ended with {listed.code}, and there are complete runs")

    def must_still_have_what_it_reported(self, runs: dict[str, Run]) -> None:
        lost = [name for name in self.complete if name not in runs or not runs[name].complete]
        if self.forgets:
            newest = sorted(self.complete)[-KEPT:]
            lost = [name for name in lost if name in newest]
        must(not lost, f"reported complete once, and not any more: {lost}")

    def must_restore(self, names: list[str]) -> None:
        """restic restores each of these runs to what the sources were."""
        target = self.stack.world.folder / "restored"
        snapshots = self.restic.snapshots()
        for name in names:
            copy = self.copies[self.complete[name]]
            for service in ("shop", "site"):
                self.restic.restore(service_snapshot(snapshots, name, service), target / service)
            must_hold_the_same_rows(find_database(target / "shop"), copy / "shop.db")
            must_be_the_same_tree(find_tree(target / "site", "first.html"), copy / "site")
            shutil.rmtree(target)


def sealed_by_the_journal(stack: Stack) -> set[str]:
    """The runs whose sealing the journal calls done; the resource of a seal is `REPOSITORY/RUN`."""
    entries = [entry for entry in stack.journal_entries() if (entry.kind, entry.verb) == ("step_ended", "seal")]
    return {entry.resource.split("/")[-1] for entry in entries if entry.ended == "done"}


def must_list(sealed: set[str], runs: dict[str, Run]) -> None:
    # A run that was forgotten since is in an old journal and not in the list: only the newest is certain to be there.
    newest = max(sealed, default=None)
    if newest is not None:
        must(newest in runs and runs[newest].complete, f"the journal says that {newest} was sealed; `backups` does not")


@dataclass(frozen=True)
class Kill:
    """At the `record`th journal record that the command writes, or `after` so many seconds."""

    record: int | None = None
    after: float | None = None

    def __str__(self) -> str:
        return f"record {self.record}" if self.record is not None else f"{self.after:.3f} s"


def journal_size(stack: Stack) -> int:
    """The number of whole lines. Read as bytes: a tight loop asks."""
    try:
        return stack.journal.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def run_and_kill(stack: Stack, verb: list[str], kill: Kill) -> str:
    """Where the kill fell: the journal's last record then, or `too late` when the command had ended."""
    lines_before = journal_size(stack)
    process = stack.start(*verb)
    started = time.monotonic()
    try:
        while process.poll() is None:
            now = time.monotonic() - started
            must(now < LONGEST, f"{verb} has not ended after {LONGEST} s")
            if kill.record is not None and journal_size(stack) - lines_before >= kill.record:
                break
            if kill.after is not None and now >= kill.after:
                break
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        print(process.communicate()[0])
    if process.returncode != -signal.SIGKILL:
        must(process.returncode == 0, f"{verb} was not killed and ended with {process.returncode}")
        return "too late"
    entries = stack.journal_entries()
    return without_run(str(entries[-1])) if len(entries) > lines_before else "before the first record"


def without_run(place: str) -> str:
    """The run's id out of a resource: where kills fell is to be counted."""
    return re.sub(r"\d{8}T\d{6}Z-\S+", "RUN", place)


# What a round kills: the apply that makes everything from nothing; a backup; or the apply that forgets what a backup
# before it has made superfluous.
MAKE, TAKE, FORGET = "make", "take", "forget"


def mode_of(life: Life) -> str:
    if not life.complete:
        return MAKE
    return FORGET if life.forgets and len(life.complete) > KEPT and life.chance.random() < 0.6 else TAKE


def prepare(life: Life, mode: str) -> list[str]:
    """Brings the stack to where the command that is to be killed has something to do, and gives that command."""
    life.change_sources()
    if mode == FORGET:
        life.stack.devstack("backup")
        life.look()
        life.change_sources()
    return ["backup"] if mode == TAKE else ["apply", "--yes"]


@dataclass
class Spread:
    """Kills of one mode: one at each journal record in turn, and between two of those one at a random moment."""

    records: int
    seconds: float
    chance: random.Random
    drawn: int = 0
    covered: set[int] = field(default_factory=set)

    def next(self) -> Kill:
        self.drawn += 1
        if self.drawn % 2 == 0:
            # Little happens while the repository is being opened, so fewer kills fall there.
            return Kill(after=self.chance.uniform(0.2, 1.05) * self.seconds)
        record = (self.drawn // 2) % self.records + 1
        self.covered.add(record)
        return Kill(record=record)


def measure(world: World, seed: int) -> dict[str, Spread]:
    """How many records an undisturbed command of each mode writes, and how long it takes."""
    chance = random.Random(seed)
    life = new_life(world, "measured", True, chance)
    spreads: dict[str, Spread] = {}
    for mode in [MAKE, *[TAKE] * KEPT, FORGET]:
        verb = prepare(life, mode)
        before, started = journal_size(life.stack), time.monotonic()
        life.stack.devstack(*verb)
        seconds, records = time.monotonic() - started, journal_size(life.stack) - before
        life.look()
        must(records >= 2, f"`devstack {' '.join(verb)}` to {mode} wrote {records} journal records: nothing to kill at")
        spreads[mode] = Spread(records, seconds, chance)
    print(spreads)
    return spreads


def new_life(world: World, name: str, forgets: bool, chance: random.Random) -> Life:
    retention = f"{{ last: {KEPT} }}" if forgets else ""
    stack = write_stack(world, world.folder / name, retention=retention, passphrase=None, keys=[GENERATED])
    return Life(stack, forgets, chance)


def fill(life: Life) -> None:
    """As many runs as the rule keeps, so that every further one makes another superfluous; and one more: the run that
    carries the schedule's slot stays beside them."""
    while len(life.complete) <= KEPT:
        life.stack.devstack(*prepare(life, mode_of(life)))
        life.look()


def one_round(life: Life, mode: str, kill: Kill, *, lose_cache: bool, change_between: bool, check_all: bool) -> str:
    stack = life.stack
    fell = run_and_kill(stack, prepare(life, mode), kill)
    print(f"*** to be killed at {kill} of {mode}: {fell}")
    life.look_after_a_kill()
    if lose_cache:
        shutil.rmtree(stack.folder / ".devstack", ignore_errors=True)
    if change_between:
        # A run that goes on where a killed one was may not mix the two states.
        life.change_sources()
    stack.devstack("apply", "--yes")
    stack.converged()
    runs = life.look()
    life.must_still_have_what_it_reported(runs)
    life.restic.check(read_data=check_all)
    there = [name for name in sorted(life.complete) if name in runs and runs[name].complete]
    must(there, "there is no complete run after an apply that said all is done")
    life.must_restore(there if check_all else there[-2:])
    return fell


def kill_many(world: World, seed: int, count: int) -> None:
    chance = random.Random(seed)
    where: Counter[str] = Counter()
    spreads = measure(world, seed)
    done = landed = lives = 0
    try:
        while done < count:
            lives += 1
            life = new_life(world, f"life-{lives}", lives % 3 == 2, random.Random(chance.randrange(1 << 30)))
            if life.forgets:
                fill(life)
            rounds = min(FORGETTING_LIFE if life.forgets else chance.choice(LIVES), count - done)
            for age in range(rounds):
                mode = mode_of(life)
                fell = one_round(
                    life,
                    mode,
                    spreads[mode].next(),
                    lose_cache=chance.random() < 0.3,
                    change_between=chance.random() < 0.5,
                    check_all=age == rounds - 1,
                )
                where[f"{mode}: {fell}"] += 1
                landed += fell != "too late"
                done += 1
            shutil.rmtree(life.stack.folder)
            shutil.rmtree(world.folder / "copies")
    finally:
        # Where it stopped is what is needed to run it again: same seed, same kills.
        world.note(f"seed {seed}, {done} of {count} rounds in {lives} lives, {landed} kills landed")
        for mode, spread in spreads.items():
            world.note(f"{mode}: {len(spread.covered)} of {spread.records} records, {spread.drawn // 2} random moments")
        world.note("they fell at: " + ", ".join(f"{place} × {times}" for place, times in where.most_common()))
    must(landed * 2 >= done, f"only {landed} of {done} kills came before the command had ended")


@scenario("restic")
def nothing_is_lost_when_devstack_is_killed(world: World) -> None:
    kill_many(world, SEED, RUNS)


if __name__ == "__main__":
    parser = scenarios.parser()
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--runs", type=int, default=RUNS)
    options = parser.parse_args()
    SEED, RUNS = options.seed, options.runs
    sys.exit(scenarios.run_all(options, ["killed"]))
