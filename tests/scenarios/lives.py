"""Longer lives of a stack: what it becomes over several applies."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import time
from pathlib import Path

from content import change_rows, make_database, make_site
from oracle import Restic
from scenario import World, must, scenario
from stack import FILES_SITE, PASSPHRASE, SQLITE_SHOP, Stack, write_stack

PASSWORD = "correct horse battery staple"
TWO = """\
version: 1
stack: scenario
services:
  shop: { source: { sqlite: { path: data/shop.db } } }
repositories:
  local: { path: ./backups, keys: [ { passphrase: { file: ./key/passphrase } } ] }
  other: { path: ./elsewhere, keys: [ { passphrase: { file: ./key/passphrase } } ] }
backup:
  regular: { services: all, schedule: { cron: "0 0 * * *" }, to: [local, other] }
"""


def stack_with_data(world: World, **arguments: object) -> Stack:
    stack = write_stack(world, world.folder / "stack", **arguments)  # type: ignore[arg-type]
    make_database(stack.folder / "data/shop.db", random.Random(1), 1.0)
    make_site(stack.folder / "data/site", random.Random(2))
    return stack


def picture(folder: Path) -> dict[str, tuple[int, int, str]]:
    """Every file below with mode, time and content, so that a change of any shows."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() and not path.is_symlink() else ""
        found[str(path.relative_to(folder))] = (status.st_mode, status.st_mtime_ns, content)
    return found


@scenario()
def looking_changes_nothing(world: World) -> None:
    stack = stack_with_data(world)
    before = picture(stack.folder)
    stack.devstack("plan")
    stack.devstack("check")
    must(picture(stack.folder) == before, "`plan` on a new stack wrote something")
    stack.devstack("apply", "--yes")
    stack.devstack("backup")
    before = picture(stack.folder)
    for verb in (["plan"], ["plan", "--format", "markdown"], ["plan", "--format", "json"], ["backups"], ["log"], ["status"]):
        stack.devstack(*verb, expect=8 if verb == ["status"] else 0)
    must(picture(stack.folder) == before, "a verb that only looks wrote something")


@scenario("restic")
def a_run_is_copied_to_the_second_repository_and_proven_there(world: World) -> None:
    stack = stack_with_data(world)
    stack.file.write_text(TWO)
    stack.devstack("apply", "--yes")
    stack.converged()
    change_rows(stack.folder / "data/shop.db", random.Random(3), 10, 20)
    stack.devstack("backup")
    copies = stack.devstack("backups", "--format", "json").json()["runs"]
    held = {(run["repository"], run["manifest"]["run"]): run for run in copies}
    must(len(held) == 4, f"two runs in two repositories were expected, and there are {sorted(held)}")
    must(all(run["verified"] for run in copies), "a copy is not verified")
    Restic(stack.folder / "elsewhere", PASSWORD).check(read_data=True)
    # With the first repository gone, everything comes from the copy.
    shutil.rmtree(stack.repository)
    stack.devstack("restore", "shop", "--from", "other", "--to", str(world.folder / "restored"))
    live, back = stack.folder / "data/shop.db", world.folder / "restored/shop.db"
    must(live.stat().st_size == back.stat().st_size, "the copy gave back a database of another size")


@scenario("restic")
def a_repository_that_was_made_before_and_is_gone_is_not_made_anew_unasked(world: World) -> None:
    stack = stack_with_data(world)
    stack.devstack("apply", "--yes")
    moved = stack.folder / "unmounted"
    stack.repository.rename(moved)
    held = stack.devstack("apply", "--yes", expect=4)
    must("create:local" in held.said, "the held step does not say how it is approved")
    must(not (stack.repository / "config").exists(), "a new repository was made where one was before")
    shutil.rmtree(stack.repository, ignore_errors=True)
    moved.rename(stack.repository)
    stack.devstack("apply", "--yes")


@scenario("restic")
def keys_change_by_plan_and_removal_needs_a_word(world: World) -> None:
    second = "{ passphrase: { file: ./key/second } }"
    stack = stack_with_data(world)
    stack.devstack("apply", "--yes")
    other = stack.folder / "key/second"
    other.touch(mode=0o600)
    other.write_text("another long passphrase\n")
    stack.file.write_text(stack.file.read_text().replace(PASSPHRASE, f"{PASSPHRASE}\n      - {second}"))
    stack.devstack("apply", "--yes")
    Restic(stack.repository, "another long passphrase").check(read_data=False)
    stack.file.write_text(stack.file.read_text().replace(f"{PASSPHRASE}\n      - ", ""))
    stack.devstack("apply", "--yes", expect=4)
    Restic(stack.repository, PASSWORD).check(read_data=False)
    stack.devstack("apply", "--yes", "--approve", "remove-key:local")
    must(len(list((stack.repository / "keys").iterdir())) == 1, "the removed key is still there")
    Restic(stack.repository, "another long passphrase").check(read_data=False)
    stack.converged()


@scenario()
def a_source_that_shrank_is_suspect_until_somebody_accepts_it(world: World) -> None:
    stack = stack_with_data(world, services=[SQLITE_SHOP])
    stack.devstack("apply", "--yes")
    database = stack.folder / "data/shop.db"
    database.unlink()
    make_database(database, random.Random(4), 0.3)
    stack.devstack("backup")
    shown = stack.devstack("backups")
    must("SUSPECT" in shown.said, "a run of a shrunken source is not marked")
    held = stack.devstack("apply", "--yes", expect=4)
    must("accept:shop" in held.said, "the plan does not say how a shrink is accepted")
    stack.devstack("apply", "--yes", "--approve", "accept:shop")
    stack.converged()


@scenario("restic")
def old_runs_are_forgotten_and_restic_still_agrees(world: World) -> None:
    stack = stack_with_data(world, retention="{ last: 2 }")
    stack.devstack("apply", "--yes")
    for number in range(4):
        change_rows(stack.folder / "data/shop.db", random.Random(number), number * 50, 40)
        stack.devstack("backup")
        time.sleep(1.05)  # a run's id is its second, and retention orders by it
    held = stack.devstack("apply", "--yes", expect=4)
    must("forget:local" in held.said, "forgetting two of five runs at once is not held")
    stack.devstack("apply", "--yes", "--approve", "forget:local")
    runs = stack.runs()
    must(len(runs) == 3, f"two by the rule and the one with the slot were to stay: {sorted(runs)}")
    must(all(run.verified for run in runs.values()), "a run that stayed is not verified")
    Restic(stack.repository, PASSWORD).check(read_data=True)
    stack.converged()
    # A tighter rule is somebody's decision, not a side effect of an edit.
    stack.file.write_text(stack.file.read_text().replace("last: 2", "last: 1"))
    held = stack.devstack("apply", "--yes", expect=4)
    must("retention:regular" in held.said, "a tightened rule is not held")


@scenario()
def losing_the_cache_changes_nothing(world: World) -> None:
    stack = stack_with_data(world)
    plan = world.folder / "plan.json"
    stack.devstack("plan", "--out", str(plan))
    stack.devstack("apply", str(plan))
    before = stack.runs()
    shutil.rmtree(stack.folder / ".devstack")
    stack.converged()
    after = stack.runs()
    must(sorted(before) == sorted(after) and all(run.verified for run in after.values()), "a run was lost with the cache")
    stack.devstack("apply", str(plan), expect=5)
    # Nothing has measured its recovery yet.
    stack.devstack("status", expect=8)


@scenario("restic")
def a_restic_that_works_in_the_repository_holds_a_prune_back(world: World) -> None:
    stack = stack_with_data(world, services=[FILES_SITE], retention="{ last: 1 }")
    stack.devstack("apply", "--yes")
    for number in range(4):
        (stack.folder / "data/site/new.txt").write_text(f"{number}" * 100)
        stack.devstack("backup")
        time.sleep(1.05)
    lock = stack.repository / "locks" / ("0" * 64)
    lock.write_text("a lock of restic's")
    os.chmod(lock, 0o600)
    before = len(stack.runs())
    stack.devstack("apply", "--yes", expect=None)
    stack.devstack("forget", min(stack.runs()), "--approve", "forget:local", "--yes", expect=None)
    must(len(stack.runs()) == before, "runs were forgotten beside a restic lock")
    lock.unlink()
    stack.devstack("apply", "--yes", "--approve", "forget:local")
    must(len(stack.runs()) < before, "nothing was forgotten after the lock was gone")


@scenario()
def a_plan_is_not_saved_over_a_file_that_is_no_plan(world: World) -> None:
    stack = stack_with_data(world)
    for name in ("key/passphrase", "data/shop.db", "devstack.yaml"):
        before = (stack.folder / name).read_bytes()
        stack.devstack("plan", "--out", str(stack.folder / name), expect=3)
        must((stack.folder / name).read_bytes() == before, f"a plan was saved over {name}")
    stack.devstack("plan", "--out", str(stack.folder / "nowhere/plan.json"), expect=3)
    must(not (stack.folder / "nowhere").exists(), "a folder was made for a plan")
    plan = str(world.folder / "plan.json")
    stack.devstack("plan", "--out", plan)
    stack.devstack("plan", "--out", plan)


@scenario()
def damage_to_a_record_does_not_keep_data_from_coming_back(world: World) -> None:
    stack = stack_with_data(world)
    stack.devstack("apply", "--yes")
    run = min(stack.runs())
    packs = sorted((stack.repository / "data").rglob("*"), key=lambda path: path.stat().st_size)
    records = [path for path in packs if path.is_file() and path.stat().st_size < 2_000]
    lost = []
    for number, pack in enumerate(records):
        whole = pack.read_bytes()
        pack.chmod(0o600)
        pack.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
        # By its name: without its proof a run is not chosen unasked.
        back = stack.devstack("restore", "shop", "--backup", run, "--to", str(world.folder / f"back-{number}"), expect=None)
        # Without its manifest it is no run, and a tree of its own data is its data; restic still has the other snapshots.
        if back.code != 0 and "the manifest" not in back.said and "cannot be read back" not in back.said:
            lost.append(pack.name)
        pack.write_bytes(whole)
    world.note(f"{len(records)} small packs damaged in turn")
    must(len(records) >= 6 and not lost, f"damage to records keeps the data from coming back: {lost}")
    stack.devstack("verify", "--all", "--data")


@scenario()
def a_source_that_is_gone_is_said_at_every_look(world: World) -> None:
    stack = stack_with_data(world)
    stack.devstack("apply", "--yes")
    (stack.folder / "data/shop.db").unlink()
    for verb in (["plan"], ["apply", "--yes"], ["status"]):
        # A timer that runs `apply` between two slots must not stay green.
        said = stack.devstack(*verb, expect=4 if verb[0] == "apply" else 7).said
        must("LOST" in said and "gone" in said, f"`{verb[0]}` does not say that the source is gone")
        must("as declared" not in said, f"`{verb[0]}` calls a stack without its source as declared")
    stack.devstack("backup", expect=7)
    must("FAILED" in stack.devstack("status", expect=7).said, "status does not say that the newest run is incomplete")
    must(stack.devstack("status", "--cached", expect=7).out.startswith("FAILED: lost: shop/data; newest run incomplete: "), "the cache says less")
    # The recovery is planned, and nothing of it is done unasked.
    held = stack.devstack("apply", "--yes", expect=4).said
    must("HELD" in held and "--approve recover" in held and not (stack.folder / "data/shop.db").exists(), held)
    back = stack.devstack("apply", "--yes", "--approve", "recover", expect=7).out
    must((stack.folder / "data/shop.db").exists(), "the source did not come back")
    must("LOST" not in back.split("Recovery complete")[1] and "newest run incomplete" in back, "the run that failed is forgotten")
    stack.devstack("backup")
    stack.devstack("apply", "--yes", expect=0)
    stack.devstack("apply", "--yes", "--strict", expect=8)
    must(stack.devstack("drill", expect=0).out.startswith("OK\n"), "the first line of a drill that passed is not OK")
    must("as declared" in stack.devstack("apply", "--yes", "--strict", expect=0).said, "after the recovery all is well again")
    must(stack.devstack("status", expect=0).out.startswith("OK\n"), "the first line of `status` is not OK")


@scenario()
def many_first_applies_all_succeed(world: World) -> None:
    """Records replace each other while a proof reads them: what was listed may be gone when it is read."""
    for number in range(8):
        stack = write_stack(world, world.folder / f"stack-{number}", services=[FILES_SITE], retention="{ last: 3 }")
        make_site(stack.folder / "data/site", random.Random(number), files=3)
        stack.devstack("apply", "--yes")


@scenario()
def on_an_empty_machine_the_file_comes_out_of_the_repository_first(world: World) -> None:
    stack = stack_with_data(world)
    stack.devstack("apply", "--yes")
    text, before = stack.file.read_text(), picture(stack.folder / "data")
    # A safety copy is newer than the run, and none to begin with.
    stack.devstack("restore", "site", "--in-place", "--yes", "--approve", "restore:site")
    init = ("init", "--from", "backups", "--passphrase-file", "key/passphrase")
    must("stays as it is" in stack.devstack(*init, expect=3).said, "a file that is there is not left alone")
    # What a person has elsewhere: the repository and its key.
    shutil.rmtree(stack.folder / "data")
    shutil.rmtree(stack.folder / ".devstack")
    stack.file.unlink()
    said = stack.devstack(*init).out
    must(stack.file.read_text() == text and "devstack recover" in said, f"the file is another: {said}")
    stack.devstack("recover", "--yes")
    must(picture(stack.folder / "data/site") == {name.removeprefix("site/"): it for name, it in before.items() if name.startswith("site/")},
         "the files came back otherwise")
    # Somewhere else the file's own path leads nowhere, which is said.
    stack.file.unlink()
    (stack.folder / "backups").rename(stack.folder / "disk")
    elsewhere = ("init", "--from", "disk")
    said = stack.devstack(*elsewhere, "--passphrase-file", "key/passphrase").out
    must("the path of the one in disk" in said and "./backups" in said, f"it is not said that the repository is elsewhere: {said}")
    stack.file.unlink()
    no_repository = stack.devstack("init", "--from", "data", expect=3).said
    must("no repository" in no_repository, f"it is not said that there is no repository: {no_repository}")
    (stack.folder / "wrong").write_text("wrong")
    (stack.folder / "wrong").chmod(0o600)
    stack.devstack(*elsewhere, "--passphrase-file", "wrong", expect=3)
    must("holds no run of other" in stack.devstack(*elsewhere, "--passphrase-file", "key/passphrase", "--stack", "other", expect=3).said, "another stack was taken")
    must("there is no run" in stack.devstack(*elsewhere, "--passphrase-file", "key/passphrase", "--run", "20000101T000000Z-x", expect=3).said, "another run was taken")
    must(not stack.file.exists(), "a file was written all the same")
