"""What earlier versions have left on disk: their repositories, journals, saved plans and files open, verify and restore. How a
fixture is made, and what is in it, says tests/yesterday/make."""

from __future__ import annotations

import random
import sqlite3
import tarfile
from pathlib import Path

from content import make_database, make_site
from oracle import Restic, run
from scenario import TOP, World, must, scenario
from stack import Stack, runs_in, write_stack

FIXTURES = sorted((TOP / "tests/yesterday").glob("*.tar.gz"))
PASSWORD = "of yesterday, and of no secret"
# Rows in `orders`, run by run. The incomplete run holds it too.
ROWS = [2000, 2400, 2400, 900]


def fixture(world: World, archive: Path) -> Stack:
    stack = Stack(world, world.folder / archive.name.removesuffix(".tar.gz"))
    with tarfile.open(archive) as packed:
        packed.extractall(stack.folder, filter="data" if hasattr(tarfile, "data_filter") else None)
    # The filter takes away what a key's folder must not grant, and nothing else; what it left is private either way.
    for path in (stack.folder / "key", *(stack.folder / "key").iterdir()):
        path.chmod(0o700 if path.is_dir() else 0o600)
    return stack


def rows(database: Path) -> int:
    with sqlite3.connect(database) as opened:
        [(count,)] = opened.execute("select count(*) from orders").fetchall()
    opened.close()
    return int(count)


def files(folder: Path) -> dict[str, object]:
    found = sorted(folder.rglob("*"))
    return {str(path.relative_to(folder)): path.readlink() if path.is_symlink() else path.read_bytes() for path in found}


@scenario("restic")
def what_an_earlier_version_has_written_opens_verifies_and_restores(world: World) -> None:
    must(FIXTURES, "there is no fixture in tests/yesterday")
    for archive in FIXTURES:
        stack = fixture(world, archive)
        site = files(stack.folder / "data/site")
        del site["x.log"]
        runs = {name: run for name, run in stack.runs().items() if "safety" not in name}
        must(len(runs) == len(ROWS), f"{archive.name}: these runs are seen: {sorted(runs)}")
        must([run.complete for _, run in sorted(runs.items())] == [True, True, False, True], f"{archive.name}: {runs}")
        # Its objectives were missed long ago, and its newest run is suspect; nothing of it is damaged.
        said = stack.devstack("verify", "--all", "--data", expect={0, 8}).said
        must("DAMAGED" not in said and "FAILED" not in said, f"{archive.name}: an intact repository is damaged: {said}")
        Restic(stack.repository, PASSWORD).check(read_data=True)
        for (name, run), count in zip(sorted(runs.items()), ROWS, strict=True):
            target = stack.folder / "restored" / name
            services = ["shop", "site"] if run.complete else ["shop"]
            stack.devstack("restore", *services, "--backup", name, "--to", str(target), "--yes")
            [database] = target.rglob("shop.db")
            must(rows(database) == count, f"{archive.name}: run {name} gives {rows(database)} rows, and held {count}")
            if run.complete:
                [folder] = [path for path in target.rglob("site") if (path / "index.html").exists()]
                must(files(folder) == site, f"{archive.name}: run {name} gives {files(folder)}")
        # What was approved by reading is carried out, unless the version itself has moved on since.
        applied = stack.devstack("apply", "plan.json", "--max-age", "36500d", expect={0, 5, 8})
        must(applied.code != 5 or "was made by devstack" in applied.said, f"{archive.name}: {applied.said}")
        stack.devstack("backup", expect={0, 8})
        newest = max(stack.runs())
        must(stack.runs()[newest].verified, f"{archive.name}: no run can be added to it")
        (stack.folder / "data/shop.db").unlink()
        stack.devstack("recover", "--yes", expect={0, 8})
        must(rows(stack.folder / "data/shop.db") == 900, f"{archive.name}: it was not recovered from")
        must(len(runs_in(stack.devstack("backups", "--format", "json").json())) > len(ROWS), "runs are gone")


@scenario("restic")
def what_a_later_version_has_written_is_refused_by_name(world: World) -> None:
    records = {"manifest": '{ "format": 1000 }', "tomorrow": '{ "format": 1 }'}
    for kind, text in records.items():
        stack = write_stack(world, world.folder / kind)
        make_database(stack.folder / "data/shop.db", random.Random(1), 0.1)
        make_site(stack.folder / "data/site", random.Random(2))
        stack.devstack("apply", "--yes")
        before = stack.runs()
        tags = [f"--tag={tag}" for tag in ("devstack", "stack:scenario", f"record:{kind}", "run:20990101T000000Z-regular")]
        backup = ["restic", "--no-cache", "-r", str(stack.repository), "backup", *tags, "--stdin", "--stdin-filename", f"{kind}.json"]
        run(backup, environment={"RESTIC_PASSWORD": "correct horse battery staple"}, given=text.encode())
        snapshots = sorted(path.name for path in (stack.repository / "snapshots").iterdir())
        for verb in (["plan"], ["apply", "--yes"], ["backup"]):
            said = stack.devstack(*verb, expect=None)
            must(said.code != 0 and "update devstack" in said.said, f"a record of tomorrow is not named by {verb}: {said.code} {said.said}")
        # On the worst day of the year what can be read comes back all the same.
        said = stack.devstack("restore", "site").said
        must("update devstack" in said, f"a restore does not say what it left out: {said}")
        now = sorted(path.name for path in (stack.repository / "snapshots").iterdir())
        must(now == snapshots and before, f"a repository of a later version was written to: {set(now) ^ set(snapshots)}")
