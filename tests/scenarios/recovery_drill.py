"""A recovery in isolation: it leaves nothing behind and does not touch what runs. The drill of the whole stack is in recovery_suite."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from compose_stack import ComposeStack, compose_stack
from recovery_disaster import there
from recovery_faults import FILES, POSTGRES, packs, sql
from scenario import World, must, scenario
from stack import wait_until

LABEL = "io.devstack.drill"
KINDS = {"containers": ["ps", "--all"], "volumes": ["volume", "ls"], "networks": ["network", "ls"]}


@contextmanager
def small(world: World) -> Iterator[ComposeStack]:
    with compose_stack(world, [POSTGRES, FILES], ["postgres"]) as stack:
        # Only what this is about: the servers of the other profiles are drilled with the whole stack.
        stack.file.write_text(stack.file.read_text().replace("profiles: [standard, extra]", "profiles: []"))
        compose = stack.folder / "docker-compose.yml"
        compose.write_text(compose.read_text().replace("  postgres:\n    profiles: [standard]\n", "  postgres:\n", 1))
        sql(stack, "CREATE TABLE t AS SELECT n, md5(n::text) FROM generate_series(1, 20000) n")
        stack.devstack("apply", "--yes")
        yield stack


def of_drills(stack: ComposeStack) -> dict[str, list[str]]:
    """What the engine has of this stack's drills: those of others may run beside."""
    found = {}
    ours = set(drills(stack))
    for what, command in KINDS.items():
        listed = stack.run(["docker", *command, "--filter", f"label={LABEL}", "--format", "{{json .}}"]).text.splitlines()
        found[what] = [line for line in listed if any(f"{LABEL}={drill}" in line or drill in line for drill in ours)]
    return found


def drills(stack: ComposeStack) -> list[str]:
    """The names of all drills that this stack ever began: each stood in its folder while it ran."""
    return sorted({record["id"] for record in SEEN.get(str(stack.folder), [])} | {name.stem for name in locks(stack)})


SEEN: dict[str, list[dict[str, Any]]] = {}


def locks(stack: ComposeStack) -> list[Any]:
    return list((stack.folder / ".devstack/drills").glob("*.lock"))


def drill(stack: ComposeStack, *arguments: str, expect: int = 0) -> dict[str, Any]:
    """Runs one and gives its evidence."""
    out = stack.devstack("drill", *arguments, "--format", "json", expect=expect).out
    evidence = json.loads(out.splitlines()[-1])["drill"]
    SEEN.setdefault(str(stack.folder), []).append(evidence)
    return evidence


def must_have_left_nothing(stack: ComposeStack) -> None:
    left = of_drills(stack)
    must(not any(left.values()), f"something of a drill is left: {left}")
    must(not (stack.folder / ".devstack/drills").exists(), "the folder of the drills is left")
    visitors = stack.run(["docker", "ps", "--all", "--quiet", "--filter", "label=devstack.visitor"]).text.split()
    # Those of other stacks come and go meanwhile.
    seen = {one: stack.run(["docker", "inspect", one], expect=None).text for one in visitors}
    mine = [one for one, text in seen.items() if any(name in text for name in drills(stack))]
    must(not mine, f"a visitor is left: {mine}")


def live(stack: ComposeStack) -> dict[str, Any]:
    """The live stack as the engine has it: ids, states and mounts of containers, members of networks."""
    found = there(stack)
    containers = json.loads(stack.run(["docker", "inspect", *found["containers"]]).out) if found["containers"] else []
    networks = json.loads(stack.run(["docker", "network", "inspect", *found["networks"]]).out) if found["networks"] else []
    seen = {
        one["Name"]: [one["Id"], one["State"]["Status"], one["State"]["StartedAt"], one["RestartCount"],
                      sorted(json.dumps(mount, sort_keys=True) for mount in one["Mounts"])]
        for one in containers
    }
    return {"containers": seen, "members": {one["Name"]: sorted(one["Containers"]) for one in networks}, "volumes": sorted(found["volumes"])}


def contents(stack: ComposeStack) -> dict[str, str]:
    """A digest of each volume of the stack: names, modes, owners, times and bytes."""
    digests = {}
    for volume in there(stack)["volumes"]:
        top = stack.run(["docker", "volume", "inspect", "--format", "{{.Mountpoint}}", volume]).text
        digest = hashlib.sha256()
        for folder, folders, files in os.walk(top):
            folders.sort()
            for name in sorted([*folders, *files]):
                path = os.path.join(folder, name)
                about = os.lstat(path)
                digest.update(f"{path} {about.st_mode} {about.st_uid} {about.st_gid} {about.st_size} {about.st_mtime_ns}".encode())
                if os.path.isfile(path) and not os.path.islink(path):
                    with open(path, "rb") as file:
                        digest.update(hashlib.file_digest(file, "sha256").digest())
        digests[volume] = digest.hexdigest()
    return digests


def seconds(text: str) -> float:
    """`1m30s`, as devstack writes a length of time."""
    units = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([\d.]+)(ms|s|m|h|d)", text))


@scenario()
def what_a_killed_drill_left_is_removed_by_the_next_one_and_a_stopped_one_removes_its_own(world: World) -> None:
    with small(world) as stack:
        process = begun(stack, "restore", "postgres/data")
        process.kill()
        process.communicate(timeout=60)
        [lock] = locks(stack)
        must(all(of_drills(stack).values()), f"the kill left nothing to be removed, so this proves nothing: {of_drills(stack)}")
        done = stack.devstack("drill")
        must(f"removed what the drill {lock.stem} had left" in done.err, f"it is not said that something was removed: {done.said}")
        SEEN.setdefault(str(stack.folder), []).append({"id": lock.stem})
        must_have_left_nothing(stack)
        # Told to stop, it removes what it has made, and says nothing of the recovery.
        process = begun(stack, "start container", "container/postgres")
        [lock] = locks(stack)
        SEEN[str(stack.folder)].append({"id": lock.stem})
        process.terminate()
        said, _ = process.communicate(timeout=120)
        must(process.returncode == 7 and "INTERRUPTED" in said, f"it ended with {process.returncode}: {said}")
        must_have_left_nothing(stack)
        must("FAILED" not in stack.devstack("status", expect={0, 8}).out, "an interrupted drill is told as a failed one")


def begun(stack: ComposeStack, verb: str, resource: str) -> Any:
    """A drill that has begun this step."""
    seen = len(stack.journal_entries())
    process = stack.start("drill")

    def there_is() -> bool:
        now = stack.journal_entries()[seen:]
        return any((entry.kind, entry.verb, entry.resource) == ("step_started", verb, resource) for entry in now)

    wait_until(there_is, f"{verb} {resource} to begin")
    return process


@scenario()
def a_damaged_run_makes_the_drill_fail_and_stands_in_the_evidence(world: World) -> None:
    with small(world) as stack:
        good = drill(stack)
        must(good["verdict"] == "passed", f"the drill failed before anything was damaged: {good}")
        [run] = stack.runs()
        largest = max(packs(stack), key=lambda path: path.stat().st_size)
        whole = bytearray(largest.read_bytes())
        whole[len(whole) // 2] ^= 0xFF
        largest.chmod(0o600)
        largest.write_bytes(whole)
        failed = drill(stack, expect=8)
        [findings] = failed["verdict"].values()
        must(any("prove" in finding and run in finding for finding in findings), f"the damage is not in the evidence: {failed}")
        must(not any(service.get("back_after") for service in failed["services"]), "something was restored from a damaged run")
        must_have_left_nothing(stack)
        said = stack.devstack("status", expect=8).out
        must(said.startswith(f"FAILED: damaged: local/{run}; drill failed: drill; "), f"the first line does not say it: {said}")
        must("FAILED      drill: the drill" in said and f"DAMAGED     local/{run}" in said, f"the failed drill is not told first: {said}")
        must(stack.devstack("plan", expect=8).out.count("FAILED") >= 2, "the plan says nothing of the failed drill")


@scenario(long=True)
def a_run_that_no_server_can_load_makes_the_drill_fail(world: World) -> None:
    with small(world) as stack:
        # The Compose files of this run make a server that does not know the user whom devstack restores as.
        compose = stack.folder / "docker-compose.yml"
        text = compose.read_text()
        compose.write_text(text.replace("      POSTGRES_USER: ${POSTGRES_USER:-shop}\n", "      POSTGRES_USER: somebody_else\n", 1))
        stack.devstack("backup")
        compose.write_text(text)
        failed = drill(stack, expect=8)
        [findings] = failed["verdict"].values()
        must(any("postgres/data" in finding for finding in findings), f"the service that did not come back is not named: {failed}")
        must(sql(stack, "SELECT count(*) FROM t") == "20000", "the live data was touched")
        must_have_left_nothing(stack)
        # The earlier run is as good as it was.
        older = min(stack.runs())
        must(drill(stack, "--backup", older)["verdict"] == "passed", "the run before it can't be drilled any more")


@scenario()
def what_cannot_be_isolated_is_not_even_made(world: World) -> None:
    with small(world) as stack:
        compose = stack.folder / "docker-compose.yml"
        text = compose.read_text()
        compose.write_text(text.replace("  postgres:\n", "  postgres:\n    privileged: true\n", 1))
        stack.devstack("backup")
        failed = drill(stack, expect=8)
        must("services.postgres.privileged" in str(failed["verdict"]) and failed["steps"] == [], f"it was drilled all the same: {failed}")
        must_have_left_nothing(stack)


@scenario()
def a_bound_folder_is_a_copy_from_the_run_and_never_the_live_one(world: World) -> None:
    override = """\
services:
  postgres:
    volumes:
      - ./configs:/live-configs
      - ./unkept:/unkept
      - /etc/localtime:/etc/localtime:ro
"""
    with compose_stack(world, [POSTGRES, FILES], ["postgres"], override=override) as stack:
        text = stack.file.read_text().replace("profiles: [standard, extra]", "profiles: []")
        stack.file.write_text(text.replace("leave_out:\n", "leave_out:\n  - { path: unkept, because: nobody keeps it }\n"))
        compose = stack.folder / "docker-compose.yml"
        compose.write_text(compose.read_text().replace("  postgres:\n    profiles: [standard]\n", "  postgres:\n", 1))
        (stack.folder / "configs").mkdir(exist_ok=True)
        (stack.folder / "configs/one").write_text("of the run\n")
        sql(stack, "CREATE TABLE t AS SELECT 1 AS n")
        stack.devstack("apply", "--yes")
        # What a drill would write shows: a folder that nobody may write to, changed since the run.
        (stack.folder / "configs/one").write_text("of today\n")
        before = sorted((str(path), path.lstat().st_ino, path.lstat().st_mtime_ns) for path in (stack.folder / "configs").rglob("*"))
        process = begun(stack, "restore", "postgres/data")
        [lock] = locks(stack)
        copies = list((stack.folder / ".devstack/drills" / lock.stem).glob("b*/one"))
        read = [copy.read_text() for copy in copies]
        said, _ = process.communicate(timeout=300)
        must(read == ["of the run\n"], f"the container saw {read}")
        must(process.returncode == 0 and "unkept is not in run" in said, f"it ended with {process.returncode}: {said}")
        after = sorted((str(path), path.lstat().st_ino, path.lstat().st_mtime_ns) for path in (stack.folder / "configs").rglob("*"))
        must(after == before, "the live folder was touched")


@scenario()
def a_scheduled_drill_follows_the_backups_of_an_apply_and_its_failure_fails_none_of_them(world: World) -> None:
    with small(world) as stack:
        text = stack.file.read_text()
        rule = "drill: { schedule: { cron: \"0 4 * * 1\" } }"
        stack.file.write_text(text.replace("recovery: {", f"recovery: {{ {rule},", 1) if "recovery: {" in text
                              else text.replace("recovery:\n", f"recovery:\n  {rule}\n", 1))
        must("drill" in stack.file.read_text(), f"the file has no recovery to add to: {text}")
        must("a drill is due" in stack.devstack("plan").out, "the plan does not say that a drill is due")
        said = stack.devstack("apply", "--yes").said
        must("Drill passed" in said, f"the apply did not drill: {said}")
        must_not = stack.devstack("apply", "--yes").said
        must("Drill" not in must_not, "a drill that is not due was made")
        must("next in" in stack.devstack("plan").out, "the plan does not say when the next is due")
        must_have_left_nothing(stack)


@scenario()
def a_recovery_beside_the_running_stack_stays_until_it_is_removed(world: World) -> None:
    with small(world) as stack:
        name = f"beside-{stack.project}"
        beside = ("recover", "--to-project", name)
        sql(stack, "INSERT INTO t VALUES (0, 'later')")
        running = live(stack)
        said = stack.devstack(*beside).out
        must(f"as the Compose project {name}" in said and "--remove" in said, f"it is not said what there is now: {said}")

        def there() -> dict[str, list[str]]:
            commands = {"containers": ["ps", "--all"], "volumes": ["volume", "ls"], "networks": ["network", "ls"]}
            return {what: stack.run(["docker", *command, "--quiet", "--filter", f"label={LABEL}={name}"]).text.split() for what, command in commands.items()}

        made = there()
        must(all(made.values()), f"not everything of it is there: {made}")
        count = "SELECT count(*) FROM t"
        rows = stack.run(["docker", "compose", "-p", name, "exec", "-T", "postgres", "psql", "-AtU", "shop", "-d", "shop", "-c", count]).text
        must(rows == "20000" and sql(stack, count) == "20001", f"the copy has {rows} rows")
        must(live(stack) == running, "the live stack is not as it was")
        refused = stack.devstack(*beside, expect=3).said
        must(f"{name} is there already" in refused, f"it was made twice: {refused}")
        must("not of this making" in stack.devstack("recover", "--to-project", stack.project, expect=3).said, "the live project's own name was taken")
        # A drill removes its own and nothing else.
        drill(stack)
        must(there() == made, "a drill has touched what was to stay")
        stack.devstack(*beside, "--remove")
        must(not any(there().values()) and not (stack.folder / ".devstack/projects").exists(), f"something of it is left: {there()}")
        must(live(stack) == running and sql(stack, count) == "20001", "the removal has touched the live stack")
        must("nothing to remove" in stack.devstack(*beside, "--remove", expect=3).said, "it is not said that there is nothing")
        # Told to stop, it leaves nothing.
        process = stack.start(*beside)
        wait_until(lambda: bool(there()["containers"]), "its containers to be made")
        process.terminate()
        out, _ = process.communicate(timeout=120)
        must(process.returncode == 7 and "INTERRUPTED" in out and not any(there().values()), f"it ended with {process.returncode}: {out}")
