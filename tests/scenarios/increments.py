#!/usr/bin/env python3
"""Increments are real: what a second run adds is in proportion to what has changed.

    increments.py [--megabytes N] [--seed S] [--binary PATH]
"""

from __future__ import annotations

import random
import sys

import scenario as scenarios
from content import change_rows, make_database, size_of
from scenario import World, must, scenario
from stack import SQLITE_SHOP, write_stack

# The bounds that the project promises.
MOST_ADDED = 0.05
MOST_ADDED_UNCHANGED = 64 * 1024
MEGABYTES, SEED = 50.0, 11


@scenario()
def one_percent_of_the_rows_changed_adds_at_most_five_percent(world: World) -> None:
    chance = random.Random(SEED)
    stack = write_stack(world, world.folder / "stack", services=[SQLITE_SHOP])
    database = stack.folder / "data/shop.db"
    rows = make_database(database, chance, MEGABYTES)
    stack.devstack("apply", "--yes")
    first = size_of(stack.repository)
    must(first > database.stat().st_size * 0.2, f"the first run added {first} bytes: too few to be the database")

    stack.devstack("backup")
    unchanged = size_of(stack.repository) - first

    change_rows(database, chance, rows // 3, rows // 100)
    before = size_of(stack.repository)
    stack.devstack("backup")
    added = size_of(stack.repository) - before

    # Against what the first run added, not against the database: compression helps both alike.
    world.note(
        f"{database.stat().st_size / 1e6:.0f} MB database, {first / 1e6:.1f} MB first; unchanged {unchanged / 1024:.1f} KiB;"
        f" 1 % changed {added / 1e6:.2f} MB, {added / first:.2%}"
    )
    must(len(stack.runs()) == 3, "three runs were taken, and `backups` does not list three")
    must(unchanged < MOST_ADDED_UNCHANGED, f"an unchanged run added {unchanged} bytes")
    must(added > 0, "changed rows added nothing: the change was not taken")
    must(added <= MOST_ADDED * first, f"1 % changed added {added} bytes of {first}, {added / first:.1%}")


if __name__ == "__main__":
    parser = scenarios.parser()
    parser.add_argument("--megabytes", type=float, default=MEGABYTES)
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args()
    MEGABYTES, SEED = options.megabytes, options.seed
    sys.exit(scenarios.run_all(options, ["increments"]))
