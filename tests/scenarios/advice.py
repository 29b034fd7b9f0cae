"""Every advice is taken in the state in which it is given: no message sends anybody to a command that refuses."""

from __future__ import annotations

import re
import shutil
from datetime import datetime, timedelta, timezone

from content import quickstart_data
from exit_codes import small_stack
from leases import forged, plant, stack_with_a_lease_to_forge
from scenario import World, must, scenario
from stack import FILES_SITE, SQLITE_SHOP, Stack, write_stack

# Verbs that ask: given `--yes` as a person would say it.
ASKING = ("apply", "recover", "restore", "forget")


def advised(said: str) -> list[str]:
    """The commands in backticks, and those at the end of a line, wherever the lines were broken."""
    said = " ".join(said.split())
    found = re.findall(r"`devstack ([^`]+)`", said) + re.findall(r"(?:: |run )devstack ((?:forget|unlock|plan)[^`;,)]*?)(?= [A-Z#=]|$)", said)
    return list(dict.fromkeys(command.strip() for command in found))


def walk(stack: Stack, said: str, number: list[int], **places: str) -> list[str]:
    """Carries out each advice in a copy of the stack as it is, and gives those that were taken."""
    taken, places = [], {"SERVICE": "shop", "NAME": "shop", "DIR": "out", "FILE": "plan.json"} | places
    if "RUN" not in places and "RUN" in said and (runs := stack.runs()):
        places["RUN"] = max(runs)
    for command in advised(said):
        number[0] += 1
        copy = stack.copy_to(stack.folder.parent / f"{stack.folder.name}-{number[0]}")
        words = [places.get(word, word) for word in command.split()]
        if words[0] in ASKING and not {"--dry-run", "--yes"} & set(words):
            words += ["--yes"]
        if words[:2] == ["apply", "plan.json"]:
            copy.devstack("plan", "--out", "plan.json")
        outcome = copy.devstack(*words, expect=None)
        # What is held says itself by which word it goes on.
        if further := re.search(r"(?:give the command `|to approve it: )--yes((?: --approve [^\s`]+)+)", outcome.said):
            words += further[1].split()
            outcome = copy.devstack(*words, expect=None)
        must(outcome.code not in (3, 4, 5, 6), f"`devstack {' '.join(words)}` was advised and is refused: {outcome.said}\nadvised by: {said}")
        shutil.rmtree(copy.folder)
        taken.append(command)
    return taken


def must_advise(taken: list[str], *wanted: str) -> None:
    for text in wanted:
        must(any(text in command for command in taken), f"{text!r} is not among what was advised: {taken}")


def damage_the_largest_pack(stack: Stack) -> tuple[object, bytes]:
    largest = max((path for path in (stack.repository / "data").rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    whole = largest.read_bytes()
    broken = bytearray(whole)
    broken[len(broken) // 2] ^= 0xFF
    largest.chmod(0o600)
    largest.write_bytes(broken)
    return largest, whole


@scenario()
def an_interrupted_recovery_whose_env_file_is_gone_has_a_way_on(world: World) -> None:
    services = [
        "  configuration: { source: { files: { paths: [.env, data/site] } } }",
        SQLITE_SHOP,
        "  cache: { source: { redis: { containers: [cache], password: { env: REDIS_PASSWORD } } } }",
    ]
    stack = write_stack(world, world.folder / "stack", services=services)
    text = stack.file.read_text().replace("services: all", "services: [configuration, shop]")
    stack.file.write_text(text)
    stack.environment |= {"REDIS_PASSWORD": "k3y", "DOCKER_HOST": f"unix://{stack.folder}/nowhere.sock"}
    quickstart_data(stack.folder / "data")
    (stack.folder / ".env").write_text("REDIS_PASSWORD=k3y\n")
    stack.devstack("apply", "--yes", expect=None)
    [run] = stack.runs()
    (stack.folder / ".env").unlink()
    (stack.folder / "data/shop.db").unlink()
    pack, whole = damage_the_largest_pack(stack)
    only = ("--only", "configuration", "--only", "shop")
    # A run that is named is not proven first, so that it breaks off in the middle.
    stack.devstack("recover", "--yes", "--backup", run, *only, expect=None)
    must((stack.folder / ".devstack/recovery.json").exists(), "the recovery is not unfinished")
    pack.write_bytes(whole)
    # What the recovery met is on record until it was read well.
    stack.devstack("verify", "--all", "--data")
    (stack.folder / ".env").unlink(missing_ok=True)
    del stack.environment["REDIS_PASSWORD"]
    number = [0]
    for command in (["recover", "--yes"], ["recover", "--resume", "--yes"], ["recover", "--afresh", "--yes"]):
        said = stack.devstack(*command, expect=3).said
        must("REDIS_PASSWORD" in said, f"it is not told what is missing: {said}")
        must_advise(walk(stack, said, number), "restore configuration --in-place")
    stack.devstack("restore", "configuration", "--in-place", "--yes")
    stack.environment["REDIS_PASSWORD"] = "k3y"
    # And with it set, all that is said of the unfinished one is taken.
    for command in (["apply", "--yes"], ["backup"], ["recover", "--yes", *only], ["plan"], ["status"]):
        said = stack.devstack(*command, expect=None).said
        must("--resume" in said, f"{command}: the way on is not told: {said}")
        walk(stack, said.replace("recover --afresh", f"recover --afresh {' '.join(only)}"), number)
    stack.devstack("recover", "--resume", "--yes")
    must((stack.folder / "data/shop.db").exists() and (stack.folder / ".env").exists(), "it did not come back")


@scenario()
def what_is_advised_of_sources_runs_and_words_is_taken(world: World) -> None:
    number = [0]
    stack = small_stack(world, "gone")
    walk(stack, stack.devstack("backups", expect=None).said, number)
    walk(stack, stack.devstack("show", "latest", expect=None).said, number)
    stack.devstack("apply", "--yes")
    (stack.folder / "data/shop.db").unlink()
    for command in (["plan"], ["status"], ["apply", "--yes"], ["backup"]):
        must_advise(walk(stack.copy_to(stack.folder.parent / f"state-{command[0]}"), stack.devstack(*command, expect=None).said, number), "shop")

    stack = small_stack(world, "damaged")
    stack.devstack("apply", "--yes")
    [run] = stack.runs()
    damage_the_largest_pack(stack)
    (stack.folder / "data/shop.db").unlink()
    # What it has planned before the damage was found is no longer meant.
    said = stack.devstack("recover", "--yes", expect=8).err.partition("was found damaged")[2]
    must_advise(walk(stack, said, number, RUN=run), "recover --backup")
    for command in (["plan"], ["status"], ["backups"], ["verify", "--all"]):
        walk(stack, stack.devstack(*command, expect=None).said, number, RUN=run)

    stack = small_stack(world, "removed")
    stack.devstack("apply", "--yes")
    stack.devstack("backup")
    for path in (stack.repository / "snapshots").iterdir():
        path.unlink()
    for command in (["plan"], ["status"], ["backups"], ["restore", "shop"], ["recover", "--replace", "--yes"], ["show", "20200101T000000Z-regular"]):
        walk(stack, stack.devstack(*command, expect=None).said, number)

    stack = write_stack(world, world.folder / "held", retention="{ last: 5 }")
    quickstart_data(stack.folder / "data")
    stack.devstack("apply", "--yes")
    stack.devstack("backup")
    stack.file.write_text(stack.file.read_text().replace("last: 5", "last: 2"))
    said = stack.devstack("apply", "--yes", expect=4).said
    [word] = set(re.findall(r"--approve ([a-z:-]+)", said))
    stack.devstack("apply", "--yes", "--approve", word)


@scenario()
def what_is_advised_of_a_lease_is_taken(world: World) -> None:
    stack, path, lease = stack_with_a_lease_to_forge(world)
    identity = plant(path, forged(lease, datetime.now(timezone.utc) + timedelta(seconds=110)))
    number = [0]
    for command in (["backup"], ["apply", "--yes"], ["recover", "--replace", "--yes"]):
        said = stack.devstack(*command, expect=6).said
        must_advise(walk(stack, said, number, ID=identity), f"unlock {identity}")


@scenario()
def a_stack_that_was_renamed_in_the_file_is_asked_about(world: World) -> None:
    stack = small_stack(world)
    stack.devstack("apply", "--yes")
    text = stack.file.read_text()
    stack.file.write_text(text.replace("stack: scenario", "stack: renamed"))
    number = [0]
    listed = stack.devstack("backups").said
    must("also holds stack scenario: 1 run" in listed, f"what else the repository holds is not told: {listed}")
    for command in (["plan"], ["status"]):
        said = stack.devstack(*command, expect=None).said
        must("was the stack renamed" in " ".join(said.split()), f"{command}: the other name is not told: {said}")
        must_advise(walk(stack, said, number), "apply --approve adopt:local")
    # A second stack is not begun beside it unasked.
    refused = stack.devstack("apply", "--yes", expect=4).said
    must(not stack.runs(), f"a run was taken under the new name: {refused}")
    (stack.folder / "data/shop.db").unlink()
    for command in (["recover", "--yes"], ["restore", "shop"]):
        said = stack.devstack(*command, expect=3).said
        must("`stack: scenario`" in said, f"{command}: it is not told where the runs are: {said}")
        walk(stack, said, number)
    stack.file.write_text(text)
    stack.devstack("recover", "--yes")
    stack.converged()
    # Another stack that shares the repository, from a folder of its own, is nobody's rename.
    other = small_stack(world, "other")
    other.file.write_text(other.file.read_text().replace("stack: scenario", "stack: other").replace("path: ./backups", f"path: {stack.repository}"))
    other.devstack("apply", "--yes", expect=0)
    must("also holds stack scenario" in other.devstack("backups").said, "what else is there is not told")
