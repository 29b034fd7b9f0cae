"""How devstack logs in to Vault: what it takes, what it spends, and what it says when it is turned away."""

from __future__ import annotations

import resource
import subprocess
import time
from pathlib import Path

from scenario import World, must, scenario
from stack import wait_until
from vault_server import DECLARED, LARGE, STOCK, WAREHOUSE, fails, service, shop, sql


@scenario()
def a_login_that_is_refused_says_why(world: World) -> None:
    with shop(world) as (stack, vault):
        right = vault.role_id()
        vault.lay("role-id", "00000000-0000-0000-0000-000000000000")
        fails(stack, "Vault refused the login at auth/approle", "role")
        vault.lay("role-id", right)
        vault.hand_out(num_uses=1)
        stack.devstack("apply", "--yes")
        fails(stack, "Vault refused the login", "secret")
        vault.hand_out(ttl="1s")
        gone = {"secret_id": (stack.folder / "vault/secret-id").read_text().strip()}

        def is_gone() -> bool:
            # Vault throws expired ones away once a minute, unless it is told to. It is not asked by a login: after five
            # refusals it locks the role out, and devstack's own tries must stay below that.
            vault.ask("POST", "auth/approle/tidy/secret-id")
            return vault.ask("POST", "auth/approle/role/devstack/secret-id/lookup", gone, ok=False) != 200

        wait_until(is_gone, "the secret-id to expire")
        fails(stack, "Vault refused the login", "secret")
        (stack.folder / "vault/secret-id").unlink()
        fails(stack, "vault/secret-id", "does not exist")
        vault.hand_out()
        stack.devstack("backup")


@scenario()
def a_token_lives_as_long_as_the_run_and_is_replaced_when_it_can_not(world: World) -> None:
    with shop(world, service(), WAREHOUSE) as (stack, vault):
        sql(stack, LARGE % 1_500_000 + STOCK)

        def longer_than(seconds: float, *command: str) -> None:
            started = time.monotonic()
            stack.devstack(*command)
            must(time.monotonic() - started > seconds, "it took less time than its token lives, so nothing is shown")

        vault.role(token_ttl="2s")
        # One login is all that there is.
        vault.hand_out(num_uses=1)
        longer_than(3, "apply", "--yes", "--parallel", "1")
        vault.role(token_ttl="1s", token_max_ttl="1s")
        vault.hand_out()
        longer_than(2, "backup", "--parallel", "1")


@scenario()
def a_wrapped_secret_id_is_spent_by_an_apply_and_never_by_a_plan(world: World) -> None:
    with shop(world) as (stack, vault):
        stack.file.write_text(stack.file.read_text().replace("{ file: vault/secret-id }", "{ file: vault/secret-id, wrapped: true }"))

        def wrap() -> None:
            request = ["docker", "exec", "-i", "-e", "VAULT_TOKEN", "-e", "VAULT_ADDR=http://127.0.0.1:8200", stack.container("vault"),
                       "vault", "write", "-wrap-ttl=5m", "-field=wrapping_token", "-f", "auth/approle/role/devstack/secret-id"]
            done = subprocess.run(request, env=stack.whole_environment() | {"VAULT_TOKEN": vault.root}, capture_output=True, text=True, check=True)
            vault.lay("secret-id", done.stdout.strip())

        wrap()
        planned = stack.devstack("plan", expect=None)
        must("was not spent" in planned.said, "the plan does not say what it could not look at")
        stack.devstack("apply", "--yes")
        fails(stack, "wrapping token", "used up", "intercepted")
        wrap()
        stack.devstack("backup")


@scenario()
def a_token_of_the_users_is_used_and_left_alone(world: World) -> None:
    declared = "vault: { address: %(address)s, login: { token: { file: vault/token } } }\n"
    with shop(world, declared=declared) as (stack, vault):
        made = vault.ask("POST", "auth/token/create", {"policies": ["devstack"], "ttl": "10m"})["auth"]
        vault.lay("token", made["client_token"])
        stack.devstack("apply", "--yes")
        must(made["accessor"] in vault.accessors(), "a token that devstack did not make was revoked")
        vault.ask("POST", "auth/token/revoke-accessor", {"accessor": made["accessor"]})
        fails(stack, "does not take the token that the file names")
        # There is nothing that it falls back to.
        stack.environment["VAULT_TOKEN"] = vault.root
        fails(stack, "does not take the token that the file names")


@scenario()
def a_certificate_is_trusted_by_the_authority_that_the_file_names_and_by_no_other(world: World) -> None:
    declared = DECLARED.replace("  login:", "  ca: vault-tls/ca.pem\n  login:")
    with shop(world, tls=True, declared=declared) as (stack, vault):
        stack.devstack("apply", "--yes")
        right = stack.file.read_text()

        def wrong(part: str, by: str, *words: str) -> None:
            stack.file.write_text(right.replace(part, by))
            said = stack.devstack("plan", expect=None).said
            for word in words:
                must(word in " ".join(said.split()), f"{by}: {word!r} is not said: {said}")

        wrong("ca.pem", "other.pem", "is not trusted", "`vault.ca`")
        wrong("  ca: vault-tls/ca.pem\n", "", "is not trusted", "`vault.ca`")
        wrong("vault-tls/ca.pem", "docker-compose.yml", "authority file", "PEM certificates")
        wrong("https://127.0.0.1", "https://localhost", "is not trusted", "use a name that it holds")
        wrong("  ca: vault-tls/ca.pem\n", "", "is not trusted")
        stack.file.write_text(right.replace("https://", "http://").replace("  ca: vault-tls/ca.pem\n", ""))
        said = stack.devstack("plan", expect=None).said
        must("speaks TLS" in " ".join(said.split()), f"that the server speaks TLS is not said: {said}")


@scenario()
def a_vault_that_is_sealed_is_named_and_one_that_comes_back_in_time_is_waited_for(world: World) -> None:
    with shop(world) as (stack, vault):
        stack.devstack("apply", "--yes")
        vault.ask("PUT", "sys/seal")
        fails(stack, "is sealed", "vault operator unseal")
        vault.unseal()
        stack.devstack("backup")
        stack.kill("vault")
        # A core file would hold what was read.
        resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)
        process = stack.start("backup")
        wait_until(lambda: core_limit(process.pid) == "0", "the core limit to be lowered")
        # It has nobody to ask yet; started again and unsealed, it goes on.
        stack.run(["docker", "start", stack.container("vault")])
        vault.unseal()
        said = process.communicate(timeout=120)[0]
        must(process.returncode == 0, f"a Vault that came back in time ended with {process.returncode}: {said}")
        stack.kill("vault")
        said = " ".join(stack.devstack("plan", expect=None).said.split())
        must("does not answer" in said and vault.address in said, f"a Vault that is down is not named: {said}")


def core_limit(pid: int) -> str:
    [line] = [line for line in Path(f"/proc/{pid}/limits").read_text().splitlines() if line.startswith("Max core file size")]
    return line.split()[4]
