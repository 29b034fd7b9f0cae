"""What a person meets in the first days with nothing but the README: folders taken whole, single files deleted, words mistyped, a
file without a schedule."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from content import quickstart_data
from oracle import Restic
from scenario import World, must, scenario
from stack import FILES_SITE, SQLITE_SHOP, Stack, runs_in, wait_until, write_stack


def new_stack(world: World, name: str = "stack", services: list[str] | None = None) -> Stack:
    """With no objective that only a drill measures."""
    stack = write_stack(world, world.folder / name, services=services)
    stack.file.write_text("".join(line for line in stack.file.read_text().splitlines(True) if "rto:" not in line))
    quickstart_data(stack.folder / "data")
    return stack


@scenario("restic")
def a_folder_that_is_taken_whole_holds_nothing_of_devstacks_own(world: World) -> None:
    # A repository within is refused by the check, which says how to leave it out.
    everything = "  whole: { source: { files: { paths: [.], exclude: [/backups] } } }"
    stack = new_stack(world, services=[SQLITE_SHOP, everything])
    (stack.folder / "key/notes.txt").write_text("not a key\n")
    (stack.folder / "data/.devstack").mkdir()
    (stack.folder / "data/.devstack/mine").write_text("another stack's, below\n")
    first = stack.devstack("apply", "--yes").said
    [told] = [line for line in first.splitlines() if "left out" in line]
    must(all(own in told for own in ("whole: ", ".devstack", "key/passphrase")), f"it is not told what is left out: {told}")
    again = stack.devstack("backup", "whole").said
    must("left out" not in again, f"it is told again: {again}")
    [whole, *_] = [snapshot for snapshot in Restic(stack.repository, "correct horse battery staple").snapshots() if "service:whole" in snapshot.tags]
    listed = Restic(stack.repository, "correct horse battery staple")("ls", whole.id).decode()
    for own in ("/stack/.devstack", "/stack/backups", "/stack/key/passphrase"):
        must(own not in listed.splitlines() and f"{own}/" not in listed, f"{own} was taken: {listed}")
    for own in ("/stack/devstack.yaml", "/stack/key/notes.txt", "/stack/data/.devstack/mine", "/stack/data/shop.db"):
        must(own in listed, f"{own} was not taken: {listed}")
    # What a person names is what they mean.
    stack.file.write_text(stack.file.read_text().replace("paths: [.], exclude: [/backups]", "paths: [key/passphrase]"))
    stack.devstack("backup", "whole")


@scenario()
def a_recovery_tells_of_single_files_that_are_missing_and_overwrites_nothing(world: World) -> None:
    stack = new_stack(world)
    site = stack.folder / "data/site"
    (site / "link").symlink_to("index.html")
    stack.devstack("apply", "--yes")
    stack.devstack("recover", "--dry-run")
    said = stack.devstack("recover", "--dry-run", "--backup", "20200101T000000Z-regular", expect=3).said
    must("20200101T000000Z-regular" in said, f"a run that nobody has is not told where nothing is gone: {said}")

    (site / "index.html").unlink()
    (site / "link").unlink()
    kept = sorted(path for path in site.rglob("*") if path.is_file())
    changed = kept[0]
    changed.write_text("changed since\n")
    for look in (["recover", "--dry-run"], ["recover", "--yes"]):
        said = stack.devstack(*look, expect=8).said
        text = " ".join(said.split())
        must("MISSING" in text and "2 of " in text and "data/site/index.html, data/site/link" in text, f"not told: {said}")
        must("Nothing is gone" not in text and "`devstack restore site`" in text, f"it is called whole: {said}")
    verdict = json.loads(stack.devstack("recover", "--yes", "--format", "json", expect=8).out.splitlines()[-1])["verdict"]
    must(verdict["word"] == "DEGRADED" and "files missing" in verdict["line"], f"the verdict is {verdict}")
    must(changed.read_text() == "changed since\n" and not (site / "index.html").exists(), "a recovery has written over what is there")
    stack.devstack("restore", "site", "--to", str(world.folder / "out"))
    must((world.folder / "out/stack/data/site/index.html").is_file(), "the advice does not bring it")

    text = stack.file.read_text()
    for line in ('exclude: ["index.html", "link"]', ""):
        paths = "paths: [data/site]" + (f", {line}" if line else "")
        shrinking = "" if line else ", shrinking: { volatile: [index.html, link] }"
        stack.file.write_text(text.replace("paths: [data/site] } }", paths + " } }" + shrinking))
        stack.devstack("recover", "--dry-run", expect=0)
    stack.file.write_text(text)
    stack.devstack("recover", "--dry-run", expect=8)
    stack.devstack("backup", "site")
    must("Nothing is gone" in stack.devstack("recover", "--yes", expect=0).said, "what was taken as it is is missed")
    # A service that is gone comes back, and what another lacks is told all the same.
    changed.unlink()
    (stack.folder / "data/shop.db").unlink()
    said = stack.devstack("recover", "--yes", expect=8).said
    must("Recovery complete" in said and "MISSING" in said and (stack.folder / "data/shop.db").is_file(), f"{said}")
    # An apply that brings back what is lost goes on with what is due.
    (stack.folder / "data/shop.db").unlink()
    stack.devstack("apply", "--yes", "--approve", "recover", expect=0)


@scenario()
def what_is_lost_is_named_and_not_the_list_that_it_is_in(world: World) -> None:
    several = "  conf: { source: { files: { paths: [.env, devstack.yaml, 'conf/*.ini'] } } }"
    stack = new_stack(world, services=[SQLITE_SHOP, several])
    (stack.folder / ".env").write_text("A=1\n")
    (stack.folder / "conf").mkdir()
    (stack.folder / "conf/a.ini").write_text("a\n")
    stack.devstack("apply", "--yes")
    (stack.folder / ".env").unlink()
    said = stack.devstack("status", expect=7).said
    must("LOST" in said and "conf/data: .env is gone" in said and "one of" not in said, f"it is not told which: {said}")
    (stack.folder / "conf/a.ini").unlink()
    said = stack.devstack("status", expect=7).said
    must(".env, conf/*.ini are gone" in said, f"it is not told which: {said}")


@scenario()
def a_word_of_approval_that_no_step_can_wait_for_stops_before_anything_is_done(world: World) -> None:
    stack = new_stack(world)
    for word, meant in (("bogus", "kinds:"), ("forgte:local", "`forget`"), ("restore:shpo", "restore:shop")):
        said = stack.devstack("apply", "--yes", "--approve", word, expect=3).said
        must(f"--approve {word}" in said and meant in said, f"{word}: {said}")
        must(not stack.repository.exists(), f"{word}: something was done")
    stack.devstack("apply", "--yes", "--approve", "forget:local", "--approve", "retention:regular", "--approve", "take")
    must(len(runs_in(stack.devstack("backups", "--format", "json").json())) == 1, "what was due was not done")


@scenario()
def a_policy_without_a_schedule_is_told_until_somebody_takes_it_by_hand(world: World) -> None:
    stack = new_stack(world)
    text = "".join(line for line in stack.file.read_text().splitlines(True) if "schedule:" not in line and "rpo:" not in line)
    stack.file.write_text(text.replace("recovery:\n", ""))
    must("has no schedule" in stack.devstack("check").said, "the check says nothing of it")
    stack.devstack("apply", "--yes", "--strict", expect=8)
    said = stack.devstack("status", expect=8).said
    must(said.startswith("DEGRADED: nothing takes it again: regular/backup\n"), f"{said}")
    must(stack.devstack("plan", expect=0).said.startswith("DEGRADED: nothing takes it again"), "the plan is green")
    stack.file.write_text(stack.file.read_text().replace("    services: all\n", "    services: all\n    manual: true\n"))
    must("schedule" not in stack.devstack("check").said, "the check tells what was answered")
    must(stack.devstack("status", expect=0).said.startswith("OK\n"), "who takes it by hand is not believed")


@scenario()
def a_newest_run_that_was_cut_off_is_degraded_until_another_is_taken(world: World) -> None:
    waits = '[sh, -c, "test ! -e block || sleep 3000"]'
    site = FILES_SITE.replace("  site: { ", f"  site: {{ hooks: {{ before: [ {{ run: {waits} }} ] }}, ")
    stack = new_stack(world, services=[SQLITE_SHOP, site])
    stack.devstack("apply", "--yes")
    stack.devstack("status", expect=0)
    (stack.folder / "block").touch()
    process = stack.start("backup")
    wait_until(lambda: [str(entry) for entry in stack.journal_entries()].count("step_ended take shop/backup") == 2, "shop is taken")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    (stack.folder / "block").unlink()
    for look, code in ((["status"], 8), (["plan"], 0), (["plan", "--strict"], 8), (["apply", "--yes"], 0), (["status"], 8)):
        said = stack.devstack(*look, expect=code).said
        must("run interrupted: local/" in said, f"{look[0]} does not tell of it: {said}")
        must("no later one has taken shop, site; `devstack backup`" in " ".join(said.split()) or look[0] == "apply", f"{said}")
    stack.devstack("backup", "shop")
    must("has taken site;" in stack.devstack("status", expect=8).said, "what was taken since is told too")
    stack.devstack("backup")
    stack.devstack("status", expect=0)


@scenario()
def a_backup_that_was_killed_before_it_left_a_trace_is_told(world: World) -> None:
    waits = '[sh, -c, "echo >reached; test ! -e block || sleep 3000"]'
    site = FILES_SITE.replace("  site: { ", f"  site: {{ hooks: {{ before: [ {{ run: {waits} }} ] }}, ")
    stack = new_stack(world, services=[SQLITE_SHOP, site])
    stack.devstack("apply", "--yes")
    for word in (signal.SIGKILL, signal.SIGTERM):
        (stack.folder / "block").touch()
        (stack.folder / "reached").unlink()
        process = stack.start("backup", "site")
        wait_until((stack.folder / "reached").exists, "the hook runs")
        os.killpg(process.pid, word)
        process.communicate()
        (stack.folder / "block").unlink()
        said = stack.devstack("status", expect=8).said
        must("run interrupted: site/backup" in said and "`devstack backup site`" in said, f"it is not told: {said}")
        stack.devstack("backup", "site")
        stack.devstack("status", expect=0)


@scenario()
def files_whose_restore_was_killed_are_told_and_not_taken_unasked(world: World) -> None:
    stack = new_stack(world)
    files = [stack.folder / f"data/site/large-{number}" for number in range(30)]
    for file in files:
        file.write_bytes(os.urandom(1_000_000))
    stack.devstack("apply", "--yes")
    right = {file: file.read_bytes() for file in files}
    for file in files:
        file.write_bytes(b"x" * 1_000_000)
    is_back = lambda file: file.read_bytes() == right[file]
    process = stack.start("restore", "site", "--in-place", "--yes", "--approve", "restore:site")
    wait_until(lambda: any(map(is_back, files)), "one is back")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    must(not all(map(is_back, files)), "all were back before the kill")
    said = stack.devstack("status", expect=7).said
    must("UNFINISHED" in said and "devstack restore site" in said, f"it is not told: {said}")
    held = stack.devstack("backup", "site", expect=4).said
    must("take:site" in held, f"half of a restore is taken: {held}")
    # What a kill may have left of a file that was not whole.
    left = files[0].with_name(".devstack-restoring-0123456789abcdef")
    left.write_text("half")
    stack.devstack("backup", "site", "--approve", "take:site")
    stack.devstack("status", expect=0)
    out = world.folder / "out"
    stack.devstack("restore", "site", "--backup", "latest", "--to", str(out))
    must(not [*out.rglob(left.name)], "what a restore has left was taken")
    first = min(runs_in(stack.devstack("backups", "--format", "json").json()))
    stack.devstack("restore", "site", "--backup", first, "--in-place", "--yes", "--approve", "restore:site")
    must(all(map(is_back, files)), "not all is as it was")
    must(not left.exists(), "the next restore has not swept it")


@scenario()
def a_first_look_greets_nobody_with_drift(world: World) -> None:
    site = '  site: { source: { files: { paths: [data/site], exclude: ["*.tmp"] } } }'
    stack = new_stack(world, services=[SQLITE_SHOP, site])
    must("drift" not in stack.devstack("plan").said, "nothing was ever taken, and something is called drift")
    must("*.tmp" in stack.devstack("apply", "--yes").said, "a pattern that matches nothing is not told by the take")
    must("drift" in stack.devstack("plan").said, "a pattern that matches nothing is not told any more")


@scenario()
def files_come_back_and_are_drilled_where_no_engine_answers(world: World) -> None:
    stack = new_stack(world)
    stack.file.write_text(stack.file.read_text().replace("services:\n", "runtime: { docker: { project: shop } }\nservices:\n", 1))
    stack.environment["DOCKER_HOST"] = f"unix://{world.folder}/no.sock"
    stack.devstack("apply", "--yes")
    passed = stack.devstack("drill").said
    must("no Docker engine answers" not in passed, f"files were drilled by way of an engine: {passed}")
    stack.devstack("drill", "--only", "shop", expect={0, 8})
    (stack.folder / "data/shop.db").unlink()
    back = stack.devstack("recover", "--yes").said
    must("Recovery complete" in back and (stack.folder / "data/shop.db").is_file(), f"{back}")
