"""The folder that clones share stays within its limits, and what another clone needs stays in it."""

import os
import tempfile
import unittest
from pathlib import Path

import build_folder


class KeepWithin(unittest.TestCase):
    def made(self, folder: Path, package: str, name: str, age: int, size: int) -> None:
        note = folder / "debug/.fingerprint" / f"{package}-{name}"
        note.mkdir(parents=True)
        deps = folder / "debug/deps"
        deps.mkdir(exist_ok=True)
        (deps / f"lib{package}-{name}.rlib").write_bytes(b"x" * size)
        os.utime(note, (1_000_000 - age, 1_000_000 - age))

    def test_the_oldest_of_this_package_go_and_dependencies_stay(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            self.made(folder, "devstack", "new", 0, 60)
            self.made(folder, "devstack", "old", 10, 60)
            self.made(folder, "serde", "oldest", 99, 60)
            (folder / "debug/incremental/devstack-1").mkdir(parents=True)
            build_folder.keep_within(folder, largest_own=100, largest=1000)
            left = sorted(path.name for path in (folder / "debug/deps").iterdir())
            self.assertEqual(left, ["libdevstack-new.rlib", "libserde-oldest.rlib"])
            notes = sorted(path.name for path in (folder / "debug/.fingerprint").iterdir())
            self.assertEqual(notes, ["devstack-new", "serde-oldest"])
            self.assertFalse((folder / "debug/incremental").exists())

    def test_beyond_the_limit_all_is_made_anew(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            self.made(folder, "serde", "large", 0, 2000)
            build_folder.keep_within(folder, largest_own=100, largest=1000)
            self.assertEqual(list(folder.iterdir()), [])


class Chosen(unittest.TestCase):
    def test_what_the_user_has_set_is_his(self) -> None:
        before = dict(os.environ)
        try:
            for name in build_folder.SET_BY_USER:
                os.environ[name] = "/somewhere"
                self.assertIsNone(build_folder.chosen())
                del os.environ[name]
        finally:
            os.environ.clear()
            os.environ.update(before)


if __name__ == "__main__":
    unittest.main()
