"""The page of examples/full-stack, typed by a machine: the whole stack with Vault first is set up, backed up, lost to the last
file, and comes back value by value."""

from __future__ import annotations

import os
import random
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compose_stack import ComposeStack, Ran, images
from scenario import TOP, World, must, scenario

EXAMPLE = TOP / "examples/full-stack"
# What the page says that each of these may end with; all else ends with 0.
CODES = {"devstack status": {0, 7, 8}}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def example(world: World) -> Iterator[ComposeStack]:
    """As a newcomer has it, but for the project's name and Vault's port: both may be somebody else's on this machine."""
    stack = ComposeStack(world, world.folder / "full-stack")
    # Not what somebody who has tried the page by hand has left there.
    made = {"backups", ".devstack", "vault", "approle", "certs"}
    shutil.copytree(EXAMPLE, stack.folder, ignore=lambda folder, _: made if Path(folder) == EXAMPLE else set())
    stack.project = f"ds-{random.SystemRandom().randbytes(4).hex()}"
    port = free_port()
    text = stack.file.read_text().replace("project: full-stack", f"project: {stack.project}")
    stack.file.write_text(text.replace("127.0.0.1:8200", f"127.0.0.1:{port}"))
    (world.folder / "home").mkdir()
    stack.environment = images() | {
        "COMPOSE_PROJECT_NAME": stack.project, "VAULT_PORT": str(port), "HEALTH_INTERVAL": "1s",
        "HOME": str(world.folder / "home"), "DOCKER_CONFIG": os.environ.get("DOCKER_CONFIG", str(Path.home() / ".docker")),
        "DEVSTACK": str(world.binary),
    }
    try:
        yield stack
    finally:
        # By their label: the Compose file may be gone.
        label = f"label=com.docker.compose.project={stack.project}"
        for kind, remove in (("container", ["rm", "--force", "--volumes"]), ("network", ["rm"]), ("volume", ["rm"])):
            listing = ["docker", kind, "ls", "--quiet", "--filter", label, *(["--all"] if kind == "container" else [])]
            if names := stack.run(listing, expect=None).text.split():
                stack.run(["docker", kind, *remove, *names], expect=None)


def commands() -> list[str]:
    """What the page says to type, in its order."""
    blocks = re.findall(r"```console\n(.*?)```", (EXAMPLE / "README.md").read_text(), re.S)
    lines = [line.removeprefix("$ ") for block in blocks for line in block.splitlines() if line.startswith("$ ")]
    return [re.sub(r"\s{2,}#.*", "", line).strip() for line in lines]


def typed(stack: ComposeStack, command: str) -> Ran:
    line = 'devstack() { "$DEVSTACK" "$@"; }; ' + command
    ran = stack.run(["bash", "-c", line], expect=None, seconds=600)
    must(ran.code in CODES.get(command, {0}), f"`{command}` ended with {ran.code}: {ran.text[-3000:]} {ran.err[-2000:]}")
    return ran


@scenario("age", "age-keygen")
def the_page_of_the_whole_stack_is_true(world: World) -> None:
    said: list[tuple[str, str]] = []
    with example(world) as stack:
        for command in commands():
            said.append((command, typed(stack, command).text))
    shown = [text for command, text in said if command == "./sample show"]
    must(len(shown) == 2 and len(shown[0].splitlines()) == 8, f"the page does not show what is there before and after: {shown}")
    must(shown[0] == shown[1], f"not everything came back as it was:\n{shown[0]}\n--\n{shown[1]}")
    verdicts = [text.splitlines()[0] for command, text in said if command == "devstack status"]
    must(len(verdicts) == 3, f"the page asks for the state three times: {verdicts}")
    must(verdicts[0].startswith("DEGRADED") and verdicts[1].startswith("FAILED") and verdicts[2] == "OK", f"{verdicts}")
