"""What is taken comes back, whatever lies in its place: links, things of another kind, a damaged database, folders that nobody may
write to. With the real binary, without servers."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from pathlib import Path

from content import quickstart_data, rows_of
from scenario import World, must, scenario
from stack import FILES_SITE, SQLITE_SHOP, Outcome, Stack, write_stack


def small(world: World, *services: str) -> Stack:
    stack = write_stack(world, world.folder / "stack", services=list(services) or [SQLITE_SHOP, FILES_SITE])
    quickstart_data(stack.folder / "data")
    return stack


@scenario()
def links_that_a_file_names_come_back_with_what_they_lead_to(world: World) -> None:
    stack = small(world, "  site: { source: { files: { paths: [current, settings.env, 'live/*.html'] } } }")
    folder = stack.folder
    (folder / "releases").mkdir()
    shutil.move(folder / "data/site", folder / "releases/5")
    (folder / "current").symlink_to("releases/5")
    (folder / "live").symlink_to(folder / "current")
    (folder / "kept").mkdir()
    (folder / "kept/settings").write_text("a=1\n")
    (folder / "settings.env").symlink_to("kept/settings")
    page = (folder / "current/index.html").read_text()
    stack.devstack("apply", "--yes")
    shutil.rmtree(folder / "releases")
    must("site" in stack.devstack("plan", expect={7, 8}).said, "links that lead nowhere are nothing to tell")
    for gone in ("current", "live", "settings.env"):
        (folder / gone).unlink()
    shutil.rmtree(folder / "kept")
    stack.devstack("recover", "--yes")
    must((folder / "current/index.html").read_text() == page, "the link to a folder did not come back")
    must((folder / "live/index.html").read_text() == page, "the link that a pattern goes through did not come back")
    must((folder / "settings.env").read_text() == "a=1\n" and (folder / "settings.env").is_symlink(), "the link to a file did not come back")
    stack.converged()


@scenario()
def what_became_of_another_kind_comes_back_in_place_and_is_kept(world: World) -> None:
    stack = small(world)
    site = stack.folder / "data/site"
    (site / "part").mkdir(exist_ok=True)
    (site / "part/x").write_text("in a folder")
    page = (site / "index.html").read_text()
    stack.devstack("apply", "--yes")
    (site / "index.html").unlink()
    (site / "index.html").mkdir()
    (site / "index.html/mine").write_text("of a folder")
    shutil.rmtree(site / "part")
    (site / "part").write_text("a file now")
    said = stack.devstack("restore", "site", "--in-place", "--yes", "--approve", "restore:site").said
    must("index.html.before-restore" in said and "part.before-restore" in said, "where the things are now is not told")
    must((site / "index.html").read_text() == page and (site / "part/x").read_text() == "in a folder", "they did not come back")
    must((site / "index.html.before-restore/mine").read_text() == "of a folder", "what was in the way is lost")
    must((site / "part.before-restore").read_text() == "a file now", "what was in the way is lost")


def damaged(stack: Stack) -> bytes:
    path = stack.folder / "data/shop.db"
    content = bytearray(path.read_bytes())
    content[:4096] = b"x" * 4096
    path.write_bytes(content)
    return bytes(content)


@scenario()
def a_damaged_database_is_lost_and_comes_back_by_every_way(world: World) -> None:
    stack = small(world)
    path = stack.folder / "data/shop.db"
    stack.devstack("apply", "--yes")
    rows = rows_of(path)
    ways: list[list[str]] = [
        ["restore", "shop", "--in-place", "--yes"],
        ["recover", "--yes"],
        ["recover", "--replace", "--only", "shop", "--yes"],
        ["apply", "--yes", "--approve", "recover"],
    ]
    for number, way in enumerate(ways):
        with world.part(" ".join(["by", *way])):
            content = damaged(stack)
            said = stack.devstack("plan", expect={7, 8}).said
            must("damaged" in said and "--in-place" in said, f"a damaged database is not told: {said}")
            stack.devstack(*way)
            must(rows_of(path) == rows, "its rows are not those of the run")
            aside = path.with_name("shop.db.before-restore" + (f"-{number + 1}" if number else ""))
            must(aside.read_bytes() == content, f"what was there is not in {aside.name}")
    with world.part("a folder that Docker made in its place"):
        path.unlink()
        path.mkdir()
        stack.devstack("recover", "--yes")
        must(rows_of(path) == rows, "its rows are not those of the run")
    stack.converged()


@scenario()
def a_check_that_needs_its_application_is_told_and_no_damage(world: World) -> None:
    stack = small(world)
    path = stack.folder / "data/shop.db"
    database = sqlite3.connect(path)
    database.create_collation("unicase", lambda a, b: (a.lower() > b.lower()) - (a.lower() < b.lower()))
    database.execute("create table titles (name text)")
    database.execute("create index by_name on titles (name collate unicase)")
    database.executemany("insert into titles values (?)", [("b",), ("A",), ("ç",)])
    database.commit()
    database.close()
    said = stack.devstack("apply", "--yes").said
    must("titles can't be checked without its application" in said, f"what was not checked is not told: {said}")
    must(all(run.verified for run in stack.runs().values()), "a check that can't be run is taken for damage")
    path.unlink()
    stack.devstack("recover", "--yes")
    seen = sqlite3.connect(path).execute("select count(*) from titles").fetchone()
    must(seen == (3,), f"there are {seen}")


@scenario()
def what_a_recovery_left_half_way_is_not_complete_by_planning_anew(world: World) -> None:
    stack = small(world)
    site = stack.folder / "data/site"
    for number in range(3):
        (site / f"a{number}").write_text("whole")
    (site / "z").mkdir()
    (site / "z/last").write_text("whole")
    stack.devstack("apply", "--yes")
    shutil.rmtree(site)
    site.mkdir()
    # What is of another kind is left alone where only what is missing comes back, and the restore ends there.
    (site / "z").write_text("in the way")
    (stack.folder / "data/shop.db").unlink()
    # By one path more, of which a part is gone: then the source is.
    stack.file.write_text(stack.file.read_text().replace("data/site]", "data/site, data/site/a0]"))
    stack.devstack("recover", "--yes", expect=7)
    must((stack.folder / ".devstack/recovery.json").exists(), "the recovery is not unfinished")
    said = stack.devstack("recover", "--afresh", "--yes", expect=4).said
    must("restore:site" in said and "did not come to its end" in said, f"the half is taken for what came back: {said}")
    must("Recovery complete" not in said, "it is called complete")
    stack.devstack("recover", "--afresh", "--yes", "--approve", "restore:site")
    must((site / "z/last").read_text() == "whole" and (site / "z.before-restore").read_text() == "in the way", "it did not come back")


def as_nobody(stack: Stack, *arguments: str) -> Outcome:
    """By a user who isn't root: who may write anywhere has no folders that nobody may write to."""
    if os.getuid() != 0:
        return stack.devstack(*arguments)
    subprocess.run(["chown", "-R", "65534:65534", str(stack.folder)], check=True)
    stack.folder.parent.chmod(0o755)
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *stack.command(*arguments)], cwd=stack.folder,
        env=stack.whole_environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240,
    )
    outcome = Outcome(arguments, done.returncode, done.stdout, done.stderr)
    print(f"$ devstack {' '.join(arguments)}   (as another user) → {outcome.code}\n{outcome.said}")
    must(outcome.code == 0, f"`devstack {' '.join(arguments)}` ended with {outcome.code}")
    return outcome


@scenario("setpriv")
def a_folder_that_its_owner_may_not_write_comes_back_in_place(world: World) -> None:
    stack = small(world)
    site = stack.folder / "data/site"
    deep = site / "deep/er"
    deep.mkdir(parents=True)
    (deep / "page").write_text("as taken")
    folders = {deep: 0o555, site / "deep": 0o500, site: 0o555}
    for folder, mode in folders.items():
        folder.chmod(mode)
    as_nobody(stack, "apply", "--yes")
    for folder in folders:
        folder.chmod(0o755)
    (deep / "page").write_text("changed")
    (site / "index.html").unlink()
    for folder, mode in folders.items():
        folder.chmod(mode)
    as_nobody(stack, "restore", "site", "--in-place", "--yes", "--approve", "restore:site")
    must((deep / "page").read_text() == "as taken" and (site / "index.html").exists(), "the files did not come back")
    modes = {folder: folder.stat().st_mode & 0o777 for folder in folders}
    must(modes == folders, f"the folders have other modes: {[(path.name, oct(mode)) for path, mode in modes.items()]}")
    with world.part("and where one is missing, those that stay keep their modes"):
        for folder in (site, site / "deep"):
            folder.chmod(0o755)
        shutil.rmtree(deep)
        (site / "deep").chmod(0o500)
        site.chmod(0o555)
        as_nobody(stack, "restore", "site", "--in-place", "--yes", "--approve", "restore:site")
        must((deep / "page").read_text() == "as taken", "the folder did not come back")
        must({folder: folder.stat().st_mode & 0o777 for folder in folders} == folders, "the folders have other modes")
    for folder in (site, site / "deep", deep):
        folder.chmod(0o755)
