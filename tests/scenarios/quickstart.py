"""The first five minutes of a newcomer, and the promise behind them: plain restic, age and gpg open what was written."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from content import find_database, find_tree, must_be_the_same_tree, must_hold_the_same_rows, quickstart_data
from oracle import AgeKey, GpgKey, Restic, service_snapshot
from scenario import TOP, World, must, scenario
from stack import PASSPHRASE, Stack, write_stack


def fresh_copy(world: World) -> Stack:
    """What a fresh clone has of the quickstart: the file and the data, no key and no repository."""
    stack = Stack(world, world.folder / "clone")
    stack.folder.mkdir()
    shutil.copy2(TOP / "devstack.yaml", stack.file)
    shutil.copytree(TOP / "examples/quickstart", stack.folder / "examples/quickstart", symlinks=True)
    return stack


def key_file_of(stack: Stack) -> Path:
    """The passphrase's file as devstack.yaml names it."""
    match = re.search(r"passphrase:\s*\{?\s*file:\s*\"?([^\s,}\"]+)", stack.file.read_text())
    must(match, "the quickstart's devstack.yaml names no passphrase file")
    assert match
    return stack.folder / match[1]


def the_run(stack: Stack) -> str:
    runs = stack.runs()
    must(len(runs) == 1, f"one run was expected, and `backups` lists {sorted(runs)}")
    run = next(iter(runs.values()))
    must(run.complete and run.verified, f"the run is not complete and verified: {run.said}")
    return run.run


def must_open_with(password: str, stack: Stack, folder: Path, database: Path, site: Path) -> None:
    """restic reads every byte with this password, and what it restores equals the sources."""
    restic = Restic(stack.repository, password)
    restic.check(read_data=True)
    run, snapshots = the_run(stack), restic.snapshots()
    for service in ("shop", "site"):
        restic.restore(service_snapshot(snapshots, run, service), folder / service)
    must_hold_the_same_rows(find_database(folder / "shop"), database)
    must_be_the_same_tree(find_tree(folder / "site", site.name), site.parent)


@scenario("restic")
def one_command_in_a_fresh_clone_backs_up_and_plain_restic_restores_it(world: World) -> None:
    stack = fresh_copy(world)
    key_file = key_file_of(stack)
    must(not key_file.exists(), f"{key_file} is there before the first apply")
    first = stack.devstack("apply", "--yes")
    must(key_file.exists(), f"apply made no {key_file}")
    mode = key_file.stat().st_mode & 0o777
    must(mode == 0o600, f"{key_file} has mode {mode:04o}, not 0600")
    must(key_file.name in first.said, f"apply's output does not name {key_file}")
    password = key_file.read_text().rstrip("\n")
    must(password not in first.said, "apply's output shows the passphrase")
    data = stack.folder / "examples/quickstart"
    must_open_with(password, stack, world.folder / "restored", data / "shop.db", data / "site/not-found.txt")


@scenario()
def a_second_apply_has_nothing_to_do(world: World) -> None:
    stack = fresh_copy(world)
    stack.devstack("apply", "--yes")
    before = stack.runs()
    stack.devstack("apply", "--yes")
    must(stack.runs().keys() == before.keys(), "the second apply took another run")
    stack.converged()


@scenario()
def restore_beside_gives_back_rows_and_files(world: World) -> None:
    stack = fresh_copy(world)
    stack.devstack("apply", "--yes")
    data = stack.folder / "examples/quickstart"
    for service in ("shop", "site"):
        stack.devstack("restore", service, "--to", str(world.folder / service), "--yes")
    must_hold_the_same_rows(find_database(world.folder / "shop"), data / "shop.db")
    must_be_the_same_tree(find_tree(world.folder / "site", "not-found.txt"), data / "site")


def sidecars(stack: Stack) -> list[Path]:
    return sorted(path for path in (stack.repository / "devstack/keys").iterdir() if path.is_file())


def stack_with(world: World, recipient: str, environment: dict[str, str] | None = None) -> Stack:
    stack = write_stack(world, world.folder / "stack", keys=[PASSPHRASE, recipient])
    stack.environment.update(environment or {})
    quickstart_data(stack.folder / "data")
    stack.devstack("apply", "--yes")
    must(len(sidecars(stack)) == 1, f"one recipient should have one sidecar, and there are {sidecars(stack)}")
    return stack


@scenario("restic", "age", "age-keygen")
def plain_age_gives_a_password_that_opens_the_repository_with_restic(world: World) -> None:
    key = AgeKey.make(world.folder / "age")
    stack = stack_with(world, f"{{ age: {key.recipient} }}")
    password = key.decrypt(sidecars(stack)[0]).rstrip("\n")
    data = stack.folder / "data"
    must_open_with(password, stack, world.folder / "restored", data / "shop.db", data / "site/not-found.txt")


@scenario("restic", "gpg")
def plain_gpg_gives_a_password_that_opens_the_repository_with_restic(world: World) -> None:
    key = GpgKey.make(world.folder / "gpg")
    try:
        stack = stack_with(world, f"{{ gpg: {key.recipient} }}", {"GNUPGHOME": str(key.home)})
        password = key.decrypt(sidecars(stack)[0]).rstrip("\n")
        data = stack.folder / "data"
        must_open_with(password, stack, world.folder / "restored", data / "shop.db", data / "site/not-found.txt")
    finally:
        key.stop_agent()
