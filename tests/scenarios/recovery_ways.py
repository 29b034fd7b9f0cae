"""A drill and a recovery come to the same end: from Compose files that say here what they said in the run, or from the model that
the run holds. Small stacks of one image, one after the other: a container costs a second."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from compose_stack import ComposeStack, images
from engine_volume import box, script
from scenario import World, must, scenario
from stack import wait_until, write_stack

# Ends when it is told to, and needs nothing.
RUN = """["/bin/sh", "-c", "trap 'exit 0' TERM; sleep 9000 & wait"]"""
ASIDE = "ds-ext"


@dataclass
class Small:
    """What a small stack is made of: each part of the Compose file by lines, and what is lost for good on the worst day."""

    name: str
    # Lines of the service `app`, of further services, of the top of the Compose file.
    app: list[str] = field(default_factory=list)
    others: str = ""
    top: str = ""
    # In the folder: written before the stack is made.
    files: dict[str, str] = field(default_factory=dict)
    # In the `files` source of devstack.yaml, beside docker-compose.yml.
    kept: list[str] = field(default_factory=list)
    source: str = "volume: { volume: data, stop: [app] }"
    # What `leave_out` names: `path: ./x`.
    left: str = ""
    # Lines of `recovery.assert`.
    asserts: list[str] = field(default_factory=list)
    # `external: true`: made before the stack, and lost with it.
    volumes: list[str] = field(default_factory=list)
    networks: list[str] = field(default_factory=list)
    # What has to be the same before and after.
    look: str = "cat /data/value"
    # Whether all of it can come back. A drill that did without something is degraded, and so is one of a stack that holds a file
    # which nothing takes, though its containers come back with what stood in it.
    whole: bool = True
    degraded: bool = False
    # What both must say.
    said: str = ""
    # Called before it is up, on the stack.
    before: Callable[[ComposeStack], None] | None = None

    def compose(self) -> str:
        lines = "\n".join(f"    {line}" for line in self.app)
        volumes = "" if any(line.startswith("volumes:") for line in self.app) else "    volumes: [data:/data]\n"
        image = images()["FORGEJO_IMAGE"]
        text = f"services:\n  app:\n    image: {image}\n    entrypoint: {RUN}\n{volumes}{lines}\n{self.others}{self.top}"
        return text if "\nvolumes:" in text else text + "\nvolumes: { data: {} }\n"


@contextmanager
def made(world: World, small: Small, *, declared: bool = True) -> Iterator[ComposeStack]:
    """The stack, up, with a value in its data and a run of it. Its folder has the project's name."""
    project = f"ds-{random.SystemRandom().randbytes(4).hex()}"
    folder = world.folder / project
    stack = ComposeStack(world, folder)
    stack.project = project
    rename = {ASIDE: f"{stack.project}-ext", "PROJECT": stack.project, "IMAGE": images()["FORGEJO_IMAGE"], "ENTRY": RUN}

    def own(text: str) -> str:
        for what, by in rename.items():
            text = text.replace(what, by)
        return text

    kept = ", ".join(["docker-compose.yml", *small.kept])
    services = [f"  data: {{ source: {{ {own(small.source)} }} }}", f"  files: {{ source: {{ files: {{ paths: [{kept}] }} }} }}"]
    stack.environment = write_stack(world, folder, services=services).environment
    stack.environment["DOCKER_CONFIG"] = os.environ.get("DOCKER_CONFIG", str(Path.home() / ".docker"))
    named = f", project: {project}" if declared else ""
    runtime = f"runtime:\n  docker: {{ compose: [docker-compose.yml]{named}, profiles: [danger, used] }}\n"
    asserts = "".join(f"    - {line}\n" for line in small.asserts)
    text = stack.file.read_text().replace("services:\n", runtime + "services:\n", 1)
    left = f"leave_out:\n  - {{ {small.left}, because: it lies in version control }}\n" if small.left else ""
    stack.file.write_text(text + (f"  assert:\n{asserts}" if asserts else "") + left)
    for name, text in ({"docker-compose.yml": small.compose()} | small.files).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(own(text))
    volumes, networks = [own(name) for name in small.volumes], [own(name) for name in small.networks]
    try:
        for kind, names in (("volume", volumes), ("network", networks)):
            for name in names:
                stack.run(["docker", kind, "create", name])
        if small.before:
            small.before(stack)
        up(stack)
        stack.run(["docker", "exec", "--user", "0", container(stack), "sh", "-c", "echo precious >/data/value"])
        if any("healthcheck" in line for line in small.app):
            status = ["docker", "inspect", "--format", "{{.State.Health.Status}}", container(stack)]
            wait_until(lambda: stack.run(status).text == "unhealthy", "its health check to be red")
        stack.devstack("apply", "--yes")
        yield stack
    finally:
        down(stack, volumes, networks)


def compose(stack: ComposeStack, *arguments: str, expect: int | None = 0) -> str:
    return stack.run(["docker", "compose", "--project-name", stack.project, *arguments], expect=expect).text


def up(stack: ComposeStack) -> None:
    compose(stack, "--profile", "used", "up", "--detach", "--quiet-pull")


def container(stack: ComposeStack, service: str = "app") -> str:
    label = f"label=com.docker.compose.project={stack.project}"
    listed = stack.run(["docker", "ps", "--all", "--quiet", "--filter", label, "--filter", f"label=com.docker.compose.service={service}"])
    return listed.text.split("\n")[0]


def there(stack: ComposeStack, service: str) -> bool:
    return bool(container(stack, service))


def down(stack: ComposeStack, volumes: list[str], networks: list[str]) -> None:
    """The project by its label: its files may be gone."""
    label = f"label=com.docker.compose.project={stack.project}"
    for one in stack.run(["docker", "ps", "--all", "--quiet", "--filter", label]).text.split():
        stack.run(["docker", "rm", "--force", "--volumes", one], expect=None)
    for kind, more in (("volume", volumes), ("network", networks)):
        names = stack.run(["docker", kind, "ls", "--quiet", "--filter", label]).text.split() + more
        for name in names:
            stack.run(["docker", kind, "rm", name], expect=None)


def lose(stack: ComposeStack, small: Small) -> None:
    """Everything but devstack.yaml, the repository and its key."""
    own = [name.replace(ASIDE, f"{stack.project}-ext") for name in small.volumes]
    down(stack, own, [name.replace(ASIDE, f"{stack.project}-ext") for name in small.networks])
    for path in stack.folder.iterdir():
        if path.name not in {"devstack.yaml", "backups", "key"}:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def value(stack: ComposeStack, small: Small) -> str:
    return stack.run(["docker", "exec", container(stack), "sh", "-c", small.look]).text


def agree(world: World, small: Small) -> None:
    """The verdict of the drill, then the worst day: both as they have to be."""
    with made(world, small) as stack:
        before = value(stack, small)
        drilled = stack.devstack("drill", expect=None)
        lose(stack, small)
        recovered = stack.devstack("recover", "--yes", expect=None)
        right = {True: ({8} if small.degraded else {0}, {0}), False: ({8}, {7, 8})}[small.whole]
        must(drilled.code in right[0], f"the drill ended with {drilled.code}, not with {right[0]}: {drilled.said}")
        must(recovered.code in right[1], f"the recovery ended with {recovered.code}, not with {right[1]}: {recovered.said}")
        for outcome in (drilled, recovered):
            must(small.said in outcome.said, f"{small.said!r} is not said: {outcome.said}")
        if small.whole:
            must(value(stack, small) == before, f"it came back otherwise: {before!r} before, {value(stack, small)!r} after")
        must("s3cret" not in drilled.said + recovered.said, "a value is shown")


HOLDS = "from the model that"
SECRET = ['environment: { SECRET_KEY: "${SECRET_KEY}" }']
KEYED = "cat /data/value; printenv SECRET_KEY"

# What can come back whole.
WHOLE = [
    Small("plain"),
    Small("a file of variables in no source", app=SECRET, files={".env": "SECRET_KEY=s3cret\n"}, look=KEYED, said=HOLDS),
    Small("a default that hides a lost variable", app=['environment: { SECRET_KEY: "${SECRET_KEY:-none}" }'],
          files={".env": "SECRET_KEY=s3cret\n"}, look=KEYED, said=HOLDS),
    Small("an env file in no source", app=["env_file: [app.env]"], files={"app.env": "SECRET_KEY=s3cret\n"}, look=KEYED, said=HOLDS,
          degraded=True),
    Small("an include in no source", top="include: [more.yml]\n", files={"more.yml": "services: { more: { image: IMAGE, entrypoint: ENTRY } }\n"},
          said=HOLDS, degraded=True),
    Small("a base to extend in no source", app=["extends: { file: base.yml, service: base }"],
          files={"base.yml": "services: { base: { environment: { SECRET_KEY: s3cret } } }\n"}, look=KEYED, said=HOLDS, degraded=True),
    Small("a network of somebody else", app=["networks: [proxy]"], top=f"networks: {{ proxy: {{ external: true, name: {ASIDE} }} }}\n", networks=[ASIDE]),
    Small("a volume of somebody else", top=f"\nvolumes: {{ data: {{ external: true, name: {ASIDE} }} }}\n", volumes=[ASIDE]),
    Small("a folder that is bound", app=["volumes: [./data:/data]"], source="volume: { container: app, path: /data, stop: [app] }"),
    Small("a file that is bound", app=["volumes: [data:/data, ./conf/app.conf:/etc/app.conf:ro]"],
          files={"conf/app.conf": "threads = 4\n"}, kept=["conf"], look="cat /data/value /etc/app.conf"),
    Small("a label of SELinux", app=["volumes: [data:/data:z, ./conf:/conf:z]"], files={"conf/x": "1\n"}, kept=["conf"]),
    Small("three of one service", app=["deploy: { replicas: 3 }"]),
    Small("names with numbers", source="volume: { container: PROJECT-app-1, path: /data, stop: [PROJECT-app-1] }"),
    Small("a name of its own", app=["container_name: PROJECT-fixed"], source="volume: { container: PROJECT-fixed, path: /data, stop: [PROJECT-fixed] }"),
    Small("a volume by its key", top="\nvolumes: { data: { name: PROJECT-precious } }\n"),
    Small("a job that never ran", others="  danger: { image: IMAGE, profiles: [danger], entrypoint: [touch, /data/harm], volumes: [data:/data] }\n",
          look="ls /data"),
    Small("a health check that is red", app=['healthcheck: { test: ["CMD", "false"], interval: 1s, retries: 1 }']),
    Small("the engine's socket beside it", others="  watch: { image: IMAGE, entrypoint: ENTRY, volumes: ['/var/run/docker.sock:/var/run/docker.sock'] }\n",
          degraded=True),
    Small("the machine's network beside it", others="  host: { image: IMAGE, entrypoint: ENTRY, network_mode: host }\n", degraded=True),
    Small("the machine's processes beside it", others="  all: { image: IMAGE, entrypoint: ENTRY, pid: host }\n", degraded=True),
]

# What can't: each is told by both.
KEY = "volumes: [data:/data, ./hidden:/etc/key:ro]"
HAS = "command: { container: app, run: [test, -s, /etc/key], within: 0s }"
BROKEN = [
    Small("a bound file in no source", app=[KEY], files={"hidden": "s3cret\n"}, said="hidden", whole=False, asserts=[HAS]),
    Small("a secret in no source", app=["secrets: [key]"], top="secrets: { key: { file: ./hidden } }\n", files={"hidden": "s3cret\n"}, said="hidden", whole=False),
    Small("a config in no source", app=["configs: [key]"], top="configs: { key: { file: ./hidden } }\n", files={"hidden": "s3cret\n"}, said="hidden", whole=False),
    Small("a file that must be there", app=["volumes: [data:/data, {type: bind, source: ./hidden, target: /etc/key, bind: {create_host_path: false}}]"],
          files={"hidden": "s3cret\n"}, said="hidden", whole=False),
    Small("a dependency with such a file", app=["depends_on: [keys]"], files={"hidden": "s3cret\n"}, said="hidden", whole=False,
          others="  keys: { image: IMAGE, entrypoint: ENTRY, volumes: ['./hidden:/etc/key'] }\n"),
    Small("a file of a service beside it", files={"hidden": "s3cret\n"}, said="hidden", whole=False,
          others="  beside: { image: IMAGE, entrypoint: ENTRY, volumes: ['./hidden:/etc/key'] }\n"),
    Small("a folder that nobody takes", app=["volumes: [data:/data, ./keys:/etc/keys]"], files={"keys/one": "s3cret\n"}, whole=False,
          asserts=["command: { container: app, run: [test, -s, /etc/keys/one], within: 0s }"], said="/etc/keys/one"),
    Small("a volume that nobody takes", app=["volumes: [data:/data, other:/other]"], top="\nvolumes: { data: {}, other: {} }\n", whole=False,
          asserts=["command: { container: app, run: [test, -s, /other/x], within: 0s }"], said="/other/x"),
    Small("an assertion that never held", asserts=["command: { container: app, run: ['false'], within: 0s }"], said="exit code 1", whole=False),
    Small("a job that fails", app=["depends_on: { job: { condition: service_completed_successfully } }"], whole=False, said="exit code",
          others="  job: { image: IMAGE, entrypoint: [test, -e, /other/x], volumes: [other:/other] }\n", top="\nvolumes: { data: {}, other: {} }\n",
          before=lambda stack: fill(stack)),
]


def fill(stack: ComposeStack) -> None:
    """The volume that the job looks into has what it looks for."""
    compose(stack, "run", "--rm", "--no-deps", "--user", "0", "--entrypoint", "touch", "job", "/other/x")


@scenario()
def a_drill_and_the_recovery_of_its_run_come_to_the_same_end(world: World) -> None:
    three = [WHOLE[1], WHOLE[3], WHOLE[17]]
    for small in [*three, BROKEN[0], BROKEN[1], BROKEN[6]]:
        with world.part(small.name):
            agree(world, small)


@scenario(long=True)
def forty_drills_and_recoveries_come_to_the_same_end(world: World) -> None:
    # Each that can't come back twice: by itself, and with something beside it that can.
    twice = [Small(**(vars(one) | {"name": f"{one.name} again"})) for one in BROKEN]
    for nth, small in enumerate(itertools.chain(WHOLE, BROKEN, twice)):
        if small.name.endswith(" again"):
            beside = f"  beside{nth}: {{ image: IMAGE, entrypoint: ENTRY }}\n"
            small.others += beside
        with world.part(small.name):
            agree(world, small)


@scenario()
def what_docker_made_in_the_place_of_a_file_is_no_file(world: World) -> None:
    small = next(one for one in WHOLE if one.name == "a file that is bound")
    with made(world, small) as stack:
        conf = stack.folder / "conf"
        shutil.rmtree(conf)
        compose(stack, "down")
        up(stack)
        must((conf / "app.conf").is_dir(), "Docker has made no folder, so that nothing is shown")
        said = stack.devstack("recover", "--yes").said
        must((conf / "app.conf").is_file(), f"an empty folder was taken for the file: {said}")
        must(value(stack, small) == "precious\nthreads = 4", f"the container does not see it: {value(stack, small)!r}")
        # One with something in it is somebody's.
        compose(stack, "down")
        (conf / "app.conf").unlink()
        (conf / "app.conf").mkdir()
        (conf / "app.conf/mine").write_text("mine")
        up(stack)
        refused = stack.devstack("recover", "--yes", expect=7).said
        must("is a folder with something in it" in refused and (conf / "app.conf/mine").exists(), f"it was not held: {refused}")
        # Beside other data that is there, an empty one is seen as well.
        shutil.rmtree(conf / "app.conf")
        (conf / "app.conf").mkdir()
        (conf / "other").write_text("there")
        stack.devstack("recover", "--yes")
        must((conf / "app.conf").is_file() and (conf / "other").read_text() == "there", "it stayed a folder beside what is there")


@scenario()
def names_places_and_checks_are_those_of_the_run(world: World) -> None:
    by_name = {small.name: small for small in WHOLE}
    both = Small("names and checks",
                 app=['healthcheck: { test: ["CMD", "false"], interval: 1s, retries: 1 }', "deploy: { replicas: 2 }", f"networks: [default, {ASIDE}]",
                      "volumes: [data:/data, ./files:/files]"],
                 source="volume: { volume: data, stop: [PROJECT-app-1, app] }", networks=[ASIDE], left="path: ./files",
                 top=f"networks: {{ {ASIDE}: {{ external: true }} }}\nvolumes: {{ data: {{ name: PROJECT-precious }} }}\n",
                 others=by_name["a job that never ran"].others + "  used: { image: IMAGE, profiles: [used], entrypoint: ENTRY }\n",
                 before=lambda stack: ((stack.folder / "files").mkdir(), (stack.folder / "files").chmod(0o2750)))
    with made(world, both) as stack:
        with world.part("drill"):
            said = stack.devstack("drill").said
            must("danger" not in said.split("without")[0], f"the job that never ran was started: {said}")
        with world.part("recovery"):
            lose(stack, both)
            said = stack.devstack("recover", "--yes").said
            must("health check" in said and "red" in said, f"the check that is red is not told: {said}")
            must(value(stack, both) == "precious", "the data is not back")
            must(there(stack, "used") and not there(stack, "danger"), f"not the profiles that ran were started: {said}")
            must(stack.run(["docker", "exec", container(stack), "ls", "/data"]).text == "value", "the job has run on what came back")
            must((stack.folder / "files").stat().st_mode & 0o7777 == 0o2750, "the bound folder is not as it was")
            must(f"network {stack.project}-ext was not here and was made" in said, f"the network of somebody else is not told: {said}")
        with world.part("a folder that moved"):
            moved(world, both)


def moved(world: World, small: Small) -> None:
    """No project is declared: its name is that of the folder, by which devstack.yaml calls a container and a volume."""
    small = Small(**(vars(small) | {"name": "moved", "source": "volume: { volume: PROJECT_data, stop: [PROJECT-app-1, app] }", "top": "", "app": [],
                                    "left": "", "networks": [], "before": None}))
    with made(world, small, declared=False) as old:
        lose(old, small)
        new = ComposeStack(world, old.folder.with_name(f"ds-{random.SystemRandom().randbytes(4).hex()}"))
        new.project, new.environment = new.folder.name, old.environment
        shutil.copytree(old.folder, new.folder)
        try:
            said = new.devstack("recover", "--yes").said
            must(container(new) and value(new, small) == "precious", f"the data is not back under the new name: {said}")
            new.devstack("backup")
            must(len(new.runs()) == 2 and all(run.complete for run in new.runs().values()), "what moved is not backed up by its old names")
        finally:
            down(new, [], [])


@scenario()
def a_built_image_is_used_where_it_is_and_named_where_it_is_not(world: World) -> None:
    small = Small("built", others="  built: { build: ./ctx, entrypoint: ENTRY }\n", files={"ctx/Dockerfile": "FROM IMAGE\n"}, left="build: ./ctx")
    small.files["ctx/Dockerfile"] = f"FROM {images()['FORGEJO_IMAGE']}\nLABEL devstack.test=1\n"

    def tag(stack: ComposeStack) -> None:
        # No builder is needed: it is there under the name that Compose gives it.
        stack.run(["docker", "tag", images()["FORGEJO_IMAGE"], f"{stack.project}-built"])

    small.before = tag
    with made(world, small) as stack:
        try:
            must("Drill passed" in stack.devstack("drill").said, "a drill is not made of the image that is here")
            lose(stack, small)
            stack.devstack("recover", "--yes")
            must(there(stack, "built") and value(stack, small) == "precious", "it did not come back with the image that is here")
            stack.run(["docker", "rm", "--force", container(stack, "built")])
            stack.run(["docker", "rmi", f"{stack.project}-built"])
            left = stack.devstack("drill", expect=8).said
            must("DEGRADED (left out: built)" in left, f"what can't be made is not left out by name: {left}")
            lose(stack, small)
            said = stack.devstack("recover", "--yes", expect=7).said
            must("built was NOT made" in said and "ctx" in said, f"it is not said what is missing: {said}")
            must(value(stack, small) == "precious", "what has nothing to do with it is not back")
            evidence = json.loads(stack.devstack("status", "--live", "--format", "json", expect=None).out)
            must("built" in json.dumps(evidence), "the last drill does not say what it did without")
        finally:
            stack.run(["docker", "rmi", f"{stack.project}-built"], expect=None)


@scenario()
def a_project_that_was_renamed_in_the_file_is_asked_about(world: World) -> None:
    with box(world) as stack:
        script(stack, "echo live >/data/file")
        stack.devstack("apply", "--yes")
        text, other = stack.file.read_text(), f"{stack.project}-renamed"
        stack.file.write_text(text.replace(f"project: {stack.project}", f"project: {other}"))
        must(other in stack.file.read_text(), "the project was not renamed")
        for command in (["plan"], ["status"]):
            said = " ".join(stack.devstack(*command, expect=7).said.split())
            for part in ("RENAMED", "was the project renamed", f"of project {stack.project} runs from this folder", f"`runtime.docker.project: {stack.project}`"):
                must(part in said, f"{command} does not tell {part!r}: {said}")
            must("LOST" not in said, f"what runs under another name is called lost: {said}")
        refused = stack.devstack("recover", "--yes", expect=4).said
        must(f"--approve project:{other}" in refused, f"the word for a second stack is not told: {refused}")
        made = stack.run(["docker", "ps", "--all", "--quiet", "--filter", f"label=com.docker.compose.project={other}"]).text
        must(not made, f"a second stack was begun beside the live one: {made}")
        stack.file.write_text(text)
        must("there is nothing to recover" in stack.devstack("recover", "--yes").said, "under its own name it is not well")
