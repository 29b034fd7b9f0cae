"""The whole stack at once: every engine in one run, side by side; destroyed, restored, compared; and no secret anywhere."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

from compose_stack import ComposeStack, compose_stack, variables
from scenario import World, must, scenario
from secrecy import files_below, find, must_be_private, watching

SERVICES = [
    "  postgres: { source: { postgres: { container: postgres, user: shop, password: { env: POSTGRES_PASSWORD } } } }",
    "  mysql: { source: { mysql: { container: mysql, password: { env: MYSQL_ROOT_PASSWORD } } } }",
    "  mongodb: { source: { mongodb: { container: mongodb, user: root, password: { env: MONGO_ROOT_PASSWORD } } } }",
    "  redis: { source: { redis: { containers: [redis-1, redis-2, redis-3], cluster: true, password: { env: REDIS_PASSWORD } } } }",
    "  rabbitmq: { source: { rabbitmq: { container: rabbitmq } } }",
    "  forgejo: { source: { volume: { volume: forgejo_data, stop: [forgejo] } }, after: [postgres] }",
    "  configuration: { source: { files: { paths: [docker-compose.yml, configs/] } } }",
]
SERVERS = ["postgres", "mysql", "mongodb", "redis-1", "redis-2", "redis-3", "rabbitmq"]
RESTORED = ["postgres", "mysql", "mongodb", "redis", "rabbitmq", "forgejo"]
KEYS = 500


def redis(stack: ComposeStack, *command: str, stdin: str | None = None) -> str:
    return stack.inside(
        "redis-1", "redis-cli", "-c", *command, stdin=stdin, env={"REDISCLI_AUTH": stack.variables["REDIS_PASSWORD"]}
    ).text


def mongo(stack: ComposeStack, script: str) -> str:
    # The password stands in what the client reads, and in no argument.
    login = f"db.getSiblingDB('admin').auth('root', '{stack.variables['MONGO_ROOT_PASSWORD']}');\n"
    return stack.inside("mongodb", "mongosh", "--quiet", "--norc", stdin=login + script).text.splitlines()[-1]


def mysql(stack: ComposeStack, sql: str) -> str:
    return stack.inside(
        "mysql", "mysql", "-uroot", "-N", "-B", stdin=sql, env={"MYSQL_PWD": stack.variables["MYSQL_ROOT_PASSWORD"]}
    ).text


def seed(stack: ComposeStack) -> None:
    stack.inside("postgres", "psql", "-q", "-U", "shop", "-d", "shop", stdin="CREATE TABLE t AS SELECT n, md5(n::text) FROM generate_series(1, 200000) n")
    mysql(stack, "CREATE TABLE shop.t (n INT PRIMARY KEY, h CHAR(64)); SET cte_max_recursion_depth = 100000;"
                 "INSERT INTO shop.t WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 50000) SELECT n, sha2(n, 256) FROM c;")
    mongo(stack, "db.getSiblingDB('shop').t.insertMany([...Array(2000).keys()].map(n => ({_id: n, h: 'v' + n})));\n")
    redis(stack, stdin="".join(f"SET key:{n} value:{n}\n" for n in range(KEYS)))
    stack.inside("rabbitmq", "rabbitmqctl", "-q", "add_vhost", "orders")
    stack.inside("rabbitmq", "rabbitmqctl", "-q", "set_policy", "-p", "orders", "limit", "^q", '{"max-length":7}')
    # As the application's own user: its image gives it whatever another owns when it starts.
    stack.inside("forgejo", "setpriv", "--reuid=git", "--regid=git", "--init-groups",
                 "sh", "-c", "mkdir -p /data/git && echo precious >/data/git/one && chmod 640 /data/git/one")


def look(stack: ComposeStack) -> dict[str, str]:
    # Where the client is sent on to another node it says so, with addresses that change.
    got = redis(stack, stdin="".join(f"GET key:{n}\n" for n in range(KEYS))).splitlines()
    values = " ".join(line for line in got if not line.startswith("->"))
    return {
        "postgres": stack.inside("postgres", "psql", "-AtU", "shop", "-d", "shop", stdin="SELECT count(*), md5(string_agg(md5, '' ORDER BY n)) FROM t").text,
        "mysql": mysql(stack, "SELECT count(*), sum(crc32(h)) FROM shop.t"),
        "mongodb": mongo(stack, "JSON.stringify(db.getSiblingDB('shop').t.find().sort({_id: 1}).toArray().length) + db.getSiblingDB('shop').t.findOne({_id: 1999}).h\n"),
        "redis": values,
        "rabbitmq": stack.inside("rabbitmq", "rabbitmqctl", "-q", "list_policies", "-p", "orders").text,
        "forgejo": stack.inside("forgejo", "sh", "-c", "cat /data/git/one; stat -c '%a %u %g %Y' /data/git/one").text,
    }


def bring_up(stack: ComposeStack) -> None:
    stack.up(*SERVERS)
    # Forms the cluster, or brings it together again; its exit code tells.
    stack.compose("run", "--rm", "-T", "redis-init")
    stack.up("forgejo")


def intervals(stack: ComposeStack, verb: str) -> dict[str, tuple[str, str]]:
    """When each step of a kind began and ended, from the journal of the last apply."""
    begun: dict[str, str] = {}
    found: dict[str, tuple[str, str]] = {}
    for line in stack.journal.read_text().splitlines():
        record = json.loads(line)
        [(kind, fields)] = record["entry"].items()
        if fields.get("verb") == verb:
            if kind == "step_started":
                begun[fields["resource"]] = record["at"]
            elif kind == "step_ended":
                found[fields["resource"]] = (begun[fields["resource"]], record["at"])
    return found


@scenario("restic")
def the_whole_stack_is_taken_side_by_side_destroyed_and_restored_and_no_secret_shows(world: World) -> None:
    with compose_stack(world, SERVICES, SERVERS) as stack:
        stack.compose("run", "--rm", "-T", "redis-init")
        stack.up("forgejo")
        seed(stack)
        before = look(stack)
        said: dict[str, bytes] = {}
        stack.environment["DEVSTACK_LOG"] = "trace"
        plan = world.folder / "plans/plan.json"
        plan.parent.mkdir()

        def devstack(*arguments: str) -> str:
            done = stack.devstack(*arguments, expect={0, 8} if arguments == ("status",) else 0)
            said[" ".join(arguments)] = done.said.encode()
            return done.out

        with watching() as seen:
            devstack("plan", "--out", str(plan))
            devstack("apply", str(plan), "--yes")
            devstack("status")
            devstack("verify", "--all")
            devstack("log")
        overlap(world, intervals(stack, "take"))
        must("running" in stack.compose("ps", "forgejo").text or stack.inside("forgejo", "true").code == 0, "the stopped writer was not started again")
        [run] = stack.runs().values()
        must(run.verified, f"the run of the whole stack is not verified: {run.said}")

        stack.destroy(*SERVERS, "forgejo")
        bring_up(stack)
        with watching() as seen_again:
            approved = [word for service in RESTORED for word in ("--approve", f"restore:{service}")]
            devstack("restore", *RESTORED, "--in-place", "--without-safety", "--yes", *approved)
        after = look(stack)
        for service, value in before.items():
            must(after[service] == value, f"{service} came back otherwise: {value[:200]!r} before, {after[service][:200]!r} after")

        logs = {name: stack.run(["docker", "logs", stack.container(name)], expect=None) for name in [*SERVERS, "forgejo"]}
        where = {f"output of {name}": text for name, text in said.items()}
        where |= {f"log of {name}": ran.out + ran.err.encode() for name, ran in logs.items()}
        # A process of the PostgreSQL server writes its title over its arguments and its environment, which `/proc` shows
        # together for a moment. That is the server's own doing, and its title tells it from every program.
        lists = [one for one in seen.argument_lists + seen_again.argument_lists if not one.startswith(b"postgres: ")]
        where["an argument list"] = b"\n".join(lists)
        where |= files_below(stack.folder / ".devstack") | files_below(plan.parent)
        for name in (name for name in variables() if "PASSWORD" in name):
            hits = find(stack.variables[name], where)
            whose = [one[:40] for one in lists if stack.variables[name].encode() in one]
            must(not hits, f"{name} shows in {hits}, of the programs {whose}")
        must(find("pg_dump", where) and find("mysqldump", where), "the watcher saw no dump tool, so it proves nothing")
        must_be_private(stack.folder / ".devstack")
        world.note(f"{seen.passes + seen_again.passes} passes, {len(where)} places")


def overlap(world: World, takes: dict[str, tuple[str, str]]) -> None:
    """The services of a run go side by side: some pair of takes ran at one time."""
    must(len(takes) == len(SERVICES), f"not every service was taken: {sorted(takes)}")
    pairs = [(a, b) for a in takes for b in takes if a < b and takes[a][0] < takes[b][1] and takes[b][0] < takes[a][1]]
    must(len(pairs) >= 3, f"the takes went one after the other: {takes}")
    moments = {service: [datetime.fromisoformat(text[:26].rstrip("Z") + "+00:00") for text in both] for service, both in takes.items()}
    slowest = max((end - begin).total_seconds() for begin, end in moments.values())
    wall = (max(end for _, end in moments.values()) - min(begin for begin, _ in moments.values())).total_seconds()
    world.note(f"{len(pairs)} pairs of takes overlapped; all took {wall:.1f} s, the slowest {slowest:.1f} s")


@scenario()
def init_writes_a_file_for_a_running_project_that_can_be_applied(world: World) -> None:
    with compose_stack(world, SERVICES[:1], ["postgres"]) as stack:
        stack.inside("postgres", "psql", "-q", "-U", "shop", "-d", "shop", stdin="CREATE TABLE t AS SELECT 1 AS x")
        stack.file.unlink()
        (Path(stack.folder) / "docker-compose.yml").write_text((Path(stack.folder) / "docker-compose.yml").read_text().replace("services:\n", f"name: {stack.project}\nservices:\n", 1))
        stack.devstack("init")
        written = stack.file.read_text()
        for engine in ("postgres", "mysql", "mongodb", "redis", "rabbitmq", "volume"):
            must(f"{{ {engine}: {{" in written, f"init knows no {engine}: {written}")
        must("profiles: [standard]" in written, f"postgres runs, and its profile is not in use: {written}")
        must("{ mariadb: {" not in written and "has run of the profiles extra" in written, f"a profile that never ran is taken: {written}")
        must(not find(stack.variables["POSTGRES_PASSWORD"], {"the file": written.encode()}), "init copied a password")
        stack.devstack("check")
        # Only what runs can be taken: the others are named as not there, and postgres is taken.
        done = stack.devstack("apply", "--yes", expect=7)
        must("done        " in done.said and "postgres/backup" in done.said, "the service that runs was not taken")
        must("no container mysql" in done.said, "a service that is down is not named")
