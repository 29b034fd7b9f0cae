"""The worst day of the whole stack: everything is gone but the repository, the escrow, and devstack.yaml. One command brings it
back. Nine of the parts are those of the recovery suite that devstack's forerunner had; the last drills the same stack, beside itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from compose_stack import ComposeStack
from engine_stack import SERVERS, SERVICES, look, mysql, redis, seed
from oracle import AgeKey
from recovery_disaster import PROMISED, there
from recovery_drill import contents, drill, live, must_have_left_nothing, seconds
from recovery_vault import FILES, lose_everything
from scenario import World, must, scenario
from vault_engine import DECLARED, RAFT, VAULT, fill, keep_keys, must_be_the_same, must_issue, password_for_the_shop, state
from vault_server import Vault, service, vault_stack

ALL = ["vault", "postgres", "mysql", "mongodb", "redis", "rabbitmq", "forgejo", "configuration"]


@contextmanager
def whole(world: World) -> Iterator[tuple[ComposeStack, Vault, AgeKey]]:
    """Vault, PostgreSQL whose password lies in it, MySQL, MongoDB, a Redis cluster, RabbitMQ, a volume, configuration files."""
    key = AgeKey.make(world.folder / "age")
    postgres = service().rstrip().removesuffix("}") + ", after: [vault] }"
    others = [line for line in SERVICES if not line.strip().startswith(("postgres:", "configuration:"))]
    declared = DECLARED % f"{{ age: {key.recipient} }}"
    with vault_stack(world, [VAULT, postgres, *others, FILES], SERVERS, storage=RAFT, declared=declared) as (stack, vault):
        stack.file.write_text(stack.file.read_text().replace("profiles: [standard, extra]", "profiles: [standard]"))
        vault.initialise()
        fill(vault)
        keep_keys(vault)
        vault.hand_out()
        vault.write("secret/data/postgres", password=stack.variables["POSTGRES_PASSWORD"])
        del stack.environment["POSTGRES_PASSWORD"]
        stack.compose("run", "--rm", "-T", "redis-init")
        stack.up("forgejo")
        seed(stack)
        yield stack, vault, key


@scenario(alone="twelve servers that start at once fill the machine, and its time is told")
def the_whole_stack_comes_back_from_an_empty_machine_by_one_command(world: World) -> None:
    suite(world)


def suite(world: World) -> None:
    with whole(world) as (stack, vault, key):
        escrow = ("--escrow", str(key.file))
        with world.part("test backup"):
            stack.devstack("apply", "--yes")
            [run] = stack.runs().values()
            taken = run.said["manifest"]["services"]
            must(run.complete and run.verified and set(taken) == set(ALL), f"the run is not whole: {run.said}")
        before, vault_before = look(stack), state(vault)

        with world.part("prerequisites"):
            password = stack.environment.pop("MYSQL_ROOT_PASSWORD")
            refused = stack.devstack("recover", "--yes", *escrow, expect=3).said
            must("MYSQL_ROOT_PASSWORD" in refused and "nothing was done" in refused, f"what is missing is not found beforehand: {refused}")
            stack.environment["MYSQL_ROOT_PASSWORD"] = password
            must("there is nothing to recover" in stack.devstack("recover", "--yes", *escrow).said, "a stack that is well is recovered")

        with world.part("databases"):
            one_database_comes_back_and_what_has_its_data_is_left_alone(stack)
            must(look(stack) == before, "what is in the databases is another")

        with world.part("vault"):
            stack.destroy("vault")
            stack.devstack("recover", "--yes", "--only", "vault", *escrow)
            must_be_the_same(vault_before, state(vault))
            must_issue(world, vault, vault_before["ca"])

        with world.part("automation"):
            lose_everything(stack)
            shown = stack.devstack("recover", "--dry-run", *escrow).out
            for phase in ("backup", "files", "containers", "services", "data", "verify", "steps were never measured"):
                must(phase in shown, f"the dry run does not show {phase!r}: {shown}")
            steps = stack.devstack("recover", "--dry-run", "--format", "json", *escrow).json()["steps"]
            must(len(steps) > 20, f"the plan as data has {len(steps)} steps")
            graph = stack.devstack("recover", "--dry-run", "--graph", "mermaid", *escrow).out
            must(graph.startswith(("flowchart", "graph")), f"no graph: {graph[:100]}")
            refused = stack.devstack("recover", *escrow, expect=4).said
            must("there is no terminal to ask at" in refused, f"it went on unasked: {refused}")
            must(not any(there(stack).values()) and not (stack.folder / ".env").exists(), "something was changed unasked")

        with world.part("complete environment with RTO"):
            began = time.monotonic()
            said = stack.devstack("recover", "--yes", *escrow).said
            took = time.monotonic() - began
            after = look(stack)
            for name, value in before.items():
                must(after[name] == value, f"{name} came back otherwise: {value[:200]!r} before, {after[name][:200]!r} after: {said}")
            must_be_the_same(vault_before, state(vault))
            must(took < 30 * 60, f"the objective is 30 minutes, and it took {took:.0f} s")
            world.note(f"recovered in {took:.1f} s; the report had {PROMISED} minutes")
            stack.converged()

        with world.part("service health"):
            states = stack.run(["docker", "ps", "--all", "--format", "{{.Names}} {{.Status}}", "--filter", f"label=com.docker.compose.project={stack.project}"]).text
            sick = [line for line in states.splitlines() if "(healthy)" not in line and "Exited (0)" not in line and "vault" not in line]
            must(not sick and len(states.splitlines()) >= 9, f"not all are healthy: {states}")
            stack.compose("stop", "mongodb")
            must("container/mongodb" in stack.devstack("recover", "--dry-run", *escrow).out, "a server that is down is not missed")
            stack.up("mongodb")

        with world.part("vault access"):
            must(password_for_the_shop(stack, vault) == stack.variables["POSTGRES_PASSWORD"], "the shop does not get its password")
            must_issue(world, vault, vault_before["ca"])

        with world.part("database connectivity"):
            # Over the network and with the password out of Vault, as the application comes in.
            login = {"PGPASSWORD": password_for_the_shop(stack, vault)}
            count = stack.inside("postgres", "sh", "-c", 'psql -h "$HOSTNAME" -AtU shop -d shop -c "SELECT count(*) FROM t"', env=login).text
            must(count == "200000", f"PostgreSQL answers {count}")
            must(mysql(stack, "SELECT COUNT(*) FROM shop.t") == "50000", "MySQL does not answer as before")
            must(look(stack)["mongodb"] == before["mongodb"], "MongoDB does not answer as before")
            must(redis(stack, "GET", "key:7").endswith("value:7"), "the Redis cluster does not answer as before")

        with world.part("drill"):
            must("never drilled" in stack.devstack("plan").out, "a stack that was never drilled does not say so")
            running, values, logins = live(stack), look(stack), vault.accessors()
            evidence = drill(stack, *escrow)
            must(evidence["verdict"] == "passed" and evidence["escrow"] and not evidence["partial"], f"the drill failed: {evidence}")
            back = {service["service"]: service["back_after"] for service in evidence["services"]}
            must(set(back) == set(ALL) and all(back.values()), f"not every service was back: {back}")
            world.note(f"drilled in {evidence['took']} beside it, {seconds(evidence['took']) / took:.2f} of the recovery")
            must(live(stack) == running, f"the live stack is not as it was: {running} before, {live(stack)} after")
            must(look(stack) == values and vault.accessors() == logins, "the live data is not as it was")
            must_be_the_same(vault_before, state(vault))
            must_have_left_nothing(stack)
            for verb in ("status", "plan"):
                told = stack.devstack(verb, expect={0, 8} if verb == "status" else 0).out
                must(" ago: " in told and "never drilled" not in told, f"{verb} does not tell of the drill: {told}")
            # With nothing running that writes, not a byte of it may change, nor does the drill need any of it.
            stack.compose("stop", "--timeout", "20")
            running, hashes = live(stack), contents(stack)
            must(len(hashes) >= len(SERVERS), f"too few volumes were hashed: {hashes}")
            evidence = drill(stack, *escrow)
            must(evidence["verdict"] == "passed", f"the drill beside a stopped stack failed: {evidence}")
            # As much of the machine is then left to it as a recovery has.
            world.note(f"with the stack stopped in {evidence['took']}, {seconds(evidence['took']) / took:.2f}")
            must(contents(stack) == hashes and live(stack) == running, "the stopped stack is not as it was")
            must_have_left_nothing(stack)


def one_database_comes_back_and_what_has_its_data_is_left_alone(stack: ComposeStack) -> None:
    others = [name for name in SERVERS if name != "postgres"]
    ids = {name: stack.run(["docker", "inspect", "--format", "{{.Id}}", stack.container(name)]).text for name in others}
    stack.destroy("postgres")
    # A recovery of something else does not touch it.
    must("there is nothing to recover" in stack.devstack("recover", "--yes", "--only", "redis").said, "redis has its data")
    stack.devstack("recover", "--yes", "--only", "postgres")
    after = {name: stack.run(["docker", "inspect", "--format", "{{.Id}}", stack.container(name)]).text for name in others}
    must(after == ids, "containers of other services were made anew")
    # Its container is gone and its volume is not: there is nothing to restore, and nothing is put over it.
    stack.inside("postgres", "psql", "-q", "-U", "shop", "-d", "shop", stdin="INSERT INTO t VALUES (0, 'later')")
    stack.compose("rm", "--force", "--stop", "postgres")
    said = stack.devstack("recover", "--yes", "--only", "postgres").said
    must("has data, now that it runs" in said, f"it is not said that the data was there: {said}")
    count = stack.inside("postgres", "psql", "-AtU", "shop", "-d", "shop", stdin="DELETE FROM t WHERE n = 0 RETURNING n").text
    must(count.startswith("0"), f"a recovery has put a backup over data that was there: {count}")
    # One that holds nothing which the file knows of is missed as well.
    stack.compose("rm", "--force", "--stop", "forgejo")
    stack.devstack("recover", "--yes", "--only", "forgejo")
    must("healthy" in stack.run(["docker", "ps", "--filter", f"name={stack.container('forgejo')}"]).text, "a container was not brought back")
