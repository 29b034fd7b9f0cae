"""Data for the scenarios, and what makes two pieces of data the same: rows, bytes, modes, times, links."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import sqlite3
import stat
from pathlib import Path

from scenario import TOP, must

WORDS = "lamp kettle mug rug scarf tray linen wool oak copper order customer delivery returned paid sent".split()


def make_site(folder: Path, chance: random.Random, files: int = 12) -> None:
    """Nested folders, an empty file, a name with spaces, a link, unlike modes and old times. About the same size each time:
    a source that shrinks by half would ask for approval."""
    for number in range(files):
        path = folder / f"part-{number % 3}" / f"page {number}.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        # Anew each time: an earlier one may be read-only.
        path.unlink(missing_ok=True)
        path.write_bytes(b"" if number == 0 else chance.randbytes(chance.randrange(15_000, 25_000)))
        path.chmod(chance.choice([0o644, 0o600, 0o755, 0o440]))
        when = 1_600_000_000 + chance.randrange(100_000_000)
        os.utime(path, ns=(when * 10**9, when * 10**9 + chance.randrange(10**9)))
    link = folder / "first.html"
    if not link.is_symlink():
        link.symlink_to("part-1/page 1.html")


def make_database(path: Path, chance: random.Random, megabytes: float) -> int:
    """A table of rows in order of their ids, about `megabytes` large, with text that compresses as text does. Gives the
    number of rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = int(megabytes * 1_000_000 / 520)
    with sqlite3.connect(path) as database:
        database.execute("create table items (id integer primary key, name text not null, body text not null)")
        database.executemany("insert into items values (?, ?, ?)", (new_row(number, chance) for number in range(rows)))
    database.close()
    return rows


def new_row(number: int, chance: random.Random) -> tuple[int, str, str]:
    # Half of it random, half of it words: zstd gets it down to about half, as it does with a real dump.
    body = chance.randbytes(110).hex() + " " + " ".join(chance.choices(WORDS, k=40))
    return number, f"{chance.choice(WORDS)} {number}", body[:480].ljust(480)


def change_rows(path: Path, chance: random.Random, first: int, count: int) -> None:
    """New text of the old length in `count` rows that lie side by side."""
    with sqlite3.connect(path) as database:
        for number in range(first, first + count):
            _, _, body = new_row(number, chance)
            database.execute("update items set body = ? where id = ?", (body, number))
    database.close()


def quickstart_data(folder: Path) -> None:
    """The data of the project's own quickstart, as a scenario's `data/`."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy2(TOP / "examples/quickstart/shop.db", folder / "shop.db")
    shutil.copytree(TOP / "examples/quickstart/site", folder / "site", symlinks=True)


def rows_of(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Everything in a database: its schema and the rows of every table in a fixed order. Read without writing."""
    database = sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)
    try:
        integrity = database.execute("pragma integrity_check").fetchall()
        must(integrity == [("ok",)], f"{path} does not pass its integrity check: {integrity}")
        schema = database.execute("select type, name, tbl_name, sql from sqlite_schema order by type, name").fetchall()
        found: dict[str, list[tuple[object, ...]]] = {"": schema}
        for kind, name, *_ in schema:
            if kind == "table":
                found[name] = sorted(database.execute(f'select * from "{name}"').fetchall(), key=repr)
        return found
    finally:
        database.close()


def must_hold_the_same_rows(ours: Path, theirs: Path) -> None:
    left, right = rows_of(ours), rows_of(theirs)
    must(left[""] == right[""], f"the schema of {ours} is not that of {theirs}")
    for table, rows in left.items():
        must(rows == right[table], f"table {table} of {ours} is not that of {theirs}")


def listing(folder: Path) -> dict[str, tuple[object, ...]]:
    """Each entry below `folder`: kind, mode, modification time in nanoseconds, and the content's digest or the target."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        name = str(path.relative_to(folder))
        if stat.S_ISLNK(status.st_mode):
            found[name] = ("link", os.readlink(path))
        elif stat.S_ISDIR(status.st_mode):
            found[name] = ("folder", stat.S_IMODE(status.st_mode), status.st_mtime_ns)
        else:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            found[name] = ("file", stat.S_IMODE(status.st_mode), status.st_mtime_ns, digest)
    return found


def must_be_the_same_tree(ours: Path, theirs: Path) -> None:
    left, right = listing(ours), listing(theirs)
    differing = sorted(name for name in left.keys() | right.keys() if left.get(name) != right.get(name))
    first = [f"{name}: {left.get(name)} against {right.get(name)}" for name in differing[:5]]
    must(not differing, f"{len(differing)} entries of {ours} and {theirs} differ:\n" + "\n".join(first))


def find_tree(folder: Path, holding: str) -> Path:
    """The restored folder that has an entry called `holding`: tools differ in how much of the old path they keep."""
    found = [path.parent for path in folder.rglob(holding)]
    must(len(found) == 1, f"{holding} is in {folder} {len(found)} times: {[str(p) for p in found]}")
    return found[0]


def find_database(folder: Path) -> Path:
    """The one file below `folder` that is an SQLite database."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    found = [path for path in files if path.open("rb").read(16) == b"SQLite format 3\x00"]
    must(len(found) == 1, f"{folder} has {len(found)} databases among {[str(p.relative_to(folder)) for p in files]}")
    return found[0]


def size_of(folder: Path) -> int:
    """Bytes of all files below `folder`."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
