"""Redis: taken, destroyed, restored, and compared by its own client."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator

from compose_stack import ComposeStack, compose_stack
from scenario import World, must, scenario

# How often a copy taken under load is compared; `tests/soak` asks for more.
ROUNDS = 3

NODES = ("redis-1", "redis-2", "redis-3")
SINGLE = "  redis: { source: { redis: { containers: [redis-single], password: { env: REDIS_PASSWORD } } } }"
CLUSTER = (
    f"  redis: {{ source: {{ redis: {{ containers: [{', '.join(NODES)}], cluster: true, password: {{ env: REDIS_PASSWORD }} }} }} }}"
)
APPEND_ONLY = "services: { redis-single: { command: !override [sh, -c, %s] } }"

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
    lines = functions.split("library_name\n")
    return keys.splitlines() + sorted(lines)


def digest(lines: list[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()


def same(before: list[str], after: list[str]) -> None:
    if before == after:
        return
    lost, new = sorted(set(before) - set(after)), sorted(set(after) - set(before))
    must(False, f"what came back differs: {len(lost)} lines are lost, such as {lost[:3]}; {len(new)} are new, such as {new[:3]}")


@contextlib.contextmanager
def redis(world: World, declared: str = SINGLE, *services: str, **more: str) -> Iterator[ComposeStack]:
    with compose_stack(world, [declared], list(services or ("redis-single",)), **more) as stack:
        for service in services or ("redis-single",):
            if not service.endswith("init"):
                # The server waits 5 s for further replicas before it begins; here none will come.
                ask(stack, service, "CONFIG", "SET", "repl-diskless-sync-delay", "0")
        yield stack


def restore(stack: ComposeStack, expect: int = 0) -> str:
    return stack.devstack("restore", "redis", "--in-place", "--yes", "--approve", "restore:redis", expect=expect).said


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
