"""The scenarios' runner: what ends without a word has failed, nothing mixes, and what must be alone is. Run by `quick`."""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scenarios"))

from scenario import Scenario, World, parser, run_side_by_side  # noqa: E402

READ, WRITE = os.pipe()


def ends_without_a_word(_: World) -> None:
    sys.exit(0)


def speaks(_: World) -> None:
    os.system("echo speaks")
    os.write(WRITE, b"x")


def listens(_: World) -> None:
    """To what is said beside it, for a moment."""
    os.system("echo listens")
    if select.select([READ], [], [], 0.5)[0]:
        os.read(READ, 1)
        raise AssertionError("heard")


def run(*bodies: Callable[[World], None], alone: Callable[[World], None] | None = None) -> tuple[dict[str, Any], list[str]]:
    results: list[dict[str, Any]] = []
    chosen = [Scenario(body.__name__, body, (), "a", "reason" if body is alone else "") for body in bodies]
    with contextlib.redirect_stdout(io.StringIO()) as heard:
        run_side_by_side(chosen, parser().parse_args(["--binary", "/bin/true"]), results.append)
    return {result["scenario"]: result["outcome"] for result in results}, heard.getvalue().splitlines()


class TheRunner(unittest.TestCase):
    def test_a_scenario_that_ends_without_a_word_has_failed(self) -> None:
        outcomes, _ = run(ends_without_a_word)
        self.assertEqual(outcomes, {"a: ends_without_a_word": "failed"})

    def test_two_run_side_by_side_and_their_lines_do_not_mix(self) -> None:
        outcomes, lines = run(listens, speaks)
        self.assertEqual(outcomes, {"a: speaks": "passed", "a: listens": "failed"})
        for said, outcome in (("listens", "failed"), ("speaks", "passed")):
            self.assertTrue(lines[lines.index(said) + 1].startswith(outcome), lines)

    def test_nothing_runs_beside_what_must_be_alone(self) -> None:
        outcomes, _ = run(speaks, listens, alone=speaks)
        self.assertEqual(outcomes, {"a: listens": "passed", "a: speaks": "passed"})
        os.read(READ, 1)


if __name__ == "__main__":
    unittest.main()
