"""A stack to lose, and which of its runs comes back; the worst day of a whole one is in recovery_suite."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from compose_stack import ComposeStack, compose_stack
from engine_stack import SERVERS, SERVICES, seed
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
