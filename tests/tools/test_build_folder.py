"""The folder that clones share stays within its limits, and what another clone needs stays in it."""

import os
import shutil
import subprocess
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


class Clones(unittest.TestCase):
    def test_no_clone_is_tested_with_what_was_built_of_another(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            said = []
            for clone in (Path(name) / "one", Path(name) / "other"):
                (clone / "src").mkdir(parents=True)
                (clone / "Cargo.toml").write_text('[package]\nname = "probe"\nversion = "0.1.0"\nedition = "2024"\n[workspace]\n')
                flaw = "" if clone.name == "one" else "let unused = 5;"
                (clone / "src/main.rs").write_text(f'fn main() {{ {flaw} println!("{clone.name}") }}')
                (clone / "tests/tools").mkdir(parents=True)
                shutil.copy(Path(__file__).with_name("rustc"), clone / "tests/tools/rustc")
            # Both were written before either was built, as two clones may be.
            for clone in (Path(name) / "one", Path(name) / "other"):
                environment = os.environ | build_folder.environment(Path(name) / "shared", clone)
                environment.pop("CARGO_TARGET_DIR", None)
                built = ["cargo", "run", "--quiet", "--offline"]
                done = subprocess.run(
                    built, cwd=clone, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL, text=True, check=True,
                )
                lint = ["cargo", "clippy", "--quiet", "--offline", "--", "-D", "warnings", "--cfg", build_folder.name_of(clone)]
                found = subprocess.run(lint, cwd=clone, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                said.append((done.stdout.strip(), found.returncode == 0))
            self.assertEqual(said, [("one", True), ("other", False)])


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
