"""Secrets that lie in Vault: how devstack gets them, how it says that it can't, and what it leaves behind."""

from __future__ import annotations

import re
import threading

from scenario import World, must, scenario
from secrecy import files_below, find, must_be_private, watching
from stack import wait_until
from vault_server import LARGE, PASSWORD, STOCK, WAREHOUSE, dumps, fails, policy_of_the_docs, service, shop, sql

FILES = "  files: { source: { files: { paths: [docker-compose.yml] } } }"


@scenario()
def a_password_that_lies_only_in_vault_is_used_and_nothing_of_it_stays(world: World) -> None:
    with shop(world) as (stack, vault):
        wrong = stack.inside("postgres", "psql", "-AtqU", "shop", "-d", "shop", env={"PGPASSWORD": "wrong"}, expect=2)
        must("password" in wrong.err, "the server lets anybody in, so nothing would be shown")
        said: dict[str, bytes] = {}
        stack.environment["DEVSTACK_LOG"] = "trace"
        with watching() as seen:
            for command in (["plan"], ["apply", "--yes"], ["status"], ["restore", "postgres", "--in-place", "--without-safety", "--yes", "--approve", "restore:postgres"]):
                said[command[0]] = stack.devstack(*command, expect={0, 8} if command == ["status"] else 0).said.encode()
        must(sql(stack, "SELECT count(*) FROM t") == "1000", "the rows did not come back")
        logs = stack.run(["docker", "logs", stack.container("vault")])
        where = {f"output of {name}": text for name, text in said.items()} | files_below(stack.folder / ".devstack")
        where["Vault's log"] = logs.out + logs.err.encode()
        where["an argument list"] = b"\n".join(seen.argument_lists)
        role_id, secret_id = ((stack.folder / "vault" / name).read_text().strip() for name in ("role-id", "secret-id"))
        for name, secret in (("password", stack.variables["POSTGRES_PASSWORD"]), ("role-id", role_id), ("secret-id", secret_id)):
            must(not find(secret, where), f"the {name} shows in {find(secret, where)}")
        must(not [name for name, text in where.items() if b"hvs." in text], "a token shows")
        must_be_private(stack.folder / ".devstack")
        must(find("pg_dump", where), "the watcher saw no dump tool, so it proves nothing")
        world.note(f"{seen.passes} passes, {len(where)} places")


@scenario()
def a_field_is_found_in_both_versions_of_kv_and_what_is_not_there_is_named(world: World) -> None:
    with shop(world, service("old/postgres#password")) as (stack, vault):
        vault.ask("PUT", "sys/policies/acl/devstack", {"policy": policy_of_the_docs() + 'path "old/postgres" { capabilities = ["read"] }'})
        stack.devstack("apply", "--yes")

        def reference(text: str) -> None:
            lines = stack.file.read_text().splitlines()
            stack.file.write_text("\n".join(service(text) if line.startswith("  postgres:") else line for line in lines) + "\n")

        reference("secret/postgres#passwort")
        fails(stack, "secret/data/postgres", "has no field passwort", "it has password, port")
        reference("secret/postgres#port")
        fails(stack, "port of secret/data/postgres", "no text")
        reference("secret/data/postgres#password")
        fails(stack, "there is no secret at secret/data/postgres", "leave `data/` out")
        vault.ask("PUT", "sys/policies/acl/devstack", {"policy": policy_of_the_docs() + 'path "secret/data/*" { capabilities = ["read"] }'})
        reference("secret/nothing#password")
        fails(stack, "there is no secret at secret/nothing")
        reference(PASSWORD)
        stack.devstack("backup")
        vault.ask("DELETE", "secret/data/postgres")
        fails(stack, "secret/postgres", "was deleted")
        vault.ask("POST", "secret/undelete/postgres", {"versions": [1]})
        stack.devstack("backup")
        reference("sys/mounts#secret")
        fails(stack, "sys/mounts")
        good = [run for run in stack.runs().values() if run.verified]
        must(len(good) == 3, f"{len(good)} runs are good, not the three that had their secret")


@scenario()
def one_right_less_is_named_with_its_path_and_its_capability(world: World) -> None:
    with shop(world, service(), FILES) as (stack, vault):
        stack.devstack("apply", "--yes")
        policy = policy_of_the_docs()
        must('path "secret/data/postgres"' in policy, "the docs' policy does not name the path")
        vault.ask("PUT", "sys/policies/acl/devstack", {"policy": 'path "secret/data/postgres" { capabilities = ["list"] }'})
        said = fails(stack, "Vault denies read on secret/data/postgres", "it has list", 'path "secret/data/postgres" { capabilities = ["read"] }')
        must(re.search(r"done +#\d+ +files/backup", said), f"a service that needs no secret was not taken: {said}")
        vault.ask("PUT", "sys/policies/acl/devstack", {"policy": "# nothing"})
        fails(stack, "Vault denies read on secret/postgres", 'path "secret/data/postgres" { capabilities = ["read"] }')
        vault.ask("PUT", "sys/policies/acl/devstack", {"policy": policy})
        stack.devstack("backup")


@scenario()
def a_seal_in_the_middle_of_a_run_fails_what_needs_vault_and_nothing_else(world: World) -> None:
    with shop(world, service(), WAREHOUSE, FILES) as (stack, vault):
        sql(stack, LARGE % 1_500_000 + STOCK)
        process = stack.start("apply", "--yes", "--parallel", "1")
        sealed = threading.Event()

        def seal() -> None:
            wait_until(lambda: dumps(stack), "the dump to begin")
            vault.ask("PUT", "sys/seal")
            sealed.set()

        watcher = threading.Thread(target=seal)
        watcher.start()
        said = process.communicate(timeout=240)[0]
        watcher.join()
        must(sealed.is_set(), "Vault was not sealed in time")
        must(process.returncode == 7 and re.search(r"FAILED +#\d+ +warehouse/backup .* is sealed", said), f"it ended with {process.returncode}: {said}")
        must("could not be revoked" in said, "it is not said that the token lives on")
        for service_name in ("files", "postgres"):
            must(re.search(rf"done +#\d+ +{service_name}/backup", said), f"{service_name} needed no Vault any more, and was not taken")
        must(not [run for run in stack.runs().values() if run.verified], "a run without all of its services counts as good")
