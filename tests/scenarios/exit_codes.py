"""Exit codes and interruption: 0 done, 2 changes pending, 3 file or key, 4 held, 5 stale, 7 partly or interrupted."""

from __future__ import annotations

import os
import random
import signal

from content import quickstart_data
from scenario import World, must, scenario
from stack import FILES_SITE, SQLITE_SHOP, Stack, wait_until, write_stack


def small_stack(world: World, name: str = "stack") -> Stack:
    stack = write_stack(world, world.folder / name)
    quickstart_data(stack.folder / "data")
    return stack


def slow_stack(world: World) -> Stack:
    """Enough data that compresses badly to be in the middle of when a signal comes."""
    services = [SQLITE_SHOP, "  bulk: { source: { files: { paths: [data/bulk] } } }"]
    stack = write_stack(world, world.folder / "stack", services=services)
    quickstart_data(stack.folder / "data")
    (stack.folder / "data/bulk").mkdir()
    chance = random.Random(7)
    for number in range(16):
        (stack.folder / f"data/bulk/{number}").write_bytes(chance.randbytes(16_000_000))
    return stack


@scenario()
def wrong_arguments_and_wrong_files_are_exit_3(world: World) -> None:
    stack = small_stack(world)
    stack.devstack("no-such-verb", expect=3)
    stack.devstack("plan", "--no-such-flag", expect=3)
    stack.devstack("check", expect=0)
    text = stack.file.read_text()
    stack.file.write_text(text.replace("services:", "servces:", 1))
    wrong = stack.devstack("check", expect=3)
    must("servces" in wrong.said and "services" in wrong.said, "the misspelt key is not named with what was meant")
    stack.devstack("apply", "--yes", expect=3)
    stack.file.unlink()
    stack.devstack("plan", expect=3)


@scenario()
def a_wrong_or_missing_passphrase_is_exit_3_and_changes_nothing(world: World) -> None:
    stack = small_stack(world)
    stack.devstack("apply", "--yes")
    stack.passphrase.write_text("not the one\n")

    def must_be_told() -> None:
        for look in (["status"], ["plan"], ["apply", "--yes"], ["verify", "--all"]):
            said = stack.devstack(*look, expect=3).out
            must(said.startswith("FAILED: key missing or wrong: "), f"`{' '.join(look)}` gives another word than its code: {said}")
        verdict = stack.devstack("status", "--format", "json", expect=3).json()["verdict"]
        must([finding["kind"] for finding in verdict["findings"]][0] == "shut", f"{verdict}")

    must_be_told()
    stack.passphrase.unlink()
    must_be_told()
    stack.passphrase.touch(mode=0o600)
    stack.passphrase.write_text("correct horse battery staple\n")
    stack.converged()


@scenario()
def pending_changes_are_exit_2_only_when_asked_for(world: World) -> None:
    stack = small_stack(world)
    stack.devstack("plan", expect=0)
    stack.devstack("plan", "--detailed-exitcode", expect=2)
    must(not stack.repository.exists(), "planning made the repository")
    must(not stack.journal.parent.exists(), "planning made .devstack")


@scenario()
def a_restore_in_place_is_held_without_approval_and_done_with_it(world: World) -> None:
    stack = small_stack(world)
    stack.devstack("apply", "--yes")
    site = stack.folder / "data/site/index.html"
    was = site.read_text()
    site.write_text("changed by hand")
    stack.devstack("restore", "site", "--in-place", "--yes", expect=4)
    must(site.read_text() == "changed by hand", "a restore that nobody approved overwrote data")
    stack.devstack("restore", "site", "--in-place", "--yes", "--approve", "restore:site", expect=0)
    must(site.read_text() == was, "the approved restore did not bring the file back")


@scenario()
def a_saved_plan_is_applied_once(world: World) -> None:
    stack = small_stack(world)
    plan = world.folder / "plan.json"
    stack.devstack("plan", "--out", str(plan))
    stack.devstack("apply", str(plan), "--yes", expect=0)
    stack.devstack("apply", str(plan), "--yes", expect=5)


@scenario()
def a_saved_plan_is_stale_when_the_file_has_moved_on(world: World) -> None:
    stack = small_stack(world)
    plan = world.folder / "plan.json"
    stack.devstack("plan", "--out", str(plan))
    stack.file.write_text(stack.file.read_text().replace("rto: 30m", "rto: 20m"))
    stack.devstack("apply", str(plan), "--yes", expect=5)
    must(not (stack.repository / "config").exists(), "a stale plan made the repository")


@scenario()
def a_source_that_disappears_fails_the_run_and_the_others_finish(world: World) -> None:
    stack = small_stack(world)
    stack.devstack("apply", "--yes")
    before = stack.runs()
    (stack.folder / "data/shop.db").unlink()
    stack.devstack("backup", expect=7)
    new = [run for name, run in stack.runs().items() if name not in before]
    must(len(new) == 1, f"one new run was expected, and there are {[run.run for run in new]}")
    must(not new[0].complete and not new[0].verified, f"a run without a source counts as good: {new[0].said}")
    shown = stack.devstack("show", new[0].run, expect=None)
    must("shop" in shown.said and "site" in shown.said, "`show` does not name the services of the partial run")
    refused = stack.devstack("verify", new[0].run, expect=None)
    must(refused.code != 0, "an incomplete run was verified with exit 0")


@scenario()
def an_empty_source_never_becomes_a_good_run(world: World) -> None:
    stack = write_stack(world, world.folder / "stack", services=[FILES_SITE])
    quickstart_data(stack.folder / "data")
    stack.devstack("apply", "--yes")
    before = stack.runs()
    for path in sorted((stack.folder / "data/site").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    ended = stack.devstack("backup", expect=None)
    must(ended.code in {4, 7}, f"a backup of nothing where there was data ended with {ended.code}")
    good = [name for name, run in stack.runs().items() if name not in before and run.complete]
    must(not good, f"emptiness became a complete run: {good}")


def interrupt(stack: Stack, which: signal.Signals) -> tuple[int, str]:
    """Sends the signal when a take has begun and has not ended."""
    process = stack.start("apply", "--yes", "--parallel", "1")

    def taking() -> bool:
        must(process.poll() is None, "apply ended before it took anything")
        return stack.is_taking("bulk")

    try:
        wait_until(taking, "the journal to say that a take has begun")
        os.kill(process.pid, which)
        said, _ = process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            process.kill()
            print(process.communicate()[0])
    print(said)
    return process.returncode, said


def interrupted_run_leaves_a_stack_that_converges(world: World, which: signal.Signals) -> None:
    stack = slow_stack(world)
    code, _ = interrupt(stack, which)
    must(code == 7, f"an apply interrupted by {which.name} ended with {code}, not with 7")
    leases = stack.repository / "devstack/leases"
    left = [path.name for path in leases.iterdir()] if leases.exists() else []
    must(not left, f"an interrupted apply left its lease: {left}")
    must(not any(run.complete for run in stack.runs().values()), "an interrupted run counts as complete")
    stack.devstack("apply", "--yes")
    stack.converged()
    must(any(run.verified for run in stack.runs().values()), "the apply after the interruption made no verified run")


@scenario()
def control_c_ends_an_apply_with_7_and_the_next_converges(world: World) -> None:
    interrupted_run_leaves_a_stack_that_converges(world, signal.SIGINT)


@scenario()
def sigterm_ends_an_apply_with_7_and_the_next_converges(world: World) -> None:
    interrupted_run_leaves_a_stack_that_converges(world, signal.SIGTERM)
