"""A small stack that is changed in one place at a time, asked, put back, and, where nobody told of the change, lost and recovered."""

from __future__ import annotations

import hashlib
import random
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from compose_stack import images
from engine_coverage import Held
from machines import CLOCK
from scenario import Broken, World, must
from stack import write_stack

COMPOSE = """\
include: [more.yaml]
services:
  db:
    image: ${POSTGRES_IMAGE}
    # Nobody pulls the plug of this one, and it is made anew often.
    command: [postgres, -c, fsync=off]
    environment:
      { POSTGRES_USER: shop, POSTGRES_PASSWORD: "${POSTGRES_PASSWORD}", POSTGRES_DB: shop, PGDATA: /var/lib/postgresql/data, POSTGRES_INITDB_ARGS: --no-sync }
    volumes: ["db:/var/lib/postgresql/data"]
    healthcheck: { test: [CMD-SHELL, "pg_isready -q -h 127.0.0.1 -U shop -d shop"], interval: 1s, retries: 30 }
  web:
    image: ${IMAGE}
    user: root
    init: true
    entrypoint: [sleep, infinity]
    depends_on: [db]
    volumes: ["media:/media", "./conf:/etc/web:ro", "./uploads:/uploads", "./one.conf:/etc/one.conf:ro"]
    env_file: [web.env]
    secrets: [token]
    configs: [site]
    environment: { KEY: "${KEY}" }
  worker:
    image: ${IMAGE}
    init: true
    entrypoint: [sleep, infinity]
    volumes: ["media:/media", "cache:/cache"]
  tool: { image: "${IMAGE}", entrypoint: [sleep, infinity], profiles: [tools] }
volumes:
  db: {}
  media: {}
  cache: {}
secrets:
  token: { file: secrets/token }
configs:
  site: { file: site.conf }
"""
MORE = """\
services:
  mail: { image: "${IMAGE}", init: true, entrypoint: [sleep, infinity], volumes: ["spool:/spool"] }
volumes:
  spool: {}
"""

SERVICES = [
    "  configuration: { source: { files: { paths: [compose.yaml, more.yaml, conf, one.conf, secrets, site.conf, '*.env'] } } }",
    "  postgres: { source: { postgres: { container: db, user: shop, password: { env_file: .env, name: POSTGRES_PASSWORD } } } }",
    "  media: { source: { volume: { volume: media, stop: [web, worker] } } }",
    "  spool: { source: { volume: { volume: spool, stop: [mail] } } }",
    "  uploads: { source: { files: { paths: [uploads] } } }",
    "  notes: { source: { sqlite: { path: data/notes.db } } }",
]
LEFT_OUT = "leave_out:\n  - { volume: cache, because: it is filled anew }\n"

SQL = """\
CREATE ROLE keeper SUPERUSER LOGIN PASSWORD 'throw-away-1';
CREATE ROLE reader NOLOGIN;
CREATE TABLE customers (id int PRIMARY KEY, name text);
INSERT INTO customers SELECT n, md5(n::text) FROM generate_series(1, 2000) n;
CREATE TABLE orders (id int PRIMARY KEY, customer int REFERENCES customers, total numeric);
INSERT INTO orders SELECT n, n % 2000 + 1, n * 1.25 FROM generate_series(1, 1500) n;
CREATE TABLE settings (name text PRIMARY KEY, value text);
INSERT INTO settings VALUES ('theme', 'dark'), ('language', 'en');
CREATE INDEX orders_total ON orders (total);
CREATE VIEW rich AS SELECT * FROM orders WHERE total > 1000;
CREATE SCHEMA audit;
CREATE TABLE audit.log AS SELECT n AS at, md5(n::text) AS what FROM generate_series(1, 1200) n;
GRANT SELECT ON customers TO reader;
CREATE DATABASE extra;
\\connect extra
CREATE TABLE things AS SELECT n, md5(n::text) FROM generate_series(1, 1100) n;
"""

# Of the folder, what a loss leaves: what is kept elsewhere.
KEPT = ("devstack.yaml", "backups", "second", "key")
# devstack's own, and where this stack's home keeps what programs keep there.
OWN = (*KEPT, ".devstack", ".docker", ".cache", ".config")


def mirror(source: Path, target: Path) -> None:
    """The target becomes what the source is. What is equal stays as it is, so that a folder that is mounted is the same folder."""
    for path in [*target.rglob("*")][::-1]:
        twin = source / path.relative_to(target)
        if path.is_symlink() or twin.is_symlink() or not twin.exists() or path.is_dir() != twin.is_dir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    for twin in sorted(source.rglob("*")):
        path = target / twin.relative_to(source)
        if twin.is_symlink():
            path.symlink_to(twin.readlink())
        elif twin.is_dir():
            path.mkdir(exist_ok=True)
            shutil.copystat(twin, path)
        elif not path.exists() or path.read_bytes() != twin.read_bytes():
            shutil.copy2(twin, path)
        elif path.stat().st_mode != twin.stat().st_mode or path.stat().st_mtime_ns != twin.stat().st_mtime_ns:
            shutil.copystat(twin, path)


@dataclass(frozen=True)
class State:
    """All that a recovery has to bring back: files byte by byte, volumes file by file, databases as their own clients tell them."""

    files: dict[str, str]
    volumes: dict[str, str]
    rows: dict[str, str]
    running: frozenset[str]

    def differences(self, then: State) -> list[str]:
        told = [
            f"{name} is {'not there' if name not in theirs else 'new' if name not in ours else 'not the same'}"
            for ours, theirs in ((self.files, then.files), (self.volumes, then.volumes), (self.rows, then.rows))
            for name in sorted(ours.keys() | theirs.keys())
            if ours.get(name) != theirs.get(name)
        ]
        # What stood still before may run now.
        return told + [f"service {name} does not run" for name in sorted(self.running - then.running)]


class Changed(Held):
    """The stack, and how what was changed beside its folder is put back."""

    base: Path
    shim: Path
    own_environment: dict[str, str]
    undo: list[Callable[[], object]]
    dump: str
    state_then: State

    def container(self, service: str) -> str:
        return f"{self.project}-{service}-1"

    def real(self, volume: str) -> str:
        return f"{self.project}_{volume}"

    def compose(self, *arguments: str, right: bool = True) -> str:
        return self.docker("compose", "--project-name", self.project, *arguments, right=right)

    def up(self, *services: str) -> None:
        self.compose("up", "--detach", "--wait", "--quiet-pull", *services)

    def sql(self, text: str, *options: str, database: str = "shop", user: str = "shop") -> str:
        line = ["docker", "exec", "--interactive", self.container("db"), "psql", "-qXAt", "-U", user, "-d", database, *options]
        done = subprocess.run(line, input=text, capture_output=True, text=True, timeout=120)
        if done.returncode:
            raise Broken(f"psql ended with {done.returncode}: {done.stderr[-1000:]}")
        return done.stdout

    def change_rows(self, text: str, database: str = "shop") -> None:
        self.undo.append(self.put_rows_back)
        self.sql(text, "-v", "ON_ERROR_STOP=1", database=database, user="keeper")

    def put_rows_back(self) -> None:
        names = "SELECT format('DROP DATABASE %I WITH (FORCE);', datname) FROM pg_database WHERE datname NOT IN ('postgres', 'template0', 'template1');"
        roles = "SELECT format('DROP ROLE %I;', rolname) FROM pg_roles WHERE rolname !~ '^pg_' AND rolname NOT IN ('keeper', 'shop');"
        for listed in (names, roles):
            self.sql(self.sql(listed, database="postgres", user="keeper"), database="postgres", user="keeper")
        self.sql(self.dump, database="postgres", user="keeper")

    def dumped(self, *arguments: str) -> str:
        return self.docker("exec", self.container("db"), *arguments, "-U", "keeper")

    def state(self) -> State:
        files: dict[str, str] = {}
        for path in sorted(self.folder.rglob("*")):
            name = str(path.relative_to(self.folder))
            if name.split("/")[0] in OWN or name.startswith("data/"):
                continue
            content = "folder" if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()
            files[name] = f"{path.stat().st_mode & 0o7777:o} {content}"
        volumes = {}
        for name in self.docker("volume", "ls", "--quiet", "--filter", f"label=com.docker.compose.project={self.project}").split():
            if name != self.real("cache"):
                look = "cd /v && find . -printf '%p %m %U %y\\n' | sort && find . -type f -exec sha256sum {} + | sort"
                seen = self.docker(
                    "run", "--rm", "--network", "none", "--user", "0", "--volume", f"{name}:/v:ro", "--entrypoint", "sh",
                    images()["FORGEJO_IMAGE"], "-c", look,
                )
                # A server's files are never the same twice: its rows are compared.
                if "./PG_VERSION" not in seen:
                    volumes[name] = seen
        # The image makes this role out of the same password on every new server, with another salt, and a recovery leaves it.
        roles = re.sub(r"(ALTER ROLE shop .*?) PASSWORD '[^']*'", r"\1", self.dumped("pg_dumpall", "--roles-only"))
        rows = {"roles": told(roles)}
        for name in self.sql("SELECT datname FROM pg_database WHERE datallowconn ORDER BY 1", database="postgres", user="keeper").split():
            rows[f"database {name}"] = told(self.dumped("pg_dump", name))
        notes = self.folder / "data/notes.db"
        if notes.exists():
            with sqlite3.connect(notes) as database:
                rows["notes"] = "\n".join(database.iterdump())
            database.close()
        running = self.compose("ps", "--services", "--filter", "status=running").split()
        # What the files no longer name, nobody makes anew.
        return State(files, volumes, rows, frozenset(running) & frozenset(self.compose("config", "--services").split()))

    def lose(self) -> None:
        """Everything but what is kept elsewhere."""
        label = f"label=com.docker.compose.project={self.project}"
        if containers := self.docker("ps", "--all", "--quiet", "--filter", label).split():
            self.docker("rm", "--force", "--volumes", *containers)
        for kind in ("volume", "network"):
            if names := self.docker(kind, "ls", "--quiet", "--filter", label).split():
                self.docker(kind, "rm", *names)
        for path in self.folder.iterdir():
            if path.name not in KEPT:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def put_back(self, *, lost: bool) -> None:
        """As it was before the change."""
        undo, self.undo, self.environment = self.undo, [], self.own_environment
        mirror(self.base, self.folder)
        for one in undo[::-1]:
            # What came after it may have undone it already.
            with suppress(Broken) if lost else nullcontext():
                if not (lost and one == self.make_anew):
                    one()
        if lost and not self.is_as_it_was():
            self.make_anew()
        # A look in between may have written into devstack's own folder.
        mirror(self.base, self.folder)

    def is_as_it_was(self) -> bool:
        """After what was proved to be a good recovery: mostly it is, which saves one more of them."""
        try:
            self.compose("up", "--detach", "--wait", "--quiet-pull", "--remove-orphans")
            return not self.state_then.differences(self.state())
        except Broken:
            return False

    def make_anew(self) -> None:
        """From its backups, which are those of before the change."""
        self.lose()
        mirror(self.base, self.folder)
        self.devstack("recover", "--yes")
        mirror(self.base, self.folder)

    def move_clock(self, seconds: int) -> None:
        self.environment = self.own_environment | {"LD_PRELOAD": str(self.shim), "AHEAD": str(seconds)}


def told(dump: str) -> str:
    """Rows in no order, and without what pg_dump makes up each time."""
    lines = dump.splitlines()
    return "\n".join(sorted(line for line in lines if line and not line.startswith(("--", "\\restrict", "\\unrestrict"))))


@contextmanager
def changed_stack(world: World) -> Iterator[Changed]:
    """Up, with a run, and OK."""
    folder = world.folder / "stack"
    stack = Changed(world, folder)
    stack.environment = stack.own_environment = dict(write_stack(world, folder, services=SERVICES).environment)
    stack.project = f"ds-{random.SystemRandom().randbytes(4).hex()}"
    stack.base, stack.shim, stack.undo = world.folder / "base", world.folder / "clock.so", []
    variables = f"IMAGE={images()['FORGEJO_IMAGE']}\nPOSTGRES_IMAGE={images()['POSTGRES_IMAGE']}\nKEY=k3y\nPOSTGRES_PASSWORD=throw-away-2\n"
    files = {
        "compose.yaml": COMPOSE, "more.yaml": MORE, ".env": variables, "web.env": "X=1\nY=two words\n", "secrets/token": "t0ken\n", "site.conf": "site\n",
        "one.conf": "one\n", "conf/web.conf": "web\n", "conf/deep/er.conf": "deeper\n", "uploads/a.txt": "a\n" * 40, "uploads/b/c.txt": "c\n" * 90,
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / ".env").chmod(0o600)
    (folder / "data").mkdir()
    with sqlite3.connect(folder / "data/notes.db") as database:
        database.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT)")
        database.executemany("INSERT INTO notes (body) VALUES (?)", [(f"note {number}",) for number in range(1200)])
        database.execute("CREATE TABLE tags (name TEXT)")
        database.execute("INSERT INTO tags VALUES ('red')")
    database.close()
    source = world.folder / "clock.c"
    source.write_text(CLOCK)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(stack.shim), str(source)], check=True)
    runtime = f"runtime: {{ docker: {{ compose: [compose.yaml], project: {stack.project} }} }}\n"
    # An objective that nothing has measured is DEGRADED, and would hide what is looked for.
    text = stack.file.read_text().replace("  rto: 30m\n", "")
    stack.file.write_text(text.replace("services:\n", runtime + "services:\n", 1) + LEFT_OUT)
    try:
        stack.up()
        stack.sql(SQL, "-v", "ON_ERROR_STOP=1")
        stack.docker("exec", stack.container("web"), "sh", "-c", "mkdir /media/sub && echo one >/media/one && seq 4000 >/media/sub/two")
        stack.docker("exec", stack.container("mail"), "sh", "-c", "seq 2000 >/spool/letter")
        stack.devstack("apply", "--yes")
        must(not stack.findings(), "something is told before anything is changed")
        stack.devstack("plan", "--strict")
        stack.dump = stack.dumped("pg_dumpall")
        stack.state_then = stack.state()
        shutil.copytree(folder, stack.base, symlinks=True)
        yield stack
    finally:
        stack.environment = stack.own_environment
        stack.lose()
