"""Servers as they really are: limits, locks, accounts that can't be made, restores that were killed. One server for many cases, each
of which leaves it as it found it; all that fail are told."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable

import engine_mysql as my
import engine_postgres as pg
from compose_stack import ComposeStack
from engine_mysql import MARIADB, MYSQL, Flavour
from scenario import TOP, Broken, World, must, scenario
from secrecy import files_below
from stack import wait_until

Case = Callable[[ComposeStack], None]


def all_of(world: World, stack: ComposeStack, cases: list[Case], clean_up: Case) -> None:
    failed = []
    chosen = os.environ.get("DEVSTACK_TEST_CASES", "").split()
    for case in cases:
        if chosen and case.__name__ not in chosen:
            continue
        print(f"--- {case.__name__}")
        try:
            case(stack)
        except (Broken, subprocess.TimeoutExpired) as error:
            failed.append(f"{case.__name__}: {error}")
            # The next one shall not fail for what this one has left.
            clean_up(stack)
    must(not failed, f"{len(failed)} of {len(cases)}:\n" + "\n".join(failed))
    world.note(f"{len(cases)} cases")


def restore(stack: ComposeStack, service: str, *more: str, expect: int | None = 0) -> str:
    # Of cases that have dropped what they made the newest run is suspect, and still the one that is meant.
    command = ["restore", service, "--backup", "latest", "--in-place", "--without-safety", "--yes", "--approve", f"restore:{service}"]
    return stack.devstack(*command, *more, expect=expect).said


def kill_while(stack: ComposeStack, service: str, is_there: Callable[[], bool], *command: str) -> None:
    """devstack is killed as by `kill -9`, as soon as something is so."""
    process = stack.start(*command)
    wait_until(lambda: is_there() or process.poll() is not None, "the moment to kill devstack")
    must(process.poll() is None, f"devstack ended before it was killed: {process.communicate()[0] if process.poll() is not None else ''}")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)


def nothing_left_inside(stack: ComposeStack, service: str, program: str) -> bool:
    shown = stack.inside(service, "sh", "-c", "for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline 2>/dev/null; echo; done").text
    return not [line for line in shown.splitlines() if line.split(" ")[0].endswith(program)]


# PostgreSQL.


def psql(stack: ComposeStack, text: str, database: str = "shop", expect: int | None = 0) -> str:
    """Without the limits that the cases set for everybody."""
    ran = stack.inside(
        "postgres", "psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "shop", "-d", database, stdin=text, expect=expect,
        env={"PGOPTIONS": "-c statement_timeout=0 -c lock_timeout=0 -c transaction_timeout=0 -c default_transaction_read_only=off -c event_triggers=off"},
    )
    return ran.text + ran.err


RESTORE = ("restore", "postgres", "--backup", "latest", "--in-place", "--without-safety", "--yes", "--approve", "restore:postgres")


def no_restore_is_unfinished(stack: ComposeStack) -> None:
    asides = psql(stack, "SELECT datname FROM pg_database WHERE datname LIKE '\\_devstack%'", "template1").split()
    for name in asides:
        psql(stack, f'DROP DATABASE "{name}" WITH (FORCE)', "template1")
    psql(stack, "DROP ROLE IF EXISTS _devstack_restore", "template1")


def what_a_killed_restore_left_is_told_and_never_put_back(stack: ComposeStack) -> None:
    psql(stack, "DROP TABLE IF EXISTS work; CREATE TABLE work AS SELECT generate_series(1, 10) AS x")
    stack.devstack("backup")
    # The load comes to its end, and devstack to none.
    pg.replace_tool(stack, "postgres", "pg_restore", '#!/bin/sh\npg_restore.real "$@"; code=$?; touch /tmp/loaded; sleep 3007; exit $code\n')
    try:
        loaded = lambda: stack.inside("postgres", "test", "-e", "/tmp/loaded", expect=None).code == 0  # noqa: E731
        kill_while(stack, "postgres", loaded, *RESTORE)
        plan = stack.devstack("plan", expect={0, 7}).said
        must("UNFINISHED" in plan and "restore postgres" in plan, "`plan` is green over half of a restore")
        must("unfinished" in stack.devstack("status", expect=7).out.splitlines()[0], "`status` is green over half of a restore")
        before = pg.good_runs(stack)
        refused = stack.devstack("backup", expect=7).said
        must("was not finished" in refused and "_devstack_aside_" in refused, "it is not said what the restore has left")
        must(pg.good_runs(stack) == before, "half of a restore became a good run")
        psql(stack, "INSERT INTO work SELECT generate_series(11, 610)")
        # Another restore, which fails: what was worked on since is still there.
        path = stack.inside("postgres", "sh", "-c", 'readlink -f "$(command -v pg_restore)"').text
        stack.inside("postgres", "sh", "-c", f"cat >{path}", stdin="#!/bin/sh\necho 'pg_restore: error: broken' >&2; exit 1\n", user="root")
        failed = restore(stack, "postgres", expect=7)
        must("as it was before" in failed, f"the state is not told: {failed}")
        rows = psql(stack, "SELECT count(*) FROM work")
        must(rows == "610", f"another restore's aside was put back over what was written since: {rows} rows")
        must("UNFINISHED" in stack.devstack("plan", expect={0, 7}).said, "the first restore's leftovers are forgotten")
    finally:
        stack.inside("postgres", "sh", "-c", 'path=$(readlink -f "$(command -v pg_restore)"); mv "$path.real" "$path"; rm -f /tmp/loaded; pkill -f "sleep 300[7]" || true', user="root")
    restore(stack, "postgres")
    left = psql(stack, "SELECT (SELECT count(*) FROM pg_database WHERE datname LIKE '%devstack%'), (SELECT count(*) FROM pg_roles WHERE rolname LIKE '%devstack%'), (SELECT count(*) FROM work)")
    must(left == "0|0|10", f"a restore that ended left asides, marks and rows: {left}")
    must("UNFINISHED" not in stack.devstack("plan", expect={0, 7}).said, "a restore that ended is told as unfinished")
    psql(stack, "DROP TABLE work")


def a_new_server_that_got_half_a_backup_is_unfinished_too(stack: ComposeStack) -> None:
    """A sibling: nothing was moved aside, and still no look is green. The role alone tells."""
    psql(stack, "DROP TABLE IF EXISTS work; CREATE TABLE work AS SELECT 1 AS x; CREATE ROLE _devstack_restore NOLOGIN")
    must("UNFINISHED" in stack.devstack("plan", expect={0, 7}).said, "the mark of a restore is not told")
    must("was not finished" in stack.devstack("backup", expect=7).said, "a marked server is backed up")
    psql(stack, "DROP ROLE _devstack_restore; CREATE DATABASE _devstack_aside_0123456789abcdef")
    must("was not finished" in stack.devstack("backup", expect=7).said, "an aside of yesterday's version is filtered out")
    psql(stack, "DROP DATABASE _devstack_aside_0123456789abcdef; DROP TABLE work")


def limits_and_triggers_of_the_server_are_not_devstacks(stack: ComposeStack) -> None:
    psql(stack, "CREATE TABLE big AS SELECT n, md5(n::text) FROM generate_series(1, 300000) n; CREATE TABLE logins (at timestamptz);"
                "CREATE FUNCTION noted() RETURNS event_trigger LANGUAGE plpgsql AS $f$ BEGIN INSERT INTO public.logins VALUES (now()); END $f$;"
                "CREATE EVENT TRIGGER noted ON login EXECUTE FUNCTION noted(); ALTER EVENT TRIGGER noted ENABLE ALWAYS;"
                "ALTER ROLE shop IN DATABASE shop SET statement_timeout = '15ms'; ALTER ROLE shop IN DATABASE shop SET lock_timeout = '1ms';"
                "ALTER DATABASE shop SET transaction_timeout = '30s'; ALTER DATABASE shop SET idle_in_transaction_session_timeout = '20ms'")
    try:
        stack.devstack("backup")
        psql(stack, "ALTER DATABASE shop SET default_transaction_read_only = on")
        stack.devstack("backup")
        restore(stack, "postgres")
        must(psql(stack, "SELECT count(*) FROM big") == "300000", "the rows did not come back")
    finally:
        psql(stack, "ALTER ROLE shop IN DATABASE shop RESET ALL; ALTER DATABASE shop RESET ALL;"
                    "DROP EVENT TRIGGER noted; DROP FUNCTION noted; DROP TABLE big, logins")


def bytes_without_an_encoding_come_back(stack: ComposeStack) -> None:
    made = "CREATE DATABASE {} ENCODING '{}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    psql(stack, made.format("bytes", "SQL_ASCII"))
    psql(stack, made.format("latin", "LATIN1"))
    put = "SET client_encoding = 'SQL_ASCII'; CREATE TABLE t (x text); INSERT INTO t VALUES (E'Gr\\366\\337e'), (E'\\xc3\\xb6'), (E'\\377')"
    psql(stack, put, "bytes")
    psql(stack, "CREATE TABLE \"größe\" (x text); INSERT INTO \"größe\" VALUES ('ü')", "latin")
    look = "SELECT string_agg(encode(x::bytea, 'hex'), ',' ORDER BY x) FROM t"
    before = psql(stack, look, "bytes")
    try:
        stack.devstack("backup")
        psql(stack, "DELETE FROM t", "bytes")
        restore(stack, "postgres")
        must(psql(stack, look, "bytes") == before, "bytes of an SQL_ASCII database came back differently")
        must(psql(stack, "SELECT x FROM \"größe\"", "latin") == "ü", "a database in Latin-1 came back differently")
    finally:
        psql(stack, "DROP DATABASE bytes WITH (FORCE)")
        psql(stack, "DROP DATABASE latin WITH (FORCE)")


def a_database_that_is_broken_or_closed_is_named_and_the_others_are_taken(stack: ComposeStack) -> None:
    psql(stack, "DROP TABLE IF EXISTS work; CREATE TABLE work AS SELECT 1 AS x; CREATE DATABASE broken; ")
    psql(stack, "CREATE DATABASE closed ALLOW_CONNECTIONS false; UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'broken'")
    try:
        said = stack.devstack("backup").said
        must("broken" in said and "interrupted" in said, "a broken database is not named")
        must("closed" in said and "accepts no connections" in said, "a database that is closed drops out unsaid")
        shown = stack.devstack("show", "latest").out
        must("note" in shown and "broken" in shown and "closed" in shown, "the run does not keep what it lacks")
    finally:
        psql(stack, "UPDATE pg_database SET datconnlimit = -1 WHERE datname = 'broken'")
        psql(stack, "DROP DATABASE broken")
        psql(stack, "DROP DATABASE closed; DROP TABLE work")


def roles_keep_the_passwords_of_today(stack: ComposeStack) -> None:
    psql(stack, "DROP TABLE IF EXISTS work; CREATE TABLE work AS SELECT 1 AS x; CREATE ROLE app LOGIN PASSWORD 'old-throw-away' CONNECTION LIMIT 3; CREATE ROLE lost LOGIN PASSWORD 'lost-throw-away'")
    look = "SELECT rolname, rolpassword FROM pg_authid WHERE rolname IN ('shop', 'app', 'lost') ORDER BY 1"
    try:
        stack.devstack("backup")
        psql(stack, "ALTER ROLE app PASSWORD 'new-throw-away'; ALTER ROLE app CONNECTION LIMIT 9; ALTER ROLE shop PASSWORD 'new-too'")
        before = psql(stack, look).splitlines()
        psql(stack, "DROP ROLE lost")
        said = restore(stack, "postgres")
        must("keep the passwords" in said and "app" in said, "nobody is told whose passwords stayed")
        must(psql(stack, look).splitlines() == before, "a rotated password went back, or a lost role did not come back with its own")
        must(psql(stack, "SELECT rolconnlimit FROM pg_roles WHERE rolname = 'app'") == "3", "what else a role has did not come back")
    finally:
        psql(stack, "DROP ROLE IF EXISTS app; DROP ROLE IF EXISTS lost; DROP TABLE work")


def a_tablespace_that_cannot_be_made_is_a_note_and_no_hash_shows(stack: ComposeStack) -> None:
    stack.inside("postgres", "sh", "-c", "mkdir -p /tmp/odd_space && chown postgres /tmp/odd_space", user="root")
    psql(stack, "DROP TABLE IF EXISTS work; CREATE TABLE work AS SELECT generate_series(1, 5) AS x; CREATE ROLE odd LOGIN PASSWORD 'hunter2-throw-away'")
    psql(stack, "CREATE TABLESPACE odd_space OWNER odd LOCATION '/tmp/odd_space'")
    secrets = psql(stack, "SELECT rolpassword FROM pg_authid WHERE rolpassword IS NOT NULL").split()
    try:
        stack.devstack("backup")
        psql(stack, "DROP TABLESPACE odd_space")
        psql(stack, "DROP ROLE odd; DROP TABLE work")
        stack.inside("postgres", "rm", "-r", "/tmp/odd_space", user="root")
        said = restore(stack, "postgres", expect=None)
        must("odd_space" in said and "left out" in said, f"a tablespace that can't be made is not told: {said}")
        must(psql(stack, "SELECT count(*) FROM work") == "5", "a tablespace kept a database from coming back")
        must(psql(stack, "SELECT rolpassword FROM pg_authid WHERE rolname = 'odd'") in secrets, "a role came back with another password")
        held = files_below(stack.folder / ".devstack") | {"the output": said.encode()}
        must(not [name for name, text in held.items() for secret in secrets if secret.encode() in text], "a password's hash is shown")
    finally:
        psql(stack, "DROP ROLE IF EXISTS odd; DROP TABLE IF EXISTS work")


def the_cause_of_a_load_that_fails_is_told(stack: ComposeStack) -> None:
    body = "\n".join(f"    -- line {n} of a long body with a password 'hunter2-throw-away'" for n in range(60))
    psql(stack, f"CREATE TABLE rates (x int); INSERT INTO rates VALUES (1); CREATE FUNCTION known(n int) RETURNS bool LANGUAGE plpgsql AS $f$ BEGIN\n{body}\n RETURN EXISTS (SELECT FROM rates WHERE x = n); END $f$;"
                "CREATE TABLE sales (x int CHECK (known(x))); INSERT INTO sales VALUES (1);"
                # Siblings that come back: a path of its own, a name in full, no table at all.
                "CREATE FUNCTION fine(n int) RETURNS bool LANGUAGE sql SET search_path = public AS 'SELECT EXISTS (SELECT FROM rates WHERE x = n)';"
                "CREATE FUNCTION full_name(n int) RETURNS bool LANGUAGE sql AS 'SELECT EXISTS (SELECT FROM public.rates WHERE x = n)';"
                "CREATE FUNCTION plain(n int) RETURNS bool LANGUAGE sql AS 'SELECT n > extract(day from now())::int - 40';"
                "CREATE TABLE others (x int CHECK (fine(x)) CHECK (full_name(x)) CHECK (plain(x)))")
    try:
        told = " ".join(stack.devstack("backup").said.split())
        must("will fail" in told and "known(integer)" in told, "a run that can't be restored is taken without a word")
        must(not [name for name in ("fine(", "full_name(", "plain(") if name in told], "a function that comes back is warned of")
        failed = restore(stack, "postgres", expect=7)
        must('relation "rates" does not exist' in " ".join(failed.split()), f"the ERROR line is not in the message: {failed}")
        must("as it was before" in failed and "hunter2" not in failed, "the state is not told, or what the function says is")
        must(psql(stack, "SELECT count(*) FROM sales") == "1", "what was there is gone")
    finally:
        psql(stack, "DROP TABLE sales, others; DROP FUNCTION known, fine, full_name, plain; DROP TABLE rates")


def a_subscription_or_a_slot_keeps_no_old_database_alive(stack: ComposeStack) -> None:
    psql(stack, "DROP TABLE IF EXISTS work; CREATE TABLE work AS SELECT 1 AS x; CREATE SUBSCRIPTION s CONNECTION 'host=nowhere password=hunter2-throw-away' PUBLICATION p WITH (connect = false, slot_name = 's')")
    try:
        said = stack.devstack("backup").said
        restore(stack, "postgres")
        seen = psql(stack, "SELECT (SELECT count(*) FROM pg_database WHERE datname LIKE '%aside%'), (SELECT string_agg(subname || subslotname, ',') FROM pg_subscription)")
        must(seen == "0|ss", f"asides and subscriptions afterwards: {seen}")
        restore(stack, "postgres")
        must("hunter2" not in said, "a connection's password is shown")
    finally:
        psql(stack, "ALTER SUBSCRIPTION s DISABLE; ALTER SUBSCRIPTION s SET (slot_name = NONE); DROP SUBSCRIPTION s; DROP TABLE work")


@scenario()
def postgres_as_it_really_is(world: World) -> None:
    with pg.postgres(world) as stack:
        psql(stack, "CREATE TABLE always AS SELECT 1 AS x")
        stack.devstack("apply", "--yes")
        all_of(world, stack, [
            what_a_killed_restore_left_is_told_and_never_put_back,
            a_new_server_that_got_half_a_backup_is_unfinished_too,
            limits_and_triggers_of_the_server_are_not_devstacks,
            bytes_without_an_encoding_come_back,
            a_database_that_is_broken_or_closed_is_named_and_the_others_are_taken,
            roles_keep_the_passwords_of_today,
            a_tablespace_that_cannot_be_made_is_a_note_and_no_hash_shows,
            the_cause_of_a_load_that_fails_is_told,
            a_subscription_or_a_slot_keeps_no_old_database_alive,
        ], no_restore_is_unfinished)


SET_UP_SLOWLY = """services:
  postgres:
    healthcheck: { disable: true }
    volumes: ["./init:/docker-entrypoint-initdb.d:ro"]
"""


@scenario()
def a_new_server_is_waited_for_and_looked_at_by_whoever_restores(world: World) -> None:
    declared = (
        "  postgres: { source: { postgres: { container: postgres, user: devstack_backup, password: { env: BACKUP_PASSWORD },"
        " restore_as: { user: shop } } } }"
    )
    with pg.postgres(world, declared) as stack:
        statements = (TOP / "docs/engines/postgres.md").read_text().split("```sql\n", 1)[1].split("```", 1)[0]
        stack.environment["BACKUP_PASSWORD"] = "throw-away-2"
        pg.sql(stack, "CREATE TABLE t AS SELECT generate_series(1, 10) AS x;" + statements.replace("…", "throw-away-2"))
        # The image's first server answers on its socket for as long as this takes, and is ended then.
        (stack.folder / "init").mkdir()
        (stack.folder / "init/slow.sh").write_text("sleep 4\n")
        (stack.folder / "docker-compose.override.yml").write_text(SET_UP_SLOWLY)
        text = stack.file.read_text()
        must("compose: [docker-compose.yml]" in text, "the file names its Compose files otherwise")
        stack.file.write_text(text.replace("compose: [docker-compose.yml]", "compose: [docker-compose.yml, docker-compose.override.yml]"))
        stack.compose("up", "--detach", "postgres")
        wait_until(lambda: stack.inside("postgres", "pg_isready", "-q", "-h", "127.0.0.1", expect=None).code == 0, "the server")
        stack.devstack("apply", "--yes")
        stack.destroy("postgres")
        stack.devstack("recover", "--yes", "--only", "postgres", expect={0, 8})
        must(pg.sql(stack, "SELECT count(*) FROM t") == "10", "the rows did not come back")
        stack.devstack("backup")


# MariaDB and MySQL.


def maria(stack: ComposeStack, text: str, **more: str) -> str:
    return my.sql(stack, MARIADB, text, **more)


def drop(stack: ComposeStack, flavour: Flavour) -> None:
    my.sql(stack, flavour, "DROP DATABASE IF EXISTS _devstack_restore; CREATE DATABASE IF NOT EXISTS shop", database="")


def my_restore(stack: ComposeStack, flavour: Flavour, expect: int | None = 0) -> str:
    return restore(stack, flavour.engine, expect=expect)


def sequences_come_back_from_wherever_they_are(stack: ComposeStack) -> None:
    maria(stack, "CREATE SEQUENCE ids; CREATE TABLE orders (id BIGINT PRIMARY KEY DEFAULT NEXTVAL(ids), x INT); INSERT INTO orders (x) VALUES (1), (2);"
                 "CREATE DATABASE zz; CREATE SEQUENCE zz.later; CREATE TABLE other (id BIGINT DEFAULT NEXTVAL(zz.later), x INT); INSERT INTO other (x) VALUES (7);"
                 "CREATE TABLE zz.base (x INT); INSERT INTO zz.base VALUES (3); CREATE VIEW across AS SELECT x FROM zz.base")
    try:
        stack.devstack("backup")
        my_restore(stack, MARIADB)
        seen = maria(stack, "INSERT INTO orders (x) VALUES (3); SELECT MAX(id) > 2, COUNT(*) FROM orders; SELECT COUNT(*) FROM other; SELECT x FROM across").split()
        must(seen == ["1", "3", "1", "3"], f"sequences and what uses them came back as {seen}")
    finally:
        maria(stack, "DROP VIEW IF EXISTS across; DROP TABLE IF EXISTS orders, other; DROP SEQUENCE IF EXISTS ids; DROP DATABASE IF EXISTS zz")


def an_event_whose_moment_has_passed_is_a_note(stack: ComposeStack) -> None:
    maria(stack, "DROP TABLE IF EXISTS work; CREATE TABLE work (x INT); SET timestamp = UNIX_TIMESTAMP('2020-01-01 00:00:00'); CREATE EVENT once ON SCHEDULE AT '2020-01-02 00:00:00' DO SELECT 1;"
                 "CREATE EVENT ends ON SCHEDULE EVERY 1 DAY STARTS '2020-01-01 00:00:00' ENDS '2020-02-01 00:00:00' DO SELECT 1; SET timestamp = DEFAULT;"
                 "CREATE EVENT stays ON SCHEDULE EVERY 1 DAY DO SELECT 1")
    try:
        stack.devstack("backup")
        said = my_restore(stack, MARIADB)
        must("events are over" in " ".join(said.split()), f"events that are over are not told: {said}")
        must(maria(stack, "SELECT GROUP_CONCAT(event_name) FROM information_schema.events") == "stays", "the event that goes on did not come back")
    finally:
        maria(stack, "DROP EVENT IF EXISTS once; DROP EVENT IF EXISTS ends; DROP EVENT IF EXISTS stays; DROP TABLE work")


def the_servers_modes_and_limits_are_not_devstacks(stack: ComposeStack) -> None:
    maria(stack, "CREATE TABLE big (id INT PRIMARY KEY AUTO_INCREMENT, t CHAR(30)); INSERT INTO big (t) VALUES ('x');" + "INSERT INTO big (t) SELECT t FROM big;" * 16
                 + "CREATE USER padded IDENTIFIED BY 'throw-away'; SET GLOBAL sql_mode = 'PAD_CHAR_TO_FULL_LENGTH,NO_BACKSLASH_ESCAPES,ANSI_QUOTES'; SET GLOBAL max_statement_time = 0.01")
    try:
        stack.devstack("backup")
        listed = stack.devstack("show", "latest").out
        must("accounts 0" not in listed, "the accounts' artifact holds no account")
        maria(stack, "SET SESSION max_statement_time = 0; DROP USER padded")
        my_restore(stack, MARIADB)
        seen = maria(stack, "SET SESSION max_statement_time = 0; SELECT COUNT(*) FROM big; SELECT COUNT(*) FROM mysql.global_priv WHERE user = 'padded'").split()
        must(seen == ["65536", "1"], f"rows and accounts came back as {seen}")
    finally:
        maria(stack, "SET SESSION max_statement_time = 0; SET GLOBAL sql_mode = DEFAULT; SET GLOBAL max_statement_time = DEFAULT; DROP TABLE big; DROP USER IF EXISTS padded")


def an_account_that_cannot_be_made_is_a_note_without_its_hash(stack: ComposeStack) -> None:
    maria(stack, "INSTALL SONAME 'auth_ed25519'; CREATE TABLE work (x INT); INSERT INTO work VALUES (1); CREATE USER odd IDENTIFIED VIA ed25519 USING PASSWORD('hunter2-throw-away');"
                 "CREATE USER plain IDENTIFIED BY 'plain-throw-away'; GRANT SELECT ON shop.* TO odd, plain")
    secrets = maria(stack, "SELECT JSON_VALUE(priv, '$.authentication_string') FROM mysql.global_priv WHERE user IN ('odd', 'plain', 'root')").split()
    try:
        stack.devstack("backup")
        maria(stack, "DROP USER odd, plain; UNINSTALL SONAME 'auth_ed25519'; DROP TABLE work")
        said = my_restore(stack, MARIADB, expect=None)
        must("odd" in said and "left out" in said, f"the account that can't be made is not told: {said}")
        must(maria(stack, "SELECT COUNT(*) FROM work", user="plain", password="plain-throw-away") == "1", "an account kept the rest from coming back")
        other = stack.devstack("status", expect=None).said + stack.devstack("plan", expect=None).said + stack.devstack("log", expect=None).said
        held = files_below(stack.folder / ".devstack") | {"the output": (said + other).encode()}
        shown = [name for name, text in held.items() for secret in secrets if secret and secret.encode() in text]
        must(not shown, f"a password's hash stands in {shown}")
        # `without_accounts` heeds none of a run that has them.
        declared = stack.file.read_text()
        stack.file.write_text(declared.replace("container: mariadb,", "container: mariadb, without_accounts: true,"))
        maria(stack, "DROP USER plain")
        must("odd" not in my_restore(stack, MARIADB), "accounts are restored although the file leaves them out")
        stack.file.write_text(declared)
    finally:
        maria(stack, "DROP USER IF EXISTS odd; DROP USER IF EXISTS plain; DROP TABLE IF EXISTS work")


def accounts_that_are_there_stay_as_they_are(stack: ComposeStack) -> None:
    maria(stack, "DROP TABLE IF EXISTS work; CREATE TABLE work (x INT); CREATE USER healthcheck@localhost IDENTIFIED BY 'of-the-old-server'; CREATE USER app IDENTIFIED BY 'old-throw-away'")
    try:
        stack.devstack("backup")
        # The new server made its own, as MariaDB's image does for its health check.
        maria(stack, "ALTER USER healthcheck@localhost IDENTIFIED BY 'of-the-new-server'; ALTER USER app IDENTIFIED BY 'rotated-throw-away'")
        said = my_restore(stack, MARIADB)
        must("stay as they are" in said and "healthcheck" in said, "nobody is told which accounts stayed")
        must(maria(stack, "SELECT 1", user="healthcheck", password="of-the-new-server", database="") == "1", "an account that the new server made for itself was overwritten")
    finally:
        maria(stack, "DROP USER healthcheck@localhost; DROP USER app; DROP TABLE work")


def a_folder_that_is_no_database_stops_nobody(stack: ComposeStack) -> None:
    maria(stack, "DROP TABLE IF EXISTS work; CREATE TABLE work (x INT)")
    stack.inside("mariadb", "sh", "-c", "mkdir -p /var/lib/mysql/lost+found", user="root")
    try:
        must("lost+found" in stack.devstack("backup").said, "a folder that is left out is not named")
    finally:
        stack.inside("mariadb", "rmdir", "/var/lib/mysql/lost+found", user="root")
        maria(stack, "DROP TABLE work")


def a_dump_that_waits_for_a_lock_obeys_a_signal(stack: ComposeStack, flavour: Flavour = MARIADB) -> None:
    my.sql(stack, flavour, "CREATE TABLE held (x INT); INSERT INTO held VALUES (1)")
    locks = f'MYSQL_PWD=${flavour.password} exec {flavour.engine} -uroot shop -e "LOCK TABLES held WRITE; SELECT SLEEP(3000)"'
    holder = stack.start_inside(flavour.engine, "sh", "-c", locks)
    waits = "SELECT COUNT(*) FROM information_schema.processlist WHERE state LIKE 'Waiting for%lock%'"

    def waiting() -> bool:
        return my.sql(stack, flavour, waits, database="") != "0"

    try:
        wait_until(lambda: my.sql(stack, flavour, "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP%'", database="") != "0", "the lock")
        process = stack.start("backup")
        wait_until(waiting, "the dump to wait for the lock")
        process.send_signal(signal.SIGTERM)
        try:
            process.communicate(timeout=15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise Broken("a dump that waits for a lock does not obey a signal within 15 s") from None
        wait_until(lambda: nothing_left_inside(stack, flavour.engine, flavour.dump), "the dump tool to end in the container")
        # A sibling: killed without a chance to say anything.
        kill_while(stack, flavour.engine, waiting, "backup")
        wait_until(lambda: nothing_left_inside(stack, flavour.engine, flavour.dump), "the dump tool to end with a devstack that was killed")
    finally:
        stop = my.sql(stack, flavour, "SELECT CONCAT('KILL ', id, ';') FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP%'", database="")
        my.sql(stack, flavour, stop, expect=None, database="")
        holder.communicate(timeout=30)
        stack.inside(flavour.engine, "sh", "-c", f"pkill {flavour.dump[:15]} || true", user="root")
        my.sql(stack, flavour, "DROP TABLE held")


@scenario()
def mariadb_as_it_really_is(world: World) -> None:
    with my.server(world, MARIADB) as stack:
        maria(stack, "CREATE TABLE always (x INT); INSERT INTO always VALUES (1)")
        stack.devstack("apply", "--yes")
        all_of(world, stack, [
            sequences_come_back_from_wherever_they_are,
            an_event_whose_moment_has_passed_is_a_note,
            the_servers_modes_and_limits_are_not_devstacks,
            an_account_that_cannot_be_made_is_a_note_without_its_hash,
            accounts_that_are_there_stay_as_they_are,
            a_folder_that_is_no_database_stops_nobody,
            a_dump_that_waits_for_a_lock_obeys_a_signal,
        ], lambda stack: drop(stack, MARIADB))


def mysql(stack: ComposeStack, text: str) -> str:
    return my.sql(stack, MYSQL, f"SET SESSION max_execution_time = 0;{text}")


def what_definitions_needed_is_off_in_the_session_that_loads(stack: ComposeStack) -> None:
    mysql(stack, "CREATE TABLE keyless (x INT); INSERT INTO keyless VALUES (1), (2); SET GLOBAL sql_require_primary_key = ON; SET GLOBAL max_execution_time = 1")
    try:
        stack.devstack("backup")
        my_restore(stack, MYSQL)
        must(mysql(stack, "SELECT COUNT(*) FROM keyless") == "2", "a table without a key did not come back")
        mysql(stack, "SET GLOBAL sql_require_primary_key = OFF; SET GLOBAL sql_generate_invisible_primary_key = ON")
        my_restore(stack, MYSQL)
        columns = mysql(stack, "SELECT COUNT(*) FROM information_schema.columns WHERE table_name = 'keyless' AND table_schema = 'shop'")
        must(columns == "1", "the server has given a table a key that it did not have")
    finally:
        mysql(stack, "SET GLOBAL sql_require_primary_key = OFF; SET GLOBAL sql_generate_invisible_primary_key = OFF; SET GLOBAL max_execution_time = 0; DROP TABLE IF EXISTS keyless")


def a_function_that_multiplies_before_a_comment_is_whole(stack: ComposeStack) -> None:
    my.sql(stack, MYSQL, "CREATE FUNCTION odd() RETURNS INT DETERMINISTIC RETURN (SELECT 6 */* it's */ 7)")
    try:
        stack.devstack("backup")
        my_restore(stack, MYSQL)
        must(my.sql(stack, MYSQL, "SELECT odd()") == "42", "the function came back differently")
    finally:
        my.sql(stack, MYSQL, "DROP FUNCTION IF EXISTS odd")


def a_mysql_dump_that_waits_for_a_lock_obeys_a_signal(stack: ComposeStack) -> None:
    a_dump_that_waits_for_a_lock_obeys_a_signal(stack, MYSQL)


@scenario()
def mysql_as_it_really_is(world: World) -> None:
    with my.server(world, MYSQL) as stack:
        my.sql(stack, MYSQL, "CREATE TABLE always (x INT); INSERT INTO always VALUES (1)")
        stack.devstack("apply", "--yes")
        all_of(world, stack, [
            what_definitions_needed_is_off_in_the_session_that_loads,
            a_function_that_multiplies_before_a_comment_is_whole,
            a_mysql_dump_that_waits_for_a_lock_obeys_a_signal,
        ], lambda stack: drop(stack, MYSQL))
