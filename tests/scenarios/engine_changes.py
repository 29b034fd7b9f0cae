"""Any single change of a stack is told by `status`, or by `plan --strict`, or it is harmless: then a recovery gives what was there."""

from __future__ import annotations

import os
import random
from collections import Counter

import changes_of_data  # noqa: F401: its kinds stand beside the others
from changed_stack import Changed, changed_stack
from changes import GRAVE, SLIGHT
from scenario import Broken, World, must, scenario
from stack import Outcome

# The same for everybody: what is not told takes a recovery, and these few need two of them.
SEED = int(os.environ.get("DEVSTACK_TEST_SEED", "1"))
# Said on purpose. Anything else is a fault of devstack's own.
CODES = {3, 4, 5, 6, 7, 8}
# Told where a run needs what is gone, and harmless where it is a record that none needs; a new repository is made by the next run.
EITHER = {"a snapshot is removed", "a repository is added"}


def asked(stack: Changed) -> tuple[str, str]:
    """Who tells, and what: nobody, if both end with 0."""
    for who, arguments in (("status", ["status"]), ("plan", ["plan", "--strict"])):
        looked: Outcome = stack.devstack(*arguments, expect=None)
        if looked.code:
            must(looked.code in CODES, f"`{' '.join(arguments)}` ended with {looked.code}: {looked.said}")
            return who, f"{looked.code}: {(looked.out or looked.err).strip().splitlines()[0]}"
    return "", ""


def proved(stack: Changed, chance: random.Random) -> tuple[str, str]:
    """What nobody tells of. Either it is lost at once, or the next run comes first. The first is compared with the run: what came
    after a run is what an RPO is about, and what the run holds has to come back whatever has changed since. The second is compared
    with the very state at the loss."""
    before, when = stack.state_then, "at once"
    if chance.random() < 0.6:
        taken = stack.devstack("backup", "--yes", expect=None)
        if taken.code:
            must(taken.code in CODES, f"a backup ended with {taken.code}: {taken.said}")
            return "next run", f"{taken.code}: {(taken.out + taken.err).strip().splitlines()[0]}"
        who, said = asked(stack)
        if who:
            return "next run", said
        before, when = stack.state(), "after the next run"
    stack.lose()
    stack.environment = stack.own_environment
    recovered = stack.devstack("recover", "--yes", expect=None)
    must(recovered.code == 0, f"nobody told of it, and {when} the recovery ended with {recovered.code}: {recovered.said}")
    told = before.differences(stack.state())
    must(not told, f"nobody told of it, and a recovery {when} does not give what was there: {told[:9]}")
    return "harmless", when


def changed(world: World, stack: Changed, numbers: range, slight_every: int) -> Counter[str]:
    came = Counter[str]()
    wrong: list[str] = []
    kinds = GRAVE | SLIGHT
    # In an order of chance, each kind as often as the others of its sort, and now and then one that is slight.
    chance, order = random.Random(SEED), dict[str, list[str]](grave=[], slight=[])
    for sort, all_of in (("grave", GRAVE), ("slight", SLIGHT)):
        while len(order[sort]) < numbers.stop:
            order[sort] += chance.sample(sorted(all_of), len(all_of))
    for number in numbers:
        name = order["slight" if number % slight_every == 3 else "grave"][number]
        chance = random.Random(SEED * 1_000 + number)
        what = ""
        lost = True
        try:
            what = kinds[name](stack, chance)
            who, said = asked(stack)
            lost = not who
            if not who:
                who, said = proved(stack, chance)
                lost = who == "harmless"
            must(who != "harmless" or name in SLIGHT or name in EITHER, f"nobody tells of it, though a recovery {said} gives what was there")
            came[who] += 1
            print(f"=== {number} {who:9} {name} ({what}): {said}", flush=True)
        except Exception as error:
            came["wrong"] += 1
            wrong.append(f"{number}: {name} ({what}): {error}")
            print(f"=== {number} WRONG     {name} ({what}): {error}", flush=True)
        stack.put_back(lost=lost)
        # Or the next ones would be told for what this one has left behind.
        if number % 10 == 9 or number == numbers.stop - 1:
            must(not stack.findings(), f"of the last ten, up to {number}: {name} ({what}), one was not put back")
    total = sum(came.values())
    world.note(f"seed {SEED}: " + ", ".join(f"{count} {who}" for who, count in came.most_common()))
    if wrong:
        raise Broken("\n".join(wrong))
    # Of a few it says nothing.
    must(total < 100 or came["harmless"] <= total / 10, f"less than nine of ten are told: {came}")
    return came


@scenario("cc")
def twenty_random_changes_of_a_stack_are_told_or_harmless(world: World) -> None:
    with changed_stack(world) as stack:
        # Of the slight ones each takes a recovery.
        changed(world, stack, range(20), slight_every=20)


@scenario("cc", long=True)
def three_hundred_random_changes_of_a_stack_are_told_or_harmless(world: World) -> None:
    with changed_stack(world) as stack:
        changed(world, stack, range(int(os.environ.get("DEVSTACK_TEST_CHANGES", "300"))), slight_every=15)
