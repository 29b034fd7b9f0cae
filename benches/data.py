"""The data that is measured on: the same bytes at every run, made once and kept."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from pathlib import Path

SEED = 42
WORDS = (
    "lamp kettle mug rug scarf tray linen wool oak copper order customer delivery returned paid sent blue striped "
    "small white green address street number remark please leave with neighbour gift wrap invoice express"
).split()
# Lines are made in blocks, each from a seed of its own, so that a part can be made anew without what stands before it.
BLOCK_LINES = 2_000


@dataclass(frozen=True)
class Sizes:
    text: int
    noise: int
    files: int
    stream: int

    def tenth(self) -> Sizes:
        return Sizes(self.text // 10, self.noise // 10, self.files // 10, self.stream // 10)


FULL = Sizes(text=1_000_000_000, noise=200_000_000, files=20_000, stream=5_000_000_000)


def sql_block(number: int, version: int = 1) -> bytes:
    """Insert statements as a dump has them: counting ids, hexadecimal tokens, words, amounts. The length of a line does
    not depend on the version, so that rows can be changed in place."""
    chance = random.Random(f"{SEED} {number} {version}")
    tokens = chance.randbytes(BLOCK_LINES * 10).hex()
    words = chance.choices(WORDS, k=BLOCK_LINES * 8)
    first = number * BLOCK_LINES
    lines = []
    for row in range(BLOCK_LINES):
        text = " ".join(words[row * 8 : row * 8 + 8])[:56].ljust(56)
        lines.append(
            f"INSERT INTO orders VALUES ({first + row:010d}, '{tokens[row * 20 : row * 20 + 20]}', '{text}', "
            f"{(row * 7919) % 100000:06d}, '2026-{row % 12 + 1:02d}-{row % 28 + 1:02d} 12:00:00');\n"
        )
    return "".join(lines).encode()


def write_sql(path: Path, size: int) -> None:
    with path.open("wb") as file:
        number = 0
        while file.tell() < size:
            file.write(sql_block(number))
            number += 1


def write_noise(path: Path, size: int) -> None:
    chance = random.Random(SEED)
    with path.open("wb") as file:
        for _ in range(0, size, 1_000_000):
            file.write(chance.randbytes(1_000_000))


def small_file(number: int, version: int = 1) -> bytes:
    """Between some bytes and 16 KB of words: the sizes of a source tree."""
    chance = random.Random(f"{SEED} file {number}")
    count = int(chance.lognormvariate(5.5, 1.2))
    again = random.Random(f"{SEED} file {number} {version}")
    return " ".join(again.choices(WORDS, k=min(max(count, 3), 2_600))).encode()


def small_path(folder: Path, number: int) -> Path:
    return folder / f"{number % 100:02d}" / f"{number // 100 % 20:02d}" / f"file-{number:05d}.txt"


def make_once(folder: Path, sizes: Sizes) -> dict[str, Path]:
    """The folders of both data sets. What is there from an earlier run is taken as it is: the name tells its sizes."""
    made = {"two files": folder / f"two-{sizes.text}-{sizes.noise}", "small files": folder / f"small-{sizes.files}"}
    if not made["two files"].exists():
        unfinished = made["two files"].with_suffix(".unfinished")
        unfinished.mkdir(parents=True, exist_ok=True)
        write_sql(unfinished / "dump.sql", sizes.text)
        write_noise(unfinished / "noise.bin", sizes.noise)
        unfinished.rename(made["two files"])
    if not made["small files"].exists():
        unfinished = made["small files"].with_suffix(".unfinished")
        for number in range(sizes.files):
            path = small_path(unfinished, number)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(small_file(number))
        unfinished.rename(made["small files"])
    # An interrupted run may have left the changed version: start from the first one.
    set_version(made, "two files", sizes, 1)
    set_version(made, "small files", sizes, 1)
    return made


def set_version(made: dict[str, Path], name: str, sizes: Sizes, version: int) -> None:
    """Version 2 differs in 1 %: a contiguous stretch of the rows, or every hundredth file."""
    folder = made[name]
    if name == "two files":
        path = folder / "dump.sql"
        blocks = path.stat().st_size // len(sql_block(0))
        count = max(1, round(blocks / 100))
        with path.open("r+b") as file:
            for number in range(blocks // 3, blocks // 3 + count):
                file.seek(number * len(sql_block(0)))
                file.write(sql_block(number, version))
    else:
        for number in range(0, sizes.files, 100):
            small_path(folder, number).write_bytes(small_file(number, version))
    os.sync()


def warm(folder: Path) -> int:
    """Reads all of it, so that every tool finds the page cache in the same state. Gives the number of bytes."""
    total = 0
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                while chunk := file.read(1 << 22):
                    total += len(chunk)
    return total
