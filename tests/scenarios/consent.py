"""Consent by harm: what is gone comes back on one yes, what overwrites or deletes takes its word, a no changes nothing."""

from __future__ import annotations

import json
from pathlib import Path

from content import quickstart_data
from exit_codes import small_stack
from scenario import World, must, scenario
from stack import FILES_SITE, SQLITE_SHOP, Stack, write_stack

NO = "Cancelled, nothing changed."
YES = "Type yes:"


def settled(world: World, name: str = "stack") -> Stack:
    stack = small_stack(world, name)
    stack.devstack("apply", "--yes")
    return stack


def contents(stack: Stack) -> dict[str, object]:
    """All that a no must leave as it is: data, and every file of the repository but leases."""
    found = [path for top in ("data", "backups") for path in sorted((stack.folder / top).rglob("*")) if path.is_file()]
    return {str(path.relative_to(stack.folder)): path.read_bytes() for path in found if "leases" not in path.parts}


def change(stack: Stack) -> Path:
    site = stack.folder / "data/site/index.html"
    site.write_text("changed by hand")
    return site


@scenario()
def what_is_gone_comes_back_on_one_yes(world: World) -> None:
    stack = settled(world)
    for number, command in enumerate((["recover"], ["restore", "shop", "--in-place"], ["apply", "--approve", "recover"])):
        (stack.folder / "data/shop.db").unlink()
        # One question, and no other after it: a second one would wait for ever.
        asked = stack.at_a_terminal(*command, answers=[(YES, lambda: None, "yes")])
        must(asked.code == 0 and (stack.folder / "data/shop.db").exists(), f"{number}: one yes was not enough: {asked.code}")
    (stack.folder / "data/shop.db").unlink()
    stack.devstack("recover", "--yes")
    (stack.folder / "data/shop.db").unlink()
    stack.devstack("restore", "shop", "--in-place", "--yes")


@scenario()
def yes_never_overwrites_or_deletes(world: World) -> None:
    stack = settled(world)
    stack.devstack("backup")
    stack.devstack("backup")
    site = change(stack)
    before = contents(stack)
    oldest = min(stack.runs())
    for command, word in (
        (["recover", "--replace"], "restore"),
        (["recover", "--replace", "--without-safety"], "restore"),
        (["recover", "--replace", "--only", "site"], "restore:site"),
        (["restore", "site", "--in-place"], "restore:site"),
        (["restore", "site", "--in-place", "--without-safety"], "restore:site"),
        (["forget", oldest], "forget:local"),
    ):
        refused = stack.devstack(*command, "--yes", expect=4).said
        must(f"--approve {word}" in refused, f"{command}: the word is not told: {refused}")
        # Nor by a word that is not the step's.
        stack.devstack(*command, "--yes", "--approve", "accept:shop", "--approve", "take", expect=4)
        stack.devstack(*command, "--yes", "--approve", "restore:other", expect=3)
        must(contents(stack) == before, f"{command}: something was changed")
    stack.devstack("recover", "--replace", "--yes", "--approve", "restore")
    must(site.read_text() != "changed by hand", "what was approved was not done")
    refused = stack.devstack("recover", "--rollback", "--yes", expect=4).said
    must("--approve rollback" in refused and site.read_text() != "changed by hand", f"a rollback was not asked for: {refused}")
    stack.devstack("recover", "--rollback", "--yes", "--approve", "rollback")
    must(site.read_text() == "changed by hand", "the rollback was not carried out")


@scenario()
def a_no_changes_nothing_and_says_so_in_every_verb(world: World) -> None:
    stack = settled(world)
    stack.devstack("backup")
    stack.devstack("backup")
    change(stack)
    (stack.folder / "data/shop.db").unlink()
    before = contents(stack)
    oldest = min(stack.runs())
    word, words = "anything else skips it:", "anything else skips them:"
    for command, answers in (
        (["recover"], [(YES, "no")]),
        (["recover"], [(YES, "")]),
        (["recover"], [(YES, "y")]),
        (["restore", "site", "--in-place"], [(YES, "no")]),
        (["restore", "site", "--in-place"], [(YES, "yes"), (word, "no")]),
        (["recover", "--replace"], [(YES, "yes"), (word, "restore:shop")]),
        (["forget", oldest], [(YES, "no")]),
        (["forget", oldest], [(YES, "yes"), (word, "yes")]),
        (["apply", "--approve", "recover"], [(YES, "no")]),
    ):
        said = stack.at_a_terminal(*command, answers=[(question, lambda: None, answer) for question, answer in answers])
        must(said.code == 4 and NO in said.out and "next:" not in said.out, f"{command} {answers}: {said.code}")
        must(contents(stack) == before, f"{command}: something was changed")
        must(not (stack.folder / ".devstack/recovery.json").exists(), f"{command}: a recovery is left unfinished")
    stack.devstack("recover", "--yes")
    # Of several of one kind, all by the kind, or some by their words.
    said = stack.at_a_terminal("recover", "--replace", answers=[(YES, lambda: None, "yes"), (words, lambda: None, "restore:site")])
    must(said.code == 4 and NO in said.out, "a recovery was begun without all of its words")
    said = stack.at_a_terminal("recover", "--replace", answers=[(YES, lambda: None, "yes"), (words, lambda: None, "restore")])
    must(said.code == 0, f"the kind did not approve both: {said.code}")


@scenario()
def of_files_of_which_one_is_gone_the_others_are_not_overwritten(world: World) -> None:
    files = "  configuration: { source: { files: { paths: [.env, settings.yml] } } }"
    stack = write_stack(world, world.folder / "stack", services=[files])
    (stack.folder / ".env").write_text("A=1\n")
    (stack.folder / "settings.yml").write_text("old\n")
    stack.devstack("apply", "--yes")
    (stack.folder / ".env").unlink()
    (stack.folder / "settings.yml").write_text("edited since\n")
    stack.devstack("restore", "configuration", "--in-place", "--yes")
    must((stack.folder / ".env").read_text() == "A=1\n", "what was gone did not come back on one yes")
    must((stack.folder / "settings.yml").read_text() == "edited since\n", "a file that was there was overwritten unasked")


@scenario()
def where_docker_is_down_one_cause_is_one_line(world: World) -> None:
    servers = [f"  {name}: {{ source: {{ redis: {{ containers: [{name}] }} }} }}" for name in ("one", "two", "three")]
    stack = write_stack(world, world.folder / "stack", services=[SQLITE_SHOP, FILES_SITE, *servers])
    quickstart_data(stack.folder / "data")
    stack.environment["DOCKER_HOST"] = f"unix://{stack.folder}/nowhere.sock"
    stack.devstack("apply", "--yes", expect=7)
    cause = "no Docker engine answers"
    for command in (["plan"], ["status"], ["recover", "--yes"], ["recover", "--replace", "--yes", "--approve", "restore"]):
        said = stack.devstack(*command, expect=None)
        told = " ".join(said.said.split())
        must(said.code == 7 and told.count(cause) == 1, f"{command}: the cause is told {told.count(cause)} times: {said.code}")
        must(all(name in told for name in ("one", "two", "three")), f"{command}: it is not told what it concerns")
        must("--replace" not in said.said, f"{command}: an advice would put runs over healthy data")


@scenario()
def who_approved_what_is_on_record_in_the_repository(world: World) -> None:
    stack = settled(world)
    stack.devstack("backup")
    stack.devstack("backup")
    must("Nothing yet" in stack.devstack("log", "--approvals").said, "a plain yes to backups is on record")
    (stack.folder / "data/shop.db").unlink()
    stack.at_a_terminal("recover", answers=[(YES, lambda: None, "yes")])
    change(stack)
    stack.devstack("restore", "site", "--in-place", "--yes", "--approve", "restore:site")
    # What was refused or cancelled is no approval.
    stack.devstack("restore", "site", "--in-place", "--yes", expect=4)
    stack.at_a_terminal("restore", "site", "--in-place", answers=[(YES, lambda: None, "no")])
    text = stack.file.read_text()
    stack.file.write_text(text.replace("to: [local]", "to: [local]\n    retention: { last: 2 }"))
    plan = world.folder / "plan.json"
    stack.devstack("plan", "--out", str(plan))
    stack.devstack("apply", str(plan), expect=None)
    # Nor is it kept on this machine alone.
    (stack.folder / ".devstack").rename(stack.folder / "gone")
    lines = stack.devstack("log", "--approvals", "--format", "json").out.splitlines()
    told = [(line["how"], [word["word"] for word in line["words"]]) for line in map(json.loads, lines)]
    wanted = [("terminal", ["yes"]), ("arguments", ["restore:site"]), ("saved_plan", ["retention:regular"])]
    must(told == wanted, f"on record is {told}")
    must(all("@" in line["by"] and line["at"].startswith("20") for line in map(json.loads, lines)), f"neither who nor when: {lines}")
    said = stack.devstack("log", "--approvals").said
    must("at a terminal: yes (restore shop/data)" in said and "by arguments: restore:site (" in said, f"it does not read: {said}")
    must("retention:regular" in stack.devstack("status", expect=None).said, "the newest is not told by status")
