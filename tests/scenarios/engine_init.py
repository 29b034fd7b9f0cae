"""`devstack init` over Compose projects as people write them: every file in `tests/init_projects`, whose README says how."""

from __future__ import annotations

import os
import random
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from compose_stack import ComposeStack, images
from recovery_ways import RUN, down
from scenario import TOP, World, must, scenario
from stack import Stack

PROJECTS = TOP / "tests/init_projects"

# No engine answers there: what `init` says is of the files alone.
NOWHERE = {
    "DOCKER_HOST": "unix:///nonexistent/docker.sock",
    "DOCKER_CONFIG": os.environ.get("DOCKER_CONFIG", str(Path.home() / ".docker")),
}

# Of what a container runs as, nothing may reach a test from outside.
COMPOSE_SETTINGS = ("COMPOSE_FILE", "COMPOSE_PROFILES", "COMPOSE_PROJECT_NAME", "COMPOSE_ENV_FILES", "COMPOSE_PATH_SEPARATOR")


@dataclass
class Wanted:
    """What stands above the files of a project."""

    after: str = ""
    exit: int = 0
    services: dict[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)
    profiles: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)
    # What stays unprotected until the questions are answered.
    open: list[str] = field(default_factory=list)
    # Of those that are run: services with a line for their shell, and profiles.
    seeds: list[tuple[str, str]] = field(default_factory=list)
    values: list[tuple[str, str]] = field(default_factory=list)
    up: list[str] = field(default_factory=list)
    tags: list[tuple[str, str]] = field(default_factory=list)
    long: bool = False


def read(path: Path) -> tuple[Wanted, dict[str, str]]:
    head, *rest = re.split(r"(?m)^-- (.+) --\n", path.read_text())
    wanted = Wanted()
    for line in head.splitlines():
        if line.startswith("after: "):
            wanted.after = line.removeprefix("after: ")
        elif line.startswith("left out: "):
            wanted.left_out.append(line.removeprefix("left out: "))
        elif line.startswith("question: "):
            wanted.questions.append(line.removeprefix("question: "))
        elif line.startswith("unprotected: "):
            wanted.open.append(line.removeprefix("unprotected: "))
        elif line.startswith("profiles "):
            wanted.profiles = line.split()[1:]
        elif line.startswith("files "):
            wanted.files = line.split()[1:]
        elif match := re.fullmatch(r"(seed|value) (\S+): (.*)", line):
            (wanted.seeds if match[1] == "seed" else wanted.values).append((match[2], match[3]))
        elif line.startswith("tag "):
            wanted.tags.append((line.split()[1], line.split()[2]))
        elif line.startswith("up "):
            wanted.up = line.split()[1:]
        elif line == "long":
            wanted.long = True
        elif line.startswith("exit "):
            wanted.exit = int(line.split()[1])
        elif line and not line.startswith("#"):
            match = re.fullmatch(r"(\S+)\s+(\{.*\})(?: after (.+))?", line)
            must(match, f"{path.name}: nobody knows what this line means: {line}")
            assert match
            wanted.services[match[1]] = match[2], tuple(sorted((match[3] or "").split()))
    return wanted, dict(zip(rest[::2], rest[1::2], strict=True))


def lay_out(folder: Path, files: dict[str, str], mode: int = 0o600) -> None:
    for name, text in files.items():
        path = folder / name
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("FOLDER", str(folder)).replace("<NUL>", "\0"))
        path.chmod(mode)


def services_in(written: str) -> dict[str, tuple[str, tuple[str, ...]]]:
    """The services of a file that `init` wrote, each on lines of a known shape."""
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    body = written.split("\nservices:\n", 1)[1].split("\nrepositories:\n", 1)[0]
    name = ""
    for line in body.splitlines():
        if match := re.fullmatch(r"  ([a-z0-9_-]+):", line):
            name = match[1]
        elif match := re.fullmatch(r"    source: (.*)", line):
            found[name] = match[1], ()
        elif match := re.fullmatch(r"    after: \[(.*)\]", line):
            found[name] = found[name][0], tuple(sorted(match[1].split(", ")))
    return found


def differences(wanted: Wanted, written: str, folder: Path) -> list[str]:
    """What is not as it should be, a line each."""
    told: list[str] = []
    found = services_in(written.replace(str(folder), "FOLDER"))
    for name in sorted(wanted.services.keys() | found.keys()):
        if found.get(name) != wanted.services.get(name):
            told.append(f"{name} is {found.get(name)}, and should be {wanted.services.get(name)}")
    profiles = re.search(r"profiles: \[(.*?)\]", written)
    profiles = profiles[1].split(", ") if profiles else []
    if profiles != wanted.profiles:
        told.append(f"the profiles are {profiles}, and should be {wanted.profiles}")
    if wanted.files:
        files = re.search(r"compose: \[(.*?)\]", written)
        files = files[1].split(", ") if files else []
        if files != wanted.files:
            told.append(f"the Compose files are {files}, and should be {wanted.files}")
    left_out = re.findall(r'(?m)^  - \{ (\w+: .*), because: ".*" \}$', written)
    if sorted(left_out) != sorted(wanted.left_out):
        told.append(f"{left_out} is left out, and {wanted.left_out} should be")
    questions = [line.removeprefix("# QUESTION: ") for line in written.splitlines() if line.startswith("# QUESTION: ")]
    for text in wanted.questions:
        if not any(text in question for question in questions):
            told.append(f"no question has {text!r} in it")
    for question in questions:
        if not any(text in question for text in wanted.questions):
            told.append(f"an idle question: {question}")
    if "hunter2" in written:
        told.append("a password was copied")
    return told


def init(world: World, path: Path) -> tuple[str, list[str]]:
    """How one project went, and what is wrong with it."""
    wanted, files = read(path)
    stack = Stack(world, world.folder / path.stem)
    stack.folder.mkdir()
    stack.environment |= NOWHERE
    lay_out(stack.folder, files)
    made = stack.devstack("init", expect={0, 7})
    written = stack.file.read_text()
    told = differences(wanted, written, stack.folder)
    if made.code != wanted.exit:
        told.append(f"`devstack init` ended with {made.code}, and should with {wanted.exit}")
    checked = stack.devstack("check", expect=None)
    if checked.code != 0:
        told.append(f"`devstack check` refuses it: {checked.said}")
    # Whatever the comparison finds that nobody takes must be what is asked.
    for line in checked.said.splitlines():
        if line.startswith("unprotected: ") and not any(part in line for part in wanted.open):
            told.append(f"`devstack check` says: {line}")
    for question in wanted.questions:
        if question not in re.sub(r"\s+", " ", checked.said.replace("│", " ")):
            told.append(f"`devstack check` does not name the question {question!r}")
    if told:
        return f"wrong {path.stem}", [f"{path.stem}: {text}" for text in told] + [written]
    if wanted.exit:
        # Nobody can say what stack this is before it is answered: it is none of those that are counted.
        return "asked ours", []
    return ("told " if wanted.questions else "right ") + (wanted.after or "ours"), []


@scenario()
def every_project_gets_a_file_that_is_right_or_asks(world: World) -> None:
    for name in COMPOSE_SETTINGS:
        os.environ.pop(name, None)
    # Beside `init`, every project has Compose read its files twice, on two processors.
    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(lambda path: init(world, path), sorted(PROJECTS.glob("*.txt"))))
    kinds = [kind.split()[0] for kind, _ in done]
    right, told, asked, wrong = (kinds.count(kind) for kind in ("right", "told", "asked", "wrong"))
    public = len({kind.split(" ", 1)[1] for kind, _ in done if not kind.endswith(" ours") and not kind.startswith("wrong")})
    world.note(f"{len(done)} projects, {public} after public ones: {right} right, {told} told, {asked} that nobody can read, {wrong} wrong")
    must(wrong == 0, "\n".join(text for _, lines in done for text in lines))


def lose_everything(stack: ComposeStack) -> None:
    """Everything but devstack.yaml, the repository and its key."""
    down(stack, [], [])
    for path in stack.folder.iterdir():
        if path.name in ("devstack.yaml", "backups", ".config"):
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def live(world: World, path: Path) -> None:
    """One project on real servers, from nothing to nothing and back."""
    wanted, files = read(path)
    project = f"ds-{random.SystemRandom().randbytes(4).hex()}"
    stack = ComposeStack(world, world.folder / project)
    stack.folder.mkdir()
    stack.project = project
    stack.environment["DOCKER_CONFIG"] = NOWHERE["DOCKER_CONFIG"]
    own = images() | {"ENTRY": RUN}
    for name, by in own.items():
        files = {file: re.sub(rf"\b{name}\b", lambda _, by=by: by, text) for file, text in files.items()}
    # A server reads the file of a secret as its own user.
    lay_out(stack.folder, files, 0o644)
    profiles = [part for profile in wanted.up for part in ("--profile", profile)]

    def values() -> list[str]:
        return [stack.inside(service, "sh", "-c", line).text for service, line in wanted.values]

    try:
        for tag, image in wanted.tags:
            stack.run(["docker", "tag", own[image], tag])
        stack.run(["docker", "compose", *profiles, "up", "--detach", "--wait", "--quiet-pull"])
        for service, line in wanted.seeds:
            stack.inside(service, "sh", "-c", line)
        before = values()
        stack.devstack("init")
        written = stack.file.read_text()
        told = differences(wanted, written, stack.folder)
        must(not told, "\n".join([*told, written]))
        stack.devstack("check")
        stack.devstack("apply", "--yes")
        lose_everything(stack)
        stack.devstack("recover", "--yes")
        after = values()
        must(before == after, f"{path.stem} held {before}, and holds {after}")
        must(stack.file.read_text() == written, "devstack.yaml was edited")
    finally:
        down(stack, [], [])
        for tag, _ in wanted.tags:
            stack.run(["docker", "rmi", "--no-prune", tag], expect=None)


@scenario()
def what_init_wrote_brings_a_lost_project_back(world: World) -> None:
    paths = [path for path in sorted((PROJECTS / "run").glob("*.txt")) if os.environ.get("DEVSTACK_TEST_LONG") or not read(path)[0].long]
    for path in paths:
        with world.part(f"a project is run, lost and recovered: {path.stem}"):
            live(world, path)
