"""Single changes, by kind, of what runs, and of what devstack reads and keeps: the rows of servers, the repository, devstack.yaml, the
clock."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from random import Random

from changed_stack import SERVICES, Changed
from changes import grave, slight, word, write
from compose_stack import images

TABLES = ("customers", "orders", "settings", "audit.log")
DAY = 86_400


# --- What runs.

RUNNING = ("db", "web", "worker", "mail")


def stop(stack: Changed, chance: Random, name: str) -> str:
    how = chance.choice(["stop", "kill", "pause"])
    stack.undo.append(lambda: stack.up())
    stack.undo.append(lambda: stack.docker("unpause", stack.container(name), right=False))
    stack.docker(how, *(["--time", "1"] if how == "stop" else []), stack.container(name))
    return f"{how} {name}"


def remove(stack: Changed, name: str) -> str:
    stack.undo.append(lambda: stack.up())
    stack.docker("rm", "--force", stack.container(name))
    return name


@grave
def a_database_is_stopped(stack: Changed, chance: Random) -> str:
    return stop(stack, chance, "db")


@grave
def a_database_s_container_is_removed(stack: Changed, chance: Random) -> str:
    return remove(stack, "db")


@slight
def an_application_s_container_is_stopped(stack: Changed, chance: Random) -> str:
    return stop(stack, chance, chance.choice(["web", "worker", "mail"]))


@slight
def an_application_s_container_is_removed(stack: Changed, chance: Random) -> str:
    return remove(stack, chance.choice(["web", "worker", "mail"]))


@slight
def a_container_is_renamed(stack: Changed, chance: Random) -> str:
    name, new = chance.choice(RUNNING), f"{stack.project}-{word(chance)}"
    stack.undo.append(lambda: stack.docker("rename", new, stack.container(name)))
    stack.docker("rename", stack.container(name), new)
    return name


@grave
def a_volume_is_lost(stack: Changed, chance: Random) -> str:
    volume, services = chance.choice([("db", ["db"]), ("media", ["web", "worker"]), ("spool", ["mail"])])
    stack.undo.append(stack.make_anew)
    stack.compose("rm", "--force", "--stop", *services)
    stack.docker("volume", "rm", stack.real(volume))
    if chance.random() < 0.5:
        stack.up(*services)
        return f"{volume}, and what used it was made anew"
    return volume


@grave
def a_volume_is_emptied(stack: Changed, chance: Random) -> str:
    volume, at = chance.choice([("media", "web"), ("spool", "mail")])
    stack.undo.append(stack.make_anew)
    stack.docker("exec", stack.container(at), "find", f"/{volume}", "-mindepth", "1", "-delete")
    return volume


@slight
def a_file_of_a_volume_is_changed(stack: Changed, chance: Random) -> str:
    volume, at, file = chance.choice([("media", "web", "sub/two"), ("media", "web", "one"), ("spool", "mail", "letter")])
    stack.undo.append(stack.make_anew)
    how = chance.choice(["rm {}", "seq 7 >>{}", "chmod 4755 {}", ": >{}", "cp {} {}.more"])
    stack.docker("exec", "--user", "0", stack.container(at), "sh", "-c", how.format(*2 * [f"/{volume}/{file}"]))
    return f"{how} {volume}/{file}"


def beside(stack: Changed, chance: Random, *options: str) -> None:
    """A container that the files do not name."""
    name = f"{stack.project}-{word(chance)}"
    stack.undo.append(lambda: stack.docker("rm", "--force", "--volumes", name))
    labels = (f"com.docker.compose.project={stack.project}", f"com.docker.compose.service={word(chance)}", "com.docker.compose.oneoff=False")
    given = [part for label in labels for part in ("--label", label)]
    stack.docker("run", "--detach", "--name", name, *given, *options, "--entrypoint", "sleep", images()["FORGEJO_IMAGE"], "infinity")


@grave
def a_container_with_a_volume_runs_beside_it(stack: Changed, chance: Random) -> str:
    volume = f"{stack.project}-{word(chance)}"
    stack.undo.append(lambda: stack.docker("volume", "rm", volume))
    beside(stack, chance, "--volume", f"{volume}:/data")
    return volume


@grave
def a_container_of_the_project_binds_a_folder(stack: Changed, chance: Random) -> str:
    new = word(chance)
    write(stack, f"{new}/file", "x\n")
    beside(stack, chance, "--volume", f"{stack.folder}/{new}:/data")
    return new


@grave
def another_container_writes_to_a_volume(stack: Changed, chance: Random) -> str:
    volume = chance.choice(["media", "spool"])
    beside(stack, chance, "--volume", f"{stack.real(volume)}:/data")
    return volume


# --- The rows of servers.


@grave
def a_table_is_dropped(stack: Changed, chance: Random) -> str:
    table = chance.choice(TABLES)
    stack.change_rows(f"DROP TABLE {table} CASCADE")
    return table


@grave
def a_database_is_dropped(stack: Changed, chance: Random) -> str:
    stack.change_rows("DROP DATABASE extra", "postgres")
    return ""


@grave
def a_schema_is_dropped(stack: Changed, chance: Random) -> str:
    name = chance.choice(["audit", "public"])
    stack.change_rows(f"DROP SCHEMA {name} CASCADE")
    return name


@grave
def a_table_is_emptied(stack: Changed, chance: Random) -> str:
    table = chance.choice(["orders", "customers", "audit.log"])
    stack.change_rows(f"TRUNCATE {table} CASCADE")
    return table


@grave
def most_rows_are_deleted(stack: Changed, chance: Random) -> str:
    table, column = chance.choice([("orders", "id"), ("audit.log", "at")])
    least = chance.randrange(10, 500)
    stack.change_rows(f"DELETE FROM {table} WHERE {column} > {least}")
    return f"{table}, all but {least}"


@slight
def some_rows_are_changed(stack: Changed, chance: Random) -> str:
    how = chance.choice([
        "DELETE FROM orders WHERE id % 7 = 0", "UPDATE orders SET total = total + 1 WHERE id % 3 = 0", "INSERT INTO settings VALUES ('a', 'b')",
        "INSERT INTO orders SELECT n, 1, 2 FROM generate_series(2001, 2900) n",
    ])
    stack.change_rows(how)
    return how


@slight
def a_table_is_changed(stack: Changed, chance: Random) -> str:
    how = chance.choice([
        "ALTER TABLE orders ADD more text DEFAULT 'x'", "ALTER TABLE customers ALTER name SET NOT NULL", "DROP INDEX orders_total", "DROP VIEW rich",
        "CREATE TABLE letters (id int); INSERT INTO letters VALUES (1)", "CREATE INDEX ON customers (name)", "REVOKE ALL ON customers FROM reader",
    ])
    stack.change_rows(how)
    return how


@grave
def a_table_or_database_is_renamed(stack: Changed, chance: Random) -> str:
    new = word(chance)
    database, how = chance.choice([("shop", "TABLE customers"), ("shop", "SCHEMA audit"), ("postgres", "DATABASE extra")])
    stack.change_rows(f"ALTER {how} RENAME TO {new}", database)
    return f"{how} to {new}"


@slight
def a_database_is_added(stack: Changed, chance: Random) -> str:
    name = word(chance)
    stack.change_rows(f"CREATE DATABASE {name}", "postgres")
    return name


@slight
def a_role_is_changed(stack: Changed, chance: Random) -> str:
    how = chance.choice([
        "ALTER ROLE shop PASSWORD 'other'", "CREATE ROLE writer LOGIN PASSWORD 'x'", "ALTER ROLE reader LOGIN", "GRANT reader TO keeper",
    ])
    stack.change_rows(how, "postgres")
    return how


@grave
def devstack_s_role_may_not_read(stack: Changed, chance: Random) -> str:
    how = chance.choice(["NOLOGIN", "NOSUPERUSER"])
    stack.change_rows(f"ALTER ROLE shop {how}; REVOKE ALL ON SCHEMA audit FROM shop; ALTER TABLE audit.log OWNER TO keeper; ALTER SCHEMA audit OWNER TO keeper")
    return how


@grave
def a_database_lets_nobody_in(stack: Changed, chance: Random) -> str:
    name = chance.choice(["shop", "extra"])
    stack.change_rows(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false", "postgres")
    return name


@grave
def the_sqlite_file_is_hurt(stack: Changed, chance: Random) -> str:
    path = stack.folder / "data/notes.db"
    content = path.read_bytes()
    how = chance.choice(["gone", "empty", "cut", "overwritten", "page"])
    match how:
        case "gone":
            path.unlink()
        case "empty":
            path.write_bytes(b"")
        case "cut":
            path.write_bytes(content[: chance.randrange(1, len(content))])
        case "overwritten":
            path.write_bytes(chance.randbytes(len(content)))
        case "page":
            at = chance.randrange(1, len(content) // 4096) * 4096
            path.write_bytes(content[:at] + chance.randbytes(4096) + content[at + 4096 :])
    return how


@grave
def rows_of_sqlite_are_gone(stack: Changed, chance: Random) -> str:
    how = chance.choice(["DROP TABLE tags", "DROP TABLE notes", "DELETE FROM notes", "DELETE FROM notes WHERE id > 90"])
    with sqlite3.connect(stack.folder / "data/notes.db") as database:
        database.execute(how)
    database.close()
    return how


# --- The repository.


def any_of(stack: Changed, chance: Random, folder: str) -> Path:
    return chance.choice(sorted(path for path in (stack.repository / folder).rglob("*") if path.is_file()))


def remove_any(stack: Changed, chance: Random, folder: str) -> str:
    path = any_of(stack, chance, folder)
    path.unlink()
    return path.name[:8]


@grave
def a_pack_is_removed(stack: Changed, chance: Random) -> str:
    return remove_any(stack, chance, "data")


@grave
def a_pack_is_cut_or_longer(stack: Changed, chance: Random) -> str:
    path = any_of(stack, chance, "data")
    content = path.read_bytes()
    path.write_bytes(chance.choice([b"", content[: chance.randrange(len(content))], content + b"x"]))
    return path.name[:8]


@grave
def an_index_is_removed(stack: Changed, chance: Random) -> str:
    return remove_any(stack, chance, "index")


@grave
def a_snapshot_is_removed(stack: Changed, chance: Random) -> str:
    return remove_any(stack, chance, "snapshots")


@grave
def a_small_file_of_the_repository_is_hurt(stack: Changed, chance: Random) -> str:
    folder = chance.choice(["index", "snapshots", "keys"])
    path = any_of(stack, chance, folder)
    content = bytearray(path.read_bytes())
    match chance.randrange(3):
        case 0:
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        case 1:
            del content[chance.randrange(len(content)) :]
        case _:
            content.clear()
    path.write_bytes(bytes(content))
    return f"{folder}/{path.name[:8]}"


@grave
def the_repository_s_config_or_key_is_gone(stack: Changed, chance: Random) -> str:
    name = chance.choice(["config", "keys"])
    path = stack.repository / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    return name


@grave
def a_folder_of_the_repository_is_gone(stack: Changed, chance: Random) -> str:
    name = chance.choice(["data", "index", "snapshots", "devstack", "."])
    path = (stack.repository / name).resolve()
    shutil.rmtree(path)
    return name


@slight
def something_foreign_lies_in_the_repository(stack: Changed, chance: Random) -> str:
    name = chance.choice(["README", f"data/{word(chance)}", f"snapshots/{word(chance)}", "index/.hidden"])
    (stack.repository / name).write_text("x")
    return name


# --- devstack.yaml.


@grave
def a_source_is_taken_out(stack: Changed, chance: Random) -> str:
    line = chance.choice(SERVICES)
    stack.edit("devstack.yaml", line + "\n", "")
    return line.split(":")[0].strip()


@grave
def a_source_is_taken_out_of_the_policy(stack: Changed, chance: Random) -> str:
    names = [line.split(":")[0].strip() for line in SERVICES]
    gone = chance.choice(names)
    stack.edit("devstack.yaml", "services: all", f"services: [{', '.join(name for name in names if name != gone)}]")
    return gone


@grave
def a_service_of_the_file_is_renamed(stack: Changed, chance: Random) -> str:
    name, new = chance.choice(SERVICES).split(":")[0].strip(), word(chance)
    stack.edit("devstack.yaml", f"  {name}: {{ source", f"  {new}: {{ source")
    return f"{name} to {new}"


@grave
def a_path_is_left_out(stack: Changed, chance: Random) -> str:
    path = chance.choice(["compose.yaml", "more.yaml", "conf", "one.conf", "secrets", "site.conf"])
    stack.edit("devstack.yaml", f"{path}, ", "")
    return path


@grave
def a_path_is_excluded(stack: Changed, chance: Random) -> str:
    pattern = chance.choice(["token", "conf", "*.conf", "*.env", "secrets/"])
    stack.edit("devstack.yaml", "'*.env'] }", f"'*.env'], exclude: ['{pattern}'] }}")
    return pattern


@grave
def a_word_is_taken_back_or_names_nothing(stack: Changed, chance: Random) -> str:
    new = word(chance)
    if chance.random() < 0.5:
        stack.edit("devstack.yaml", "volume: cache", f"volume: {new}")
        return f"cache is {new}"
    stack.edit("devstack.yaml", "leave_out:\n  - { volume: cache, because: it is filled anew }\n", "")
    return "taken back"


@grave
def an_objective_is_narrower(stack: Changed, chance: Random) -> str:
    line = chance.choice(["rpo: 1s", "rpo: 48h\n  rto: 1ms", "rpo: 48h\n  rto: 1h"])
    stack.edit("devstack.yaml", "rpo: 48h", line)
    return line


@grave
def a_name_in_the_file_is_another(stack: Changed, chance: Random) -> str:
    new = word(chance)
    old = chance.choice([
        "container: db", "user: shop", "volume: media", "name: POSTGRES_PASSWORD", "path: ./backups", "key/passphrase", "path: data/notes.db",
        f"project: {stack.project}", "stack: scenario", "compose: [compose.yaml", "stop: [mail]", "paths: [uploads]",
    ])
    text = old[:-1] if old.endswith("]") else old
    stack.edit("devstack.yaml", old, f"{text}-{new}" + ("]" if old.endswith("]") else ""))
    return old


@grave
def a_repository_is_added(stack: Changed, chance: Random) -> str:
    new = word(chance)
    more = f"  {new}:\n    path: ./second\n    keys:\n      - {{ passphrase: {{ file: ./key/passphrase }} }}\nbackup:\n"
    stack.edit("devstack.yaml", "backup:\n", more)
    stack.edit("devstack.yaml", "to: [local]", f"to: [local, {new}]")
    return new


@slight
def a_repository_is_called_otherwise(stack: Changed, chance: Random) -> str:
    new = word(chance)
    stack.edit("devstack.yaml", "  local:\n", f"  {new}:\n")
    stack.edit("devstack.yaml", "to: [local]", f"to: [{new}]")
    return new


@grave
def the_policy_is_gone(stack: Changed, chance: Random) -> str:
    text = stack.file.read_text()
    start, stop = text.index("backup:\n  regular"), text.index("recovery:")
    stack.file.write_text(text[:start] + text[stop:])
    return ""


@grave
def the_file_is_broken(stack: Changed, chance: Random) -> str:
    old, new = chance.choice([("services:\n", "services: [\n"), ("  rpo:", "  rpq:"), ("48h", "48 ours"), ("version: 1", "version: 9"), ("0 0 * *", "0 0 * 32")])
    stack.edit("devstack.yaml", old, new)
    return new.strip()


@grave
def old_runs_are_forgotten_sooner(stack: Changed, chance: Random) -> str:
    last = chance.randrange(1, 4)
    stack.edit("devstack.yaml", "    to: [local]\n", f"    to: [local]\n    retention: {{ last: {last} }}\n")
    return f"last: {last}"


# --- The clock.


@grave
def the_clock_is_ahead(stack: Changed, chance: Random) -> str:
    days = chance.choice([2.5, 3, 9, 40, 400, 9000])
    stack.move_clock(int(days * DAY) + chance.randrange(9000))
    return f"{days} days"


@grave
def the_clock_is_behind(stack: Changed, chance: Random) -> str:
    hours = chance.choice([2, 9, 30, 24 * 9, 24 * 400, 24 * 9000])
    stack.move_clock(-hours * 3600 - chance.randrange(3600))
    return f"{hours} hours"


@slight
def the_clock_is_a_little_wrong(stack: Changed, chance: Random) -> str:
    seconds = chance.randrange(-50, 50)
    stack.move_clock(seconds)
    return f"{seconds} s"
