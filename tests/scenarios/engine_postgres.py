"""PostgreSQL: taken, destroyed, restored, and compared by its own client."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from compose_stack import ROUNDS, ComposeStack, compose_stack
from scenario import World, must, scenario
from stack import wait_until

DECLARED = "  postgres: { source: { postgres: { container: postgres, user: shop, password: { env: POSTGRES_PASSWORD } } } }"

EVERYTHING = r"""
CREATE ROLE reader NOLOGIN;
CREATE ROLE "o'brien ""x" LOGIN PASSWORD 'throw-away-1' IN ROLE reader CONNECTION LIMIT 7;
CREATE DATABASE "Größe/1" OWNER reader LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0;
ALTER DATABASE "Größe/1" SET work_mem = '7MB';
GRANT CONNECT ON DATABASE shop TO reader;
\connect shop
CREATE EXTENSION pgcrypto;
CREATE EXTENSION pg_trgm;
CREATE SCHEMA "odd.schema" AUTHORIZATION reader;
CREATE TYPE mood AS ENUM ('fine', 'tired');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE SEQUENCE numbers START 1000 INCREMENT 7;
SELECT nextval('numbers'), nextval('numbers');
CREATE TABLE things (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text UNIQUE, feeling mood DEFAULT 'fine', many positive,
    raw bytea, doc jsonb, at timestamptz, price numeric(20, 10), words text[], twice int GENERATED ALWAYS AS (many * 2) STORED
);
INSERT INTO things (name, feeling, many, raw, doc, at, price, words) VALUES
    (E'tab\tnewline\nback\\slash', 'tired', 1, '\x00ff10', '{"a": [1, null, "ü"]}', '2026-03-29 02:30+01', 1.0000000001, '{a,"b c",NULL}'),
    ('Ελληνικά 漢字 🐘 \.', 'fine', 2147483, '\x', 'null', 'infinity', 'NaN', '{}'),
    ('', NULL, NULL, NULL, NULL, NULL, NULL, NULL), (NULL, 'fine', 3, '\xdeadbeef', '[]', '-infinity', -0.5, '{{1},{2}}');
CREATE TABLE "odd.schema"."we""ird.table" (x int, y text COLLATE "C");
INSERT INTO "odd.schema"."we""ird.table" VALUES (1, 'one'), (2, NULL);
CREATE TABLE empty_one (id int PRIMARY KEY, other bigint REFERENCES things (id) ON DELETE CASCADE);
CREATE TABLE events (day date NOT NULL, what text) PARTITION BY RANGE (day);
CREATE TABLE events_2026 PARTITION OF events FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE TABLE events_rest PARTITION OF events DEFAULT;
INSERT INTO events SELECT date '2025-06-01' + n, 'event ' || n FROM generate_series(1, 900) n;
CREATE TABLE million (id int PRIMARY KEY, body text);
INSERT INTO million SELECT n, md5(n::text) FROM generate_series(1, 1000000) n;
CREATE INDEX million_words ON million USING gin (body gin_trgm_ops) WHERE id < 1000;
CREATE VIEW cheap AS SELECT id, name FROM things WHERE price < 1;
CREATE MATERIALIZED VIEW counted AS SELECT count(*) AS n FROM million;
CREATE FUNCTION shout(t text) RETURNS text LANGUAGE plpgsql AS $f$ BEGIN RETURN upper(t) || ';$$' ; END $f$;
CREATE PROCEDURE noted(t text) LANGUAGE sql AS $p$ INSERT INTO empty_one (id) VALUES (length(t)); $p$;
CREATE FUNCTION touched() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN NEW.at := now(); RETURN NEW; END $f$;
CREATE TRIGGER touch BEFORE UPDATE ON things FOR EACH ROW EXECUTE FUNCTION touched();
ALTER TABLE things ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON things FOR SELECT TO reader USING (many > 1);
GRANT SELECT (name) ON things TO reader;
COMMENT ON TABLE things IS 'with ''quotes'' and — dashes';
SELECT lo_from_bytea(4711, '\x0102030405'), lo_from_bytea(4712, convert_to('large ü', 'UTF8'));
ALTER LARGE OBJECT 4711 OWNER TO reader;
\connect "Größe/1"
CREATE TABLE other (id int);
INSERT INTO other SELECT generate_series(1, 10);
"""

# Everything that a person would look at, as the server's own client shows it.
LOOK = r"""
\pset format unaligned
SELECT rolname, rolsuper, rolcanlogin, rolconnlimit, CASE WHEN rolname <> 'shop' THEN rolpassword END FROM pg_authid WHERE rolname !~ '^pg_' ORDER BY 1;
SELECT r.rolname, m.rolname FROM pg_auth_members JOIN pg_roles r ON r.oid = roleid JOIN pg_roles m ON m.oid = member ORDER BY 1, 2;
SELECT datname, pg_get_userbyid(datdba), pg_encoding_to_char(encoding), datcollate, datacl FROM pg_database ORDER BY 1;
SELECT datname, setconfig FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase ORDER BY 1;
\connect shop
SELECT extname, extversion FROM pg_extension ORDER BY 1;
SELECT n.nspname, c.relname, c.relkind, pg_get_userbyid(c.relowner), c.relacl, c.relrowsecurity FROM pg_class c
    JOIN pg_namespace n ON n.oid = relnamespace WHERE n.nspname !~ '^pg_|^information' ORDER BY 1, 2;
SELECT attrelid::regclass::text, attname, format_type(atttypid, atttypmod), attnotnull, attidentity, attgenerated, attacl
    FROM pg_attribute WHERE attrelid IN ('things'::regclass, 'empty_one'::regclass) AND attnum > 0 ORDER BY 1, attnum;
SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2;
SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1;
SELECT pg_get_viewdef('cheap'), pg_get_functiondef('shout'::regproc), pg_get_functiondef('noted'::regproc), pg_get_triggerdef(oid) FROM pg_trigger WHERE tgname = 'touch';
SELECT polname, polroles::regrole[], pg_get_expr(polqual, polrelid) FROM pg_policy;
SELECT obj_description('things'::regclass), enum_range(NULL::mood);
SELECT last_value, is_called FROM numbers;
SELECT * FROM things ORDER BY id;
SELECT * FROM "odd.schema"."we""ird.table" ORDER BY x;
SELECT count(*) FROM empty_one;
SELECT tableoid::regclass::text, count(*), md5(string_agg(what, ',' ORDER BY day)) FROM events GROUP BY 1 ORDER BY 1;
SELECT count(*), md5(string_agg(id || body, ',' ORDER BY id)) FROM million;
SELECT n FROM counted;
SELECT oid, pg_get_userbyid(lomowner), encode(lo_get(oid), 'hex') FROM pg_largeobject_metadata ORDER BY 1;
INSERT INTO things (name) VALUES ('next') RETURNING id;
\connect "Größe/1"
SELECT count(*), sum(id), current_setting('work_mem') FROM other;
"""


def sql(stack: ComposeStack, text: str, *, database: str = "shop", user: str = "shop", expect: int | None = 0) -> str:
    ran = stack.inside(
        "postgres", "psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", user, "-d", database, stdin=text, expect=expect
    )
    return ran.text + ran.err


@contextlib.contextmanager
def postgres(world: World, declared: str = DECLARED, **more: str) -> Iterator[ComposeStack]:
    with compose_stack(world, [declared], ["postgres"], **more) as stack:
        yield stack


def good_runs(stack: ComposeStack) -> list[str]:
    return [name for name, run in stack.runs().items() if run.verified]


@scenario()
def postgres_comes_back_with_everything_it_has(world: World) -> None:
    with postgres(world) as stack:
        sql(stack, EVERYTHING)
        stack.devstack("apply", "--yes")
        before = sql(stack, LOOK)
        stack.reborn("postgres")
        must("million" not in sql(stack, r"\dt"), "the new server is not empty, so nothing would be shown")
        stack.devstack("restore", "postgres", "--in-place", "--without-safety", "--yes", "--approve", "restore:postgres")
        after = sql(stack, LOOK)
        must(before == after, f"what came back differs:\n{first_difference(before, after)}")
        world.note(f"{len(before)} characters compared")


def first_difference(before: str, after: str) -> str:
    for number, (old, new) in enumerate(zip(before.splitlines(), after.splitlines(), strict=False)):
        if old != new:
            return f"line {number}: {old!r} before, {new!r} after"
    return f"{len(before)} characters before, {len(after)} after"


TRANSFER = r"""
\set a random(1, 100)
\set b random(1, 100)
BEGIN;
UPDATE accounts SET balance = balance - 1 WHERE id = :a;
UPDATE accounts SET balance = balance + 1 WHERE id = :b;
INSERT INTO transfers VALUES (:a, :b);
END;
"""

# It is ended when the backup is done; by itself only where a scenario was killed.
WRITER = "exec pgbench -U shop -n -c 2 -R 200 -T 120 -f /tmp/transfer.sql shop"


@scenario()
def postgres_taken_under_load_keeps_what_its_transactions_keep(world: World) -> None:
    with postgres(world) as stack:
        sql(stack, "CREATE TABLE accounts AS SELECT n AS id, 1000 AS balance FROM generate_series(1, 100) n;"
                   "ALTER TABLE accounts ADD PRIMARY KEY (id); CREATE TABLE transfers (a int, b int);"
                   "CREATE TABLE filler AS SELECT md5(n::text) FROM generate_series(1, 200000) n;")
        stack.inside("postgres", "sh", "-c", "cat >/tmp/transfer.sql", stdin=TRANSFER)
        done = 0
        for _ in range(ROUNDS):
            writer = stack.start_inside("postgres", "sh", "-c", WRITER)
            wait_until(lambda: int(sql(stack, "SELECT count(*) FROM transfers")) > done, "the writer to write")
            stack.devstack("backup")
            went_on = int(sql(stack, "SELECT count(*) FROM transfers"))
            must(writer.poll() is None, "the writer ended too soon")
            sql(stack, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgbench'")
            writer.communicate(timeout=60)
            stack.devstack("restore", "postgres", "--in-place", "--without-safety", "--yes", "--approve", "restore:postgres")
            total, transfers = sql(stack, "SELECT sum(balance), (SELECT count(*) FROM transfers) FROM accounts").split("|")
            must(total == "100000", f"the restored accounts hold {total}, not 100000")
            must(done < int(transfers) <= went_on, f"{transfers} transfers came back, of {done} to {went_on}")
            done = int(transfers)
        world.note(f"{ROUNDS} of {ROUNDS} kept the sum, {done} transfers")


@scenario()
def a_wrong_password_is_named_and_leaves_no_good_run(world: World) -> None:
    with postgres(world) as stack:
        sql(stack, "CREATE TABLE t AS SELECT 1 AS x")
        # The official image trusts its own socket: a password is asked for only where the server is told to.
        stack.inside("postgres", "sh", "-c", 'sed -i "s/^local all all .*/local all all scram-sha-256/; s/^local  *all  *all  *trust/local all all scram-sha-256/" "$PGDATA/pg_hba.conf"')
        stack.inside("postgres", "psql", "-U", "shop", "-d", "shop", "-h", "127.0.0.1", "-c", "SELECT pg_reload_conf()", env={"PGPASSWORD": stack.variables["POSTGRES_PASSWORD"]})
        stack.devstack("apply", "--yes")
        stack.environment["POSTGRES_PASSWORD"] = "not-the-one"
        before = good_runs(stack)
        wrong = stack.devstack("backup", expect=7)
        must("password authentication failed" in wrong.said and "postgres" in wrong.said, "the cause is not named")
        must(stack.variables["POSTGRES_PASSWORD"] not in wrong.said and "not-the-one" not in wrong.said, "a password shows")
        must(good_runs(stack) == before, "a run without its service counts as good")
        del stack.environment["POSTGRES_PASSWORD"]
        missing = stack.devstack("backup", expect=3)
        must("POSTGRES_PASSWORD" in missing.said, "the variable that is not set is not named")


@scenario()
def a_server_that_is_down_or_dies_in_the_middle_fails_its_run_and_the_others_finish(world: World) -> None:
    files = "  files: { source: { files: { paths: [data] } } }"
    with compose_stack(world, [DECLARED, files], ["postgres"]) as stack:
        (stack.folder / "data").mkdir()
        (stack.folder / "data/one").write_text("1")
        sql(stack, "CREATE TABLE big AS SELECT n, repeat(md5(n::text), 8) AS t FROM generate_series(1, 400000) n")
        stack.devstack("apply", "--yes")
        before = good_runs(stack)
        process = stack.start("backup")
        wait_until(
            lambda: "COPY" in sql(stack, "SELECT string_agg(query, ' ') FROM pg_stat_activity WHERE application_name = 'devstack' AND query LIKE 'COPY%'"),
            "the dump to read the table",
        )
        stack.kill("postgres")
        said, _ = process.communicate(timeout=120)
        print(said)
        must(process.returncode == 7, f"a server killed in the middle ended with {process.returncode}")
        must("postgres" in said and "done        " in said and "take files/backup" in said, "it is not said who failed and who finished")
        must(good_runs(stack) == before, "a dump that was cut counts as good")
        down = stack.devstack("backup", expect=7)
        must("is not running" in down.said, "a stopped server is not named as such")
        stack.compose("rm", "--force", "--stop", "postgres")
        gone = stack.devstack("backup", expect=7)
        must("no container postgres" in gone.said, "a missing container is not named as such")
        stack.up("postgres")
        stack.devstack("backup", expect=0)
        stack.run(["restic", "-r", "backups", "--password-file", "key/passphrase", "check"])


def replace_tool(stack: ComposeStack, service: str, tool: str, script: str) -> None:
    """Puts a script in the place of a tool in the container; the real one is `TOOL.real`."""
    path = stack.inside(service, "sh", "-c", f'readlink -f "$(command -v {tool})"').text
    stack.inside(service, "mv", path, f"{path}.real", user="root")
    stack.inside(service, "sh", "-c", f"cat >{path}; chmod 755 {path}", stdin=script, user="root")


@scenario()
def a_dump_tool_that_is_missing_or_ends_early_without_a_word_is_seen(world: World) -> None:
    with postgres(world) as stack:
        sql(stack, "CREATE TABLE t AS SELECT n, md5(n::text) FROM generate_series(1, 50000) n")
        stack.devstack("apply", "--yes")
        before = good_runs(stack)
        replace_tool(stack, "postgres", "pg_dump", '#!/bin/sh\n[ "$2" = --version ] && exec pg_dump.real "$@"\ncase "$*" in *format*) pg_dump.real "$@" | head -c 1000000; exit 0;; esac\nexec pg_dump.real "$@"\n')
        early = stack.devstack("backup", expect=7)
        must("not whole" in early.said and "/databases/shop.dump" in early.said, "a dump that ended early is not named")
        must(good_runs(stack) == before, "a dump that ended early counts as good")
        # Debian keeps a second one in front of it.
        stack.inside("postgres", "sh", "-c", "while tool=$(command -v pg_dump); do rm $tool; done", user="root")
        missing = stack.devstack("backup", expect=7)
        must("pg_dump" in missing.said and "not in the container" in missing.said, "the missing tool is not named")
        must(good_runs(stack) == before, "a run without its dump counts as good")


@scenario()
def a_restore_that_fails_in_the_middle_leaves_what_was_there(world: World) -> None:
    with postgres(world) as stack:
        sql(stack, "CREATE TABLE a AS SELECT generate_series(1, 1000) AS x; CREATE TABLE z (x int);"
                   "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE VIEW v AS SELECT f();")
        stack.devstack("apply", "--yes")
        sql(stack, "INSERT INTO z VALUES (42)")
        # The real tool, and then a statement that fails: what the server says of it must reach the person.
        replace_tool(stack, "postgres", "pg_restore", '#!/bin/sh\npg_restore.real "$@" || exit\npsql -X -v ON_ERROR_STOP=1 -d shop -c "SELECT broken FROM nowhere"\n')
        failed = stack.devstack("restore", "postgres", "--in-place", "--without-safety", "--yes", "--approve", "restore:postgres", expect=7)
        must("nowhere" in failed.said and "as it was before" in failed.said, "neither the cause nor the state is told")
        must(sql(stack, "SELECT x FROM z") == "42", "a restore that failed lost what was there")
        databases = sql(stack, "SELECT count(*) FROM pg_database WHERE datname LIKE '%aside%'")
        must(databases == "0", "a failed restore left a database aside")


@scenario()
def a_container_replaced_after_the_plan_stops_the_step(world: World) -> None:
    with postgres(world) as stack:
        sql(stack, "CREATE TABLE t AS SELECT 1 AS x")
        plan = world.folder / "plan.json"
        stack.devstack("plan", "--out", str(plan))
        stack.compose("up", "--detach", "--wait", "--force-recreate", "postgres")
        replaced = stack.devstack("apply", str(plan), "--yes", expect=5)
        must("was replaced" in replaced.said and "postgres" in replaced.said, "the replaced container is not named")


@scenario()
def the_least_rights_that_the_page_names_are_enough_and_one_less_is_not(world: World) -> None:
    declared = (
        "  postgres: { source: { postgres: { container: postgres, user: devstack_backup, password: { env: BACKUP_PASSWORD },"
        " restore_as: { user: shop } } } }"
    )
    with postgres(world, declared) as stack:
        page = (Path(__file__).parents[2] / "docs/engines/postgres.md").read_text()
        statements = page.split("```sql\n", 1)[1].split("```", 1)[0]
        stack.environment["BACKUP_PASSWORD"] = "throw-away-2"
        sql(stack, "CREATE TABLE t AS SELECT generate_series(1, 10) AS x;" + statements.replace("…", "throw-away-2"))
        stack.devstack("apply", "--yes")
        stack.devstack("restore", "postgres", "--in-place", "--without-safety", "--yes", "--approve", "restore:postgres")
        must(sql(stack, "SELECT count(*) FROM t") == "10", "the restore by another user did not bring the rows back")
        sql(stack, "REVOKE pg_read_all_data FROM devstack_backup")
        less = stack.devstack("backup", expect=7)
        must("permission denied" in less.said, "the right that is missing is not named")


def taken_bytes(stack: ComposeStack) -> dict[str, int]:
    [newest] = [run for name, run in stack.runs().items() if name == max(stack.runs())]
    services = newest.said["manifest"]["services"]
    return {name: sum(a["bytes"] for a in result["taken"]["artifacts"]) for name, result in services.items()}


def hooks_inside(stack: ComposeStack) -> None:
    """A hook in the container: what it says is kept, and one that hangs is killed there with its children."""
    declared = stack.file.read_text()
    asks = 'psql -U shop -tAc "select 40 + 2"; echo $DEVSTACK_SERVICE $DEVSTACK_PHASE >&2'
    hangs = "trap '' TERM; sleep 3003 & sleep 3003"
    hooks = {"before": [{"run": ["sh", "-c", asks], "container": "postgres"}], "after": []}
    for after in ([], [{"run": ["sh", "-c", hangs], "container": "postgres", "timeout": "1s", "on_failure": "warn"}]):
        hooks["after"] = after
        stack.file.write_text(declared.replace("  postgres: { ", f"  postgres: {{ hooks: {json.dumps(hooks)}, ", 1))
        said = stack.devstack("backup").said
        must(("took longer than" in said) == bool(after), f"a hook in a container that hangs: {said}")
        shown = stack.devstack("show", "latest").out
        must("| 42" in shown and "| postgres before" in shown, f"the words of a hook in a container are not kept: {shown}")
    left = stack.inside("postgres", "sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '").text
    must("3003" not in left, f"a hook that was killed left something in its container: {left}")
    stack.file.write_text(declared)


@scenario()
def a_database_that_shrank_is_suspect_and_one_that_is_empty_is_held(world: World) -> None:
    with postgres(world, retention="{ last: 1 }") as stack:
        sql(stack, "CREATE TABLE t AS SELECT n, repeat(md5(n::text), 4) FROM generate_series(1, 50000) n")
        sql(stack, "CREATE TABLE orders AS SELECT n FROM generate_series(1, 20000) n")
        stack.devstack("apply", "--yes")
        stack.devstack("backup")
        sql(stack, "DROP TABLE orders")
        looked = stack.devstack("status", expect=8).said
        must("public.orders: gone, had 20,000 rows" in looked, f"a table that was dropped is told only once a run lacks it: {looked}")
        gone = stack.devstack("backup")
        must("public.orders: gone, had 20,000 rows" in gone.said, f"a table that was dropped is not named: {gone.said}")
        chosen = stack.devstack("restore", "postgres", "--to", str(stack.folder / "out")).said
        must("not from the newer" in " ".join(chosen.split()), "a run without a table is chosen unseen")
        sql(stack, "DELETE FROM t WHERE n > 1000")
        shrank = stack.devstack("backup")
        told = "public.t: 1,000 rows, had 50,000" in shrank.said and "public.orders: gone" in shrank.said
        must(told and "accept:postgres" in shrank.said, f"the shrunken source is not reported: {shrank.said}")
        must("accept:postgres" in stack.devstack("plan").said, "`plan` does not say that a source shrank")
        must("suspect: postgres" in stack.devstack("status", expect=8).out.splitlines()[0], "`status` does not say that a source shrank")
        stack.devstack("backup")
        stack.devstack("apply", "--yes", expect={0, 4})
        must(len(stack.runs()) == 5, f"older runs went while a shrunken source was not accepted: {list(stack.runs())}")
        hooks_inside(stack)
        sql(stack, "DROP TABLE t")
        empty = stack.devstack("backup", expect=4)
        must("take:postgres" in empty.said, "an empty server's take is not held")
        must(len(good_runs(stack)) == 7, "emptiness became a good run")
        stack.devstack("backup", "--approve", "take:postgres", expect=0)


@scenario("restic")
def restic_and_pg_restore_read_what_devstack_wrote(world: World) -> None:
    with postgres(world) as stack:
        sql(stack, "CREATE TABLE t AS SELECT n, md5(n::text) FROM generate_series(1, 5000) n")
        stack.devstack("apply", "--yes")
        restic = ["restic", "-r", "backups", "--password-file", "key/passphrase"]
        dump = stack.run([*restic, "dump", "--tag", "service:postgres", "latest", "/databases/shop.dump"]).out
        listed = stack.inside("postgres", "pg_restore", "--list", stdin=dump).text
        must("TABLE DATA public t" in listed, f"pg_restore does not list the table: {listed}")
        globals_ = stack.run([*restic, "dump", "--tag", "service:postgres", "latest", "/globals.sql"]).text
        must("CREATE ROLE shop" in globals_, "the roles are not in the snapshot")
        stack.run([*restic, "check", "--read-data"])
        [run] = stack.runs().values()
        must(run.verified and json.dumps(run.said).count("rows public.t") == 1, "the manifest does not count the rows")
