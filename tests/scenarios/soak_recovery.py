"""Recoveries that take minutes to try: killed at every step, an engine that restarts, a repository that goes away, and what goes
side by side. Run by `tests/soak`."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from compose_stack import CACHE, ComposeStack, compose_stack
from engine_stack import look
from recovery_disaster import lose_everything, shop
from recovery_drill import drill, seconds
from recovery_drill import small as drilled
from recovery_faults import FILES, ONLY, POSTGRES, lose, new_lines, small, sql
from recovery_safety import FORGEJO
from scenario import World, must, scenario
from stack import wait_until

ROWS = "SELECT count(*), md5(string_agg(md5, '' ORDER BY n)) FROM t"
# What is restored for the measure of what goes side by side, in all.
GIGABYTE = int(os.environ.get("DEVSTACK_TEST_RECOVERED_MB", "1000"))


@scenario(alone="its steps are killed as they begin")
def killed_at_each_of_its_steps_it_goes_on_and_ends_well(world: World) -> None:
    with compose_stack(world, [POSTGRES, FORGEJO, FILES], ["postgres", "forgejo"]) as stack:
        sql(stack, "CREATE TABLE t AS SELECT n, md5(n::text) FROM generate_series(1, 20000) n")
        stack.inside("forgejo", "sh", "-c", "echo precious >/data/one")
        stack.devstack("apply", "--yes")
        before = sql(stack, ROWS)
        only = (*ONLY, "--only", "forgejo")
        lose(stack)
        steps = len(stack.devstack("recover", "--dry-run", "--format", "json", *only).json()["steps"])
        killed = set()
        for number in range(1, steps + 1):
            lose_what_is_there(stack)
            seen = len(stack.journal.read_text().splitlines())
            process = stack.start("recover", "--yes", *only)
            wait_until(lambda: process.poll() is not None or begun(stack, seen, number), f"step {number} to begin")
            process.kill()
            process.communicate(timeout=60)
            if process.returncode == -9:
                killed.add(number)
                stack.devstack("recover", "--resume", "--yes")
            must(sql(stack, ROWS) == before, f"killed at step {number}, the rows came back otherwise")
            must(stack.inside("forgejo", "cat", "/data/one").text == "precious", f"killed at step {number}, the volume came back otherwise")
        must(len(killed) == steps, f"killed at {sorted(killed)} of {steps} steps")
        world.note(f"{steps} of {steps} steps")


def begun(stack: ComposeStack, seen: int, number: int) -> bool:
    return any(f'"step":{number},' in line or f'"step": {number},' in line for line in new_lines(stack, seen))


def lose_what_is_there(stack: ComposeStack) -> None:
    if (stack.folder / "docker-compose.yml").exists():
        lose(stack)


@scenario(alone="the engine that everything runs on is restarted")
def the_engine_is_restarted_in_the_middle_and_it_goes_on(world: World) -> None:
    note = CACHE / "docker/dockerd.pid"
    must(note.exists(), "the engine was not started by tests/tools/docker, so it can't be restarted here")
    with small(world) as stack:
        before = sql(stack, ROWS)
        lose(stack)
        process = stack.start("recover", "--yes", *ONLY)
        wait_until(lambda: any("container/postgres" in line for line in new_lines(stack, 0)), "the server to start")
        pid = int(note.read_text())
        os.kill(pid, 15)
        wait_until(lambda: not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2], "the engine to end")
        subprocess.run([str(Path(__file__).parents[1] / "tools/docker")], check=True, capture_output=True)
        out, _ = process.communicate(timeout=900)
        if process.returncode != 0:
            must(process.returncode == 7, f"it ended with {process.returncode}: {out[-2000:]}")
            stack.devstack("recover", "--resume", "--yes")
        must(sql(stack, ROWS) == before, "it came back otherwise")
        world.note(f"the recovery ended with {process.returncode}, and is whole after it")


@scenario()
def a_repository_that_goes_away_for_half_a_minute_is_waited_for_or_gone_on_with(world: World) -> None:
    with small(world) as stack:
        before = sql(stack, ROWS)
        lose(stack)
        process = stack.start("recover", "--yes", *ONLY)
        wait_until(lambda: any("container/postgres" in line for line in new_lines(stack, 0)), "the server to start")
        away = stack.folder / "backups-away"
        stack.repository.rename(away)
        gone = time.monotonic()
        wait_until(lambda: time.monotonic() - gone > 30, "half a minute")
        away.rename(stack.repository)
        out, _ = process.communicate(timeout=900)
        if process.returncode != 0:
            must("postgres" in out, f"what failed is not named: {out[-2000:]}")
            stack.devstack("recover", "--resume", "--yes")
        must(sql(stack, ROWS) == before, "it came back otherwise")
        world.note(f"the recovery ended with {process.returncode}, and is whole after it")


@scenario(alone="its times are compared")
def three_drills_predict_the_next_one_and_one_of_twice_the_data(world: World) -> None:
    with drilled(world) as stack:
        sql(stack, "INSERT INTO t SELECT n, sha256(n::text::bytea)::text FROM generate_series(20001, 1500000) n")
        stack.devstack("backup")
        for _ in range(3):
            drill(stack)
        for what in ("the same data", "twice the data"):
            if what == "twice the data":
                sql(stack, "INSERT INTO t SELECT n, sha256(n::text::bytea)::text FROM generate_series(1500001, 3000000) n")
                stack.devstack("backup")
            predicted = seconds(stack.devstack("plan", "--format", "json").json()["report"]["recovery"]["predicted"])
            took = seconds(drill(stack)["took"])
            world.note(f"{what}: predicted {predicted:.1f} s, took {took:.1f} s")
            must(abs(predicted - took) <= 0.3 * took, f"of {what} {predicted:.1f} s were predicted, and it took {took:.1f} s")


@scenario(alone="its times are compared")
def what_does_not_wait_for_each_other_goes_side_by_side(world: World) -> None:
    with shop(world) as stack:
        fill(stack, GIGABYTE)
        stack.devstack("backup")
        before = look(stack)
        took = {}
        for parallel in ("1", "8"):
            lose_everything(stack)
            began = time.monotonic()
            stack.devstack("recover", "--yes", "--parallel", parallel)
            took[parallel] = time.monotonic() - began
            must(look(stack) == before, f"with --parallel {parallel} it came back otherwise")
        world.note(f"one by one {took['1']:.0f} s, side by side {took['8']:.0f} s: {took['8'] / took['1']:.2f}")


def fill(stack: ComposeStack, megabytes: int) -> None:
    """PostgreSQL, MySQL and the volume, a third of it each, of bytes that do not compress."""
    each = megabytes // 3
    stack.inside("postgres", "psql", "-q", "-U", "shop", "-d", "shop",
                 stdin=f"CREATE EXTENSION IF NOT EXISTS pgcrypto; CREATE TABLE big AS SELECT n, gen_random_bytes(1000) AS b FROM generate_series(1, {each * 1000}) n", seconds=900)
    stack.inside("mysql", "mysql", "-uroot", env={"MYSQL_PWD": stack.variables["MYSQL_ROOT_PASSWORD"]}, seconds=900,
                 stdin=f"SET cte_max_recursion_depth = 100000000; CREATE TABLE shop.big (n INT PRIMARY KEY, b VARBINARY(1000)); INSERT INTO shop.big WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {each * 1000}) SELECT n, RANDOM_BYTES(1000) FROM c;")
    stack.inside("forgejo", "sh", "-c", f"head -c {each}000000 /dev/urandom >/data/big", seconds=900)
