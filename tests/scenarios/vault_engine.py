"""Vault as a service: taken, lost, and brought back from the repository and the escrow alone."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from compose_stack import ComposeStack
from oracle import AgeKey
from scenario import TOP, World, must, scenario
from secrecy import files_below, find, watching
from stack import Outcome, wait_until
from vault_secrets import service as postgres
from vault_secrets import sql
from vault_server import FILE_STORAGE, THRESHOLD, Vault, policy_of_the_docs, vault_stack

# A single node elects itself at once, and not after nine seconds.
RAFT = {"raft": {"path": "/vault/file", "node_id": "vault", "performance_multiplier": 1}}

VAULT = (
    "  vault: { source: { vault: { container: vault, key_files: [vault/keys.json, vault/role-id, ./vault/secret-id], "
    'canary: "secret/canary#value", approles: [ { role: shop, secret_id: { file: secrets/shop-secret-id } } ] } } }'
)

DECLARED = """\
vault:
  address: %%(address)s
  login: { approle: { role_id: { file: vault/role-id }, secret_id: { file: vault/secret-id } } }
  unseal: { keys: [ { file: vault/keys.json } ] }
  escrow: [ %s ]
"""

RESTORE = ("restore", "vault", "--in-place", "--yes", "--approve", "restore:vault")


def policies_of_the_page() -> list[str]:
    """What is enough for a backup, and what a restore needs beside it."""
    parts = (TOP / "docs/engines/vault.md").read_text().split("```hcl\n")[1:]
    return [part.split("```", 1)[0] for part in parts]


@contextmanager
def shop(
    world: World, storage: dict[str, Any], *, escrow: str | None = None, with_postgres: bool = False
) -> Iterator[tuple[ComposeStack, Vault, AgeKey]]:
    """A Vault with everything that the issue names: KV 2 with versions, PKI, AppRole, policies with least rights."""
    key = AgeKey.make(world.folder / "age")
    declared = DECLARED % (escrow or f"{{ age: {key.recipient} }}")
    services, up = ([VAULT, postgres()], ["postgres"]) if with_postgres else ([VAULT], [])
    with vault_stack(world, services, up, storage=storage, declared=declared) as (stack, vault):
        vault.initialise()
        fill(vault)
        keep_keys(vault)
        vault.hand_out()
        yield stack, vault, key


def fill(vault: Vault) -> None:
    backup, restore = policies_of_the_page()
    vault.enable(policy_of_the_docs())
    vault.ask("PUT", "sys/policies/acl/devstack-backup", {"policy": backup})
    vault.ask("PUT", "sys/policies/acl/devstack-restore", {"policy": restore})
    vault.role(token_policies=["devstack", "devstack-backup", "devstack-restore"])
    for value in ("one", "two", "three"):
        vault.write("secret/data/canary", value=value)
    vault.ask("DELETE", "secret/data/canary")
    vault.ask("POST", "secret/undelete/canary", {"versions": [3]})
    vault.ask("POST", "secret/destroy/canary", {"versions": [1]})
    vault.ask("POST", "secret/metadata/canary", {"custom_metadata": {"owner": "ada"}, "max_versions": 7})
    vault.write("old/legacy", value="version one")
    vault.ask("PUT", "sys/policies/acl/shop", {"policy": 'path "secret/data/postgres" { capabilities = ["read"] }'})
    vault.ask("POST", "auth/approle/role/shop", {"token_policies": ["shop"], "token_ttl": "5m"})
    vault.ask("POST", "sys/mounts/pki", {"type": "pki"})
    vault.ask("POST", "pki/root/generate/internal", {"common_name": "Shop CA", "ttl": "80h", "issuer_name": "shop", "key_type": "ec"})
    vault.ask("POST", "pki/roles/web", {"allowed_domains": "shop.example", "allow_subdomains": True, "max_ttl": "24h", "key_type": "ec"})


def keep_keys(vault: Vault) -> None:
    """As `vault operator init -format=json` gives them."""
    vault.lay("keys.json", json.dumps({"unseal_keys_b64": vault.keys, "unseal_threshold": THRESHOLD, "root_token": vault.root}))


def state(vault: Vault) -> dict[str, Any]:
    """What must be the same after a restore, by the server's own answers."""
    def data(path: str) -> Any:
        return vault.ask("GET", path)["data"]

    def names(path: str) -> list[str]:
        return sorted(vault.ask("LIST", path)["data"]["keys"])

    policies = names("sys/policies/acl")
    return {
        "canary": [data(f"secret/data/canary?version={version}") for version in (2, 3)],
        "metadata": data("secret/metadata/canary"), "version 1": data("old/legacy"),
        "mounts": {path: (it["type"], it["options"], it["uuid"]) for path, it in data("sys/mounts").items()},
        "auth": {path: (it["type"], it["uuid"]) for path, it in data("sys/auth").items()},
        "policies": {name: data(f"sys/policies/acl/{name}").get("policy") for name in policies},
        "roles": {name: (data(f"auth/approle/role/{name}"), data(f"auth/approle/role/{name}/role-id")) for name in names("auth/approle/role")},
        "issuers": names("pki/issuers"), "ca": data("pki/cert/ca")["certificate"], "web": data("pki/roles/web"),
    }


def must_be_the_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    for name, value in before.items():
        must(after[name] == value, f"{name} is another: {value} before, {after[name]} after")


def must_issue(world: World, vault: Vault, ca: str) -> None:
    """A new certificate chains to the CA of before, as openssl sees it."""
    issued = vault.ask("POST", "pki/issue/web", {"common_name": "www.shop.example"})["data"]
    old, new = world.folder / "ca.pem", world.folder / "new.pem"
    old.write_text(ca)
    new.write_text(issued["certificate"])
    done = subprocess.run(["openssl", "verify", "-CAfile", str(old), str(new)], capture_output=True, text=True, check=False)
    must(done.returncode == 0 and done.stdout.strip().endswith("OK"), f"openssl: {done.stdout} {done.stderr}")


def password_for_the_shop(stack: ComposeStack, vault: Vault) -> str:
    """What the service does: it logs in with what lies in its file, and reads its password."""
    role_id = vault.ask("GET", "auth/approle/role/shop/role-id")["data"]["role_id"]
    secret_id = (stack.folder / "secrets/shop-secret-id").read_text().strip()
    token = vault.ask("POST", "auth/approle/login", {"role_id": role_id, "secret_id": secret_id}, token="")["auth"]["client_token"]
    return str(vault.ask("GET", "secret/data/postgres", token=token)["data"]["data"]["password"])


def lost(stack: ComposeStack, *services: str) -> None:
    """Containers and volumes, and every file with a key in it."""
    stack.reborn("vault", *services)
    for name in ("vault", "secrets"):
        shutil.rmtree(stack.folder / name, ignore_errors=True)


def initialised(vault: Vault) -> bool:
    wait_until(vault.answers, "Vault to answer")
    return bool(vault.ask("GET", "sys/seal-status")["initialized"])


def from_repository_and_escrow_alone(world: World, storage: dict[str, Any]) -> None:
    with shop(world, storage, with_postgres=True) as (stack, vault, key):
        password = stack.variables["POSTGRES_PASSWORD"]
        del stack.environment["POSTGRES_PASSWORD"]
        vault.write("secret/data/postgres", password=password)
        stack.inside("postgres", "sh", "-c", 'sed -i "s/trust$/scram-sha-256/" "$PGDATA/pg_hba.conf"', user="postgres")
        sql(stack, "SELECT pg_reload_conf(); CREATE TABLE t AS SELECT generate_series(1, 1000) AS x")
        (stack.folder / "vault/keys.json").chmod(0o400)
        before, accessors = state(vault), vault.accessors()
        kept = {path.name: path.read_bytes() for path in (stack.folder / "vault").iterdir()}
        said: dict[str, bytes] = {}
        stack.environment["DEVSTACK_LOG"] = "debug"
        with watching() as seen:
            said["apply"] = stack.devstack("apply", "--yes").said.encode()
            must(vault.accessors() == accessors, "a token of the take is left alive")
            # Since the backup: gone with the restore.
            vault.write("secret/data/canary", value="later")
            lost(stack, "postgres")
            must(not initialised(vault), "the volume was not destroyed")
            said["restore"] = stack.devstack(*RESTORE, "--escrow", str(key.file)).said.encode()
            must_be_the_same(before, state(vault))
            must(password_for_the_shop(stack, vault) == password, "the shop does not get its password")
            said["postgres"] = stack.devstack("restore", "postgres", "--in-place", "--yes", "--approve", "restore:postgres").said.encode()
        must(sql(stack, "SELECT count(*) FROM t") == "1000", "the rows did not come back")
        must_issue(world, vault, before["ca"])
        must(accessors >= vault.accessors() - set_of_the_shop(vault, accessors), "a token of devstack's is left alive")
        must({path.name: path.read_bytes() for path in (stack.folder / "vault").iterdir()} == kept, "the key files came back otherwise")
        modes = {path.name: path.stat().st_mode & 0o777 for path in [*(stack.folder / "vault").iterdir(), *(stack.folder / "secrets").iterdir()]}
        must(modes == {"keys.json": 0o400, "role-id": 0o600, "secret-id": 0o600, "shop-secret-id": 0o600}, f"modes: {modes}")
        logs = stack.run(["docker", "logs", stack.container("vault")])
        where = {f"output of {name}": text for name, text in said.items()} | files_below(stack.folder / ".devstack")
        where |= {"Vault's log": logs.out + logs.err.encode(), "an argument list": b"\n".join(seen.argument_lists)}
        secrets = {f"unseal key {index}": share for index, share in enumerate(vault.keys)} | {
            "root token": vault.root, "password": password, "secret-id": kept["secret-id"].decode().strip(),
            "the shop's secret-id": (stack.folder / "secrets/shop-secret-id").read_text().strip(),
        }
        for name, secret in secrets.items():
            must(not find(secret, where), f"the {name} shows in {find(secret, where)}")
        must(find("pg_dump", where), "the watcher saw no dump tool, so it proves nothing")
        in_the_clear(stack, secrets)
        stack.converged()


def set_of_the_shop(vault: Vault, before: set[str]) -> set[str]:
    """The tokens that the scenario itself has made as the shop."""
    def is_shops(accessor: str) -> bool:
        told = vault.ask("POST", "auth/token/lookup-accessor", {"accessor": accessor})
        return "shop" in told["data"]["policies"]

    return {accessor for accessor in vault.accessors() - before if is_shops(accessor)}


def in_the_clear(stack: ComposeStack, secrets: dict[str, str]) -> None:
    """Nothing that a key of the repository opens holds a share, a token or a secret-id."""
    out = stack.folder / "beside"
    stack.devstack("restore", "vault", "--to", str(out))
    where = files_below(out)
    must({Path(name).name for name in where} >= {"inventory.json", "keys.age"}, f"restored beside: {list(where)}")
    for name, secret in secrets.items():
        must(not find(secret, where), f"the {name} lies in the repository, in {find(secret, where)}")
    must(find("secret/data/postgres", where), "the inventory has no policies in it")


@scenario()
def raft_comes_back_from_the_repository_and_the_escrow_alone(world: World) -> None:
    from_repository_and_escrow_alone(world, RAFT)


@scenario()
def file_storage_comes_back_from_the_repository_and_the_escrow_alone(world: World) -> None:
    from_repository_and_escrow_alone(world, FILE_STORAGE)
