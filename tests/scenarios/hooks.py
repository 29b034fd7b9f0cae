"""Hooks on this machine: in their order, shown and recorded; those that fail, hang and are killed; never run by a look."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from content import quickstart_data
from scenario import World, must, scenario
from stack import FILES_SITE, SQLITE_SHOP, Stack, wait_until, write_stack

NOTE = '[sh, -c, "echo \\"$DEVSTACK_PHASE ${DEVSTACK_SERVICE:-all} $DEVSTACK_OUTCOME\\" >> order"]'


def stack_with(world: World, service: str, policy: str = "", name: str = "stack") -> Stack:
    site = FILES_SITE.replace("  site: { ", f"  site: {{ hooks: {{ {service} }}, ")
    stack = write_stack(world, world.folder / name, services=[SQLITE_SHOP, site])
    quickstart_data(stack.folder / "data")
    # No objective that only a drill measures: what is told here is of hooks.
    stack.file.write_text("".join(line for line in stack.file.read_text().splitlines(True) if "rto:" not in line))
    if policy:
        stack.file.write_text(stack.file.read_text().replace("    to: [local]\n", f"    to: [local]\n    hooks: {{ {policy} }}\n"))
    return stack


def order(stack: Stack) -> list[str]:
    """What the hooks have written, in their order, since the last look."""
    file = stack.folder / "order"
    lines = [line.strip() for line in file.read_text().splitlines()] if file.exists() else []
    file.unlink(missing_ok=True)
    return lines


def newest(stack: Stack) -> dict[str, object]:
    runs = stack.devstack("backups", "--format", "json").json()["runs"]
    found: dict[str, object] = max((run["manifest"] for run in runs), key=lambda manifest: manifest["run"])
    return found


def lives(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


@scenario()
def hooks_run_around_a_backup_and_are_on_record_without_secrets(world: World) -> None:
    secret = f"before: [ {{ run: {NOTE} }}, {{ run: [cat, key/passphrase] }} ], after: [ {{ run: {NOTE} }} ]"
    stack = stack_with(world, secret, f"before: [ {{ run: {NOTE} }} ], after: [ {{ run: {NOTE} }} ]")
    plan = stack.devstack("plan").out
    must("before site is taken; at most 5 min" in plan and "hooks to run" in plan, f"the plan does not show the hooks: {plan}")
    stack.devstack("check")
    stack.devstack("status", expect=8)
    must(order(stack) == [], "a look has run a hook")
    out = stack.devstack("apply", "--yes", "--parallel", "1")
    came = order(stack)
    must(came == ["before all", "before site", "after site taken", "after all taken"], f"not in their order: {came}")
    shown = stack.devstack("show", "latest").out
    must("before site: `cat key/passphrase`" in shown and "| ***" in shown, f"the record lacks a hook or its output: {shown}")
    for place in (out.said, shown, stack.journal.read_text(), json.dumps(newest(stack))):
        must("correct horse" not in place, "a secret that a hook printed shows")
    stack.converged()
    must(order(stack) == [], "an apply with nothing to take has run a hook")
    for arguments in (["restore", "site", "--to", str(world.folder / "out")], ["recover", "--dry-run"], ["verify"], ["plan"]):
        stack.devstack(*arguments)
    (stack.folder / "data/site/index.html").unlink()
    stack.devstack("recover", "--yes", expect={3, 8})
    stack.devstack("drill", expect=None)
    must(order(stack) == [], "a recovery or a drill has run a hook")
    stack.devstack("backup", "shop")
    must(order(stack) == ["before all", "after all taken"], "a backup of one service runs another's hooks")


@scenario()
def a_hook_that_fails_or_hangs_means_what_the_file_says(world: World) -> None:
    fails = 'run: [sh, -c, "echo no disk >&2; exit 3"]'
    stack = stack_with(world, f"before: [ {{ {fails} }}, {{ run: {NOTE} }} ], after: [ {{ run: {NOTE} }} ]", name="fails")
    said = stack.devstack("apply", "--yes", expect=7).said
    must("exit code 3" in said and "no disk" in said, f"it is not said why: {said}")
    must(order(stack) == ["after site failed"], "what was done before is not undone, or more was done")
    manifest = newest(stack)
    must("site" in json.dumps(manifest["services"]) and "no disk" in json.dumps(manifest["hooks"]), f"not on record: {manifest}")
    shop = manifest["services"]["shop"]  # type: ignore[index]
    must("taken" in shop, "a hook of one service stopped another")
    must("without site" in stack.devstack("backups").out, "a run without the service is good")

    stack = stack_with(world, f"before: [ {{ {fails}, on_failure: warn }} ]", name="warns")
    warned = stack.devstack("apply", "--yes")
    must("warning" in warned.said and "no disk" in warned.said, "a failure that is a warning is silent")
    must("verified" in stack.devstack("backups").out, "a warning has spoilt the run")

    stack = stack_with(world, f"after: [ {{ {fails} }} ]", name="after")
    stack.devstack("apply", "--yes", expect=7)
    must("verified" in stack.devstack("backups").out, "what was taken is thrown away for a hook after it")
    for look in (["status"], ["plan"], ["apply", "--yes"]):
        said = stack.devstack(*look, expect=7).said
        must("site/after" in said and "exit code 3" in said and "devstack backup site" in said, f"forgotten by the next {look[0]}: {said}")
    stack.file.write_text(stack.file.read_text().replace("exit 3", "exit 0"))
    stack.devstack("status", expect=0)  # another hook than the one that failed
    stack.file.write_text(stack.file.read_text().replace("exit 0", "exit 3"))
    stack.devstack("status", expect=7)
    (stack.folder / "once").write_text("")
    stack.file.write_text(stack.file.read_text().replace(fails, 'run: [rm, once]'))
    stack.devstack("backup", "site")
    stack.devstack("backup", "site", expect=7)
    stack.devstack("status", expect=7)
    (stack.folder / "once").write_text("")
    stack.devstack("backup", "site")
    stack.devstack("status", expect=0)

    hangs = '[sh, -c, "echo $$ > pid; trap \'\' TERM; sleep 3000 & wait; sleep 3000"]'
    stack = stack_with(world, f"before: [ {{ run: {hangs}, timeout: 1s }} ]", name="hangs")
    said = stack.devstack("apply", "--yes", expect=7).said
    must("took longer than 1.0 s" in said, f"a hook that hangs is not ended: {said}")
    must(not lives(int((stack.folder / "pid").read_text())), "a hook that hung is still there")

    stack = stack_with(world, "before: [ { run: [] } ], after: [ { run: [x], on_failure: ignore }, { run: [x], timeout: 0s } ]", name="wrong")
    wrong = stack.devstack("check", expect=3).said
    must("must be fail or warn" in wrong, f"{wrong}")
    stack.file.write_text(stack.file.read_text().replace("on_failure: ignore", "on_failure: warn"))
    wrong = stack.devstack("check", expect=3).said
    must("names no program" in wrong and "not a time limit" in wrong, f"{wrong}")


@scenario()
def a_hook_ends_with_devstack_however_that_ends(world: World) -> None:
    child = '[sh, -c, "sleep 3000 & echo $! > child; echo $$ > pid; wait"]'
    for name, sent in (("interrupted", signal.SIGTERM), ("killed", signal.SIGKILL)):
        stack = stack_with(world, f"before: [ {{ run: {child} }} ], after: [ {{ run: {NOTE} }} ]", name=name)
        process = stack.start("apply", "--yes")
        wait_until(lambda: (stack.folder / "pid").exists() and (stack.folder / "pid").read_text().endswith("\n"), "the hook runs")
        pids = [int((stack.folder / file).read_text()) for file in ("pid", "child")]
        os.kill(process.pid, sent)
        process.wait()
        wait_until(lambda: not any(lives(pid) for pid in pids), f"{name}: the hook and its child are gone")
        must(process.returncode != 0, f"{name}: the exit code is 0")
        for look in ("status", "plan"):
            said = stack.devstack(look, expect=7).said
            must("site/after" in said and "cut off" in said, f"{name}: nobody tells that the hook after it has not run: {said}")
        # And nothing of it stands in the way of the next one.
        stack.file.write_text(stack.file.read_text().replace(child, "[echo]"))
        stack.devstack("apply", "--yes")
        stack.converged()
        stack.devstack("status")
