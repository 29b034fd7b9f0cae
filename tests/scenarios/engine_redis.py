"""Redis: taken, destroyed, restored, and compared by its own client."""

from __future__ import annotations

import binascii
import contextlib
import json
import random
import subprocess
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from compose_stack import ROUNDS, ComposeStack, compose_stack
from scenario import World, must, scenario
from stack import wait_until

NODES = ("redis-1", "redis-2", "redis-3")
SINGLE = "  redis: { source: { redis: { containers: [redis-single], password: { env: REDIS_PASSWORD } } } }"
CLUSTER = (
    f"  redis: {{ source: {{ redis: {{ containers: [{', '.join(NODES)}], cluster: true, password: {{ env: REDIS_PASSWORD }} }} }} }}"
)
# The single server of the example with more settings; it keeps its data in the same volume.
SETTINGS = """\
services:
  redis-single:
    command:
      - sh
      - -c
      - |
        printf 'requirepass "%s"\\n' "$$REDIS_PASSWORD" >/dev/shm/redis.conf
        chown redis /dev/shm/redis.conf
        exec docker-entrypoint.sh redis-server /dev/shm/redis.conf {}
"""

# A fourth node for the cluster of the example.
REPLICA = """\
services:
  redis-4:
    image: ${REDIS_IMAGE}
    profiles: [standard]
    environment: { REDIS_PASSWORD: "${REDIS_PASSWORD}" }
    command:
      - sh
      - -c
      - |
        printf 'requirepass "%s"\\nmasterauth "%s"\\n' "$$REDIS_PASSWORD" "$$REDIS_PASSWORD" >/dev/shm/redis.conf
        chown redis /dev/shm/redis.conf
        exec docker-entrypoint.sh redis-server /dev/shm/redis.conf --cluster-enabled yes --cluster-node-timeout 5000
    healthcheck:
      test: ["CMD-SHELL", 'REDISCLI_AUTH="$$REDIS_PASSWORD" redis-cli ping | grep -qx PONG']
      interval: 1s
    volumes: [redis_4_data:/data]
volumes: { redis_4_data: {} }
"""

Words = list[str | bytes]


def every_type(large: int = 600) -> list[Words]:
    """Commands that make a value of every type in every encoding that the server has for it."""
    made: list[Words] = []

    def add(*words: object) -> None:
        made.append([word if isinstance(word, bytes) else str(word) for word in words])

    add("SET", "string:text", "Größe ∑ \t quoted \" and \\")
    add("SET", b"string:binary:\xff\x00", bytes(range(256)))
    add("SET", "string:int", 42)
    add("SET", "string:int16", -3000)
    add("SET", "string:int32", 70000000)
    add("SET", "string:empty", "")
    add("SET", "string:long", "long and repeated " * 300)
    add("SET", "string:expires", "in a while", "PXAT", 4 * 10**12)
    add("SETBIT", "string:bits", 1000, 1)
    add("PFADD", "hyperloglog", *range(50))
    add("RPUSH", "list:small", 1, "two", "", 3.5)
    add("RPUSH", "list:large", *[f"element {n} " * 20 for n in range(large)])
    add("RPUSH", "list:plain", "x" * 70000, "y")
    add("SADD", "set:ints", 1, -2, 300000, 2**40)
    add("SADD", "set:small", "a", "b", "1")
    add("SADD", "set:large", *[f"member {n}" for n in range(large)])
    add("ZADD", "zset:small", 1, "a", -2.5, "b", "inf", "c")
    add("ZADD", "zset:large", *[word for n in range(large) for word in (n / 7, f"member {n}")])
    add("HSET", "hash:small", "f", "v", "ü", "ö")
    add("HSET", "hash:large", *[word for n in range(large) for word in (f"field {n}", n)])
    for name, fields in (("hash:expiring", 3), ("hash:expiring:large", large)):
        add("HSET", name, *[word for n in range(fields) for word in (f"field {n}", n)])
        add("HPEXPIREAT", name, 4 * 10**12, "FIELDS", 2, "field 1", "field 2")
    for n in range(1, large + 1):
        add("XADD", "stream", f"{n}-1", "field", n, "other", "x" * (n % 7))
    add("XDEL", "stream", "7-1")
    add("XGROUP", "CREATE", "stream", "group:a", 0)
    add("XGROUP", "CREATE", "stream", "group:b", "8-1")
    add("XREADGROUP", "GROUP", "group:a", "alice", "COUNT", 5, "STREAMS", "stream", ">")
    add("XREADGROUP", "GROUP", "group:a", "bob", "COUNT", 3, "STREAMS", "stream", ">")
    add("XACK", "stream", "group:a", "1-1")
    add("XGROUP", "CREATECONSUMER", "stream", "group:b", "idle")
    add("XGROUP", "CREATE", "stream:empty", "g", "$", "MKSTREAM")
    add("GEOADD", "geo", 13.36, 38.11, "Palermo", 15.08, 37.5, "Catania")
    add("PEXPIREAT", "set:small", 4 * 10**12)
    return made


FUNCTIONS: list[Words] = [
    ["FUNCTION", "LOAD", "REPLACE", "#!lua name=library\nredis.register_function('answer', function() return 42 end)"],
    ["FUNCTION", "LOAD", "REPLACE", "#!lua name=other\nredis.register_function('third', function() return 3 end)"],
]
ELSEWHERE: list[Words] = [["SELECT", "5"], ["SET", "elsewhere", "5"], ["SET", "elsewhere:expires", "5", "PXAT", "4000000000000"]]


def protocol(commands: Iterable[Words]) -> bytes:
    """As the server reads them: the client sends it on as it is."""
    wire = []
    for words in commands:
        wire.append(b"*%d\r\n" % len(words))
        for word in words:
            text = word.encode() if isinstance(word, str) else word
            wire.append(b"$%d\r\n%s\r\n" % (len(text), text))
    return b"".join(wire)


def send(stack: ComposeStack, service: str, commands: Iterable[Words]) -> None:
    ran = stack.inside(service, *client(), "--pipe", stdin=protocol(commands), env=password(stack))
    must("errors: 0," in ran.text, f"the server refused commands: {ran.text}")


def client(*words: str) -> list[str]:
    return ["redis-cli", *words]


def password(stack: ComposeStack) -> dict[str, str]:
    return {"REDISCLI_AUTH": stack.variables["REDIS_PASSWORD"]}


def ask(stack: ComposeStack, service: str, *words: str, stdin: bytes = b"") -> str:
    return stack.inside(service, *client(*words), stdin=stdin, env=password(stack)).text


# A digest of everything that is in the server, made by the server: each key of each database with its value as its own type
# shows it, and when it expires. Lua, so that one call sees one moment.
LOOK = """
local lines = {}
local function flat(value)
  if type(value) == 'table' then
    if value.double then return tostring(value.double) end
    local parts = {}
    for _, part in ipairs(value) do parts[#parts + 1] = flat(part) end
    return '[' .. table.concat(parts, ',') .. ']'
  end
  return tostring(value)
end
local function sorted(list, pairs_of)
  local items = {}
  for n = 1, #list, pairs_of do
    local item = {}
    for k = n, n + pairs_of - 1 do item[#item + 1] = flat(list[k]) end
    items[#items + 1] = table.concat(item, '=')
  end
  table.sort(items)
  return table.concat(items, ';')
end
local readers = {
  string = function(key) return redis.call('GET', key) end,
  list = function(key) return flat(redis.call('LRANGE', key, 0, -1)) end,
  set = function(key) return sorted(redis.call('SMEMBERS', key), 1) end,
  zset = function(key) return flat(redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')) end,
  hash = function(key)
    local fields = redis.call('HKEYS', key)
    table.sort(fields)
    local out = sorted(redis.call('HGETALL', key), 2)
    for _, field in ipairs(fields) do
      out = out .. '|' .. field .. flat(redis.call('HPEXPIRETIME', key, 'FIELDS', 1, field))
    end
    return out
  end,
  stream = function(key)
    local info = redis.call('XINFO', 'STREAM', key, 'FULL', 'COUNT', 0)
    local kept = {}
    for n = 1, #info, 2 do
      -- How it lies in memory is no value.
      if info[n] ~= 'radix-tree-keys' and info[n] ~= 'radix-tree-nodes' then kept[#kept + 1] = info[n] .. flat(info[n + 1]) end
    end
    return table.concat(kept, '|')
  end,
}
for database = 0, tonumber(ARGV[1]) do
  if database > 0 then redis.call('SELECT', database) end
  for _, key in ipairs(redis.call('KEYS', '*')) do
    local kind = redis.call('TYPE', key).ok
    lines[#lines + 1] = database .. ' ' .. kind .. ' ' .. key .. ' ' .. redis.sha1hex(readers[kind](key)) .. ' ' .. redis.call('PEXPIRETIME', key)
  end
end
table.sort(lines)
return lines
"""


def look(stack: ComposeStack, service: str, databases: int = 16) -> list[str]:
    """A line for every key. What holds no value of a key, such as functions, is behind them."""
    keys = ask(stack, service, "--raw", "EVAL", LOOK, "0", str(databases - 1))
    functions = ask(stack, service, "--raw", "FUNCTION", "LIST", "WITHCODE")
    must(not keys.startswith(("ERR", "NOSCRIPT", "NOAUTH")), f"looking at the server failed: {keys[:500]}")
    return keys.splitlines() + sorted(library.strip() for library in functions.split("library_name\n"))


def same(before: list[str], after: list[str]) -> None:
    if before == after:
        return
    lost, new = sorted(set(before) - set(after)), sorted(set(after) - set(before))
    must(False, f"what came back differs: {len(lost)} lines are lost, such as {lost[:3]}; {len(new)} are new, such as {new[:3]}")


@contextlib.contextmanager
def redis(world: World, declared: str = SINGLE, *services: str, **more: str) -> Iterator[ComposeStack]:
    services = services or ("redis-single",)
    with compose_stack(world, [declared], list(services), **more) as stack:
        # Compose names them so; asking it each time would take longer than most questions to the server.
        stack.container = lambda service: f"{stack.project}-{service}-1"  # type: ignore[method-assign]
        if services[: len(NODES)] == NODES:
            stack.compose("up", "--no-deps", "redis-init")
        for service in services:
            # The server waits 5 s for further replicas before it begins; here none will come.
            ask(stack, service, "CONFIG", "SET", "repl-diskless-sync-delay", "0")
        yield stack


def restore(stack: ComposeStack, expect: int = 0) -> str:
    return stack.devstack("restore", "redis", "--in-place", "--without-safety", "--yes", "--approve", "restore:redis", expect=expect).said


@scenario()
def redis_comes_back_with_everything_it_has(world: World) -> None:
    with redis(world) as stack:
        send(stack, "redis-single", every_type() + FUNCTIONS + ELSEWHERE)
        before = look(stack, "redis-single")
        stack.devstack("apply", "--yes")
        checked_by_the_servers_own_program(stack)
        stack.reborn("redis-single")
        must(ask(stack, "redis-single", "DBSIZE") == "0", "the new server is not empty, so nothing would be shown")
        restore(stack)
        same(before, look(stack, "redis-single"))
        files = stack.inside("redis-single", "sh", "-c", "ls -ln /data").text
        must("devstack" not in files, f"files of the restore are left: {files}")
        world.note(f"{len(before)} lines compared")


def checked_by_the_servers_own_program(stack: ComposeStack) -> None:
    """redis-check-rdb counts the keys as devstack does."""
    stack.devstack("restore", "redis", "--to", "beside", "--yes")
    rdb = (stack.folder / "beside/dump.rdb").read_bytes()
    said = stack.inside("redis-single", "sh", "-c", "cat > /tmp/a.rdb && redis-check-rdb /tmp/a.rdb", stdin=rdb).text
    must("Checksum OK" in said, f"redis-check-rdb says: {said}")
    [run] = stack.runs().values()
    counts = run.said["manifest"]["services"]["redis"]["taken"]["artifacts"][0]["counts"]
    for name, word in (("keys", "keys read"), ("keys with an expiry", "expires")):
        must(f"[info] {counts[name]['value']} {word}" in said, f"devstack counted {counts[name]} {name}: {said}")


def a_killed_restore_leaves_one_or_the_other(stack: ComposeStack, before: list[str]) -> None:
    """Killed while the server is stopped: the next apply starts it, with the old data or with the backup's."""
    now = look(stack, "redis-single")
    restoring = stack.start("restore", "redis", "--in-place", "--without-safety", "--yes", "--approve", "restore:redis")
    state = ["docker", "inspect", "--format", "{{.State.Running}}", stack.container("redis-single")]
    wait_until(lambda: stack.run(state).text == "false", "the server is stopped")
    restoring.kill()
    restoring.communicate()
    stack.devstack("apply", "--yes")
    wait_until(lambda: answers(stack), "the server answers after a restore that was killed")
    must(look(stack, "redis-single") in (now, before), "the data is neither the old one nor the backup's")


def answers(stack: ComposeStack) -> bool:
    return stack.inside("redis-single", *client("PING"), env=password(stack), expect=None).text == "PONG"


def as_if_nothing_had_happened(stack: ComposeStack, expected: list[str]) -> None:
    """The server, started once more, has what it should and the file that was written last."""
    stack.run(["docker", "restart", stack.container("redis-single")])
    wait_until(lambda: answers(stack), "the server answers after a restart")
    same(expected, look(stack, "redis-single"))


@scenario()
def redis_is_replaced_while_it_runs_and_keeps_what_is_written_afterwards(world: World) -> None:
    """With an append-only file, which the server loads in place of the RDB, and without any saving at all."""
    for name, settings in (("aof", "--appendonly yes --save ''"), ("rdb", "")):
        with redis(world, name=name, override=SETTINGS.format(settings)) as stack:
            send(stack, "redis-single", every_type(large=20) + FUNCTIONS + ELSEWHERE)
            stack.devstack("apply", "--yes")
            before = look(stack, "redis-single")
            ask(stack, "redis-single", "FLUSHALL")
            send(stack, "redis-single", [["SET", "later", "1"], ["SET", "string:int", "43"]])
            a_killed_restore_leaves_one_or_the_other(stack, before)
            restore(stack)
            same(before, look(stack, "redis-single"))
            ask(stack, "redis-single", "SET", "written afterwards", "1")
            after = look(stack, "redis-single")
            must(len(after) == len(before) + 1, "the key that was written afterwards is not there")
            as_if_nothing_had_happened(stack, after)
            files = stack.inside("redis-single", "sh", "-c", "cd /data; find . -type f | sort; stat -c '%U' $(find .)").text
            must("devstack" not in files and "root" not in files, f"files are left, or owned by others: {files}")
            must(files.count("base.rdb") < 2, f"an old append-only file is left: {files}")


@scenario()
def a_redis_that_cannot_load_the_backup_has_its_old_data_again(world: World) -> None:
    for name, settings in (("aof", "--appendonly yes --save ''"), ("rdb", "--save ''")):
        with redis(world, name=name, override=SETTINGS.format(settings)) as stack:
            send(stack, "redis-single", every_type(large=20) + ELSEWHERE)
            stack.devstack("apply", "--yes")
            ask(stack, "redis-single", "FLUSHALL")
            # The backup has a key in the database 5, which this server will not have.
            (stack.folder / "docker-compose.override.yml").write_text(SETTINGS.format(settings + " --databases 4"))
            stack.compose("up", "--detach", "--wait", "redis-single")
            send(stack, "redis-single", [["SET", "later", "1"], ["SELECT", "3"], ["HSET", "hash", "a", "b"]])
            before = look(stack, "redis-single", databases=4)
            said = restore(stack, expect=7)
            must("the old data is in place again" in said, "the error does not say what became of the data")
            same(before, look(stack, "redis-single", databases=4))
            files = stack.inside("redis-single", "sh", "-c", "find /data -type f").text
            must("devstack" not in files, f"files of the restore are left: {files}")


# Takes from one account and gives to another, in one call or in one transaction.
TRANSFER = """local a, b = math.random(100), math.random(100)
redis.call('DECRBY', 'account:' .. a, 7) redis.call('INCRBY', 'account:' .. b, 7) return a"""
TRANSACTION = "MULTI\nDECRBY account:{} 3\nINCRBY account:{} 3\nEXEC\n"
TOTAL = """local sum = 0
for n = 1, 100 do sum = sum + redis.call('GET', 'account:' .. n) end return sum"""


@contextlib.contextmanager
def writing(stack: ComposeStack, service: str, command: str, stdin: str = "") -> Iterator[None]:
    """The client goes on writing in the container until the end; `stdin` is what it reads, again and again."""
    note = f"/tmp/writer-{random.randrange(10**9)}"
    line = f'echo $$ > {note}; REDISCLI_AUTH="$REDIS_PASSWORD" exec redis-cli {command} >/dev/null'
    writer = stack.start_inside(service, "sh", "-c", line)

    def feed() -> None:
        with contextlib.suppress(OSError, ValueError):
            while writer.stdin and stdin:
                writer.stdin.write(stdin.encode())

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    try:
        yield
        must(writer.poll() is None, "the writer has ended before the backup did")
    finally:
        stack.inside(service, "sh", "-c", f"kill $(cat {note})", expect=None)
        writer.kill()
        writer.wait()
        feeder.join(5)


def loaded_beside(stack: ComposeStack, service: str, rdb: bytes, script: str) -> str:
    """What a second server, which has loaded an RDB, answers to a script."""
    stack.inside(service, "sh", "-c", "rm -rf /tmp/beside && mkdir /tmp/beside && cat > /tmp/beside/dump.rdb", stdin=rdb)
    server = "redis-server --port 7777 --dir /tmp/beside --save '' --daemonize yes --logfile /tmp/beside/log >/dev/null"
    ask_it = "redis-cli -p 7777"
    script = script.replace("'", '"')
    command = (
        f"{server}; until [ \"$({ask_it} ping 2>/dev/null)\" = PONG ]; do sleep 0.02; done; "
        f"{ask_it} --raw EVAL '{script}' 0; {ask_it} shutdown nosave"
    )
    return stack.inside(service, "sh", "-c", command).text


def artifacts_of_the_newest_run(stack: ComposeStack, number: int) -> Path:
    stack.devstack("restore", "redis", "--to", f"beside-{number}", "--yes")
    return stack.folder / f"beside-{number}"


@scenario()
def a_redis_taken_under_load_keeps_what_its_transactions_keep(world: World) -> None:
    with redis(world) as stack:
        send(stack, "redis-single", [["SET", f"account:{n}", "1000"] for n in range(1, 101)])
        # Something to write before and behind the accounts, so that the dump takes its time.
        send(stack, "redis-single", [["SET", f"filler:{n}", "x" * 200] for n in range(20_000)])
        transactions = "".join(TRANSACTION.format(n % 100 + 1, (n * 7) % 100 + 1) for n in range(500))
        script = TRANSFER.replace("\n", " ")
        with writing(stack, "redis-single", f'-r 100000000 EVAL "{script}" 0'), \
                writing(stack, "redis-single", "", stdin=transactions):
            for number in range(ROUNDS):
                stack.devstack("backup")
                rdb = (artifacts_of_the_newest_run(stack, number) / "dump.rdb").read_bytes()
                total = loaded_beside(stack, "redis-single", rdb, TOTAL)
                must(total == "100000", f"round {number}: the accounts come to {total!r}, and to 100000 at every moment")
            moved = ask(stack, "redis-single", "INFO", "stats")
        done = next(line.split(":")[1] for line in moved.splitlines() if line.startswith("total_commands_processed"))
        world.note(f"{ROUNDS} rounds, {int(done):,} commands meanwhile")


@scenario()
def what_a_redis_cannot_give_is_an_error_that_says_why(world: World) -> None:
    with redis(world) as stack:
        # Empty first: never a good run.
        empty = stack.devstack("backup", expect={4, 7})
        must("empty" in empty.said or "holds nothing" in empty.said, "an empty server is not called so")
        send(stack, "redis-single", every_type())

        right = stack.environment["REDIS_PASSWORD"]
        stack.environment["REDIS_PASSWORD"] = "not-the-one"
        refused = stack.devstack("backup", expect={3, 7}).said
        stack.environment["REDIS_PASSWORD"] = right
        must("WRONGPASS" in refused and "redis" in refused, "a wrong password is not named")
        must("not-the-one" not in refused, "the password is in the message")

        # A client that ends early and says that all went well: cut within a value, and just before the checksum's last byte.
        real = stack.inside("redis-single", "sh", "-c", "command -v redis-cli").text
        stack.inside("redis-single", "mv", real, f"{real}.real", user="root")
        size = len(stack.inside("redis-single", f"{real}.real", "--rdb", "-", env=password(stack)).out)
        for kept in (size // 2, size - 41):
            script = f'#!/bin/sh\ncase "$*" in *--rdb*) {real}.real "$@" | head -c {kept} ;; *) exec {real}.real "$@" ;; esac\n'
            stack.inside("redis-single", "sh", "-c", f"cat > {real} && chmod 755 {real}", stdin=script, user="root")
            cut = stack.devstack("backup", expect=7).said
            must("not whole" in cut and "dump.rdb" in cut, f"a dump of {kept} of {size} bytes is not called cut")
        stack.inside("redis-single", "mv", f"{real}.real", real, user="root")
        must(not any(run.complete for run in stack.runs().values()), "a run without its data counts as good")

        # Slow enough to be in the middle of.
        send(stack, "redis-single", [["SET", f"filler:{n}", "x" * 100] for n in range(10_000)])
        ask(stack, "redis-single", "SAVE")
        ask(stack, "redis-single", "CONFIG", "SET", "rdb-key-save-delay", "1000")
        taking = stack.start("backup")
        busy = lambda: "rdb_bgsave_in_progress:1" in ask(stack, "redis-single", "INFO", "persistence")  # noqa: E731
        wait_until(busy, "the server writes its RDB")
        stack.kill("redis-single")
        said, _ = taking.communicate(timeout=120)
        print(said)
        must(taking.returncode == 7, f"a server that was killed meanwhile ended with {taking.returncode}")
        must("redis" in said and not any(run.complete for run in stack.runs().values()), "half a dump counts as good")
        down = stack.devstack("backup", expect=7).said
        must("not running" in down, "a server that is down is not called so")
        stack.up("redis-single")
        stack.devstack("backup")
        with world.part("one that could never be put back is not taken"):
            (stack.folder / "other.yml").write_text(SETTINGS.format("--rename-command CONFIG ''"))
            stack.compose("--file", "docker-compose.yml", "--file", "other.yml", "up", "--detach", "--wait", "redis-single")
            said = stack.devstack("backup", expect=7).said
            must("knows no CONFIG" in said and "could not be put back" in said, f"why it is not taken is not told: {said}")


# As docs/engines/redis.md gives them.
RIGHTS = ("+sync", "+psync", "+replconf", "+info")
RESTORING = "'+info' '+config|get' '+config|set' '+save'"

# Beside the plain port, one that speaks nothing but TLS and wants a certificate of the client's.
CERTIFICATE = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=redis-single"]
TLS_SETTINGS = "--tls-port 6380 --tls-ca-cert-file /tls/cert --tls-cert-file /tls/cert --tls-key-file /tls/key"


@scenario("openssl")
def the_documented_rights_suffice_for_redis_over_tls_and_one_less_is_told(world: World) -> None:
    declared = (
        "  redis: { source: { redis: { containers: [redis-single], user: backup, password: { env: BACKUP_PASSWORD }, port: 6380,"
        " tls: { ca: /tls/cert, cert: /tls/cert, key: /tls/key },"
        " restore_as: { user: restorer, password: { env: RESTORE_PASSWORD } } } } }"
    )
    # In the settings, so that the server knows it after the restart as well.
    restorer = f" --user restorer on '>throw-away-3' {RESTORING}"
    override = SETTINGS.format(TLS_SETTINGS + restorer) + "    volumes: [../tls:/tls:ro]\n"
    (world.folder / "tls").mkdir()
    made = subprocess.run([*CERTIFICATE, "-keyout", "tls/key", "-out", "tls/cert"], cwd=world.folder, capture_output=True)
    must(made.returncode == 0, f"openssl made no certificate: {made.stderr!r}")
    # For the server's own user in the container.
    (world.folder / "tls/key").chmod(0o644)
    world.folder.chmod(0o755)
    with redis(world, declared, override=override) as stack:
        stack.environment |= {"BACKUP_PASSWORD": "throw-away-2", "RESTORE_PASSWORD": "throw-away-3"}
        send(stack, "redis-single", every_type(large=20) + [["ACL", "SETUSER", "backup", "reset", "on", ">throw-away-2", *RIGHTS]])
        before = look(stack, "redis-single")
        stack.devstack("backup")
        ask(stack, "redis-single", "FLUSHALL")
        restore(stack)
        same(before, look(stack, "redis-single"))
        for right in ("sync", "info"):
            send(stack, "redis-single", [["ACL", "SETUSER", "backup", "reset", "on", ">throw-away-2", *RIGHTS, f"-{right}"]])
            said = stack.devstack("backup", expect=7).said
            must("NOPERM" in said and right in said.lower(), f"without {right} the error does not say so")


def slot(key: str | bytes) -> int:
    return binascii.crc_hqx(key.encode() if isinstance(key, str) else key, 0) % 16384


def key_of(words: Words) -> str | bytes:
    if words[0] == "XREADGROUP":
        return words[words.index("STREAMS") + 1]
    return words[2] if words[0] == "XGROUP" else words[1]


def served(stack: ComposeStack) -> dict[str, range]:
    """Which slots each node serves; here one range each."""
    ranges = {}
    for node in NODES:
        lines = ask(stack, node, "CLUSTER", "NODES").splitlines()
        [mine] = [line.split() for line in lines if "myself" in line]
        first, last = mine[8].split("-")
        ranges[node] = range(int(first), int(last) + 1)
    return ranges


def send_to_cluster(stack: ComposeStack, commands: list[Words]) -> None:
    ranges = served(stack)
    for node in NODES:
        send(stack, node, [words for words in commands if slot(key_of(words)) in ranges[node]])


def look_at_cluster(stack: ComposeStack) -> list[str]:
    return sorted(line for node in NODES for line in look(stack, node, databases=1))


def ids(stack: ComposeStack) -> list[str]:
    return [ask(stack, node, "CLUSTER", "MYID") for node in NODES]


def whole(stack: ComposeStack) -> None:
    for node in NODES:
        info = ask(stack, node, "CLUSTER", "INFO")
        must("cluster_state:ok" in info and "cluster_slots_ok:16384" in info, f"the cluster is not whole: {info}")


@scenario()
def a_redis_cluster_comes_back_with_its_slots_and_all_its_keys(world: World) -> None:
    declared = CLUSTER.replace(NODES[2], f"{NODES[2]}, redis-4")
    with redis(world, declared, *NODES, "redis-4", override=REPLICA) as stack:
        # Not as `--cluster create` shares them out, so that a cluster that is formed anew by the book would be wrong.
        move_slots(stack, "redis-1", "redis-2", 100)
        follow(stack, "redis-4", "redis-1")
        keys: list[Words] = [["SET", f"key:{n}", f"value {n}"] for n in range(100_000)]
        send_to_cluster(stack, every_type() + keys)
        for node in NODES:
            send(stack, node, FUNCTIONS)
        before, old = look_at_cluster(stack), ids(stack)
        slots = served(stack)
        stack.devstack("apply", "--yes")
        stack.reborn(*NODES, "redis-4")
        must(ask(stack, "redis-1", "DBSIZE") == "0", "the new nodes are not empty, so nothing would be shown")
        restore(stack)
        whole(stack)
        must(served(stack) == slots, f"the slots are shared out as {served(stack)}, and were as {slots}")
        must(not set(ids(stack)) & set(old), "the nodes are not new")
        same(before, look_at_cluster(stack))
        follows(stack, "redis-4", "redis-1")
        # And into nodes that are still the cluster that they were.
        again = ids(stack)
        for node in NODES:
            ask(stack, node, "FLUSHALL")
        send_to_cluster(stack, [["SET", f"later:{n}", "1"] for n in range(50)])
        restore(stack)
        whole(stack)
        must(ids(stack) == again, "the nodes have got other ids")
        same(before, look_at_cluster(stack))
        follows(stack, "redis-4", "redis-1")
        world.note(f"{len(before):,} lines compared, twice")


def follow(stack: ComposeStack, replica: str, master: str) -> None:
    address = stack.inside(replica, "getent", "hosts", master).text.split()[0]
    ask(stack, replica, "CLUSTER", "MEET", address, "6379")
    master_id = ask(stack, master, "CLUSTER", "MYID")
    wait_until(lambda: ask(stack, replica, "CLUSTER", "REPLICATE", master_id) == "OK", "the replica knows its master")
    follows(stack, replica, master)


def follows(stack: ComposeStack, replica: str, master: str) -> None:
    """It is that master's replica, and has what it has."""

    def has_the_same() -> bool:
        # Containers that were started together may have each other's old addresses: until the nodes have noticed, a replica
        # follows whoever has its master's.
        [mine] = [line.split() for line in ask(stack, replica, "CLUSTER", "NODES").splitlines() if "myself" in line]
        is_up = "master_link_status:up" in ask(stack, replica, "INFO", "replication")
        same_keys = ask(stack, replica, "DBSIZE") == ask(stack, master, "DBSIZE")
        return is_up and same_keys and mine[3] == ask(stack, master, "CLUSTER", "MYID")

    wait_until(has_the_same, f"{replica} has what {master} has")


def move_slots(stack: ComposeStack, source: str, target: str, count: int) -> None:
    first = served(stack)[source].stop - count
    target_id = ask(stack, target, "CLUSTER", "MYID")
    wanted = [["CLUSTER", "SETSLOT", str(number), "NODE", target_id] for number in range(first, first + count)]
    for node in (target, source, *NODES):
        send(stack, node, wanted)

    def agree() -> bool:
        return all(f"{first}-" in ask(stack, node, "CLUSTER", "NODES") for node in NODES)

    wait_until(agree, "all nodes know of the slots that were moved")


@scenario()
def a_redis_cluster_is_taken_whole_or_not_at_all(world: World) -> None:
    declared = CLUSTER.replace("cluster: true, password: { env: REDIS_PASSWORD }", "cluster: true, user: backup, password: { env: BACKUP_PASSWORD }")
    with redis(world, declared, *NODES) as stack:
        stack.environment["BACKUP_PASSWORD"] = "throw-away-2"
        for node in NODES:
            send(stack, node, [["ACL", "SETUSER", "backup", "reset", "on", ">throw-away-2", *RIGHTS, "+cluster|nodes"]])
        send_to_cluster(stack, [["SET", f"key:{n}", "1"] for n in range(100)])
        # The masters are of different moments, as the page says: what is always behind on one is ahead of it in the backup.
        ranges = served(stack)
        first, last = (next(f"n{n}" for n in range(9999) if slot(f"n{n}") in ranges[node]) for node in (NODES[0], NODES[2]))
        ask(stack, NODES[2], "CONFIG", "SET", "repl-diskless-sync-delay", "2")
        counting = f"-c -h {NODES[0]}"
        with writing(stack, NODES[0], counting, stdin=f"INCR {first}\nINCR {last}\n" * 50):
            stack.devstack("backup")
        beside = artifacts_of_the_newest_run(stack, 0)
        map_of_slots = json.loads((beside / "slots.json").read_text())
        must([master["container"] for master in map_of_slots["masters"]] == list(NODES), f"the map is {map_of_slots}")
        counted = [
            int(loaded_beside(stack, NODES[0], (beside / f"masters/{node}.rdb").read_bytes(), f"return redis.call('GET', '{key}')"))
            for node, key in ((NODES[0], first), (NODES[2], last))
        ]
        must(counted[1] > counted[0], f"the masters are of one moment, and the page says that they are not: {counted}")
        world.note(f"{counted[0]} on the first master, {counted[1]} on the last, which was never ahead")

        good = set(stack.runs())
        number = ranges["redis-2"][0]

        def nobody_serves_it() -> bool:
            # A word of before that was still on its way would give it back.
            for node in ("redis-2", "redis-1", "redis-3"):
                ask(stack, node, "CLUSTER", "DELSLOTS", str(number))
            return all("cluster_slots_assigned:16383" in ask(stack, node, "CLUSTER", "INFO") for node in NODES)

        wait_until(nobody_serves_it, "all nodes know that the slot is not served")
        said = stack.devstack("backup", expect=7).said
        must("redis" in said and f"nobody serves 1 of the 16384 slots ({number})" in said, "the slot that is missing is not named")
        for node in NODES:
            target = ask(stack, "redis-2", "CLUSTER", "MYID")
            ask(stack, node, "CLUSTER", "SETSLOT", str(number), "NODE", target)
        stack.kill("redis-3")
        said = stack.devstack("backup", expect=7).said
        must("redis-3" in said, "the node that is down is not named")
        must(all(not run.complete for name, run in stack.runs().items() if name not in good), "half a cluster counts as good")
