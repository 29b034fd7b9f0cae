"""Two writers at once: one works, the other is told who holds the lease; nobody waits for the dead."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from exit_codes import slow_stack
from scenario import World, must, scenario
from stack import Stack, wait_until


def lease_files(stack: Stack) -> list[Path]:
    folder = stack.repository / "devstack/leases"
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".")) if folder.exists() else []


@contextmanager
def apply_held_in_the_middle(stack: Stack) -> Iterator[int]:
    """The process id of an apply that is stopped, not ended, while it takes; so nothing here depends on who is faster."""
    process = stack.start("apply", "--yes", "--parallel", "1")

    def taking() -> bool:
        must(process.poll() is None, "apply ended before it took anything")
        return bool(lease_files(stack)) and stack.is_taking("bulk")

    try:
        wait_until(taking, "an apply that takes, with its lease")
        os.killpg(process.pid, signal.SIGSTOP)
        yield process.pid
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGCONT)
        said, _ = process.communicate(timeout=240)
        print(said)
        must(process.returncode in {0, -signal.SIGKILL}, f"the first apply ended with {process.returncode}")
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@scenario()
def of_two_applies_one_works_and_the_other_is_told_who_holds_the_lease(world: World) -> None:
    stack = slow_stack(world)
    with apply_held_in_the_middle(stack) as holder:
        second = stack.devstack("apply", "--yes", expect=6)
        must(str(holder) in second.said, f"the message does not name process {holder}, which holds the lease")
    stack.converged()
    must(not lease_files(stack), "a lease is left after both have ended")


@scenario()
def the_lease_of_a_killed_process_is_taken_over_at_once(world: World) -> None:
    stack = slow_stack(world)
    with apply_held_in_the_middle(stack) as holder:
        os.killpg(holder, signal.SIGKILL)
    must(lease_files(stack), "the killed process left no lease, so there was nothing to take over")
    started = time.monotonic()
    stack.devstack("apply", "--yes", expect=0)
    world.note(f"the next apply took {time.monotonic() - started:.1f} s in all")
    stack.converged()


def forged(lease: dict[str, Any], expires: datetime) -> dict[str, Any]:
    """The same lease as another machine would have written it: the one place that knows how a lease is written."""
    elsewhere = {"name": "elsewhere", "machine": "0" * 16, "boot": "00000000-0000-4000-8000-000000000000"}
    holder = lease["holder"] | {"host": lease["holder"]["host"] | elsewhere}
    renewed = expires - timedelta(minutes=1)
    times = {"acquired": renewed, "renewed": renewed, "expires": expires}
    return lease | {"holder": holder} | {name: f"{time:%Y-%m-%dT%H:%M:%SZ}" for name, time in times.items()}


def stack_with_a_lease_to_forge(world: World) -> tuple[Stack, Path, dict[str, Any]]:
    """A stack at rest, and the lease that its own apply held before, taken from disk while it was held."""
    stack = slow_stack(world)
    with apply_held_in_the_middle(stack):
        leases = [path for path in lease_files(stack) if path.name.startswith("scenario.")]
        must(len(leases) == 1, f"one lease of this stack was expected: {lease_files(stack)}")
        path = leases[0]
        lease = json.loads(path.read_text())
    must(not path.exists(), "apply left its lease behind")
    return stack, path, lease


def plant(path: Path, lease: dict[str, Any]) -> str:
    """Puts the lease there and gives its id."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(json.dumps(lease))
    return str(lease["id"])


@scenario()
def a_live_lease_of_another_host_blocks_until_it_is_unlocked_by_its_id(world: World) -> None:
    stack, path, lease = stack_with_a_lease_to_forge(world)
    # As far ahead as clocks may differ: one that is further ahead, and that nobody renews, is taken over after a minute.
    identity = plant(path, forged(lease, datetime.now(timezone.utc) + timedelta(seconds=110)))
    blocked = stack.devstack("backup", expect=6)
    must(identity in blocked.said, "the message does not say the lease's id, which unlock needs")
    wrong = stack.devstack("unlock", "0" * len(identity), expect=None)
    must(wrong.code != 0 and path.exists(), "unlock with a wrong id removed the lease or called it done")
    stack.devstack("unlock", identity, expect=0)
    must(not path.exists(), "unlock left the lease")
    stack.devstack("backup", expect=0)


@scenario()
def an_expired_lease_of_another_host_is_taken_over(world: World) -> None:
    stack, path, lease = stack_with_a_lease_to_forge(world)
    # A day: more than any allowance for clocks that differ.
    plant(path, forged(lease, datetime.now(timezone.utc) - timedelta(days=1)))
    stack.devstack("backup", expect=0)
    must(not lease_files(stack), "a lease is left after the backup")
