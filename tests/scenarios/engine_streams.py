"""What every engine's streams have to bear: cut connections, a full disk, much data, small changes."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from compose_stack import ComposeStack
from docker_proxy import proxy
from engine_postgres import good_runs, postgres, sql
from scenario import World, must, scenario

# The dump of the memory test in MB; `tests/soak` asks for 5,000.
STREAMED_MB = int(os.environ.get("DEVSTACK_TEST_STREAMED_MB", "256"))

MOST_MEMORY = 300_000_000


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@scenario()
def a_connection_that_is_cut_once_is_taken_again_and_one_that_stays_cut_fails(world: World) -> None:
    with postgres(world) as stack, proxy(world.folder) as door:
        sql(stack, "CREATE TABLE t AS SELECT n, repeat(md5(n::text), 4) FROM generate_series(1, 100000) n")
        stack.environment["DOCKER_HOST"] = door.address
        stack.devstack("apply", "--yes")
        before = good_runs(stack)
        door.after, door.cuts_left = 2_000_000, 1
        stack.devstack("backup", expect=0)
        must(door.cut == 1, "no stream was cut, so nothing was shown")
        must(len(good_runs(stack)) == len(before) + 1, "the take that was tried again made no good run")
        before = good_runs(stack)
        door.cuts_left = 1000
        failed = stack.devstack("backup", expect=7)
        must("postgres" in failed.said and "pg_dump" in failed.said, "the program whose stream was cut is not named")
        door.cuts_left = 0
        must(good_runs(stack) == before, "a stream that was cut counts as good")
        left = sql(stack, "SELECT count(*) FROM pg_stat_activity WHERE application_name IN ('pg_dump', 'devstack') AND pid <> pg_backend_pid()")
        must(left == "0", f"{left} dumps go on in the container after devstack has ended")


@scenario("restic")
def a_repository_on_a_full_disk_fails_and_recovers_when_there_is_room(world: World) -> None:
    with postgres(world) as stack:
        sql(stack, "CREATE TABLE t AS SELECT n, encode(sha256(n::text::bytea), 'hex') AS h FROM generate_series(1, 500000) n")
        with small_disk(stack.repository, "16m"):
            full = stack.devstack("apply", "--yes", expect=7)
            must("No space left" in full.said and "postgres" in full.said, "the full disk is not named")
            must(not good_runs(stack), "a run that did not fit counts as good")
            subprocess.run(["mount", "-o", "remount,size=512m", str(stack.repository)], check=True)
            stack.devstack("apply", "--yes")
            must(len(good_runs(stack)) == 1, "with room again there is no good run")
            stack.run(["restic", "-r", "backups", "--password-file", "key/passphrase", "check", "--read-data"])


def watched(stack: ComposeStack, *arguments: str) -> tuple[int, list[str]]:
    """Peak memory of a devstack in bytes, and the files over 1 MB that it wrote outside of the repository."""
    process = stack.start(*arguments)
    written: set[str] = set()
    while process.poll() is None:
        for link in Path(f"/proc/{process.pid}/fd").glob("*"):
            with contextlib.suppress(OSError):
                target = os.readlink(link)
                inside = target.startswith(str(stack.repository))
                if target.startswith("/") and not inside and os.stat(link).st_size > 1_000_000 and not target.startswith("/dev"):
                    flags = int(next(line for line in Path(f"/proc/{process.pid}/fdinfo/{link.name}").read_text().splitlines() if line.startswith("flags")).split()[1], 8)
                    if flags & (os.O_WRONLY | os.O_RDWR):
                        written.add(target)
        with contextlib.suppress(OSError, StopIteration):
            status = Path(f"/proc/{process.pid}/status").read_text()
            peak = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1000
        time.sleep(0.01)
    said, _ = process.communicate()
    print(said)
    must(process.returncode == 0, f"`{' '.join(arguments)}` ended with {process.returncode}")
    return peak, sorted(written)


@scenario()
def a_large_dump_goes_through_in_little_memory_and_without_a_file_beside(world: World) -> None:
    with postgres(world) as stack, small_disk(world.folder / "tmp", "1m"):
        rows = STREAMED_MB * 1000
        sql(stack, f"CREATE TABLE t AS SELECT n, repeat(md5(n::text) || md5((n + 1)::text), 15) AS body FROM generate_series(1, {rows}) n")
        # Whoever writes a large temporary file finds no room for it.
        stack.environment["TMPDIR"] = str(world.folder / "tmp")
        peak, written = watched(stack, "apply", "--yes")
        must(peak < MOST_MEMORY, f"taking and proving used {peak / 1e6:.0f} MB")
        must(not written, f"large files were written beside the repository: {written}")
        back, written = watched(stack, "restore", "postgres", "--in-place", "--without-safety", "--yes", "--approve", "restore:postgres")
        must(back < MOST_MEMORY, f"restoring used {back / 1e6:.0f} MB")
        must(not written, f"large files were written while restoring: {written}")
        must(sql(stack, "SELECT count(*) FROM t") == str(rows), "not every row came back")
        world.note(f"{STREAMED_MB} MB: peak {peak / 1e6:.0f} MB taking, {back / 1e6:.0f} MB restoring")


def newest(stack: ComposeStack) -> tuple[int, int]:
    """Plain bytes and added bytes of the newest run's one service."""
    run = stack.runs()[max(stack.runs())]
    [service] = run.said["manifest"]["services"].values()
    taken = service["taken"]
    return sum(artifact["bytes"] for artifact in taken["artifacts"]), taken["added"]


@scenario()
def one_per_cent_of_the_rows_changed_in_one_place_adds_little(world: World) -> None:
    with postgres(world) as stack:
        sql(stack, "CREATE TABLE t (id int PRIMARY KEY, h text) WITH (fillfactor = 90);"
                   "INSERT INTO t SELECT n, encode(sha256(n::text::bytea), 'hex') FROM generate_series(1, 1000000) n")
        stack.devstack("apply", "--yes")
        sql(stack, "UPDATE t SET h = encode(sha256(('x' || id)::bytea), 'hex') WHERE id BETWEEN 400000 AND 410000")
        stack.devstack("backup")
        whole, contiguous = newest(stack)
        must(contiguous <= 0.15 * whole, f"1 % of the rows in one place added {contiguous / whole:.1%} of the dump")
        sql(stack, "UPDATE t SET h = encode(sha256(('y' || id)::bytea), 'hex') WHERE id % 100 = 0")
        stack.devstack("backup")
        whole, scattered = newest(stack)
        stack.devstack("backup")
        _, unchanged = newest(stack)
        world.note(f"{whole / 1e6:.0f} MB: in one place {contiguous / whole:.2%}, scattered {scattered / whole:.1%}, unchanged {unchanged / 1000:.0f} kB")
