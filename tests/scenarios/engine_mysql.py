"""MySQL and MariaDB: taken, destroyed, restored, and compared by their own clients."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from compose_stack import ROUNDS, ComposeStack, compose_stack
from scenario import TOP, World, must, scenario
from stack import wait_until


@dataclass(frozen=True)
class Flavour:
    engine: str
    dump: str
    password: str

    @property
    def declared(self) -> str:
        return f"  {self.engine}: {{ source: {{ {self.engine}: {{ container: {self.engine}, password: {{ env: {self.password} }} }} }} }}"


MYSQL = Flavour("mysql", "mysqldump", "MYSQL_ROOT_PASSWORD")
MARIADB = Flavour("mariadb", "mariadb-dump", "MARIADB_ROOT_PASSWORD")

EVERYTHING = r"""
SET sql_mode = '';
CREATE TABLE every (
    id BIGINT UNSIGNED PRIMARY KEY AUTO_INCREMENT, t TEXT, b LONGBLOB, v VARBINARY(40), j JSON, d DECIMAL(30, 10), f DOUBLE,
    dt DATETIME(6), ts TIMESTAMP NULL, y YEAR, e ENUM('a', 'b,c'), s SET('x', 'y'), bits BIT(9), n INT,
    g INT GENERATED ALWAYS AS (n * 2) STORED, gv INT GENERATED ALWAYS AS (n + 1) VIRTUAL, inv INT INVISIBLE DEFAULT 7,
    p POINT, z DATE, l VARCHAR(20) CHARACTER SET latin1, FULLTEXT KEY words (t), KEY part (t(10))
) AUTO_INCREMENT = 100 COMMENT = 'it''s; a "table"';
INSERT INTO every (t, b, v, j, d, f, dt, ts, y, e, s, bits, n, inv, p, z, l) VALUES
    ('it''s "q" \\ back\nnew\t),(\0\Z\r', 0x00FF27220A5C, 'x\0y', '{"a": [1, "),(", null, "ü"]}', 1.0000000001, 1e300,
     '2020-01-01 00:00:00.123456', '2026-03-29 01:30:00', 2020, 'b,c', 'x,y', b'101010101', 21, 9, ST_GeomFromText('POINT(1 2)'), '0000-00-00', 'Größe'),
    ('日本 🦀 Ελληνικά', NULL, '', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, DEFAULT, NULL, '2020-00-00', NULL),
    ('', '', NULL, '[]', -0.5, -0.0, '9999-12-31 23:59:59', '1970-01-01 12:00:01', 1901, 'a', '', b'0', -1, NULL, NULL, NULL, '');
UPDATE every SET b = REPEAT(0x00FFDEADBEEF, 200000) WHERE id = 102;
CREATE TABLE empty_one (id INT PRIMARY KEY, one BIGINT UNSIGNED, FOREIGN KEY (one) REFERENCES every (id) ON DELETE CASCADE);
CREATE TABLE `odd ``name``.x` (`a b` INT, `INSERT (` VARCHAR(20), CHECK (`a b` > 0));
INSERT INTO `odd ``name``.x` VALUES (1, 'VALUES ('), (2, '-- Dump completed');
CREATE TABLE outside (id INT) ENGINE = MyISAM;
INSERT INTO outside VALUES (1), (2);
CREATE TABLE parts (id INT PRIMARY KEY) PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (10), PARTITION p1 VALUES LESS THAN MAXVALUE);
INSERT INTO parts VALUES (1), (20);
CREATE TABLE million (id INT PRIMARY KEY, body CHAR(12));
CREATE TABLE digit (n INT);
INSERT INTO digit VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9);
INSERT INTO million SELECT n, LEFT(SHA2(n, 256), 12) FROM (SELECT a.n + 10 * b.n + 100 * c.n + 1000 * d.n + 10000 * e.n + 100000 * f.n AS n
    FROM digit a, digit b, digit c, digit d, digit e, digit f) AS numbers;
CREATE VIEW another AS SELECT id FROM every;
CREATE DEFINER = 'app'@'%' SQL SECURITY INVOKER VIEW cheap AS SELECT e.id, t FROM every e JOIN another USING (id) WHERE t <> ';;';
DELIMITER //
CREATE TRIGGER tr BEFORE INSERT ON outside FOR EACH ROW BEGIN /* it's ; a comment */ -- don't
 SET NEW.id = NEW.id + 0; # isn't
END//
CREATE DEFINER = 'app'@'%' PROCEDURE proc(IN x INT) COMMENT 'it''s' SQL SECURITY INVOKER BEGIN
-- INSERT INTO `fake` VALUES (1),(2);
INSERT INTO outside VALUES (x); SELECT ';;', "DELIMITER ;"; END//
CREATE FUNCTION fun(x INT) RETURNS INT DETERMINISTIC RETURN x * 2//
SET sql_mode = 'NO_BACKSLASH_ESCAPES,ANSI_QUOTES'//
CREATE PROCEDURE plain() BEGIN SELECT 'a\', "id" FROM "every"; END//
SET sql_mode = ''//
CREATE EVENT ev ON SCHEDULE EVERY 1 HOUR STARTS '2026-01-01 00:00:00' ENABLE DO BEGIN DELETE FROM empty_one; END//
CREATE EVENT off ON SCHEDULE AT '2036-01-01 00:00:00' ON COMPLETION PRESERVE DISABLE DO DELETE FROM empty_one//
DELIMITER ;
CREATE DATABASE `Größe-1 ``x``` CHARACTER SET latin1;
CREATE TABLE `Größe-1 ``x```.`t` (id INT PRIMARY KEY, l VARCHAR(10));
INSERT INTO `Größe-1 ``x```.`t` VALUES (1, 'ü');
CREATE DATABASE bare;
CREATE DATABASE left_out;
CREATE TABLE left_out.t (id INT);
"""

USERS = r"""
CREATE USER 'app'@'%' IDENTIFIED BY 'app''s "throw-away"';
CREATE USER ''@'10.9.9.9';
CREATE USER 'o''brien \\ `x`'@'10.%' IDENTIFIED BY 'throw-away' REQUIRE SSL WITH MAX_QUERIES_PER_HOUR 7 PASSWORD EXPIRE INTERVAL 90 DAY ACCOUNT LOCK;
CREATE ROLE reader;
GRANT SELECT ON shop.* TO reader;
GRANT reader TO 'app'@'%';
GRANT SELECT, INSERT, EXECUTE ON shop.* TO 'app'@'%' WITH GRANT OPTION;
"""

# When the tables are there.
GRANTS = r"""
GRANT SELECT (id, t), UPDATE (t) ON shop.every TO 'o''brien \\ `x`'@'10.%';
GRANT EXECUTE ON PROCEDURE shop.proc TO 'o''brien \\ `x`'@'10.%';
CREATE TABLE gone (id INT);
GRANT SELECT ON shop.gone TO 'app'@'%';
DROP TABLE gone;
"""

ONLY = {
    "mysql": r"""
        SET DEFAULT ROLE reader TO 'app'@'%';
        ALTER USER 'app'@'%' ATTRIBUTE '{"of": "it''s"}';
        ANALYZE TABLE million UPDATE HISTOGRAM ON body WITH 4 BUCKETS;
        CREATE TABLE last_one (id INT, u INT AS (id) VIRTUAL, UNIQUE KEY k ((id + 1)), KEY hidden (id) INVISIBLE);
        INSERT INTO last_one (id) VALUES (3);
    """,
    "mariadb": r"""
        SET DEFAULT ROLE reader FOR 'app'@'%';
        GRANT SELECT ON shop.every TO PUBLIC;
        CREATE SEQUENCE numbers START WITH 1000 INCREMENT BY 7 NOCACHE;
        SELECT NEXTVAL(numbers), NEXTVAL(numbers);
        CREATE TABLE versions (id INT, x INT) WITH SYSTEM VERSIONING;
        INSERT INTO versions VALUES (1, 1), (2, 2);
        UPDATE versions SET x = 5;
        DELETE FROM versions WHERE id = 2;
        CREATE TABLE last_one (i INET6, u UUID, a INT) ENGINE = Aria;
        INSERT INTO last_one VALUES ('::1', '123e4567-e89b-12d3-a456-426655440000', 1);
        DELIMITER //
        SET sql_mode = 'ORACLE'//
        CREATE PACKAGE pack AS FUNCTION one RETURN INT; END//
        CREATE PACKAGE BODY pack AS FUNCTION one RETURN INT AS BEGIN RETURN 1; END; END//
        SET sql_mode = ''//
        DELIMITER ;
    """,
}

# Everything that a person would look at, as the server's own client shows it.
LOOK = r"""
SELECT schema_name, default_character_set_name, default_collation_name FROM information_schema.schemata ORDER BY 1;
SELECT table_schema, table_name, column_name, ordinal_position, column_default, is_nullable, column_type, character_set_name, column_key, extra,
    generation_expression FROM information_schema.columns WHERE table_schema IN ('shop', 'Größe-1 `x`') ORDER BY 1, 2, 4;
SELECT table_name, index_name, seq_in_index, column_name, sub_part, index_type FROM information_schema.statistics WHERE table_schema = 'shop' ORDER BY 1, 2, 3;
SELECT trigger_name, event_object_table, action_timing, action_statement, sql_mode, definer FROM information_schema.triggers WHERE trigger_schema = 'shop';
SELECT routine_name, routine_type, data_type, routine_definition, security_type, sql_mode, routine_comment, definer FROM information_schema.routines
    WHERE routine_schema = 'shop' ORDER BY 1, 2;
SELECT event_name, event_definition, interval_value, interval_field, starts, execute_at, status, on_completion, definer FROM information_schema.events ORDER BY 1;
SELECT table_name, view_definition, security_type, definer FROM information_schema.views WHERE table_schema = 'shop' ORDER BY 1;
SELECT constraint_name, table_name, constraint_type FROM information_schema.table_constraints WHERE table_schema = 'shop' ORDER BY 2, 1;
SHOW CREATE TABLE every; SHOW CREATE TABLE `odd ``name``.x`; SHOW CREATE TABLE parts; SHOW CREATE TABLE last_one; SHOW CREATE TABLE empty_one;
SELECT id, HEX(t), SHA2(b, 256), LENGTH(b), HEX(v), j, d, f, dt, ts, y, e, s, HEX(bits), n, g, gv, inv, HEX(p), z, HEX(l) FROM every ORDER BY id;
SELECT * FROM `odd ``name``.x` ORDER BY 1;
SELECT * FROM parts PARTITION (p1);
SELECT * FROM outside ORDER BY id;
SELECT * FROM cheap ORDER BY 1;
SELECT fun(21);
SELECT COUNT(*), SUM(CRC32(CONCAT(id, body))), BIT_XOR(CRC32(CONCAT_WS(',', id, body))) FROM million;
SELECT id, HEX(l) FROM `Größe-1 ``x```.t;
SELECT COUNT(*) FROM empty_one;
SELECT * FROM last_one;
SHOW GRANTS FOR 'app'@'%'; SHOW GRANTS FOR 'o''brien \\ `x`'@'10.%'; SHOW GRANTS FOR 'reader'; SHOW GRANTS FOR ''@'10.9.9.9'; SHOW GRANTS FOR 'shop'@'%';
SHOW CREATE USER 'app'@'%'; SHOW CREATE USER 'o''brien \\ `x`'@'10.%'; SHOW CREATE USER ''@'10.9.9.9';
SELECT @@GLOBAL.max_allowed_packet, @@GLOBAL.event_scheduler;
"""

LOOK_ONLY = {
    "mysql": "SELECT schema_name, table_name, column_name FROM information_schema.column_statistics; SHOW CREATE USER 'reader'@'%';",
    "mariadb": "SELECT next_not_cached_value, increment FROM numbers; SHOW GRANTS FOR PUBLIC;"
               "SELECT id, x, row_start, row_end FROM versions FOR SYSTEM_TIME ALL ORDER BY 1, 2, 3;",
}


def sql(
    stack: ComposeStack, flavour: Flavour, text: str, *, database: str = "shop", user: str = "root", password: str | None = None,
    expect: int | None = 0,
) -> str:
    given = stack.variables[flavour.password] if password is None else password
    ran = stack.inside(
        flavour.engine, flavour.engine, f"--user={user}", "--default-character-set=utf8mb4", "--batch", "--skip-column-names", "--comments",
        *([database] if database else []), stdin=text, env={"MYSQL_PWD": given}, expect=expect,
    )
    return ran.text + ran.err


@contextlib.contextmanager
def server(world: World, flavour: Flavour, *declared: str) -> Iterator[ComposeStack]:
    with compose_stack(world, list(declared) or [flavour.declared], [flavour.engine]) as stack:
        yield stack


def good_runs(stack: ComposeStack) -> list[str]:
    return [name for name, run in stack.runs().items() if run.verified]


def restore(stack: ComposeStack, flavour: Flavour, expect: int = 0) -> str:
    service = flavour.engine
    return stack.devstack("restore", service, "--in-place", "--without-safety", "--yes", "--approve", f"restore:{service}", expect=expect).said


def first_difference(before: str, after: str) -> str:
    for number, (old, new) in enumerate(zip(before.splitlines(), after.splitlines(), strict=False)):
        if old != new:
            return f"line {number}: {old!r} before, {new!r} after"
    return f"{len(before)} characters before, {len(after)} after"


def comes_back_with_everything(world: World, flavour: Flavour) -> None:
    declared = flavour.declared.replace("} } } }", "}, databases: { exclude: [left_*] } } } }")
    with server(world, flavour, declared) as stack:
        mode = "SET SESSION print_identified_with_as_hex = ON;" if flavour is MYSQL else ""
        sql(stack, flavour, USERS)
        sql(stack, flavour, EVERYTHING)
        sql(stack, flavour, GRANTS)
        sql(stack, flavour, ONLY[flavour.engine])
        stack.devstack("apply", "--yes")
        look = mode + LOOK + LOOK_ONLY[flavour.engine]
        dangling = "GRANT SELECT ON `shop`.`gone` TO `app`@`%`\n"
        before = sql(stack, flavour, look).replace("left_out\tutf8mb4\t", "").replace(dangling, "")
        stack.reborn(flavour.engine)
        must("million" not in sql(stack, flavour, "SHOW TABLES"), "the new server is not empty, so nothing would be shown")
        sql(stack, flavour, "CREATE DATABASE mine; CREATE TABLE newer (id INT); CREATE DATABASE left_out")
        said = restore(stack, flavour)
        must("left_out, mine" in said, "the databases that were left alone are not named")
        must("shop.gone" in said, "the grant of a table that is gone is not named")
        after = sql(stack, flavour, "DROP DATABASE mine;" + look).replace("left_out\tutf8mb4\t", "")
        must(before == after, f"what came back differs:\n{first_difference(before, after)}")
        out = sql(stack, flavour, "SELECT COUNT(*) FROM cheap", user="app", password="""app's "throw-away\"""")
        must(out == "3", f"the user cannot log in as before: {out}")
        world.note(f"{len(before)} characters compared")


@scenario()
def mysql_comes_back_with_everything_it_has(world: World) -> None:
    comes_back_with_everything(world, MYSQL)


@scenario()
def mariadb_comes_back_with_everything_it_has(world: World) -> None:
    comes_back_with_everything(world, MARIADB)


# Moves money between two databases in each transaction, and notes it a second time outside of transactions.
TRANSFERS = r"""
CREATE DATABASE elsewhere;
CREATE TABLE accounts (id INT PRIMARY KEY, balance INT NOT NULL);
INSERT INTO accounts WITH RECURSIVE n AS (SELECT 1 AS x UNION ALL SELECT x + 1 FROM n WHERE x < 100) SELECT x, 1000 FROM n;
CREATE TABLE elsewhere.accounts LIKE accounts;
INSERT INTO elsewhere.accounts SELECT * FROM accounts;
CREATE TABLE filler (id INT PRIMARY KEY AUTO_INCREMENT, body CHAR(64));
INSERT INTO filler (body) WITH RECURSIVE n AS (SELECT 1 AS x UNION ALL SELECT x + 1 FROM n WHERE x < 1000) SELECT SHA2(a.x, 256) FROM n a, n b WHERE b.x <= 100;
CREATE TABLE transfers (id INT PRIMARY KEY AUTO_INCREMENT);
CREATE TABLE zz_outside (id INT PRIMARY KEY AUTO_INCREMENT) ENGINE = MyISAM;
DELIMITER //
CREATE PROCEDURE go() BEGIN
    DECLARE a, b INT;
    LOOP
        SET a = 1 + FLOOR(RAND() * 100), b = 1 + FLOOR(RAND() * 100);
        START TRANSACTION;
        UPDATE accounts SET balance = balance - 1 WHERE id = a;
        UPDATE elsewhere.accounts SET balance = balance + 1 WHERE id = b;
        INSERT INTO transfers VALUES ();
        COMMIT;
        INSERT INTO zz_outside VALUES ();
    END LOOP;
END//
"""


def keeps_what_transactions_keep(world: World, flavour: Flavour) -> None:
    with server(world, flavour) as stack:
        sql(stack, flavour, "SET SESSION cte_max_recursion_depth = 2000;" + TRANSFERS if flavour is MYSQL else TRANSFERS)

        def number(question: str) -> int:
            return int(sql(stack, flavour, f"SELECT {question}"))

        done, anomalies = 0, 0
        for _ in range(ROUNDS):
            call = f'MYSQL_PWD=${flavour.password} exec {flavour.engine} -uroot shop -e "CALL go()"'
            writer = stack.start_inside(flavour.engine, "sh", "-c", call)
            before = done
            wait_until(lambda: number("COUNT(*) FROM transfers") > before, "the writer to write")
            stack.devstack("backup")
            went_on = number("COUNT(*) FROM transfers")
            must(writer.poll() is None, "the writer ended too soon")
            stop = sql(stack, flavour, "SELECT CONCAT('KILL ', id, ';') FROM information_schema.processlist WHERE db = 'shop' AND command <> 'Sleep' AND id <> CONNECTION_ID()")
            sql(stack, flavour, stop)
            writer.communicate(timeout=30)
            restore(stack, flavour)
            total = number("(SELECT SUM(balance) FROM accounts) + (SELECT SUM(balance) FROM elsewhere.accounts)")
            must(total == 200000, f"the restored accounts hold {total}, not 200000")
            transfers, outside = number("COUNT(*) FROM transfers"), number("COUNT(*) FROM zz_outside")
            must(done < transfers <= went_on, f"{transfers} transfers came back, of {done} to {went_on}")
            # The page names it: what is in no transaction is of the moment at which it was read.
            anomalies += outside > transfers
            sql(stack, flavour, "TRUNCATE TABLE zz_outside; INSERT INTO zz_outside SELECT id FROM transfers")
            done = transfers
        must(anomalies > 0, "the MyISAM table was never ahead: the anomaly that the page names is not shown")
        [run] = [run for name, run in stack.runs().items() if name == max(stack.runs())]
        must("tables read outside of the snapshot" in str(run.said), "the manifest does not count the MyISAM table")
        world.note(f"{ROUNDS} of {ROUNDS} kept the sum, MyISAM was ahead {anomalies} times")


@scenario()
def mysql_taken_under_load_keeps_what_its_transactions_keep(world: World) -> None:
    keeps_what_transactions_keep(world, MYSQL)


@scenario()
def mariadb_taken_under_load_keeps_what_its_transactions_keep(world: World) -> None:
    keeps_what_transactions_keep(world, MARIADB)


def replace_tool(stack: ComposeStack, flavour: Flavour, tool: str, script: str) -> None:
    """Puts a script in the place of a tool in the container; the real one is `TOOL.real`."""
    path = stack.inside(flavour.engine, "sh", "-c", f"command -v {tool}").text
    put = f"[ -e {path}.real ] || mv {path} {path}.real; cat >{path}; chmod 755 {path}"
    stack.inside(flavour.engine, "sh", "-c", put, stdin=f"#!/bin/sh\n{script}\n", user="root")


def failures(world: World, flavour: Flavour) -> None:
    files = "  files: { source: { files: { paths: [data] } } }"
    with server(world, flavour, flavour.declared, files) as stack:
        (stack.folder / "data").mkdir()
        (stack.folder / "data/one").write_text("1")
        sql(stack, flavour, "CREATE TABLE big (id INT PRIMARY KEY AUTO_INCREMENT, t VARCHAR(300)); INSERT INTO big (t) VALUES ('x');"
            + "INSERT INTO big (t) SELECT REPEAT(SHA2(RAND(), 256), 4) FROM big;" * 18)
        stack.devstack("apply", "--yes")
        before = good_runs(stack)

        stack.environment[flavour.password] = "not-the-one"
        wrong = stack.devstack("backup", expect=7).said
        must("Access denied" in wrong and f"{flavour.engine}/backup" in wrong, "the wrong password is not named")
        must("not-the-one" not in wrong, "a password shows")
        del stack.environment[flavour.password]
        must(flavour.password in stack.devstack("backup", expect=3).said, "the variable that is not set is not named")
        stack.environment[flavour.password] = stack.variables[flavour.password]

        replace_tool(stack, flavour, flavour.dump, f'[ "$2" = "" ] && exec {flavour.dump}.real "$@"\n{flavour.dump}.real "$@" | head -c 1000000; exit 0')
        early = stack.devstack("backup", expect=7).said
        must("not whole" in early and "/databases.sql" in early and "within the rows" in early, "a dump that ended early is not named")
        # Cut between two statements: only the last line is missing.
        replace_tool(stack, flavour, flavour.dump, f'[ "$2" = "" ] && exec {flavour.dump}.real "$@"\n{flavour.dump}.real "$@" | grep -v "^-- Dump completed"; exit 0')
        last = stack.devstack("backup", expect=7).said
        must("`-- Dump completed`, is missing" in last, "a dump without its last line is not named")
        stack.inside(flavour.engine, "sh", "-c", f"rm $(command -v {flavour.dump})", user="root")
        missing = stack.devstack("backup", expect=7).said
        must(flavour.dump in missing and "not in the container" in missing, "the missing tool is not named")
        stack.inside(flavour.engine, "sh", "-c", f"real=$(command -v {flavour.dump}.real); mv $real ${{real%.real}}", user="root")

        process = stack.start("backup")
        reading = "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'SELECT /*!40001%big%'"
        wait_until(lambda: sql(stack, flavour, reading) != "0", "the dump to read the table")
        stack.kill(flavour.engine)
        said, _ = process.communicate(timeout=120)
        print(said)
        must(process.returncode == 7, f"a server killed in the middle ended with {process.returncode}")
        must(flavour.dump in said and "take files/backup" in said, "it is not said who failed and who finished")
        down = stack.devstack("backup", expect=7).said
        must("is not running" in down, "a stopped server is not named as such")
        must(good_runs(stack) == before, "a run without its service counts as good")
        stack.up(flavour.engine)
        stack.devstack("backup")


@scenario()
def mariadb_failures_are_named_and_leave_no_good_run(world: World) -> None:
    failures(world, MARIADB)


def restore_that_fails(world: World, flavour: Flavour) -> None:
    with server(world, flavour) as stack:
        sql(stack, flavour, "CREATE TABLE a (id INT); INSERT INTO a VALUES (1), (2); CREATE TABLE z (id INT); INSERT INTO z VALUES (3);")
        stack.devstack("apply", "--yes")
        sql(stack, flavour, "CREATE DATABASE other; CREATE TABLE other.t (id INT); INSERT INTO other.t VALUES (42); SET GLOBAL event_scheduler = ON")
        before = good_runs(stack)
        wrong = "UPDATE nowhere SET broken = 1;"
        only_loads = f'case "$*" in *binary-mode*) ;; *) exec {flavour.engine}.real "$@";; esac'
        replace_tool(stack, flavour, flavour.engine, f"{only_loads}\nsed '/CREATE TABLE `z`/i {wrong}' | {flavour.engine}.real \"$@\"")
        failed = restore(stack, flavour, expect=7)
        must("nowhere" in failed and "restored in part" in failed and "restore again" in failed, "neither the cause nor the state is told")
        refused = stack.devstack("backup", expect=7).said
        must("was not finished" in refused, "what a failed restore has left is backed up")
        must("UNFINISHED" in stack.devstack("plan", expect={0, 7}).said, "`plan` does not tell a restore that has not ended")
        must("unfinished" in stack.devstack("status", expect={7, 8}).out.splitlines()[0], "`status` does not tell it")
        # One that ends early and says nothing.
        replace_tool(stack, flavour, flavour.engine, f"{only_loads}\nsed 's/VALUES (1)/VALUES (7),(8),(1)/' | {flavour.engine}.real \"$@\"")
        more = restore(stack, flavour, expect=7)
        must("shop.a has 4 rows, and 2 in the backup" in more, "rows that are too many are not seen")
        must(good_runs(stack) == before, "half of a backup counts as a good run")
        stack.inside(flavour.engine, "sh", "-c", f"real=$(command -v {flavour.engine}.real); mv $real ${{real%.real}}", user="root")
        restore(stack, flavour)
        seen = sql(stack, flavour, "SELECT SUM(id) FROM a; SELECT id FROM z; SELECT id FROM other.t; SELECT @@GLOBAL.event_scheduler, @@GLOBAL.max_allowed_packet < 1e9; SHOW DATABASES LIKE '%devstack%'")
        must(seen.split() == ["3", "3", "42", "ON", "1"], f"after the second restore there is {seen.split()}")
        stack.devstack("backup")


@scenario()
def mysql_says_what_a_restore_that_failed_has_left_and_restores_again(world: World) -> None:
    restore_that_fails(world, MYSQL)


def least_rights(world: World, flavour: Flavour) -> None:
    engine = flavour.engine
    user = f"container: {engine}, user: devstack_backup, password: {{ env: BACKUP_PASSWORD }}"
    root = f"restore_as: {{ user: root, password: {{ env: {flavour.password} }} }}"
    declared = [f"  {engine}: {{ source: {{ {engine}: {{ {user}, {root} }} }} }}"]
    if flavour is MYSQL:
        tls = "databases: { include: [shop] }, without_accounts: true, tls: { ca: /var/lib/mysql/ca.pem }"
        declared.append(f"  over_tls: {{ source: {{ mysql: {{ {user}, {tls} }} }} }}")
    with server(world, flavour, *declared) as stack:
        page = Path(TOP / f"docs/engines/{engine}.md").read_text()
        statements = page.split("```sql\n", 1)[1].split("```", 1)[0]
        if flavour is MYSQL:
            # By TCP, where no name is resolved, and only with TLS.
            statements += statements.replace("'localhost'", "'127.0.0.1'").replace("'…'", "'…' REQUIRE SSL")
        stack.environment["BACKUP_PASSWORD"] = "throw-away-2"
        sql(stack, flavour, "CREATE TABLE t (id INT); INSERT INTO t VALUES (1), (2); CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW SET NEW.id = 1;"
            "CREATE PROCEDURE p() SELECT 1; CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO SELECT 1; CREATE VIEW v AS SELECT * FROM t;"
            + statements.replace("…", "throw-away-2"))
        stack.devstack("apply", "--yes")
        if flavour is MYSQL:
            [run] = stack.runs().values()
            services = run.said["manifest"]["services"]
            names = {name: [artifact["name"] for artifact in services[name]["taken"]["artifacts"]] for name in services}
            must("accounts" in str(names["mysql"]) and "accounts" not in str(names["over_tls"]), f"taken were {names}")
        restore(stack, flavour)
        counts = "SELECT (SELECT COUNT(*) FROM t), (SELECT COUNT(*) FROM information_schema.triggers WHERE trigger_schema = 'shop')," \
            "(SELECT COUNT(*) FROM information_schema.routines WHERE routine_schema = 'shop'), (SELECT COUNT(*) FROM information_schema.events), (SELECT COUNT(*) FROM v)"
        seen = sql(stack, flavour, counts).split()
        must(seen == ["2", "1", "1", "1", "2"], f"of rows, triggers, routines, events, rows of the view came back {seen}")
        # The tool itself would leave the trigger out and end well.
        sql(stack, flavour, "REVOKE TRIGGER ON *.* FROM 'devstack_backup'@'localhost'")
        less = stack.devstack("backup", expect=7).said
        must("devstack_backup" in less and "TRIGGER ON `shop`" in less, "the right that is missing is not named")
        if flavour is MARIADB:
            # A new server knows no such user, and whoever restores looks at it.
            stack.destroy(engine)
            stack.devstack("recover", "--yes", "--only", engine, expect={0, 8})
            must(sql(stack, flavour, "SELECT COUNT(*) FROM t") == "2", "a new server was not recovered")


@scenario()
def mysql_least_rights_are_enough_and_one_less_is_not(world: World) -> None:
    least_rights(world, MYSQL)


@scenario()
def mariadb_least_rights_are_enough_and_one_less_is_not(world: World) -> None:
    least_rights(world, MARIADB)


@scenario("restic")
def restic_and_the_servers_client_restore_without_devstack(world: World) -> None:
    with server(world, MARIADB) as stack:
        sql(stack, MARIADB, "CREATE TABLE t (id INT); INSERT INTO t VALUES (1), (2); CREATE USER app IDENTIFIED BY 'x'; GRANT SELECT ON shop.t TO app")
        stack.devstack("apply", "--yes")
        sql(stack, MARIADB, "DROP DATABASE shop; DROP USER app", database="")
        for artifact in ("accounts", "databases", "grants"):
            dump = stack.run(
                ["restic", "-r", "backups", "--password-file", "key/passphrase", "dump", "--tag", "service:mariadb", "latest", f"/{artifact}.sql"]
            ).out
            sql(stack, MARIADB, dump.decode(), database="")
        must(sql(stack, MARIADB, "SELECT COUNT(*) FROM t", user="app", password="x") == "2", "the rows or the user did not come back")
