"""What the file asserts of a stack is asked of it once it is back, and what does not hold is named."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from compose_stack import ComposeStack, compose_stack
from engine_stack import mongo, mysql
from scenario import World, must, scenario

SERVICES = [
    "  postgres: { source: { postgres: { container: postgres, user: shop, password: { env: POSTGRES_PASSWORD } } } }",
    "  mysql: { source: { mysql: { container: mysql, password: { env: MYSQL_ROOT_PASSWORD } } } }",
    "  mariadb: { source: { mariadb: { container: mariadb, password: { env: MARIADB_ROOT_PASSWORD } } } }",
    "  mongodb: { source: { mongodb: { container: mongodb, user: root, password: { env: MONGO_ROOT_PASSWORD } } } }",
    "  redis: { source: { redis: { containers: [redis-single], password: { env: REDIS_PASSWORD } } } }",
    "  uploads: { source: { volume: { volume: app_data, stop: [app] } } }",
]
# An application that answers over HTTP, has busybox' wget and no curl.
APP = """\
services:
  app:
    profiles: [standard, small]
    image: ${FORGEJO_IMAGE}
    restart: unless-stopped
    depends_on: { postgres: { condition: service_healthy } }
    volumes: [app_data:/data]
    stop_grace_period: 30s
volumes: { app_data: {} }
"""
HOLD = [
    'postgres: { service: postgres, database: shop, query: "select count(*) > 0 from orders" }',
    'mysql: { service: mysql, database: shop, query: "select count(*) from orders" }',
    'mariadb: { service: mariadb, database: shop, query: "select count(*) = 3 from orders -- all" }',
    'mongodb: { service: mongodb, database: shop, eval: "db.orders.countDocuments() > 0" }',
    'mongodb: { service: mongodb, database: shop, eval: "db.orders.aggregate([{$group: {_id: null, n: {$sum: Long(\'1\')}}}]).toArray()[0].n" }',
    'redis: { service: redis, command: [EXISTS, session], expect: "1" }',
    'redis: { service: redis, command: [GET, greeting], expect: "HELLO of the shop" }',
    'http: { container: app, url: "http://127.0.0.1:3000/api/healthz", name: the application answers }',
    'http: { container: app, url: "http://127.0.0.1:3000/nowhere", status: 404 }',
    "command: { container: app, run: [test, -s, /data/order] }",
]
FAIL = {
    'postgres: { service: postgres, database: shop, query: "select count(*) > 3 from orders", name: more orders, within: 0s }':
        "`more orders` expected true or a number other than 0, and it answered `f`",
    'postgres: { service: postgres, database: shop, query: "delete from orders returning true", within: 0s }':
        "cannot execute DELETE in a read-only transaction",
    'mysql: { service: mysql, database: shop, query: "delete from orders", within: 0s }': "READ ONLY transaction",
    'mysql: { service: mysql, database: shop, query: "drop table orders", within: 0s, name: a table that goes }': "`a table that goes`",
    'mariadb: { service: mariadb, database: shop, query: "drop table orders", within: 0s }': "READ ONLY transaction",
    'mongodb: { service: mongodb, database: shop, eval: "db.orders.findOne({}, {_id: 0, n: 1})", within: 0s }': 'answered `{"n":',
    'mongodb: { service: mongodb, database: shop, eval: "db.orders.countDocuments({n: 9})", within: 0s }': "answered `0`",
    'redis: { service: redis, command: [GET, session], expect: "2", within: 0s }': "expected `2`, and it answered `1`",
    'redis: { service: redis, command: [LPUSH, session, x], expect: "2", within: 0s }': "answered `WRONGTYPE",
    'http: { container: app, url: "http://127.0.0.1:3000/api/healthz", status: 204, within: 0s }':
        "expected status 204, and it answered with status 200",
    'http: { container: app, url: "http://127.0.0.1:3001/", within: 0s }': "answered with no status",
    'http: { container: postgres, url: "http://app:3000/", within: 0s }': "has neither curl nor wget",
    "command: { container: app, run: [test, -s, /data/nothing], within: 0s }": "expected exit code 0, and it answered with exit code 1",
    "command: { container: app, run: [no-such-program], within: 0s }": "no-such-program",
    'command: { container: nobody, run: ["true"], within: 0s }': "there is no container nobody",
}


@contextmanager
def shop(world: World, services: list[str], servers: list[str]) -> Iterator[ComposeStack]:
    """Servers and an application, all of them in a profile of their own."""
    small = "".join(f"  {name}: {{ profiles: [small] }}\n" for name in servers)
    with compose_stack(world, services, servers[:1], override=APP.replace("services:\n", f"services:\n{small}", 1)) as stack:
        stack.file.write_text(stack.file.read_text().replace("profiles: [standard, extra]", "profiles: [small]"))
        # One after the other: on two processors, the first start of one takes long beside those of the others.
        for server in [*servers[1:], "app"]:
            stack.up(server)
        stack.inside("app", "sh", "-c", "echo 7 >/data/order")
        stack.inside("postgres", "psql", "-qU", "shop", "-d", "shop", stdin="CREATE TABLE orders AS SELECT generate_series(1, 3) n")
        yield stack


def asserts(stack: ComposeStack, assertions: list[str]) -> None:
    text = stack.file.read_text().split("  assert:\n")[0]
    stack.file.write_text(text + "  assert:\n" + "".join(f"    - {line}\n" for line in assertions))


def of(lines: Iterable[str], services: list[str]) -> list[str]:
    """The assertions of these services, and those of the application."""
    named = [line.strip().split(":")[0] for line in services]
    return [line for line in lines if "container: " in line or any(f"service: {name}," in line for name in named)]


def hold_and_fail(stack: ComposeStack, services: list[str]) -> None:
    """Recovered with what holds asserted of it; and again with what does not."""
    hold, fail = of(HOLD, services), of(FAIL, services)
    asserts(stack, hold)
    stack.devstack("apply", "--yes")
    stack.compose("down", "--volumes", "--timeout", "2")
    shown = stack.devstack("recover", "--dry-run").out
    must(f"verify {len(services)} services, {len(hold)} assertions" in shown, f"the plan does not count them: {shown}")
    must("asserts `the application answers`" in shown and "asserts `app: test -s /data/order`" in shown, f"the plan does not name them: {shown}")
    said = stack.devstack("recover", "--yes").said
    must(f"{len(hold)} assertions hold" in said, f"it is not said that they hold: {said}")
    # Asked again, of a stack that is there: of what is gone, only the container of the application.
    asserts(stack, [*fail, *hold])
    stack.compose("rm", "--force", "--stop", "app")
    said = stack.devstack("recover", "--yes", expect=8).said
    must(f"{len(fail)} of {len(fail) + len(hold)} assertions do not hold" in said, f"not each that fails, and no other: {said}")
    for assertion in fail:
        must(FAIL[assertion] in said, f"it is not said what came of {assertion}: {said}")
    shown = said + stack.journal.read_text()
    must(not any(value in shown for name, value in stack.variables.items() if "PASSWORD" in name), "a password is shown")
    count = stack.inside("postgres", "psql", "-AtU", "shop", "-d", "shop", stdin="SELECT count(*) FROM orders").text
    must(count == "3", "a query has written")


@scenario()
def what_is_asserted_of_every_kind_is_asked_of_the_recovered_stack(world: World) -> None:
    services = [line for line in SERVICES if "mysql" not in line and "mariadb" not in line]
    with shop(world, services, ["postgres", "mongodb", "redis-single"]) as stack:
        mongo(stack, "db.getSiblingDB('shop').orders.insertMany([{n: 1}, {n: 2}, {n: 3}]);\n")
        keys = "SET session 1\nSET greeting 'HELLO of the shop'\n"
        stack.inside("redis-single", "redis-cli", stdin=keys, env={"REDISCLI_AUTH": stack.variables["REDIS_PASSWORD"]})
        hold_and_fail(stack, services)


@scenario(long=True)
def what_is_asserted_of_mysql_and_mariadb_is_asked_and_can_not_write(world: World) -> None:
    services = [line for line in SERVICES if "mongodb" not in line and "redis" not in line]
    with shop(world, services, ["postgres", "mysql", "mariadb"]) as stack:
        orders = "CREATE TABLE shop.orders (n INT PRIMARY KEY); INSERT INTO shop.orders VALUES (1), (2), (3);"
        mysql(stack, orders)
        stack.inside("mariadb", "mariadb", "-uroot", stdin=orders, env={"MYSQL_PWD": stack.variables["MARIADB_ROOT_PASSWORD"]})
        hold_and_fail(stack, services)
        must(mysql(stack, "SELECT count(*) FROM shop.orders") == "3", "a query has written")


@scenario()
def an_assertion_that_does_not_hold_is_asked_again_by_resume_and_narrowed_by_only(world: World) -> None:
    services = [SERVICES[0], SERVICES[-1]]
    with shop(world, services, ["postgres"]) as stack:
        page = 'http: { container: app, url: "http://127.0.0.1:3000/late", name: the late page }'
        asserts(stack, [HOLD[0], page.replace(" }", ", within: 0s }"), HOLD[-1]])
        stack.devstack("apply", "--yes")
        stack.compose("down", "--volumes", "--timeout", "2")
        said = stack.devstack("recover", "--yes", expect=8).said
        must("1 of 3 assertions do not hold: `the late page`" in said and "with status 404" in said, f"it is not named: {said}")
        must("looking for an older one" not in said, f"a good run was passed over for an assertion: {said}")
        must("--resume" in stack.devstack("apply", "--yes", expect=4).said, "a stack that is not as it should be could be backed up")
        stack.devstack("recover", "--resume", "--yes", expect=8)
        stack.inside("app", "sh", "-c", "echo late >\"$(echo /tmp/tmp.*)/late\"")
        said = stack.devstack("recover", "--resume", "--yes").said
        must("3 assertions hold" in said, f"it was not asked again: {said}")
        must("there is nothing to recover" in stack.devstack("recover", "--yes").said, "it has not come to its end")
        stack.compose("down", "--volumes", "--timeout", "2")
        shown = stack.devstack("recover", "--dry-run", "--only", "postgres").out
        must("verify 1 service, 1 assertion" in shown and "late page" not in shown, f"not only what belongs to it: {shown}")
        # A page that comes a moment after the application is awaited.
        asserts(stack, [page])
        process = stack.start("recover", "--yes")
        came = 'until [ -d /tmp/tmp.*/api ]; do :; done; until wget -qO- http://127.0.0.1:3000/api/healthz >/dev/null; do :; done'
        while process.poll() is None and stack.inside("app", "sh", "-c", came, expect=None).code:
            pass
        stack.inside("app", "sh", "-c", "sleep 2; echo late >\"$(echo /tmp/tmp.*)/late\"")
        out, _ = process.communicate(timeout=120)
        must(process.returncode == 0 and "1 assertion holds" in out, f"it was not awaited: {out}")
