"""Before anything is overwritten it is copied, and what fails or was a mistake is put back: bytes, and not what a dump makes of them."""

from __future__ import annotations

from compose_stack import ComposeStack, compose_stack
from engine_mysql import MYSQL, replace_tool, server
from engine_mysql import sql as mysql
from engine_stack import SERVICES
from recovery_faults import FILES, POSTGRES, lose, small, sql
from scenario import World, must, scenario
from stack import wait_until

FORGEJO = next(line for line in SERVICES if "forgejo:" in line).replace(", after: [postgres]", "")


def safety_runs(stack: ComposeStack) -> list[str]:
    return sorted(run for run in stack.runs() if "-safety-" in run)


@scenario()
def a_restore_that_fails_leaves_exactly_what_was_there(world: World) -> None:
    with server(world, MYSQL) as stack:
        mysql(stack, MYSQL, "CREATE TABLE a (id INT); INSERT INTO a VALUES (1), (2); CREATE TABLE z (id INT); INSERT INTO z VALUES (3);")
        stack.devstack("apply", "--yes")
        mysql(stack, MYSQL, "CREATE DATABASE other; CREATE TABLE other.t (id INT); INSERT INTO other.t VALUES (42); DELETE FROM a; INSERT INTO a VALUES (77)")
        # The real client, that fails in the middle of what it loads.
        only_loads = 'case "$*" in *binary-mode*) ;; *) exec mysql.real "$@";; esac'
        replace_tool(stack, MYSQL, "mysql", f"{only_loads}\nsed '/CREATE TABLE `z`/i UPDATE nowhere SET broken = 1;' | mysql.real \"$@\"")
        failed = stack.devstack("restore", "mysql", "--in-place", "--yes", "--approve", "restore:mysql", expect=7).said
        must("nowhere" in failed and "has what it had before again" in failed, f"neither the cause nor the way back is told: {failed}")
        stack.inside("mysql", "sh", "-c", "real=$(command -v mysql.real); mv $real ${real%.real}", user="root")
        wait_until(lambda: "healthy" in stack.run(["docker", "ps", "--filter", f"name={stack.container('mysql')}"]).text, "the server")
        seen = mysql(stack, MYSQL, "SELECT id FROM a; SELECT id FROM z; SELECT id FROM other.t; SHOW DATABASES LIKE '%devstack%'")
        must(seen.split() == ["77", "3", "42"], f"after a restore that failed there is {seen.split()}")
        # It is no backup: nothing comes back from it unless somebody names it, and what is taken next is whole.
        stack.devstack("backup")
        must(len(safety_runs(stack)) == 1, f"there are {safety_runs(stack)}")
        said = stack.devstack("plan", expect=None).said
        must("1 safety copy" in said, f"the copy and its end are not told: {said}")


@scenario()
def a_stack_that_has_data_is_replaced_only_when_asked_and_comes_back_by_a_rollback(world: World) -> None:
    services = [POSTGRES, FORGEJO, FILES]
    with compose_stack(world, services, ["postgres", "forgejo"]) as stack:
        sql(stack, "CREATE TABLE t AS SELECT n FROM generate_series(1, 1000) n")
        stack.inside("forgejo", "sh", "-c", "echo first >/data/one")
        stack.devstack("apply", "--yes")
        sql(stack, "DELETE FROM t WHERE n > 10; CREATE TABLE later (n int); INSERT INTO later VALUES (42)")
        stack.inside("forgejo", "sh", "-c", "echo second >/data/one; echo new >/data/two")
        only = ("--only", "postgres", "--only", "forgejo")
        must("there is nothing to recover" in stack.devstack("recover", "--yes", *only).said, "data was taken for none")
        shown = stack.devstack("recover", "--replace", "--dry-run", *only).out
        must("copied first" in shown and "overwrites" in shown, f"the plan does not say what it overwrites: {shown}")
        refused = stack.devstack("recover", "--replace", *only, expect=4).said
        must(sql(stack, "SELECT count(*) FROM t") == "10", f"it went on unasked: {refused}")
        refused = stack.devstack("recover", "--replace", "--yes", *only, expect=4).said
        must("--yes --approve restore`" in refused and sql(stack, "SELECT count(*) FROM t") == "10", f"--yes overwrote data: {refused}")
        half = ("--approve", "restore:postgres")
        refused = stack.devstack("recover", "--replace", "--yes", *half, *only, expect=4).said
        must("restore:forgejo" in refused and sql(stack, "SELECT count(*) FROM t") == "10", f"it was begun in part: {refused}")
        said = stack.devstack("recover", "--replace", "--yes", "--approve", "restore", *only).said
        must(sql(stack, "SELECT count(*) FROM t") == "1000", f"the run did not come back: {said}")
        must(stack.inside("forgejo", "cat", "/data/one").text == "first", "the volume did not come back")
        must(len(safety_runs(stack)) == 2, f"there are {safety_runs(stack)}")
        stack.devstack("recover", "--rollback", expect=4)
        refused = stack.devstack("recover", "--rollback", "--yes", expect=4).said
        must("--approve rollback" in refused and sql(stack, "SELECT count(*) FROM t") == "1000", f"--yes overwrote data: {refused}")
        said = stack.devstack("recover", "--rollback", "--yes", "--approve", "rollback").said
        must(sql(stack, "SELECT count(*) FROM t") == "10" and sql(stack, "SELECT n FROM later") == "42", f"what was there did not come back: {said}")
        must(stack.inside("forgejo", "sh", "-c", "cat /data/one /data/two").text == "second\nnew", "the volume's later files did not come back")
        # Undone as well: what the recovery had brought is there again.
        stack.devstack("recover", "--rollback", "--yes", "--approve", "rollback:postgres", "--only", "postgres")
        must(sql(stack, "SELECT count(*) FROM t") == "1000", "a rollback could not be undone")
        # The newest good run is still the one that the policy took.
        lose(stack)
        stack.devstack("recover", "--yes", *only, "--only", "configuration")
        must(sql(stack, "SELECT count(*) FROM t") == "1000", "a safety copy was taken for a backup")


@scenario()
def a_server_that_no_longer_starts_begins_anew_with_a_copy_of_what_it_had(world: World) -> None:
    with small(world) as stack:
        [volume] = stack.volumes("postgres")
        stack.compose("stop", "postgres")
        place = stack.run(["docker", "volume", "inspect", "--format", "{{.Mountpoint}}", volume]).text
        control = stack.run(["find", place, "-name", "pg_control"]).text
        must(control, "the server's files were not found")
        stack.run(["dd", "if=/dev/zero", f"of={control}", "bs=1024", "count=8", "conv=notrunc"])
        stack.compose("start", "postgres", expect=None)
        said = stack.devstack("recover", "--yes", "--only", "postgres", expect=None)
        must(said.code != 0 and "--replace" in said.said, f"the way out is not told: {said.said}")
        said = stack.devstack("recover", "--yes", "--approve", "restore:postgres", "--only", "postgres", "--replace").said
        must(sql(stack, "SELECT count(*) FROM t") == "20000", f"it did not come back: {said}")
        [copy] = safety_runs(stack)
        # And what was damaged can be had, for somebody who knows how to mend it.
        beside = stack.folder / "mend"
        stack.devstack("restore", "postgres", "--backup", copy, "--to", str(beside))
        must([path.suffix for path in beside.rglob("*") if path.is_file()] == [".tar"], "the copy can't be had as files")


@scenario()
def a_restore_whose_assertion_does_not_hold_leaves_what_was_there(world: World) -> None:
    with small(world) as stack:
        asserted = 'assert: [ { postgres: { service: postgres, database: shop, query: "select count(*) > 30000 from t", name: all orders, within: 0s } } ]'
        stack.file.write_text(stack.file.read_text().replace("recovery:\n", f"recovery:\n  {asserted}\n", 1))
        sql(stack, "INSERT INTO t SELECT n, md5(n::text) FROM generate_series(20001, 40000) n; CREATE INDEX later ON t (md5)")
        every = "SELECT count(*), md5(string_agg(md5, '' ORDER BY n)) FROM t; SELECT indexname FROM pg_indexes WHERE tablename = 't'"
        before = sql(stack, every)
        failed = stack.devstack("restore", "postgres", "--in-place", "--yes", "--approve", "restore:postgres", expect=8).said
        must("all orders" in failed and "has what it had before again" in failed, f"neither the cause nor the way back is told: {failed}")
        wait_until(lambda: "healthy" in stack.run(["docker", "ps", "--filter", f"name={stack.container('postgres')}"]).text, "the server")
        must(sql(stack, every) == before, f"what was there is not there: {failed}")
