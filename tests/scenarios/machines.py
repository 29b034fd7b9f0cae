"""Machines as they are: two places of one name, no home folder, wrong clocks, output that nobody can read, disks that can't be written."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

from content import quickstart_data
from scenario import World, must, scenario
from stack import Stack, runs_in, wait_until, write_stack

# Stands before the C library's clock and moves it by so many seconds.
CLOCK = """\
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t id, struct timespec *now) {
    int came = syscall(SYS_clock_gettime, id, now);
    const char *by = getenv("AHEAD");
    if (came == 0 && id == CLOCK_REALTIME && by) now->tv_sec += atol(by);
    return came;
}
"""
DAY = 86_400


def placed(world: World, name: str, repository: str = "") -> Stack:
    stack = write_stack(world, world.folder / name)
    quickstart_data(stack.folder / "data")
    if repository:
        stack.file.write_text(stack.file.read_text().replace("path: ./backups", f"path: {repository}"))
    return stack


def repository_runs(stack: Stack) -> set[str]:
    return set(stack.runs())


@scenario()
def two_places_of_one_name_are_never_mixed(world: World) -> None:
    shared = str(world.folder / "shared")
    prod, staging = placed(world, "prod", shared), placed(world, "staging", shared)
    (staging.folder / "data/site/hello.txt").write_text("staging's own")
    prod.devstack("apply", "--yes")
    [taken] = repository_runs(prod)
    held = staging.devstack("apply", "--yes", expect=4)
    must("adopt:local" in held.said and str(prod.folder) in held.said, "staging is not told whose the repository is")
    staging.devstack("backup", expect=4)
    must("FOREIGN" in staging.devstack("status", "--live", expect=None).said, "status does not tell of the other place")
    must(repository_runs(prod) == {taken}, "staging wrote a run before anybody said so")
    prod.converged()
    staging.devstack("apply", "--yes", "--approve", "adopt:local")
    must(len(repository_runs(staging)) == 2, "with the word it takes its run")
    staging.converged()
    must("adopt:local" in prod.devstack("apply", "--yes", expect=4).said, "the old place writes on")
    out = world.folder / "out"
    prod.devstack("restore", "site", "--to", str(out))
    must(not any(path.read_text(errors="replace") == "staging's own" for path in out.rglob("hello.txt")), "prod got staging's data")


@scenario()
def a_stack_recovered_elsewhere_needs_one_word(world: World) -> None:
    shared = str(world.folder / "shared")
    old = placed(world, "old", shared)
    old.devstack("apply", "--yes")
    new = Stack(world, world.folder / "new")
    new.folder.mkdir()
    shutil.copytree(old.folder / "key", new.folder / "key")
    shutil.rmtree(old.folder)
    new.devstack("init", "--from", shared, "--passphrase-file", str(new.passphrase))
    recovered = new.devstack("recover", "--yes")
    must(f"taken at {old.folder}" in " ".join(recovered.said.split()), "nobody says where the runs come from")
    must("adopt:local" in recovered.said, "nobody says what comes next")
    new.devstack("apply", "--yes", expect=4)
    new.devstack("apply", "--yes", "--approve", "adopt:local")
    new.converged()


@scenario()
def a_path_below_home_needs_a_home(world: World) -> None:
    stack = placed(world, "stack", "~/x")
    for home in ("", "relative"):
        stack.environment["HOME"] = home
        refused = stack.devstack("apply", "--yes", expect=3)
        must("repositories.local.path" in refused.said and "HOME" in refused.said, "the field is not named")
    must(not (stack.folder / "~").exists(), "a folder called ~ was made")
    without = {name: value for name, value in os.environ.items() if name != "HOME"}
    done = subprocess.run(stack.command("plan"), cwd=stack.folder, env=without, capture_output=True, text=True)
    must(done.returncode == 3 and "repositories.local.path" in done.stderr, done.stderr)


@scenario()
def nothing_is_made_where_a_disk_may_not_be_mounted(world: World) -> None:
    place = world.folder / "mnt"
    place.mkdir()
    stack = placed(world, "stack", str(place))
    for verb in (["apply"], ["verify"], ["restore", "site", "--to", str(world.folder / "out")], ["recover", "--yes"]):
        stack.devstack(*verb, expect=None)
        must(not any(place.iterdir()), f"{verb[0]} made {[path.name for path in place.iterdir()]}")
    stack.devstack("apply", "--yes")
    shutil.rmtree(place)
    place.mkdir()
    must("create:local" in stack.devstack("apply", "--yes", expect={4, 7}).said, "it is not held")
    must(not any(place.iterdir()), "something was made at the place of a disk that is gone")


@scenario("cc")
def a_clock_that_was_wrong_for_one_run_blocks_nothing(world: World) -> None:
    source, shim = world.folder / "clock.c", world.folder / "clock.so"
    source.write_text(CLOCK)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(shim), str(source)], check=True)
    for name, seconds in (("ahead", DAY), ("behind", -400 * DAY)):
        stack = placed(world, name)
        stack.environment = {"LD_PRELOAD": str(shim), "AHEAD": str(seconds)}
        stack.devstack("apply", "--yes")
        [wrong] = repository_runs(stack)
        stack.environment = {}
        stack.devstack("apply", "--yes", expect=0)
        must(len(repository_runs(stack)) == 2, f"{name}: with the right clock no run was taken")
        stack.devstack("backup", expect=0)
        stack.converged()
        stack.devstack("forget", wrong, "--yes", "--approve", "forget:local", expect=0)
        must(wrong not in repository_runs(stack), f"{name}: the run of the wrong clock can't be forgotten")


def with_outputs(stack: Stack, script: str) -> int:
    line = script.replace("DEVSTACK", " ".join(f"'{part}'" for part in stack.command()))
    done = subprocess.run(["bash", "-c", line], cwd=stack.folder, env=stack.whole_environment(), capture_output=True, text=True)
    print(f"$ {script} → {done.returncode}\n{done.stdout}{done.stderr}")
    return done.returncode


@scenario("bash")
def output_that_cannot_be_written_stops_no_backup(world: World) -> None:
    stack = placed(world, "stack")
    for count, (script, code) in enumerate(
        [
            ("DEVSTACK apply --yes >/dev/full", 1),
            ("DEVSTACK backup --yes >/dev/full 2>/dev/full", 1),
            ("DEVSTACK backup --yes 2>/dev/full", 0),
            ("DEVSTACK backup --yes --format json >/dev/full", 1),
            ("DEVSTACK backup --yes >&- 2>&-", 0),
            ("set -o pipefail; DEVSTACK backup --yes --parallel 1 2>&1 | head -c 1", 141),
        ],
        1,
    ):
        must(with_outputs(stack, script) == code, f"{script} did not end with {code}")
        must(len(repository_runs(stack)) == count, f"{script} took no run")
    must(all(run.verified for run in stack.runs().values()), "a run was not proven")
    must(with_outputs(stack, "set -o pipefail; DEVSTACK backups | head -c 1") in {0, 141}, "a reader that leaves is a fault")


def without_override(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    """As somebody whom permission bits bind: root is not, but by giving that up."""
    bound = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [*bound, *stack.command(*arguments)], cwd=stack.folder, env=stack.whole_environment(), stdin=subprocess.DEVNULL,
        capture_output=True, text=True,
    )
    print(f"$ devstack {' '.join(arguments)} → {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def set_writable(folder: Path, writable: bool) -> None:
    for path in [folder, *folder.rglob("*")]:
        mode = path.stat().st_mode
        path.chmod(mode | 0o200 if writable else mode & ~0o222)


@scenario("setpriv")
def a_repository_that_can_only_be_read_brings_everything_back(world: World) -> None:
    stack = placed(world, "stack")
    stack.devstack("apply", "--yes")
    set_writable(stack.repository, False)
    try:
        for verb, code in (
            (["plan"], 0),
            # No recovery has been measured.
            (["status"], 8),
            (["verify"], 0),
            (["restore", "site", "--to", str(world.folder / "out")], 0),
            (["restore", "site", "--in-place", "--yes", "--approve", "restore:site"], 7),
            (["restore", "site", "--in-place", "--without-safety", "--yes", "--approve", "restore:site"], 0),
        ):
            done = without_override(stack, *verb)
            must(done.returncode == code, f"{verb} ended with {done.returncode}, not {code}")
            if verb[0] in {"verify", "restore"}:
                must("can be read here and not written" in done.stderr, "nobody says that no lease is held")
        shutil.rmtree(stack.folder / "data")
        done = without_override(stack, "recover", "--yes")
        must(done.returncode == 0 and (stack.folder / "data/shop.db").exists(), "recover did not bring the data back")
        must(without_override(stack, "backup").returncode == 7, "a backup into it fails")
    finally:
        set_writable(stack.repository, True)


@scenario("setpriv")
def a_cache_that_cannot_be_written_stops_nothing(world: World) -> None:
    stack = placed(world, "stack")
    stack.devstack("apply", "--yes")
    cache = stack.folder / ".devstack"
    set_writable(cache, False)
    try:
        for verb, code in (
            (["backup"], 0),
            (["verify"], 0),
            (["restore", "site", "--to", str(world.folder / "out")], 0),
            # No recovery has been measured.
            (["status"], 8),
        ):
            done = without_override(stack, *verb)
            must(done.returncode == code, f"{verb[0]} ended with {done.returncode}, not {code}")
        shutil.rmtree(stack.folder / "data")
        done = without_override(stack, "recover", "--yes")
        must(done.returncode == 0 and "warning" in done.stderr, "recover did not go on without its cache")
    finally:
        set_writable(cache, True)
    must(len(repository_runs(stack)) == 2, "the backup was not taken")


@scenario("restic")
def a_restic_lock_is_told_with_its_owner_and_what_removes_it(world: World) -> None:
    stack = placed(world, "stack")
    for _ in range(3):
        stack.devstack("backup")
    environment = os.environ | {"RESTIC_PASSWORD_FILE": str(stack.passphrase), "RESTIC_REPOSITORY": str(stack.repository)}
    process = subprocess.Popen(
        ["restic", "--no-cache", "backup", "--stdin"], env=environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
    )
    locks = stack.repository / "locks"
    wait_until(lambda: any(path for path in locks.glob("*") if "tmp" not in path.name), "restic's lock")
    forget = ["forget", min(stack.runs()), "--yes", "--approve", "forget:local"]
    live = stack.devstack(*forget, expect=None)
    must(f"pid {process.pid}" in live.said and "restic unlock" in live.said and live.code != 0, "its owner is not named")
    process.send_signal(signal.SIGKILL)
    process.wait()
    stale = stack.devstack(*forget, expect=None)
    must("nobody holds any more" in stale.said and f"pid {process.pid}" in stale.said, "a dead lock is not told for one")
    subprocess.run(["restic", "--no-cache", "unlock"], env=environment, check=True)
    stack.devstack(*forget, expect=0)


@scenario()
def a_word_that_nothing_waits_for_is_a_note(world: World) -> None:
    stack = placed(world, "stack")
    done = stack.devstack("apply", "--yes", "--approve", "forget:local", expect=0)
    must("--approve forget:local approved nothing" in done.said, "the word is not told")
    must(len(runs_in(stack.devstack("backups", "--format", "json").json())) == 1, "what was due was not done")
    must("approved nothing" in stack.devstack("apply", "--yes", "--approve", "forget:local", expect=0).said, "nor in an empty plan")
