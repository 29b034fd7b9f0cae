"""The data of the services that `benches/stack` measures on: put in, changed by 1 %, damaged, and told about by the
servers' own clients."""

from __future__ import annotations

import binascii
import io
import json
import random
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

from compose_stack import ComposeStack
from data import BLOCK_LINES, SEED, WORDS, sql_block
from scenario import must

Row = tuple[int, str, str, int, int]

# What a row takes in a dump, nearly.
ROW_BYTES = 112
REDIS_NODES = ("redis-1", "redis-2", "redis-3")
REDIS_VALUE = 1_000
FILE_SIZES = (256_000, 16_000, 64_000, 256_000)


def rows(block: int, version: int = 1) -> list[Row]:
    """Rows as in `data.sql_block`: a counting id, a random token, words, an amount, and the version as a column."""
    chance = random.Random(f"{SEED} {block} {version}")
    tokens = chance.randbytes(BLOCK_LINES * 10).hex()
    words = chance.choices(WORDS, k=BLOCK_LINES * 8)
    first = block * BLOCK_LINES
    return [
        (first + n, tokens[n * 20 : n * 20 + 20], " ".join(words[n * 8 : n * 8 + 8])[:56], (n * 7919) % 100_000, version)
        for n in range(BLOCK_LINES)
    ]


class Data:
    """One service's. `told` is what its own client says: how many rows there are, and how many of version 2."""

    name = "?"
    # Share of the whole, in parts.
    parts = 0
    # Compose services.
    up: tuple[str, ...] = ()
    declared = ""

    def __init__(self, stack: ComposeStack, size: int) -> None:
        self.stack = stack
        self.size = size
        self.prepare()

    def prepare(self) -> None:
        """What depends on the size."""

    def fill(self) -> None:
        raise NotImplementedError

    def set_version(self, version: int) -> None:
        """1 % of the rows, in one stretch, in the given version."""
        raise NotImplementedError

    def tidy(self) -> None:
        """Whatever a change leaves behind that the next tool should not find."""

    def damage(self) -> None:
        """Some of what has changed is lost, so that a restore that did nothing is seen."""
        raise NotImplementedError

    def told(self) -> str:
        raise NotImplementedError

    def changed(self) -> range:
        """The blocks that are different in version 2."""
        first = self.blocks // 3
        return range(first, first + max(1, round(self.blocks / 100)))

    @property
    def blocks(self) -> int:
        return max(3, self.size // (ROW_BYTES * BLOCK_LINES))


def into(stack: ComposeStack, service: str, command: list[str], pieces: Iterator[bytes], env: dict[str, str] | None = None) -> str:
    """Streams pieces into a program in a container, and gives what it said."""
    names = [part for name in env or {} for part in ("--env", name)]
    line = ["docker", "exec", "--interactive", *names, stack.container(service), *command]
    process = subprocess.Popen(
        line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=stack.whole_environment() | (env or {})
    )
    assert process.stdin and process.stdout
    try:
        for piece in pieces:
            process.stdin.write(piece)
        process.stdin.close()
    except BrokenPipeError:
        pass
    said = process.stdout.read().decode(errors="replace")
    must(process.wait() == 0, f"{service}: `{' '.join(command)[:200]}` ended with {process.returncode}: {said[-1000:]}")
    return said


class Postgres(Data):
    name = "postgres"
    parts = 34
    up = ("postgres",)
    declared = "  postgres: { source: { postgres: { container: postgres, user: shop, password: { env: POSTGRES_PASSWORD } } } }"
    client = ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "shop", "-d", "shop"]

    def sql(self, text: str) -> str:
        return self.stack.inside("postgres", *self.client, stdin=text, seconds=3600).text

    def fill(self) -> None:
        self.sql("CREATE TABLE orders (id bigint, token text, note text, amount int, version int)")
        self.copy("orders", range(self.blocks))
        self.sql("ALTER TABLE orders ADD PRIMARY KEY (id); CREATE INDEX ON orders (amount); ANALYZE")

    def copy(self, table: str, blocks: range, version: int = 1) -> None:
        pieces = ("".join("\t".join(map(str, row)) + "\n" for row in rows(block, version)).encode() for block in blocks)
        into(self.stack, "postgres", [*self.client, "-c", f"COPY {table} FROM STDIN"], pieces)

    def set_version(self, version: int) -> None:
        self.sql("DROP TABLE IF EXISTS changes; CREATE TABLE changes (LIKE orders)")
        self.copy("changes", self.changed(), version)
        self.sql(
            "UPDATE orders SET token = c.token, note = c.note, amount = c.amount, version = c.version FROM changes c"
            " WHERE c.id = orders.id; DROP TABLE changes"
        )

    def tidy(self) -> None:
        # Rows that were changed lie at the end, and the dump follows: back in order for the next tool.
        self.sql("CLUSTER orders USING orders_pkey; ANALYZE")

    def damage(self) -> None:
        first = self.changed().start * BLOCK_LINES
        self.sql(f"DELETE FROM orders WHERE id BETWEEN {first} AND {first + 999}")

    def told(self) -> str:
        return self.sql("SELECT count(*), sum(id), count(*) FILTER (WHERE version = 2) FROM orders").replace("|", " ")


class Mysql(Data):
    name = "mysql"
    parts = 26
    up = ("mysql",)
    program = "mysql"
    password = "MYSQL_ROOT_PASSWORD"
    declared = "  mysql: { source: { mysql: { container: mysql, user: root, password: { env: MYSQL_ROOT_PASSWORD } } } }"

    def feed(self, pieces: Iterator[bytes]) -> str:
        command = [self.program, "--user=root", "--batch", "--skip-column-names", "--default-character-set=utf8mb4", "shop"]
        return into(self.stack, self.name, command, pieces, {"MYSQL_PWD": self.stack.variables[self.password]})

    def sql(self, text: str) -> str:
        return self.feed(iter([text.encode()]))

    def insert(self, verb: str, blocks: range, version: int = 1) -> Iterator[bytes]:
        for block in blocks:
            values = ",".join(f"({i},'{t}','{n}',{a},{v})" for i, t, n, a, v in rows(block, version))
            yield f"{verb} INTO orders VALUES {values};\n".encode()

    def fill(self) -> None:
        self.sql(
            "CREATE TABLE orders (id bigint PRIMARY KEY, token varchar(20), note varchar(60), amount int, version int, KEY (amount))"
            " ENGINE=InnoDB"
        )
        self.feed(self.insert("INSERT", range(self.blocks)))

    def set_version(self, version: int) -> None:
        self.feed(self.insert("REPLACE", self.changed(), version))

    def damage(self) -> None:
        first = self.changed().start * BLOCK_LINES
        self.sql(f"DELETE FROM orders WHERE id BETWEEN {first} AND {first + 999}")

    def told(self) -> str:
        return self.sql("SELECT count(*), sum(id), sum(version = 2) FROM orders").strip().replace("\t", " ")


class Mariadb(Mysql):
    name = "mariadb"
    parts = 10
    up = ("mariadb",)
    program = "mariadb"
    password = "MARIADB_ROOT_PASSWORD"
    declared = "  mariadb: { source: { mariadb: { container: mariadb, user: root, password: { env: MARIADB_ROOT_PASSWORD } } } }"


MONGO_SCRIPT = r"""
const {PASSWORD} = process.env;
const server = new Mongo(`mongodb://root:${encodeURIComponent(PASSWORD)}@localhost:27017/?directConnection=true`);
const orders = server.getDB("shop").orders;
const words = WORDS;
const document = (n) => {
  let state = Math.imul(n, 2654435761) >>> 0;
  const next = () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0);
  const token = () => next().toString(16).padStart(8, "0");
  const note = Array.from({length: 8}, () => words[(next() >>> 8) % words.length]).join(" ");
  return {_id: n, token: token() + token(), note, amount: Int32(n % 100000), version: Int32(1)};
};
"""


class Mongodb(Data):
    name = "mongodb"
    # The test stack's stand-in for the server reads some 7 MB a second: with more it alone would be what is measured.
    parts = 3
    up = ("mongodb",)
    declared = "  mongodb: { source: { mongodb: { container: mongodb, user: root, password: { env: MONGO_ROOT_PASSWORD } } } }"

    def prepare(self) -> None:
        self.count = max(1_000, self.size // 150)
        self.first, self.end = self.count // 3, self.count // 3 + max(10, self.count // 100)

    def shell(self, script: str) -> str:
        run = "f=$(mktemp); cat >$f; mongosh --nodb --norc --quiet --file $f; e=$?; rm $f; exit $e"
        text = MONGO_SCRIPT.replace("WORDS", json.dumps(WORDS)) + script
        env = {"PASSWORD": self.stack.variables["MONGO_ROOT_PASSWORD"]}
        return self.stack.inside("mongodb", "sh", "-c", run, stdin=text, env=env, seconds=3600).text

    def fill(self) -> None:
        self.shell(
            f"for (let n = 0; n < {self.count}; n += 5000) orders.insertMany("
            f"Array.from({{length: Math.min(5000, {self.count} - n)}}, (_, i) => document(n + i)));\n"
            "orders.createIndex({amount: 1});"
        )

    def set_version(self, version: int) -> None:
        # Removed and put in anew: to update one document the stand-in reads the whole collection.
        changed = f"{{_id: {{$gte: {self.first}, $lt: {self.end}}}}}"
        self.shell(
            f"orders.deleteMany({changed}); orders.insertMany(Array.from({{length: {self.end - self.first}}}, (_, i) =>"
            f" ({{...document({self.first} + i), version: Int32({version})}})));"
        )

    def damage(self) -> None:
        self.shell(f"orders.deleteMany({{_id: {{$gte: {self.first}, $lt: {self.first + 10}}}}})")

    def told(self) -> str:
        changed = f"{{_id: {{$gte: {self.first}, $lt: {self.end}}}}}"
        script = f"print(orders.countDocuments({{}}), orders.find({changed}).toArray().filter((d) => d.version == 2).length)"
        return self.shell(script)


class Redis(Data):
    name = "redis"
    parts = 10
    up = (*REDIS_NODES, "redis-init")
    declared = (
        f"  redis: {{ source: {{ redis: {{ containers: [{', '.join(REDIS_NODES)}], cluster: true,"
        " password: { env: REDIS_PASSWORD } } } }"
    )

    def prepare(self) -> None:
        self.count = max(300, self.size // REDIS_VALUE)

    def keys(self) -> range:
        first = self.count // 3
        return range(first, first + max(10, self.count // 100))

    @staticmethod
    def node(key: str) -> str:
        slot = binascii.crc_hqx(key.encode(), 0) % 16_384
        # As `--cluster create` deals them to three nodes.
        return REDIS_NODES[0 if slot <= 5460 else 1 if slot <= 10_922 else 2]

    def cli(self, node: str, arguments: list[str], pieces: Iterator[bytes]) -> str:
        env = {"REDISCLI_AUTH": self.stack.variables["REDIS_PASSWORD"]}
        return into(self.stack, node, ["redis-cli", "--raw", *arguments], pieces, env)

    def write(self, numbers: range, version: int) -> None:
        for node in REDIS_NODES:
            self.cli(node, ["--pipe"], self.commands(node, numbers, version))

    def commands(self, node: str, numbers: range, version: int) -> Iterator[bytes]:
        for number in numbers:
            key = f"order:{number:09d}"
            if self.node(key) != node:
                continue
            chance = random.Random(f"{SEED} {key} {version}")
            value = f"{version} {chance.randbytes(300).hex()} {' '.join(chance.choices(WORDS, k=58))}"[:REDIS_VALUE]
            yield f"*3\r\n$3\r\nSET\r\n${len(key)}\r\n{key}\r\n${len(value)}\r\n{value}\r\n".encode()

    def fill(self) -> None:
        self.write(range(self.count), 1)

    def set_version(self, version: int) -> None:
        self.write(self.keys(), version)

    def asked(self, verb: str, numbers: range) -> list[str]:
        lines: list[str] = []
        for node in REDIS_NODES:
            keys = [key for key in (f"order:{number:09d}" for number in numbers) if self.node(key) == node]
            lines += self.cli(node, [], (f"{verb} {key}\n".encode() for key in keys)).splitlines()
        return lines

    def damage(self) -> None:
        self.asked("DEL", self.keys()[:10])

    def told(self) -> str:
        there = sum(int(self.cli(node, ["DBSIZE"], iter([]))) for node in REDIS_NODES)
        return f"{there} {sum(line.startswith('2 ') for line in self.asked('GET', self.keys()))}"


# Without a file's name its client hung here when it was given the definitions on stdin; this file is in memory.
IMPORT = "umask 077; f=$(mktemp -p /dev/shm); cat >$f; rabbitmqctl -q import_definitions $f; e=$?; rm $f; exit $e"


class Rabbitmq(Data):
    """Definitions only: what a second of a processor goes to the client's start for, whatever their size."""

    name = "rabbitmq"
    up = ("rabbitmq",)
    declared = "  rabbitmq: { source: { rabbitmq: { container: rabbitmq } } }"
    queues = 300

    def define(self, **what: object) -> None:
        self.stack.inside("rabbitmq", "sh", "-c", IMPORT, stdin=json.dumps(what), user="rabbitmq")

    def fill(self) -> None:
        names = [f"queue-{n:03d}" for n in range(self.queues)]
        self.define(
            queues=[{"name": name, "vhost": "/", "durable": True, "auto_delete": False, "arguments": {}} for name in names],
            exchanges=[{"name": "bench", "vhost": "/", "type": "topic", "durable": True, "auto_delete": False, "internal": False, "arguments": {}}],
            bindings=[
                {"source": "bench", "vhost": "/", "destination": name, "destination_type": "queue", "routing_key": f"{name}.#", "arguments": {}}
                for name in names
            ],
        )
        self.set_version(1)

    def set_version(self, version: int) -> None:
        policies = [
            {"vhost": "/", "name": f"bench-{n}", "pattern": f"^queue-00{n}$", "apply-to": "queues", "priority": 0,
             "definition": {"max-length": 1000 + version}}
            for n in range(3)
        ]
        self.define(policies=policies)

    def damage(self) -> None:
        self.stack.inside("rabbitmq", "rabbitmqctl", "-q", "delete_queue", f"queue-{self.queues - 1:03d}")

    def told(self) -> str:
        defined = json.loads(self.stack.inside("rabbitmq", "rabbitmqctl", "-q", "export_definitions", "-", "--format", "json").text)
        second = sum(policy["definition"].get("max-length") == 1002 for policy in defined["policies"])
        return f"{len(defined['queues'])} {len(defined['bindings'])} {second}"


class Volume(Data):
    name = "volume"
    parts = 17
    up = ("forgejo",)
    # Not stopped: no tool here stops anything, and nothing writes meanwhile.
    declared = "  volume: { source: { volume: { volume: forgejo_data } } }"

    def prepare(self) -> None:
        self.count = max(8, self.size * len(FILE_SIZES) // sum(FILE_SIZES))

    def numbers(self) -> range:
        """Those that are different in version 2, spread as changed files are."""
        return range(1, self.count, 100)

    @staticmethod
    def path(number: int) -> str:
        return f"bench/{number % 50:02d}/file-{number:06d}"

    def archive(self, numbers: range, version: int) -> bytes:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            for number in numbers:
                size = FILE_SIZES[number % len(FILE_SIZES)]
                noise = number % len(FILE_SIZES) == 0
                content = random.Random(f"{SEED} {number} {version}").randbytes(size) if noise else sql_block(number, version)[:size]
                info = tarfile.TarInfo(self.path(number))
                info.size, info.mode, info.mtime = len(content), 0o644, 1_760_000_000 + version
                tar.addfile(info, io.BytesIO(content))
        return out.getvalue()

    def write(self, numbers: range, version: int) -> None:
        for begin in range(0, len(numbers), 500):
            archive = self.archive(numbers[begin : begin + 500], version)
            self.stack.inside("forgejo", "tar", "-C", "/data", "-xf", "-", stdin=archive, user="git")

    def fill(self) -> None:
        self.write(range(self.count), 1)

    def set_version(self, version: int) -> None:
        self.write(self.numbers(), version)

    def damage(self) -> None:
        self.stack.inside("forgejo", "rm", f"/data/{self.path(self.numbers()[0])}")

    def told(self) -> str:
        changed = "\n".join(self.path(number) for number in self.numbers())
        count = self.stack.inside("forgejo", "sh", "-c", "find /data/bench -type f | wc -l").text.strip()
        script = "cd /data && xargs sha256sum 2>&1 | sha256sum | cut -c1-12"
        return f"{count} {self.stack.inside('forgejo', 'sh', '-c', script, stdin=changed).text.strip()}"

    def folder(self) -> Path:
        """Where the volume lies on this host: a folder as good as any, for whoever may read it."""
        [name] = self.stack.volumes("forgejo")
        [seen] = json.loads(self.stack.run(["docker", "volume", "inspect", name]).out)
        return Path(seen["Mountpoint"])


ALL: list[type[Data]] = [Postgres, Mysql, Mariadb, Mongodb, Redis, Rabbitmq, Volume]
