"""Vault as a service: taken, lost, and brought back from the repository and the escrow alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from compose_stack import ComposeStack
from oracle import AgeKey, GpgKey
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

RESTORE = ("restore", "vault", "--in-place", "--without-safety", "--yes", "--approve", "restore:vault")


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
            since = time.time()
            said["restore"] = stack.devstack(*RESTORE, "--escrow", str(key.file)).said.encode()
            must_be_the_same(before, state(vault))
            must(password_for_the_shop(stack, vault) == password, "the shop does not get its password")
            said["postgres"] = stack.devstack("restore", "postgres", "--in-place", "--without-safety", "--yes", "--approve", "restore:postgres").said.encode()
        must(sql(stack, "SELECT count(*) FROM t") == "1000", "the rows did not come back")
        must_issue(world, vault, before["ca"])
        left = made_by_devstack(vault, since)
        must(not left, f"tokens of devstack's are left alive: {left}")
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


def made_by_devstack(vault: Vault, since: float) -> list[str]:
    """Its tokens that are alive. One that took a snapshot is alive in it, and is back with it until its time is over."""
    told = [vault.ask("POST", "auth/token/lookup-accessor", {"accessor": accessor})["data"] for accessor in vault.accessors()]
    return [it["display_name"] for it in told if "devstack" in it["policies"] and it["creation_time"] >= int(since)]


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


@scenario()
def a_restore_that_stopped_at_an_audit_device_says_so_and_is_gone_on_with(world: World) -> None:
    def folder(owner: str) -> None:
        text = f"mkdir -p /vault/audit && chown {owner} /vault/audit && chmod 700 /vault/audit"
        stack.inside("vault", "sh", "-c", text, user="root")

    with shop(world, RAFT) as (stack, vault, _):
        folder("vault")
        vault.ask("PUT", "sys/audit/file", {"type": "file", "options": {"file_path": "/vault/audit/audit.log"}})
        before = state(vault)
        stack.devstack("apply", "--yes")
        stack.reborn("vault")
        must(not initialised(vault), "the volume was not destroyed")
        folder("root")
        said = stack.devstack(*RESTORE, expect=7).said
        must("audit" in said and "writable for the user" in said, f"what hinders it is not told: {said}")
        must("waited" not in said, "it was waited for")
        folder("vault")
        stack.devstack(*RESTORE)
        must_be_the_same(before, state(vault))


@contextmanager
def another(stack: ComposeStack, vault: Vault) -> Iterator[None]:
    """In the container is a Vault of its own, with other keys."""
    keys, root = vault.keys, vault.root
    vault.initialise()
    fill(vault)
    yield
    vault.keys, vault.root = keys, root


def restore_fails(stack: ComposeStack, *words: str, options: tuple[str, ...] = ()) -> Outcome:
    said = stack.devstack(*RESTORE, *options, expect={3, 7})
    for word in (*words, "vault"):
        must(word in said.said, f"{word!r} is not said: {said.said}")
    return said


def what_is_wrong_is_named_and_nothing_is_harmed(world: World, storage: dict[str, Any]) -> None:
    raft = "raft" in storage
    with shop(world, storage) as (stack, vault, key):
        stack.devstack("apply", "--yes")
        before = state(vault)

        # Sealed.
        vault.ask("PUT", "sys/seal")
        said = stack.devstack("backup", expect=7).said
        must("is sealed" in said and "vault" in said, f"a sealed Vault is not named: {said}")
        vault.unseal()
        good = [run for run in stack.runs().values() if run.verified]
        must(len(good) == 1, f"{len(good)} runs are good, not the one that was taken of an open Vault")

        # Another Vault is there.
        keys = stack.folder / "vault/keys.json"
        right = keys.read_bytes()
        stack.reborn("vault")
        with another(stack, vault):
            vault.hand_out()
            there = state(vault)
            restore_fails(stack, "is another one", "--force", "Nothing was touched")
            must_be_the_same(there, state(vault))
            if raft:
                vault.ask("PUT", "sys/seal")
                stack.devstack(*RESTORE, expect={3, 4, 7})
            # Too few keys for the backup's Vault.
            vault.unseal()
            vault.lay("keys.json", "\n".join(json.loads(right)["unseal_keys_b64"][:2]))
            restore_fails(stack, "will want 3 unseal keys", "leads to 2", "Nothing was touched", options=("--force",))
            must_be_the_same(there, state(vault))
            # And the keys of this one in place of the backup's.
            keep_keys(vault)
            wrong = vault.keys
            restore_fails(stack, "of another Vault", "its storage is that of the backup", options=("--force",))
        must(wrong != vault.keys, "the keys were the same, so nothing is shown")
        vault.unseal()
        must_be_the_same(before, state(vault))

        # Without the key files, and without what they are encrypted to.
        stack.reborn("vault")
        for path in (stack.folder / "vault").iterdir():
            path.unlink()
        restore_fails(stack, "vault/keys.json", "--escrow", "Nothing was touched")
        other = AgeKey.make(world.folder / "other")
        restore_fails(stack, "cannot be decrypted with", "nothing was touched", options=("--escrow", str(other.file)))
        must(not initialised(vault), "a restore that was refused has initialised the server")
        # One that is there stays, whatever the backup has.
        vault.lay("role-id", "another")
        restore_fails(stack, "refused the login", options=("--escrow", str(key.file)))
        must((stack.folder / "vault/role-id").read_text() == "another\n", "a key file that was there was overwritten")
        must(keys.read_bytes() == right, "the unseal keys did not come back")
        must_be_the_same(before, state(vault))


@scenario()
def what_is_wrong_with_a_restore_of_raft_is_named_and_nothing_is_harmed(world: World) -> None:
    what_is_wrong_is_named_and_nothing_is_harmed(world, RAFT)


@scenario()
def what_is_wrong_with_a_restore_of_file_storage_is_named_and_nothing_is_harmed(world: World) -> None:
    what_is_wrong_is_named_and_nothing_is_harmed(world, FILE_STORAGE)


@scenario()
def one_right_less_fails_a_backup_with_its_path_and_its_capability(world: World) -> None:
    with shop(world, RAFT) as (stack, vault, _):
        backup, _ = policies_of_the_page()
        vault.role(token_policies=["devstack-backup"])
        stack.devstack("apply", "--yes")
        rules = [part.strip() + "\n}" for part in backup.split("}\n") if part.strip()]
        must(len(rules) == 8, f"the page has {len(rules)} rules")
        for rule in rules:
            path, capability = rule.split('"')[1], rule.split('"')[3]
            vault.ask("PUT", "sys/policies/acl/devstack-backup", {"policy": "\n".join(other for other in rules if other != rule)})
            said = stack.devstack("backup", expect={3, 7}).said
            stem = path.rstrip("*+")
            must(f"Vault denies {capability} on {stem}" in said or ("canary" in path and "Vault denies read on secret/" in said), f"{capability} on {path} is not named: {said}")


@scenario()
def a_restore_of_the_same_vault_keeps_it_open_and_takes_back_what_was_written_since(world: World) -> None:
    with shop(world, RAFT) as (stack, vault, _):
        stack.devstack("apply", "--yes")
        before = state(vault)
        vault.write("secret/data/canary", value="later")
        started = stack.run(["docker", "inspect", "--format", "{{.State.StartedAt}}", stack.container("vault")]).text
        keys = stack.folder / "vault/keys.json"
        keys.rename(keys.with_suffix(".away"))
        keys.touch(0o600)
        stack.devstack(*RESTORE)
        must_be_the_same(before, state(vault))
        now = stack.run(["docker", "inspect", "--format", "{{.State.StartedAt}}", stack.container("vault")]).text
        must(now == started, "the server was restarted for nothing")


@scenario("gpg")
def keys_encrypted_to_gpg_come_back_without_a_word(world: World) -> None:
    gpg = GpgKey.make(world.folder / "gpg")
    try:
        with shop(world, FILE_STORAGE, escrow=f"{{ gpg: {gpg.recipient} }}") as (stack, vault, _):
            stack.environment["GNUPGHOME"] = str(gpg.home)
            stack.devstack("apply", "--yes")
            before = state(vault)
            lost(stack)
            stack.devstack(*RESTORE)
            must_be_the_same(before, state(vault))
    finally:
        gpg.stop_agent()


@scenario("gpg")
def shares_come_from_gpg_from_the_environment_and_from_a_person(world: World) -> None:
    gpg = GpgKey.make(world.folder / "gpg")
    try:
        with shop(world, FILE_STORAGE, escrow=f"{{ gpg: {gpg.recipient} }}") as (stack, vault, _):
            stack.environment |= {"GNUPGHOME": str(gpg.home), "SHARE": vault.keys[1]}
            # Kept elsewhere: what `vault operator init -pgp-keys` gives out, a share for each person.
            share = world.folder / "share.gpg"
            encrypt = ["gpg", "--batch", "--trust-model", "always", "--recipient", gpg.recipient, "--output", str(share), "--encrypt"]
            stack.run(encrypt, stdin=vault.keys[0])
            text = stack.file.read_text()
            stack.file.write_text(text.replace("keys: [ { file: vault/keys.json } ]", f"keys: [ {{ gpg: {share} }}, {{ env: SHARE }}, {{ prompt: true }} ]"))
            stack.devstack("apply", "--yes")
            before = state(vault)
            lost(stack)
            refused = stack.devstack(*RESTORE, expect={3, 7}).said
            must("terminal" in refused, f"it is not said that nobody is there to be asked: {refused}")
            must(not initialised(vault), "something was done without the keys")
            asked = stack.at_a_terminal(*RESTORE, answers=[("Unseal key 3 of 3:", lambda: None, vault.keys[2])])
            must(asked.code == 0, f"the restore ended with {asked.code}")
            must_be_the_same(before, state(vault))
            must(not any(share in asked.said for share in vault.keys), "a share shows on the terminal")
    finally:
        gpg.stop_agent()


@scenario()
def a_vault_that_a_killed_take_left_paused_goes_on_at_the_next_apply(world: World) -> None:
    with shop(world, FILE_STORAGE) as (stack, vault, _):
        stack.devstack("apply", "--yes")
        container = stack.container("vault")
        [seen] = json.loads(stack.run(["docker", "inspect", container]).out)
        # As a take leaves it that is killed while it reads the storage.
        notes = stack.folder / ".devstack/stopped"
        notes.mkdir(mode=0o700, exist_ok=True)
        (notes / "0123456789abcdef").write_text(f"unpause {seen['Id']}")
        stack.run(["docker", "pause", container])
        said = stack.devstack("apply", "--yes").said
        must(container in said, f"nobody was told: {said}")
        must(vault.ask("GET", "sys/health", ok=False) == 200, "Vault does not answer")
        must(not list(notes.iterdir()), "the note is still there")
