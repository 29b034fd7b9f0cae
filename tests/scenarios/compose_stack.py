"""A throw-away stack of real servers: a Compose project of its own from tests/stack/compose, and devstack to act on it."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scenario import TOP, Broken, World, must
from stack import Stack, write_stack

EXAMPLE = TOP / "tests/stack/compose"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "devstack-tests"
PROFILES = ("standard", "extra")

# How often a copy taken under load is compared; `tests/soak` asks for 20.
ROUNDS = int(os.environ.get("DEVSTACK_TEST_ROUNDS", "3"))

# A server's first start on two busy cores; what takes longer hangs.
LONGEST = 240


@dataclass(frozen=True)
class Ran:
    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode(errors="replace").rstrip("\n")


class ComposeStack(Stack):
    """Services are called as Compose calls them."""

    project: str
    variables: dict[str, str]

    def compose(self, *arguments: str, expect: int | None = 0) -> Ran:
        command = ["docker", "compose", "--project-name", self.project]
        for profile in PROFILES:
            command += ["--profile", profile]
        for file in sorted(self.folder.glob("*.env")):
            command += ["--env-file", ".env", "--env-file", str(file)]
        return self.run([*command, *arguments], expect=expect)

    def run(
        self, command: list[str], *, stdin: bytes | str | None = None, expect: int | None = 0, seconds: float = LONGEST
    ) -> Ran:
        """A program of the host, in the stack's folder."""
        given = stdin.encode() if isinstance(stdin, str) else stdin
        done = subprocess.run(
            command, cwd=self.folder, input=given if given is not None else b"", capture_output=True, timeout=seconds,
            env=self.whole_environment(),
        )
        ran = Ran(done.returncode, done.stdout, done.stderr.decode(errors="replace"))
        if expect is not None and ran.code != expect:
            raise Broken(f"`{' '.join(command)[:300]}` ended with {ran.code}: {ran.err[-2000:]} {ran.text[-1000:]}")
        return ran

    def up(self, *services: str) -> None:
        """Brings services up and waits until each is healthy."""
        self.compose("up", "--detach", "--wait", "--quiet-pull", *services)

    def container(self, service: str) -> str:
        """The container of a service, as Compose calls it."""
        return f"{self.project}-{service}-1"

    def inside(
        self, service: str, *command: str, stdin: bytes | str | None = None, env: dict[str, str] | None = None,
        expect: int | None = 0, user: str | None = None, seconds: float = LONGEST,
    ) -> Ran:
        """A program in a service's container. Its environment is given by name, so that no value is an argument."""
        options = [part for name in env or {} for part in ("--env", name)]
        options += ["--user", user] if user else []
        before = dict(self.environment)
        self.environment |= env or {}
        try:
            command_line = ["docker", "exec", "--interactive", *options, self.container(service), *command]
            return self.run(command_line, stdin=stdin, expect=expect, seconds=seconds)
        finally:
            self.environment = before

    def start_inside(self, service: str, *command: str) -> subprocess.Popen[bytes]:
        """A program that goes on in a service's container; whoever starts it ends it."""
        line = ["docker", "exec", "--interactive", self.container(service), *command]
        return subprocess.Popen(
            line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=self.whole_environment()
        )

    def volumes(self, service: str) -> list[str]:
        """The named volumes of a service."""
        [seen] = json.loads(self.run(["docker", "inspect", self.container(service)]).out)
        return [mount["Name"] for mount in seen["Mounts"] if mount["Type"] == "volume"]

    def destroy(self, *services: str) -> None:
        """The disaster: containers and volumes are gone."""
        volumes = [volume for service in services for volume in self.volumes(service)]
        self.compose("rm", "--force", "--stop", *services)
        self.run(["docker", "volume", "rm", *volumes])

    def reborn(self, *services: str) -> None:
        """Destroyed, and up again with nothing in them."""
        self.destroy(*services)
        self.up(*services)

    def kill(self, service: str) -> None:
        self.run(["docker", "kill", self.container(service)])

    def down(self) -> None:
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "2", expect=None)


def images() -> dict[str, str]:
    """The images of the test stack, by the variables of the Compose file."""
    path = CACHE / "stack-images.env"
    if not path.exists():
        raise Broken(f"{path} is not there: run tests/tools/docker and tests/stack/images first")
    return dict(line.split("=", 1) for line in path.read_text().splitlines() if "=" in line)


def variables() -> dict[str, str]:
    """Those of the example, with a password of its own for every stack."""
    chance = random.SystemRandom()
    given = {}
    for line in (EXAMPLE / ".env.example").read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not name.startswith("#"):
            given[name.strip()] = chance.randbytes(12).hex() if "PASSWORD" in name else value.strip()
    # Sooner seen healthy: a scenario waits for little else.
    return given | {"HEALTH_INTERVAL": "1s"}


@contextmanager
def compose_stack(
    world: World,
    services: list[str],
    up: list[str],
    *,
    name: str = "stack",
    retention: str = "",
    override: str = "",
    env_file: str = "",
) -> Iterator[ComposeStack]:
    """`services` are lines of devstack.yaml; `up` are the Compose services that they need. `override` is the text of a
    second Compose file, `env_file` that of a second file of variables. Everything is removed at the end."""
    folder = world.folder / name
    made = ComposeStack(world, folder)
    written = write_stack(world, folder, services=services, retention=retention)
    made.environment = written.environment
    made.project = f"ds-{random.SystemRandom().randbytes(4).hex()}"
    for path in EXAMPLE.iterdir():
        if path.is_dir():
            shutil.copytree(path, folder / path.name)
        elif path.name not in {"devstack.yaml", "README.md", ".env", ".env.example"}:
            shutil.copy(path, folder / path.name)
    files = ["docker-compose.yml"]
    if override:
        (folder / "docker-compose.override.yml").write_text(override)
        files.append("docker-compose.override.yml")
    if env_file:
        (folder / "other.env").write_text(env_file)
    made.variables = variables() | images()
    (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in made.variables.items()))
    (folder / ".env").chmod(0o600)
    # What the file names as `{ env: NAME }`.
    made.environment |= {name: value for name, value in made.variables.items() if "PASSWORD" in name}
    # Docker's own settings lie in the real home; the plugin for Compose does too.
    made.environment["DOCKER_CONFIG"] = os.environ.get("DOCKER_CONFIG", str(Path.home() / ".docker"))
    runtime = (
        f"runtime:\n  docker: {{ compose: [{', '.join(files)}], profiles: [{', '.join(PROFILES)}], "
        f"project: {made.project} }}\n"
    )
    made.file.write_text(made.file.read_text().replace("services:\n", runtime + "services:\n", 1))
    try:
        made.up(*up)
        yield made
    finally:
        made.down()
