"""A stack that hangs on its Vault: what stops and what does not where it can't be opened, and its drill. How it comes back is in
recovery_suite."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from compose_stack import ComposeStack
from oracle import AgeKey
from recovery_drill import drill, live, must_have_left_nothing
from scenario import World, must, scenario
from vault_engine import DECLARED, RAFT, VAULT, fill, keep_keys, must_be_the_same, password_for_the_shop, state
from vault_secrets import sql
from vault_server import FILE_STORAGE, Vault, service, vault_stack

FILES = "  configuration: { source: { files: { paths: [.env, docker-compose.yml, docker-compose.override.yml, configs/, vault-tls/] } } }"


def lose_everything(stack: ComposeStack) -> None:
    stack.compose("down", "--volumes", "--remove-orphans", "--timeout", "2")
    for path in stack.folder.iterdir():
        # What a person has elsewhere: the file itself and the key of the repository.
        if path.name not in {"devstack.yaml", "backups", "key"}:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextmanager
def shop(world: World, *, tls: bool = False, storage: dict[str, Any] = RAFT) -> Iterator[tuple[ComposeStack, Vault, AgeKey]]:
    """A Vault, a database whose password lies in it, and files; taken."""
    key = AgeKey.make(world.folder / "age")
    postgres = service().rstrip().removesuffix("}") + ", after: [vault] }"
    declared = DECLARED % f"{{ age: {key.recipient} }}"
    if tls:
        declared = declared.replace("vault:\n", "vault:\n  ca: vault-tls/ca.pem\n", 1)
    with vault_stack(world, [VAULT, postgres, FILES], ["postgres"], storage=storage, declared=declared, tls=tls) as (stack, vault):
        vault.initialise()
        fill(vault)
        keep_keys(vault)
        vault.hand_out()
        vault.write("secret/data/postgres", password=stack.variables["POSTGRES_PASSWORD"])
        sql(stack, "CREATE TABLE t AS SELECT generate_series(1, 1000) AS x")
        # Of the file the services of other profiles are nobody's here.
        stack.file.write_text(stack.file.read_text().replace("profiles: [standard, extra]", "profiles: []"))
        compose = stack.folder / "docker-compose.yml"
        compose.write_text(compose.read_text().replace("  postgres:\n    profiles: [standard]\n", "  postgres:\n", 1))
        override = stack.folder / "docker-compose.override.yml"
        override.write_text(override.read_text().replace("  vault:\n    profiles: [standard]\n", "  vault:\n", 1))
        stack.devstack("apply", "--yes")
        yield stack, vault, key


@scenario()
def a_vault_that_cannot_be_opened_stops_what_hangs_on_it_and_nothing_else(world: World) -> None:
    with shop(world) as (stack, vault, key):
        lose_everything(stack)
        only = ("--only", "vault", "--only", "postgres", "--only", "configuration")
        failed = stack.devstack("recover", "--yes", *only, expect=7).said
        must("--escrow" in failed and "vault/data" in failed, f"it is not said what is missing: {failed}")
        must((stack.folder / ".env").exists(), "the files, which do not hang on Vault, did not come back")
        refused = stack.devstack("recover", "--yes", *only, expect=4).said
        must("--resume" in refused, f"it is not said how to go on: {refused}")
        stack.devstack("recover", "--resume", "--yes", "--escrow", str(key.file))
        must(sql(stack, "SELECT count(*) FROM t") == "1000", "the rows did not come back")
        must("there is nothing to recover" in stack.devstack("recover", "--yes", *only).said, "it has not come to its end")


@scenario()
def a_vault_is_drilled_beside_itself_with_the_keys_of_the_machine_or_with_the_escrow(world: World) -> None:
    with shop(world, tls=True) as (stack, vault, key):
        before, running, logins = state(vault), live(stack), vault.accessors()
        handed = (stack.folder / "secrets/shop-secret-id").exists()
        evidence = drill(stack)
        must(evidence["verdict"] == "passed", f"the drill failed: {evidence}")
        back = {service["service"] for service in evidence["services"] if service.get("back_after")}
        must(back == {"vault", "postgres", "configuration"} and not evidence["partial"], f"not everything was back: {evidence}")
        told = [note["text"] for note in evidence["left_out"] if note["resource"] == "vault"]
        must(not evidence["escrow"] and any("the escrow was not exercised" in text for text in told), f"the escrow is not spoken of: {told}")
        # Nobody has asked the live one, or written where its clients read.
        must(vault.accessors() == logins, "somebody has logged in to the live Vault")
        must((stack.folder / "secrets/shop-secret-id").exists() == handed, "a secret-id of the drill was handed out")
        must_be_the_same(before, state(vault))
        must(live(stack) == running, "the live stack is not as it was")
        must_have_left_nothing(stack)
        # Without the machine's own keys, and with the live Vault down, the escrow opens the drill's.
        keys = stack.folder / "vault/keys.json"
        keys.rename(stack.folder / "elsewhere")
        failed = drill(stack, expect=8)
        must("keys.json" in str(failed["verdict"]) and not failed["escrow"], f"the keys that are missing are not named: {failed}")
        stack.compose("stop", "vault")
        evidence = drill(stack, "--escrow", str(key.file))
        must(evidence["verdict"] == "passed" and evidence["escrow"], f"with the escrow it failed: {evidence}")
        must(not [note for note in evidence["left_out"] if note["resource"] == "vault"], f"something of Vault was left out: {evidence}")
        must(not keys.exists(), "the drill has put a key onto the machine")
        must_have_left_nothing(stack)
        other = AgeKey.make(world.folder / "other")
        failed = drill(stack, "--escrow", str(other.file), expect=8)
        must("cannot be decrypted" in str(failed["verdict"]), f"a wrong identity opened it: {failed}")
        # Where nobody says how it is opened, it is left out, and the database asks the live one.
        (stack.folder / "elsewhere").rename(keys)
        stack.compose("start", "vault")
        vault.unseal()
        stack.file.write_text(stack.file.read_text().replace("  unseal: { keys: [ { file: vault/keys.json } ] }\n", "", 1))
        evidence = drill(stack)
        told = {note["resource"]: note["text"] for note in evidence["left_out"]}
        must("vault.unseal" in told["vault"] and "live Vault" in told["postgres"] and evidence["partial"], f"it is not said what was left out: {evidence}")
        must(password_for_the_shop(stack, vault) == stack.variables["POSTGRES_PASSWORD"] if handed else True, "the shop is turned away")


@scenario(long=True)
def a_vault_with_file_storage_is_drilled_too(world: World) -> None:
    with shop(world, storage=FILE_STORAGE) as (stack, vault, key):
        before, running, logins = state(vault), live(stack), vault.accessors()
        evidence = drill(stack, "--escrow", str(key.file))
        must(evidence["verdict"] == "passed" and evidence["escrow"] and not evidence["partial"], f"the drill failed: {evidence}")
        must_be_the_same(before, state(vault))
        must(live(stack) == running and vault.accessors() == logins, "the live stack is not as it was")
        must_have_left_nothing(stack)
