"""A recovery's time is measured or absent: what a recovery, a restore in place or a drill has measured is on record in the repository, and
predicts the next one on a machine that has measured nothing itself."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable

from content import make_database, make_site
from scenario import World, must, scenario
from stack import Stack, write_stack

UNMEASURED = "RTO not measured"


def lose_and_recover(stack: Stack) -> None:
    shutil.rmtree(stack.folder / "data")
    (stack.folder / "data").mkdir()
    stack.devstack("recover", "--yes")


def drill(stack: Stack) -> None:
    stack.devstack("drill")


def restore_in_place(stack: Stack) -> None:
    for service in ("shop", "site"):
        stack.devstack("restore", service, "--in-place", "--yes", "--approve", f"restore:{service}")


@scenario("restic")
def what_was_measured_predicts_on_a_machine_without_a_journal(world: World) -> None:
    ways: tuple[Callable[[Stack], None], ...] = (lose_and_recover, drill, restore_in_place)
    for way in ways:
        with world.part(way.__name__.replace("_", " ")):
            stack = write_stack(world, world.folder / way.__name__)
            chance = random.Random(5)
            make_database(stack.folder / "data/shop.db", chance, 0.2)
            make_site(stack.folder / "data/site", chance, files=6)
            stack.devstack("apply", "--yes")
            said = stack.devstack("status", expect=8).said
            must(UNMEASURED in said, f"proofs alone are taken for a recovery: {said}")
            must("UNMEASURED" in stack.devstack("plan", "--strict", expect=8).said, "--strict is green over a guess")
            way(stack)
            for journal in ("the journal of this machine", "none"):
                if journal == "none":
                    shutil.rmtree(stack.folder / ".devstack")
                said = stack.devstack("status", expect=None).said
                must("never measured" not in said, f"with {journal}: a restore was measured and is not known: {said}")
                if way is not restore_in_place:
                    must(UNMEASURED not in said, f"with {journal}: the recovery was measured and is not known: {said}")
                    stack.devstack("plan", "--strict")
