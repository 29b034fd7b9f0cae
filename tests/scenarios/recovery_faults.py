"""What goes wrong on the worst day, and how it ends well: a damaged run, a devstack that is killed, a server that never gets well."""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compose_stack import ComposeStack, compose_stack
from content import make_site
from engine_stack import SERVICES
from engine_streams import small_disk
from scenario import World, must, scenario
from stack import FILES_SITE, wait_until, write_stack

POSTGRES = SERVICES[0]
FILES = "  configuration: { source: { files: { paths: [.env, docker-compose.yml, configs/] } } }"
ONLY = ("--only", "postgres", "--only", "configuration")


@contextmanager
def small(world: World) -> Iterator[ComposeStack]:
    with compose_stack(world, [POSTGRES, FILES], ["postgres"]) as stack:
        sql(stack, "CREATE TABLE t AS SELECT n, md5(n::text) FROM generate_series(1, 20000) n")
        stack.devstack("apply", "--yes")
        yield stack


def sql(stack: ComposeStack, text: str) -> str:
    return stack.inside("postgres", "psql", "-AtqU", "shop", "-d", "shop", stdin=text).text


def lose(stack: ComposeStack) -> None:
    stack.compose("down", "--volumes", "--remove-orphans", "--timeout", "2")
    for name in (".env", "docker-compose.yml", "configs"):
        path = stack.folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def packs(stack: ComposeStack) -> set[Path]:
    return {path for path in (stack.folder / "backups/data").rglob("*") if path.is_file()}


@scenario()
def a_damaged_newest_run_is_found_before_anything_is_touched_and_an_older_one_taken(world: World) -> None:
    with small(world) as stack:
        [first] = stack.runs()
        old = packs(stack)
        sql(stack, "INSERT INTO t SELECT n, sha256(n::text::bytea)::text FROM generate_series(20001, 60000) n")
        stack.devstack("backup")
        largest = max(packs(stack) - old, key=lambda path: path.stat().st_size)
        whole = bytearray(largest.read_bytes())
        whole[len(whole) // 2] ^= 0xFF
        largest.chmod(0o600)
        largest.write_bytes(whole)
        lose(stack)
        said = stack.devstack("recover", "--yes", *ONLY).said
        must("was found damaged before anything was touched" in said, f"the damage is not said: {said}")
        must(sql(stack, "SELECT count(*) FROM t") == "20000", "it is not the older run that came back")
        damaged = [name for name, run in stack.runs().items() if name != first]
        must("DAMAGED" in stack.devstack("status", expect=8).said and damaged, "the damage is not on record")
        shown = stack.devstack("plan", expect=8).out
        must(f"DAMAGED     local/{damaged[0]}" in shown, f"a plan does not tell it: {shown}")


@scenario()
def killed_at_a_step_it_goes_on_and_ends_well(world: World) -> None:
    with small(world) as stack:
        before = sql(stack, "SELECT count(*), md5(string_agg(md5, '' ORDER BY n)) FROM t")
        for verb, resource in (("restore", "configuration/data"), ("start container", "container/postgres"), ("restore", "postgres/data")):
            lose(stack)
            seen = len(stack.journal_entries())
            process = stack.start("recover", "--yes", *ONLY)

            def begun() -> bool:
                return any(f'"{verb}"' in str(line) and resource in str(line) for line in new_lines(stack, seen))

            wait_until(begun, f"{verb} {resource} to begin")
            process.kill()
            process.communicate(timeout=60)
            refused = stack.devstack("recover", "--yes", *ONLY, expect=4).said
            must("--resume" in refused, f"an interrupted recovery is not told: {refused}")
            must("--resume" in stack.devstack("apply", "--yes", expect=4).said, "what was put back half-way could be backed up")
            said = stack.devstack("recover", "--resume", "--yes").said
            must(sql(stack, "SELECT count(*), md5(string_agg(md5, '' ORDER BY n)) FROM t") == before, f"killed at {resource}, it came back otherwise: {said}")
            again = stack.devstack("recover", "--yes", *ONLY).said
            must("there is nothing to recover" in again, f"it has not come to its end: {again}")


def new_lines(stack: ComposeStack, seen: int) -> list[str]:
    """Of the journal, those of steps that began since."""
    try:
        lines = stack.journal.read_text().splitlines()[seen:]
    except FileNotFoundError:
        return []
    return [line for line in lines if "step_started" in line]


@scenario()
def a_server_that_never_gets_well_stops_what_needs_it_and_is_named(world: World) -> None:
    with small(world) as stack:
        text = (stack.folder / "docker-compose.yml").read_text()
        lose(stack)
        # Its image does not know this program, so that it ends at once, each time.
        broken = re.sub(r"(?m)^  postgres:\n", "  postgres:\n    entrypoint: [\"false\"]\n", text, count=1)
        stack.devstack("restore", "configuration", "--in-place", "--yes", "--approve", "restore:configuration")
        (stack.folder / "docker-compose.yml").write_text(broken.replace("restart: unless-stopped", 'restart: "no"'))
        said = stack.devstack("recover", "--yes", "--only", "postgres", expect=7).said
        must("container/postgres" in said and "exited" in said, f"the server is not named: {said}")
        must("skipped" in said, "what needs it was not skipped")


@scenario()
def of_a_run_that_is_damaged_in_part_the_rest_comes_back_when_it_is_named(world: World) -> None:
    with small(world) as stack:
        [run] = stack.runs()
        # The pack with the files' data is small; the database's is the largest.
        largest = max(packs(stack), key=lambda path: path.stat().st_size)
        whole = bytearray(largest.read_bytes())
        whole[len(whole) // 2] ^= 0xFF
        largest.chmod(0o600)
        largest.write_bytes(whole)
        lose(stack)
        none = stack.devstack("recover", "--yes", *ONLY, expect=8).said
        must("--backup RUN" in none and not (stack.folder / ".env").exists(), f"the way out is not told, or something was touched: {none}")
        part = stack.devstack("recover", "--yes", "--backup", run, *ONLY, expect=None)
        must(part.code in (7, 8) and "postgres" in part.said, f"it ended with {part.code}: {part.said}")
        must((stack.folder / ".env").exists(), f"what is whole did not come back: {part.said}")


@scenario()
def where_there_is_no_room_nothing_is_touched(world: World) -> None:
    tight = world.folder / "tight"
    with small_disk(tight, "4m"):
        large = f"  large: {{ source: {{ files: {{ paths: [{tight / 'large'}] }} }} }}"
        stack = write_stack(world, world.folder / "stack", services=[large, FILES_SITE])
        make_site(stack.folder / "data/site", random.Random(1), files=3)
        (tight / "large").mkdir()
        (tight / "large/one").write_bytes(random.Random(2).randbytes(2_500_000))
        stack.devstack("apply", "--yes")
        shutil.rmtree(tight / "large")
        shutil.rmtree(stack.folder / "data/site")
        (tight / "other").write_bytes(bytes(2_500_000))
        for arguments in (["--dry-run"], ["--yes"]):
            said = stack.devstack("recover", *arguments, expect=7).said
            must("no room for large" in said and "nothing was touched" in said, f"the room is not told: {said}")
        must(not (stack.folder / "data/site").exists(), "something was touched although there is no room")
        stack.devstack("recover", "--yes", "--only", "site")
        must((stack.folder / "data/site").exists(), "what has room did not come back")
        (tight / "other").unlink()
        stack.devstack("recover", "--yes")
        must((tight / "large/one").stat().st_size == 2_500_000, "it did not come back although there is room")


@scenario()
def of_two_recoveries_one_works_and_the_other_is_told(world: World) -> None:
    with small(world) as stack:
        before = sql(stack, "SELECT count(*), md5(string_agg(md5, '' ORDER BY n)) FROM t")
        lose(stack)
        first = stack.start("recover", "--yes", *ONLY)
        second = stack.start("recover", "--yes", *ONLY)
        outputs = [process.communicate(timeout=300) for process in (first, second)]
        codes = sorted((first.returncode, second.returncode))
        # The one that is told may have waited for the other, and found nothing to do.
        must(codes in ([0, 6], [0, 0]), f"they ended with {codes}: {outputs}")
        must(sql(stack, "SELECT count(*), md5(string_agg(md5, '' ORDER BY n)) FROM t") == before, "it came back otherwise")


ROWS = "SELECT count(*), md5(string_agg(md5, '' ORDER BY n)) FROM t"


@scenario()
def where_compose_does_not_accept_its_files_the_containers_come_from_the_model_that_a_run_holds(world: World) -> None:
    with small(world) as stack:
        before = sql(stack, ROWS)
        compose = stack.folder / "docker-compose.yml"
        right = compose.read_text()
        refused = (str(compose), "additional properties 'future' not allowed", "Docker Compose ")
        # Of an older time, which Compose only warns of: in nobody's way.
        compose.write_text(f'version: "2"\n{right}')
        stack.devstack("backup")
        lose(stack)
        stack.devstack("recover", "--yes", *ONLY)
        must(compose.read_text().startswith("version:") and sql(stack, ROWS) == before, "it did not come back as it was")
        # Of a newer time: the file comes back as it is, and the containers as the last run has them whose files were accepted.
        compose.write_text(f"{right}\nfuture: {{}}\n")
        said = stack.devstack("backup").said
        must(all(words in said for words in refused), f"a run without the Compose files does not say why: {said}")
        compose.write_text(right)
        lose(stack)
        said = stack.devstack("recover", "--yes", *ONLY).said
        must(all(words in said for words in refused), f"the file, or what is wrong with it, is not named: {said}")
        must("made from the model that run" in said and sql(stack, ROWS) == before, f"it is not told, or not back: {said}")
        must("future" in compose.read_text(), "the file is not as it was")
        # Here already, with nothing to come that would change them: the plan says it beforehand.
        for broken in (lambda: compose.write_text(f"{right}\nfuture: {{}}\n"), compose.unlink):
            compose.write_text(right)
            stack.compose("down", "--volumes", "--timeout", "2")
            broken()
            only = ONLY if compose.exists() else ("--only", "postgres")
            shown = " ".join(stack.devstack("recover", "--dry-run", *only).out.split())
            must("from the model that run" in shown and "can't be resolved here" in shown, f"the plan does not tell it: {shown}")
            stack.devstack("recover", "--yes", *only)
            compose.write_text(right)
            must(sql(stack, ROWS) == before, "it came back otherwise")


@scenario()
def a_server_that_dies_during_its_restore_is_named_and_comes_back_by_resume(world: World) -> None:
    with small(world) as stack:
        # Every thousandth row takes a moment, so that there is time to kill it amid the others.
        sql(stack, "INSERT INTO t SELECT n, sha256(n::text::bytea)::text FROM generate_series(20001, 200000) n;"
                   "ALTER TABLE t ADD CHECK (n % 1000 <> 0 OR pg_sleep(0.02)::text IS NOT NULL)")
        stack.devstack("backup")
        before = sql(stack, ROWS)
        lose(stack)
        seen = len(stack.journal_entries())
        process = stack.start("recover", "--yes", *ONLY)
        flows = "SELECT count(*) FROM pg_stat_progress_copy WHERE command = 'COPY FROM' AND tuples_processed > 5000"

        def amid() -> bool:
            if process.poll() is not None:
                return True
            begun = any('"restore"' in line and "postgres/data" in line for line in new_lines(stack, seen))
            return begun and stack.inside("postgres", "psql", "-AtqU", "shop", "-d", "postgres", stdin=flows, expect=None).text == "1"

        wait_until(amid, "rows to flow into the server")
        must(process.poll() is None, "it had ended before the server could be killed")
        stack.kill("postgres")
        said, _ = process.communicate(timeout=300)
        must(process.returncode == 7, f"it ended with {process.returncode}: {said}")
        must("Recovery FAILED" in said and "Recovery complete" not in said, f"it claims success: {said}")
        failed = next((line for line in said.splitlines() if line.strip().startswith("FAILED") and "postgres/data" in line), "")
        must(stack.container("postgres") in failed and "stopped meanwhile" in failed, f"neither the server nor the cause is named: {said}")
        must("`devstack recover --resume` goes on with it" in said, f"what to do next is not told: {said}")
        must("--resume" in stack.devstack("apply", "--yes", expect=4).said, "what was put back half-way could be backed up")
        said = stack.devstack("recover", "--resume", "--yes").said
        must("Recovery complete" in said, f"it did not go on: {said}")
        must(sql(stack, ROWS) == before, "it came back otherwise")
        databases = sql(stack, "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database WHERE NOT datistemplate")
        must(databases == "postgres shop", f"something of the first try is left: {databases}")


@scenario()
def no_drill_is_made_beside_a_held_recovery(world: World) -> None:
    with compose_stack(world, [POSTGRES, FILES], ["postgres"]) as stack:
        # A drill needs no more than what is taken, so that nothing but the recovery is in its way.
        text = stack.file.read_text().replace("profiles: [standard, extra]", "profiles: []")
        stack.file.write_text(text)
        compose = stack.folder / "docker-compose.yml"
        compose.write_text(compose.read_text().replace("  postgres:\n    profiles: [standard]\n", "  postgres:\n", 1))
        sql(stack, "CREATE TABLE t AS SELECT generate_series(1, 1000) n")
        stack.devstack("apply", "--yes")
        stack.destroy("postgres")
        stack.file.write_text(text.replace("recovery:\n", 'recovery:\n  drill: { schedule: { cron: "0 4 * * 1" } }\n', 1))
        must("a drill is due" in stack.devstack("plan", expect=7).out, "no drill is due, so that none could be made")
        said = stack.devstack("apply", "--yes", expect=4).said
        must("HELD: what is lost can come back" in said, f"the recovery is not held: {said}")
        must("devstack drill" not in said and not (stack.folder / ".devstack/drills").exists(), f"a drill was made: {said}")
        report = stack.devstack("plan", "--format", "json", expect=7).json()["report"]["drill"]
        must(report["due"] and report["last"] is None, f"a drill is on record: {report}")


@scenario(long=True)
def after_an_assertion_that_was_wrong_the_corrected_file_is_asked_by_a_recovery_afresh(world: World) -> None:
    with small(world) as stack:
        wrong = '  assert: [ { postgres: { service: postgres, database: shop, query: "select count(*) > 50000 from t", within: 0s } } ]\n'
        stack.file.write_text(stack.file.read_text().replace("recovery:\n", f"recovery:\n{wrong}", 1))
        before = sql(stack, ROWS)
        lose(stack)
        must("1 of 1 assertions do not hold" in stack.devstack("recover", "--yes", *ONLY, expect=8).said, "what is asserted is not asked")
        stack.file.write_text(stack.file.read_text().replace("> 50000", "> 15000", 1))
        said = stack.devstack("recover", "--resume", "--yes", expect=5).said
        must("--afresh" in said and "counts as data and stays" in said, f"what --afresh does is not told: {said}")
        said = stack.devstack("recover", "--afresh", "--yes", *ONLY).said
        must("1 assertion holds" in said and sql(stack, ROWS) == before, f"it was not asked again, or something was touched: {said}")
        must("there is nothing to recover" in stack.devstack("recover", "--yes", *ONLY).said, "it has not come to its end")
