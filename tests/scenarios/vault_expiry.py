"""A login to Vault that ends: said before it hinders anything, renewed by the command that is said, replaced by devstack itself."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

from compose_stack import ComposeStack
from scenario import World, must, scenario
from stack import wait_until
from vault_server import Vault, shop

LOOKUP = "auth/approle/role/devstack/secret-id/lookup"
RIGHTS = """
path "auth/approle/role/devstack/secret-id" { capabilities = ["update"] }
path "auth/approle/role/devstack/secret-id/destroy" { capabilities = ["update"] }
"""


def expires(stack: ComposeStack) -> list[str]:
    return [line for line in stack.devstack("plan").out.splitlines() if line.lstrip().startswith("EXPIRES")]


def told(stack: ComposeStack) -> str:
    """What the plan says of the login, its broken lines joined."""
    text = stack.devstack("plan").out
    begin = text.find("EXPIRES")
    must(begin >= 0, f"the plan does not say that the login ends: {text}")
    return " ".join(text[begin:].split("\n\n")[0].split())


def schedule(stack: ComposeStack) -> None:
    """The next run is hours away, whatever it is o'clock."""
    then = time.gmtime(time.time() + 6 * 3600)
    text, count = re.subn(r"cron: \"[^\"]*\"", f'cron: "{then.tm_min} {then.tm_hour} * * *"', stack.file.read_text())
    must(count == 1, f"{count} schedules in the file")
    stack.file.write_text(text)


def is_known(vault: Vault, secret_id: str) -> bool:
    return vault.ask("POST", LOOKUP, {"secret_id": secret_id}, ok=False) == 200


@scenario()
def a_login_that_ends_before_the_next_run_is_said_with_the_command_that_renews_it(world: World) -> None:
    with shop(world) as (stack, vault):
        schedule(stack)
        stack.devstack("apply", "--yes")
        must(not expires(stack), "a login that does not end is said to")
        vault.hand_out(ttl="60s")
        said = told(stack)
        must("the secret-id expires in" in said and "before the next run at" in said, said)
        status = stack.devstack("status", expect=8).out
        must("EXPIRES" in status, f"status does not say it: {status}")
        # The very command that it says, run by a shell that finds `vault`.
        command = re.search(r"`(\(umask 077; .*?\))`", said)
        must(command is not None, f"no command is said: {said}")
        programs = world.folder / "programs"
        programs.mkdir()
        (programs / "vault").write_text(
            "#!/bin/sh\n"
            f'exec docker exec -e VAULT_TOKEN -e VAULT_ADDR=http://127.0.0.1:8200 {stack.container("vault")} vault "$@"\n'
        )
        (programs / "vault").chmod(0o755)
        before = dict(stack.environment)
        stack.environment |= {"VAULT_TOKEN": vault.root, "PATH": f"{programs}:{os.environ['PATH']}"}
        stack.run(["sh", "-c", command[1]])
        stack.environment = before
        must(not expires(stack), "the command that is said did not help")
        stack.devstack("backup")
        vault.hand_out(num_uses=1)
        must("this login only" in told(stack), "a secret-id that this plan used up is not said to be")
        vault.hand_out()
        vault.ask("PUT", "sys/policies/acl/devstack", {"policy": 'path "secret/data/postgres" { capabilities = ["read"] }'})
        said = told(stack)
        must("not known" in said and f"denies update on {LOOKUP}" in said, f"what is not known is not said so: {said}")


@scenario()
def a_token_that_ends_before_the_next_run_is_said(world: World) -> None:
    with shop(world) as (stack, vault):
        schedule(stack)
        made = vault.ask("POST", "auth/token/create", {"policies": ["devstack"], "ttl": "90s", "renewable": True})["auth"]
        vault.lay("token", made["client_token"])
        text = stack.file.read_text()
        stack.file.write_text(re.sub(r"login: .*", "login: { token: { file: vault/token } }", text))
        stack.devstack("apply", "--yes")
        said = told(stack)
        must("the token expires in" in said and "vault token renew" in said, said)
        vault.ask("POST", "auth/token/revoke", {"token": made["client_token"]})


@scenario()
def a_secret_id_is_replaced_before_it_ends_and_the_old_one_is_no_more(world: World) -> None:
    with shop(world) as (stack, vault):
        schedule(stack)
        stack.file.write_text(stack.file.read_text().replace("{ file: vault/secret-id }", "{ file: vault/secret-id, rotate: true }"))
        file = stack.folder / "vault/secret-id"
        policy = vault.ask("GET", "sys/policies/acl/devstack")["data"]["policy"]
        vault.role(secret_id_ttl="20h")
        _, old = vault.hand_out(ttl="90s")
        file.chmod(0o400)
        # One that was made this moment is not replaced.
        wait_until(lambda: "rotate secret-id of devstack" in stack.devstack("plan").out, "the secret-id to be old enough")
        failed = stack.devstack("apply", "--yes", expect=3).said
        must("denies update on auth/approle/role/devstack/secret-id" in failed, f"the right that is missing is not named: {failed}")
        must(file.read_text().strip() == old and is_known(vault, old), "a rotation that was denied changed something")
        vault.ask("PUT", "sys/policies/acl/devstack", {"policy": policy + RIGHTS})
        must(file.read_text().strip() == old, "a plan has rotated")
        done = stack.devstack("apply", "--yes").said
        new = file.read_text().strip()
        must(new != old and old not in done and new not in done, "it was not replaced, or shows")
        must(file.stat().st_mode & 0o777 == 0o400, f"its mode is {file.stat().st_mode:o}")
        must(is_known(vault, new) and not is_known(vault, old), "the old one is good yet, or the new one is not")
        again = stack.devstack("apply", "--yes").said
        must("rotate" not in again and file.read_text().strip() == new, f"it was rotated again: {again}")
        stack.devstack("backup")
        must(not leftovers(file), "something staged is left")


def leftovers(file: Path) -> list[Path]:
    return [path for path in file.parent.iterdir() if path.name.startswith(".")]
