"""The worst day: everything of a stack is gone but its repository, and one command brings it back."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager

from compose_stack import ComposeStack, compose_stack
from engine_stack import SERVERS, SERVICES, look, seed
from scenario import World, must, scenario
from stack import wait_until

CONFIGURATION = [".env", "docker-compose.yml", "configs/"]
# What the report that devstack began from promised for it, in minutes.
PROMISED = "10-12"


def services() -> list[str]:
    files = f"  configuration: {{ source: {{ files: {{ paths: [{', '.join(CONFIGURATION)}] }} }} }}"
    return [*(line for line in SERVICES if "configuration:" not in line), files]


@contextmanager
def shop(world: World) -> Iterator[ComposeStack]:
    """The whole stack with data in it, taken and proven."""
    with compose_stack(world, services(), SERVERS) as stack:
        stack.file.write_text(stack.file.read_text().replace("profiles: [standard, extra]", "profiles: [standard]"))
        stack.compose("run", "--rm", "-T", "redis-init")
        stack.up("forgejo")
        seed(stack)
        stack.devstack("apply", "--yes")
        yield stack


def there(stack: ComposeStack) -> dict[str, list[str]]:
    """What the engine has of the project."""
    label = f"label=com.docker.compose.project={stack.project}"
    commands = {"containers": ["ps", "--all"], "volumes": ["volume", "ls"], "networks": ["network", "ls"]}
    return {
        what: stack.run(["docker", *command, "--quiet", "--filter", label]).text.split() for what, command in commands.items()
    }


def lose_everything(stack: ComposeStack) -> None:
    stack.compose("down", "--volumes", "--remove-orphans", "--timeout", "2")
    must(not any(there(stack).values()), f"something of the stack is left: {there(stack)}")
    for name in CONFIGURATION:
        path = stack.folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    # Only a cache.
    shutil.rmtree(stack.folder / ".devstack")


@scenario(alone="eleven servers that start at once fill the machine, and its time is told")
def the_whole_stack_comes_back_from_an_empty_machine_by_one_command_and_one_service_alone(world: World) -> None:
    with shop(world) as stack:
        all_of_it_comes_back(world, stack)
        one_service_comes_back_and_what_has_its_data_is_left_alone(stack)


def all_of_it_comes_back(world: World, stack: ComposeStack) -> None:
    before = look(stack)
    lose_everything(stack)
    shown = stack.devstack("recover", "--dry-run").out
    for word in ("backup", "files", "containers", "services", "data", "verify", "not predictable yet"):
        must(word in shown, f"the dry run does not show {word!r}: {shown}")
    must(not any(there(stack).values()) and not (stack.folder / ".env").exists(), "the dry run has changed something")
    graph = stack.devstack("recover", "--dry-run", "--graph", "mermaid").out
    must(graph.startswith("flowchart") or graph.startswith("graph"), f"no graph: {graph[:100]}")
    refused = stack.devstack("recover", expect=4).said
    must("nobody is here to be asked" in refused and not any(there(stack).values()), f"it went on unasked: {refused}")
    began = time.monotonic()
    said = stack.devstack("recover", "--yes").said
    took = time.monotonic() - began
    after = look(stack)
    for service, value in before.items():
        must(after[service] == value, f"{service} came back otherwise: {value[:200]!r} before, {after[service][:200]!r} after: {said}")
    stack.converged()
    again = stack.devstack("recover", "--yes").said
    must("there is nothing to recover" in again, f"a stack that is there is recovered again: {again}")
    shown = stack.devstack("recover", "--dry-run").out
    must("there is nothing to recover" in shown, shown)
    world.note(f"recovered in {took:.1f} s; the report had {PROMISED} minutes")


def one_service_comes_back_and_what_has_its_data_is_left_alone(stack: ComposeStack) -> None:
    before = look(stack)
    stack.destroy("postgres")
    ids = {name: stack.run(["docker", "inspect", "--format", "{{.Id}}", stack.container(name)]).text for name in SERVERS if name != "postgres"}
    # A recovery of something else does not touch it.
    must("there is nothing to recover" in stack.devstack("recover", "--yes", "--only", "redis").said, "redis has its data")
    said = stack.devstack("recover", "--yes", "--only", "postgres").said
    must(look(stack) == before, f"it came back otherwise: {said}")
    after = {name: stack.run(["docker", "inspect", "--format", "{{.Id}}", stack.container(name)]).text for name in ids}
    must(after == ids, "containers of other services were made anew")
    # Its container is gone and its volume is not: there is nothing to restore, and nothing is put over it.
    stack.inside("postgres", "psql", "-q", "-U", "shop", "-d", "shop", stdin="INSERT INTO t VALUES (0, 'later')")
    stack.compose("rm", "--force", "--stop", "postgres")
    said = stack.devstack("recover", "--yes").said
    must("has data, now that it runs" in said, f"it is not said that the data was there: {said}")
    count = stack.inside("postgres", "psql", "-AtU", "shop", "-d", "shop", stdin="SELECT count(*) FROM t WHERE n = 0").text
    must(count == "1", "a recovery has put a backup over data that was there")
    # One that holds nothing which the file knows of is missed as well.
    stack.compose("rm", "--force", "--stop", "forgejo")
    stack.devstack("recover", "--yes")
    must("healthy" in stack.run(["docker", "ps", "--filter", f"name={stack.container('forgejo')}"]).text, "a container was not brought back")


@scenario()
def runs_that_are_older_than_the_objective_are_taken_only_when_somebody_says_so(world: World) -> None:
    with compose_stack(world, services()[-1:], ["redis-1"]) as stack:
        stack.devstack("apply", "--yes")
        # Runs that are taken by hand promise nothing, so that the objective may be as short as one likes.
        text = "".join(line for line in stack.file.read_text().splitlines(keepends=True) if "schedule:" not in line)
        stack.file.write_text(text.replace("rpo: 48h", "rpo: 1s"))
        for name in CONFIGURATION:
            path = stack.folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        only = ("recover", "--yes", "--only", "configuration")
        wait_until(lambda: "age:configuration" in stack.devstack("recover", "--dry-run", "--only", "configuration").out, "the run to be too old")
        refused = stack.devstack(*only, expect=4).said
        must("age:configuration" in refused and not (stack.folder / ".env").exists(), f"an old run was taken unasked: {refused}")
        stack.devstack(*only, "--accept-age")
        must((stack.folder / ".env").exists(), "the files did not come back")
        # Of files that are there none is touched, however old the run is that brings the others back.
        (stack.folder / ".env").write_text("NEWER=yes\n" + (stack.folder / ".env").read_text())
        (stack.folder / "docker-compose.yml").unlink()
        stack.devstack(*only, "--accept-age")
        must((stack.folder / "docker-compose.yml").exists(), "the file that was missing did not come back")
        must((stack.folder / ".env").read_text().startswith("NEWER"), "a file that was there was overwritten")
        unset = stack.environment.pop("POSTGRES_PASSWORD")
        text = stack.file.read_text()
        stack.file.write_text(text.replace("services:\n", "services:\n" + SERVICES[0] + "\n", 1))
        refused = stack.devstack("recover", "--yes", expect=3).said
        must("POSTGRES_PASSWORD" in refused and "nothing was done" in refused, f"a password that is missing is not found beforehand: {refused}")
        stack.environment["POSTGRES_PASSWORD"] = unset
