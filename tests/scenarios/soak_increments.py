"""What a change of 1 % adds to the repository, for every engine that has rows, keys or files; postgres is in engine_streams.
Run by `tests/soak`, since filling the servers takes minutes."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256

from compose_stack import ComposeStack
from engine_mongodb import mongodb, shell
from engine_mysql import MARIADB, MYSQL, Flavour, server, sql
from engine_redis import ask, redis, send
from engine_streams import newest
from engine_volume import box, script
from scenario import World, must, scenario
from stack import wait_until

# Of a dump's bytes, for 1 % of its rows changed in one place.
MOST = 0.15


def measured(world: World, stack: ComposeStack, change: Callable[[str], None], most: float | None) -> None:
    """Takes the first run, then one after a change "in one place", one after a "scattered" one, one after none."""
    stack.devstack("apply", "--yes")
    told = []
    for kind in ("in one place", "scattered", "unchanged"):
        if kind != "unchanged":
            change(kind)
        stack.devstack("backup")
        whole, added = newest(stack)
        told.append(f"{kind} {added / whole:.2%}")
        if kind == "in one place" and most is not None:
            must(added <= most * whole, f"1 % changed in one place added {added / whole:.1%} of the dump")
    world.note(f"{whole / 1e6:.0f} MB: {', '.join(told)}")


def rows(world: World, flavour: Flavour) -> None:
    with server(world, flavour) as stack:
        deep = "SET SESSION cte_max_recursion_depth = 1000000;" if flavour is MYSQL else "SET SESSION max_recursive_iterations = 1000000;"
        sql(stack, flavour, deep + "CREATE TABLE t (id INT PRIMARY KEY, h CHAR(64)); INSERT INTO t WITH RECURSIVE n AS "
            "(SELECT 1 AS x UNION ALL SELECT x + 1 FROM n WHERE x < 1000000) SELECT x, SHA2(x, 256) FROM n")
        where = {"in one place": "id BETWEEN 400000 AND 410000", "scattered": "id % 100 = 0"}
        measured(world, stack, lambda kind: sql(stack, flavour, f"UPDATE t SET h = SHA2(CONCAT('{kind}', id), 256) WHERE {where[kind]}") and None, MOST)


@scenario()
def one_per_cent_of_a_mysql_tables_rows(world: World) -> None:
    rows(world, MYSQL)


@scenario()
def one_per_cent_of_a_mariadb_tables_rows(world: World) -> None:
    rows(world, MARIADB)


@scenario()
def one_per_cent_of_a_mongodb_collections_documents(world: World) -> None:
    with mongodb(world) as stack:
        # Written anew, since the test stack's stand-in reads a whole collection to update one document.
        hashed = 'const {createHash} = require("crypto"); const h = (n) => createHash("sha256").update(String(n)).digest("hex");'
        shell(stack, hashed + 'many(shop, "t", 200000, (n) => ({_id: n, h: h(n), g: h(n + "g")}));')
        changed = {
            "in one place": ("{_id: {$gte: 80000, $lt: 82000}}", "80000 + n"),
            "scattered": ("{_id: {$in: [...Array(2000).keys()].map((n) => 100 * n)}}", "100 * n"),
        }

        def change(kind: str) -> None:
            which, number = changed[kind]
            shell(stack, hashed + f"shop.t.deleteMany({which});"
                  f'many(shop, "t", 2000, (n) => ({{_id: {number}, h: h("{kind}" + n), g: h(n + "g")}}));')

        # A document that is written anew stands at the end of what is dumped, so both changes are in one place there.
        measured(world, stack, change, MOST)


def rehashing(stack: ComposeStack) -> int:
    """The bytes of the table that keys are being moved out of."""
    told = dict(line.split(":", 1) for line in ask(stack, "redis-single", "INFO", "memory").splitlines() if ":" in line)
    return int(told["mem_overhead_db_hashtable_rehashing"])


@scenario()
def one_per_cent_of_redis_keys(world: World) -> None:
    with redis(world) as stack:
        def keys(numbers: range, text: str) -> list[tuple[str, ...]]:
            return [("SET", f"key:{n}", sha256(f"{text}{n}".encode()).hexdigest() * 2) for n in numbers]

        send(stack, "redis-single", keys(range(300_000), "first"))
        # Its table grew with the keys. While Redis moves them over, for seconds, each dump has them in another order.
        wait_until(lambda: rehashing(stack) == 0, "Redis to have moved its keys to the larger table")
        # A dump follows the order of a hash table: to it, no two keys are neighbours. So nothing is asked of it.
        numbers = {"in one place": range(100_000, 103_000), "scattered": range(0, 300_000, 100)}
        measured(world, stack, lambda kind: send(stack, "redis-single", keys(numbers[kind], kind)), None)


@scenario()
def one_per_cent_of_a_volumes_bytes(world: World) -> None:
    with box(world) as stack:
        script(stack, "head -c 100000000 /dev/urandom >/data/large; mkdir /data/many; cd /data/many; for n in $(seq 1000); do head -c 100000 /dev/urandom >$n; done")
        one_place = "head -c 2000000 /dev/urandom | dd of=/data/large bs=1M seek=40 conv=notrunc status=none"
        scattered = "for n in $(seq 20 20 1000); do head -c 100000 /dev/urandom >/data/many/$n; done"
        measured(world, stack, lambda kind: script(stack, one_place if kind == "in one place" else scattered) and None, MOST)
