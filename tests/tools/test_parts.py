"""The test command's own tests: a failure must never read as a success. Run by the part `quick`."""

from __future__ import annotations

import contextlib
import io
import unittest

from cargo_tests import CargoRun, Name, read
from parts import Part, summarize

PRINTED = """\
   Compiling devstack v0.1.0
     Running unittests src/lib.rs (target/debug/deps/devstack-0123)

running 3 tests
test plan::retention::keeps ... ok
test repository::opens ... ignored, needs restic, age
test apply::stops - should panic ... FAILED

test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s

     Running tests/arrows.rs (target/debug/deps/arrows-0123)

running 1 test
test repository::opens ... ignored

test result: ok. 0 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s

   Doc-tests devstack

running 1 test
test src/lib.rs - thing (line 3) ... ok

test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
"""


def summary_of(*parts: Part) -> tuple[int, list[str]]:
    heard = io.StringIO()
    with contextlib.redirect_stdout(heard):
        code = summarize(list(parts), [])
    return code, heard.getvalue().splitlines()


class CargosOutput(unittest.TestCase):
    def test_counts_of_all_binaries_add_up(self) -> None:
        run = read(PRINTED.splitlines())
        self.assertEqual((run.passed, run.failed, run.ignored), (2, 1, 2))
        self.assertEqual(run.failed_tests, [Name("unittests src/lib.rs", "apply::stops - should panic")])

    def test_ignored_tests_of_one_name_are_told_apart_by_their_binaries(self) -> None:
        ignored = read(PRINTED.splitlines()).ignored_tests
        name = "repository::opens"
        self.assertEqual(
            ignored, {Name("unittests src/lib.rs", name): "needs restic, age", Name("tests/arrows.rs", name): ""}
        )

    def test_a_build_that_breaks_is_a_failure_without_a_test(self) -> None:
        part = Part("quick")
        part.count(CargoRun(exit_code=101), "cargo test")
        self.assertEqual(part.failed, 1)


class TheSummary(unittest.TestCase):
    def test_its_last_line_has_the_totals(self) -> None:
        one, two = Part("quick", passed=3), Part("oracles", passed=4)
        two.left_out = {"a": "needs restic"}
        code, lines = summary_of(one, two)
        self.assertEqual((code, lines[-1]), (0, "7 passed, 0 failed, 1 skipped"))
        self.assertIn("left out  oracles: a: needs restic", lines)

    def test_one_failure_fails_it_all(self) -> None:
        part = Part("quick", passed=3)
        part.fail("format")
        code, lines = summary_of(part)
        self.assertEqual((code, lines[-1]), (1, "3 passed, 1 failed, 0 skipped"))

    def test_a_run_without_a_test_is_a_failure(self) -> None:
        code, lines = summary_of(Part("quick", checks=["format"]))
        self.assertEqual((code, lines[-1]), (1, "0 passed, 0 failed, 0 skipped"))

    def test_tests_that_no_other_part_ran_count_as_skipped(self) -> None:
        part = Part("quick", passed=1, deferred={Name("unittests src/lib.rs", "a"): "needs gpg"})
        code, lines = summary_of(part)
        self.assertEqual((code, lines[-1]), (0, "1 passed, 0 failed, 1 skipped"))
        self.assertIn("left out  quick: a (unittests src/lib.rs): needs gpg", lines)


if __name__ == "__main__":
    unittest.main()
