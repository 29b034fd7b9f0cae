"""What a stack holds, against what devstack.yaml takes: each change of a stack that nobody told devstack of is told by it."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compose_stack import images
from scenario import Broken, World, must, scenario
from stack import Stack, write_stack

COMPOSE = """\
services:
  web:
    image: {image}
    user: root
    init: true
    entrypoint: [sleep, infinity]
    volumes: ["media:/media", "./conf:/etc/web:ro", "/etc/localtime:/etc/localtime:ro"]
    env_file: [web.env]
    secrets: [token]
    environment: {{ KEY: "${{KEY}}" }}
  worker:
    image: {image}
    entrypoint: [sleep, infinity]
    init: true
    volumes: ["media:/media", "cache:/cache"]
    tmpfs: [/scratch]
volumes:
  media: {{}}
  cache: {{}}
secrets:
  token: {{ file: secrets/token }}
"""

SERVICES = [
    "  configuration: { source: { files: { paths: [compose.yaml, conf, secrets, '*.env'] } } }",
    "  media: { source: { volume: { volume: media, stop: [web, worker] } } }",
]
LEFT_OUT = "leave_out:\n  - { volume: cache, because: it is filled anew }\n"


class Held(Stack):
    """A small stack of which everything is taken or left out."""

    project: str
    compose: str

    def whole_environment(self) -> dict[str, str]:
        # Docker's plugin for Compose lies in the real home.
        docker = os.environ.get("DOCKER_CONFIG", str(Path.home() / ".docker"))
        return super().whole_environment() | {"DOCKER_CONFIG": docker}

    def docker(self, *arguments: str, right: bool = True) -> str:
        done = subprocess.run(
            ["docker", *arguments], cwd=self.folder, env=self.whole_environment(), stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=240,
        )
        if right and done.returncode:
            raise Broken(f"`docker {' '.join(arguments)}` ended with {done.returncode}: {done.stderr[-2000:]}")
        return done.stdout

    def up(self) -> None:
        self.docker("compose", "--project-name", self.project, "up", "--detach", "--quiet-pull")

    def edit(self, name: str, old: str, new: str) -> None:
        text = (self.folder / name).read_text()
        must(old in text, f"{name} has no {old!r}")
        (self.folder / name).write_text(text.replace(old, new))

    def findings(self) -> list[dict[str, Any]]:
        """What `status` says is wrong."""
        looked = self.devstack("status", "--format", "json", expect=None)
        found: list[dict[str, Any]] = looked.json()["verdict"]["findings"]
        must((looked.code == 0) == (not found), f"status ends with {looked.code} over {found}")
        return found

    def unprotected(self) -> set[str]:
        return {it["resource"] for it in self.findings() if it["kind"] == "unprotected"}


@contextmanager
def held(world: World) -> Iterator[Held]:
    folder = world.folder / "stack"
    made = Held(world, folder)
    made.environment = write_stack(world, folder, services=SERVICES).environment
    made.project = f"ds-{random.SystemRandom().randbytes(4).hex()}"
    (folder / "compose.yaml").write_text(COMPOSE.format(image=images()["FORGEJO_IMAGE"]))
    for name, text in {"conf/web.conf": "a", "secrets/token": "t", "web.env": "X=1\n", ".env": "KEY=k3y\n"}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    runtime = f"runtime: {{ docker: {{ compose: [compose.yaml], project: {made.project} }} }}\n"
    # An objective that nothing has measured is DEGRADED, and would hide what is looked for.
    text = made.file.read_text().replace("  rto: 30m\n", "")
    made.file.write_text(text.replace("services:\n", runtime + "services:\n", 1) + LEFT_OUT)
    try:
        yield made
    finally:
        made.docker("compose", "--project-name", made.project, "down", "--volumes", "--remove-orphans", "--timeout", "0", right=False)


@scenario()
def what_a_stack_holds_is_taken_left_out_or_told(world: World) -> None:
    with held(world) as stack:
        stack.up()
        stack.docker("exec", f"{stack.project}-web-1", "sh", "-c", "echo one >/media/one")
        with world.part("nothing is told where all is taken or left out"):
            stack.devstack("apply", "--yes")
            must(not stack.findings(), "something is told")
            stack.devstack("plan", "--strict")
            stack.devstack("status")
            said = stack.devstack("plan", "--all").said
            must("left out" in said and "it is filled anew" in said, "what is left out is not listed with its reason")
        before = {path: path.read_text() for path in [stack.file, *(stack.folder / name for name in ("compose.yaml", ".env", "secrets/token"))]}
        for name, (change, told) in MUTATIONS.items():
            with world.part(name):
                change(stack)
                said = stack.findings()
                must(any(told in f"{it['resource']} {it['text']}" for it in said), f"no finding names {told!r}: {said}")
                # Docker looks into no container that mounts what is gone; its volumes are there all the same.
                must(not any(it["resource"] == "media/data" and it["kind"] == "lost" for it in said), f"a volume is called lost: {said}")
                stack.devstack("plan", "--strict", expect={7, 8})
                for path, text in before.items():
                    path.write_text(text)
                for extra in ("new", "more.env", "include.yaml", "other"):
                    path = stack.folder / extra
                    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        must(not stack.findings(), "something is told though all was undone")


def yaml(old: str, new: str) -> Callable[[Held], None]:
    return lambda stack: stack.edit("compose.yaml", old, new)


def file(old: str, new: str) -> Callable[[Held], None]:
    return lambda stack: stack.edit("devstack.yaml", old, new)


def both(*changes: Callable[[Held], None]) -> Callable[[Held], None]:
    def change(stack: Held) -> None:
        for one in changes:
            one(stack)

    return change


def write(name: str, text: str = "x\n") -> Callable[[Held], None]:
    def change(stack: Held) -> None:
        path = stack.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    return change


MEDIA = '"media:/media", "./conf'

# Each with what a finding must name.
MUTATIONS: dict[str, tuple[Callable[[Held], None], str]] = {
    "a volume is added": (both(yaml(MEDIA, f'"letters:/letters", {MEDIA}'), yaml("  cache: {}", "  cache: {}\n  letters: {}")), "volume letters"),
    "an external volume is mounted": (
        both(yaml(MEDIA, f'"shared:/shared:ro", {MEDIA}'), yaml("  cache: {}", "  cache: {}\n  shared: { external: true, name: no-such }")),
        "volume shared",
    ),
    "a volume is renamed": (both(yaml("cache:/cache", "store:/cache"), yaml("  cache: {}", "  store: {}")), "volume store"),
    "a bound folder is renamed": (both(yaml("./conf:", "./new:"), write("new/web.conf")), "bind ./new"),
    "a folder of the machine is bound": (yaml(MEDIA, f'"/opt/no-such:/opt/data", {MEDIA}'), "bind /opt/no-such"),
    "a service in a profile brings a volume": (
        both(
            yaml("volumes:\n  media", "  job: { image: x, profiles: [tools], volumes: ['results:/results'] }\nvolumes:\n  media"),
            yaml("  cache: {}", "  cache: {}\n  results: {}"),
        ),
        "volume results",
    ),
    "a database server is added": (
        yaml("volumes:\n  media", "  db: { image: 'mariadb:11', profiles: [later] }\nvolumes:\n  media"), "server db",
    ),
    "an env_file lies elsewhere": (both(yaml("[web.env]", "[other/web.env]"), write("other/web.env")), "env_file ./other/web.env"),
    "a second env_file is read": (both(yaml("[web.env]", "[web.env, new/web.env]"), write("new/web.env")), "env_file ./new/web.env"),
    "a secret file is added": (
        both(yaml("secrets: [token]", "secrets: [token, key]"), yaml("  token: {", "  key: { file: new/key }\n  token: {"), write("new/key")),
        "secret file ./new/key",
    ),
    "a config file is added": (
        both(
            yaml("secrets: [token]", "secrets: [token]\n    configs: [site]"),
            yaml("volumes:\n  media", "configs: { site: { file: new/site.conf } }\nvolumes:\n  media"),
            write("new/site.conf"),
        ),
        "config file ./new/site.conf",
    ),
    "another file is included": (
        both(
            yaml("services:\n", "include: [include.yaml]\nservices:\n"),
            write("include.yaml", "services:\n  third: { image: x, volumes: ['thirds:/t'] }\nvolumes: { thirds: {} }\n"),
        ),
        "include ./include.yaml",
    ),
    "an image is built here": (both(yaml("    secrets: [token]", "    secrets: [token]\n    build: new"), write("new/Dockerfile")), "build ./new"),
    "a source is taken out of the policy": (file("services: all", "services: [configuration]"), "no policy under `backup` names media"),
    "a source is taken out": (file(SERVICES[1] + "\n", ""), "volume media"),
    "a path is excluded": (file("'*.env'] }", "'*.env'], exclude: [token] }"), "secret file ./secrets/token"),
    "a word is taken back": (file(LEFT_OUT, ""), "volume cache"),
    "a secret file is gone": (lambda stack: (stack.folder / "secrets/token").unlink(), "it is not here, so Compose can't make web anew"),
    "a variable is removed": (lambda stack: (stack.folder / ".env").unlink(), "variable KEY"),
    "all that write a volume are put into a profile": (
        both(yaml("  web:\n", "  web:\n    profiles: [later]\n"), yaml("  worker:\n", "  worker:\n    profiles: [later]\n")), "service worker",
    ),
    "the Compose file is broken": (yaml("services:\n", "services: [\n"), "was not compared"),
}


@scenario()
def the_file_alone_is_checked_against_the_compose_files(world: World) -> None:
    with held(world) as stack:
        stack.devstack("check")
        with world.part("what nobody takes is told, and is no fault of the file"):
            stack.edit("compose.yaml", MEDIA, f'"./new:/new", {MEDIA}')
            said = stack.devstack("check").said
            must("unprotected: bind ./new" in said and "1 unprotected" in said, "check does not tell it")
            told = stack.devstack("check", "--format", "json").json()["unprotected"]
            must([note["resource"] for note in told] == ["bind ./new"], f"in JSON it is {json.dumps(told)}")
        with world.part("a word about something that is not there is an error"):
            stack.edit("devstack.yaml", "volume: cache", "volume: cash")
            said = stack.devstack("check", expect=3).said
            must("the stack has no volume cash" in said and "leave_out" in said, "the entry is not named")
        with world.part("and harms no backup"):
            stack.up()
            stack.devstack("apply", "--yes", "--approve", "take:media", expect={0, 4})


@scenario()
def what_a_container_holds_is_looked_at(world: World) -> None:
    with held(world) as stack:
        stack.edit("compose.yaml", MEDIA, f'"/nameless", {MEDIA}')
        stack.up()
        stack.docker("exec", f"{stack.project}-web-1", "sh", "-c", "echo one >/media/one")
        stack.devstack("apply", "--yes")
        with world.part("a volume without a name is a cache as long as nothing lies in it"):
            must(not stack.unprotected(), "it is told though it is empty")
            stack.docker("exec", f"{stack.project}-web-1", "touch", "/nameless/thing")
            must(stack.unprotected() == {"volume web:/nameless"}, "it is not told though something lies in it")
        with world.part("and can be left out by its place"):
            stack.file.write_text(stack.file.read_text() + "  - { volume: 'web:/nameless', because: a cache }\n")
            must(not stack.unprotected(), "it is told though it is left out")
        with world.part("a container that the files no longer name is looked at"):
            stack.edit("compose.yaml", '"media:/media", "cache:/cache"', '"media:/media"')
            stack.edit("compose.yaml", "  cache: {}\n", "")
            must(not stack.unprotected(), "a volume that is left out is told since the files do not name it")
        with world.part("a bound folder that two containers write is not read while one of them runs"):
            folder = stack.folder / "shared"
            folder.mkdir()
            stack.edit("compose.yaml", MEDIA, f'"./shared:/srv", {MEDIA}')
            stack.edit("compose.yaml", '["media:/media"]', '["media:/media", "./shared:/srv"]')
            stack.up()
            (folder / "x").write_text("1")
            entry = "  shared: { source: { volume: { container: web, path: /srv, stop: [web] } } }\n"
            stack.edit("devstack.yaml", SERVICES[1] + "\n", SERVICES[1] + "\n" + entry)
            said = stack.devstack("backup", "shared", expect=7).said
            must("-worker-1" in said and "may write to" in said, "the second writer is not named")
            stack.edit("devstack.yaml", "path: /srv, stop: [web]", "path: /srv, stop: [web, worker]")
            stack.devstack("backup", "shared", expect={0, 8})
            must(stack.docker("ps", "--quiet", "--filter", f"label=com.docker.compose.project={stack.project}").count("\n") == 2, "one is still stopped")
