"""Secrets that lie in Vault: how devstack gets them, how it says that it can't, and what it leaves behind."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from compose_stack import ComposeStack
from scenario import World, must, scenario
from secrecy import files_below, find, watching
from stack import wait_until
from vault_server import Vault, policy_of_the_docs, vault_stack

PASSWORD = "secret/postgres#password"


def service(reference: str = PASSWORD) -> str:
    """PostgreSQL by TCP as another user, so that a wrong password is refused: the image trusts its socket."""
    return f'  postgres: {{ source: {{ postgres: {{ container: postgres, user: shop, password: {{ vault: "{reference}" }} }} }} }}'


@contextmanager
def shop(world: World, reference: str = PASSWORD, **more: str) -> Iterator[tuple[ComposeStack, Vault]]:
    """PostgreSQL, whose password devstack finds in Vault alone."""
    with vault_stack(world, [service(reference)], ["postgres"], **more) as (stack, vault):
        vault.initialise()
        vault.enable(policy_of_the_docs())
        password = stack.variables["POSTGRES_PASSWORD"]
        del stack.environment["POSTGRES_PASSWORD"]
        vault.write("secret/data/postgres", password=password, port=5432)
        vault.write("old/postgres", password=password)
        # Only who knows the password gets in.
        stack.inside("postgres", "sh", "-c", 'sed -i "s/trust$/scram-sha-256/" "$PGDATA/pg_hba.conf"', user="postgres")
        sql(stack, "SELECT pg_reload_conf(); CREATE TABLE t AS SELECT generate_series(1, 1000) AS x")
        vault.hand_out()
        yield stack, vault


def sql(stack: ComposeStack, text: str) -> str:
    return stack.inside(
        "postgres", "psql", "-AtqU", "shop", "-d", "shop", stdin=text, env={"PGPASSWORD": stack.variables["POSTGRES_PASSWORD"]}
    ).text


def fails(stack: ComposeStack, *words: str) -> str:
    """A backup that fails for a secret, and says all of the words."""
    said = stack.devstack("backup", expect={3, 7}).said
    for word in words:
        must(word in said, f"{word!r} is not said: {said}")
    must("postgres" in said, "the service is not named")
    return said


@scenario()
def a_password_that_lies_only_in_vault_is_used_and_nothing_of_it_stays(world: World) -> None:
    with shop(world) as (stack, vault):
        stack.variables["WRONG"] = "x"
        wrong = stack.inside("postgres", "psql", "-AtqU", "shop", "-d", "shop", env={"PGPASSWORD": "wrong"}, expect=2)
        must("password" in wrong.err, "the server lets anybody in, so nothing would be shown")
        before = vault.accessors()
        said: dict[str, bytes] = {}
        stack.environment["DEVSTACK_LOG"] = "trace"
        with watching() as seen:
            for command in (["plan"], ["apply", "--yes"], ["status"], ["restore", "postgres", "--in-place", "--yes", "--approve", "restore:postgres"]):
                said[command[0]] = stack.devstack(*command).said.encode()
        must(sql(stack, "SELECT count(*) FROM t") == "1000", "the rows did not come back")
        must(vault.accessors() == before, f"tokens are left alive: {vault.accessors() - before}")
        logs = stack.run(["docker", "logs", stack.container("vault")])
        where = {f"output of {name}": text for name, text in said.items()} | files_below(stack.folder / ".devstack")
        where["Vault's log"] = logs.out + logs.err.encode()
        where["an argument list"] = b"\n".join(seen.argument_lists)
        role_id, secret_id = ((stack.folder / "vault" / name).read_text().strip() for name in ("role-id", "secret-id"))
        for name, secret in (("password", stack.variables["POSTGRES_PASSWORD"]), ("role-id", role_id), ("secret-id", secret_id)):
            must(not find(secret, where), f"the {name} shows in {find(secret, where)}")
        must(find("pg_dump", where), "the watcher saw no dump tool, so it proves nothing")
        world.note(f"{seen.passes} passes, {len(where)} places")


@scenario()
def a_field_is_found_in_both_versions_of_kv_and_what_is_not_there_is_named(world: World) -> None:
    with shop(world, "old/postgres#password") as (stack, vault):
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
    with shop(world) as (stack, vault):
        stack.devstack("apply", "--yes")
        policy = policy_of_the_docs()
        must('path "secret/data/postgres"' in policy, "the docs' policy does not name the path")
        vault.ask("PUT", "sys/policies/acl/devstack", {"policy": 'path "secret/data/postgres" { capabilities = ["list"] }'})
        fails(stack, "Vault denies read on secret/data/postgres", "it has list", 'path "secret/data/postgres" { capabilities = ["read"] }')
        vault.ask("PUT", "sys/policies/acl/devstack", {"policy": "# nothing"})
        fails(stack, "Vault denies read on secret/postgres", 'path "secret/data/postgres" { capabilities = ["read"] }')
        vault.ask("PUT", "sys/policies/acl/devstack", {"policy": policy})
        stack.devstack("backup")


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
        wait_until(lambda: vault.ask("POST", "auth/approle/login", {"role_id": right, "secret_id": secret_id(stack)}, ok=False) == 400, "the secret-id to expire")
        fails(stack, "Vault refused the login", "secret")
        (stack.folder / "vault/secret-id").unlink()
        fails(stack, "vault/secret-id", "does not exist")
        vault.hand_out()
        stack.devstack("backup")


def secret_id(stack: ComposeStack) -> str:
    return (stack.folder / "vault/secret-id").read_text().strip()


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
def a_vault_that_is_sealed_is_named_and_one_that_comes_back_in_time_is_waited_for(world: World) -> None:
    with shop(world) as (stack, vault):
        stack.devstack("apply", "--yes")
        vault.ask("PUT", "sys/seal")
        fails(stack, "is sealed", "vault operator unseal")
        vault.unseal()
        stack.devstack("backup")
        before = vault.accessors()
        stack.kill("vault")
        process = stack.start("backup")
        # It has nobody to ask yet; started again and unsealed, it goes on.
        stack.run(["docker", "start", stack.container("vault")])
        vault.unseal()
        said = process.communicate(timeout=120)[0]
        must(process.returncode == 0, f"a Vault that came back in time ended with {process.returncode}: {said}")
        must(vault.accessors() <= before, "a token is left alive")
        stack.kill("vault")
        fails(stack, "does not answer", vault.address)


@scenario()
def a_seal_in_the_middle_of_a_run_fails_what_needs_vault_and_nothing_else(world: World) -> None:
    later = '  later: { source: { postgres: { container: postgres, user: shop, password: { vault: "secret/postgres#password" }, databases: { include: [shop] } } }, after: [postgres] }'
    files = "  files: { source: { files: { paths: [docker-compose.yml] } } }"
    with vault_stack(world, [service(), later, files], ["postgres"]) as (stack, vault):
        vault.initialise()
        vault.enable(policy_of_the_docs())
        vault.write("secret/data/postgres", password=stack.variables["POSTGRES_PASSWORD"])
        vault.hand_out()
        # Large enough that there is a middle.
        sql(stack, "CREATE TABLE t AS SELECT n, encode(sha256(n::text::bytea), 'hex') AS h FROM generate_series(1, 3000000) n")
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
        must(process.returncode == 7 and "is sealed" in said, f"it ended with {process.returncode}: {said}")
        must("could not be revoked" in said, "it is not said that the token lives on")
        must("done        " in said and "files/backup" in said, "a service that needs no Vault was not taken")
        must(not [run for run in stack.runs().values() if run.verified], "a run without all of its services counts as good")


def dumps(stack: ComposeStack) -> bool:
    return "pg_dump" in stack.run(["docker", "top", stack.container("postgres"), "-eo", "pid,args"], expect=None).text


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
def a_token_that_runs_out_during_a_run_is_replaced(world: World) -> None:
    with shop(world) as (stack, vault):
        vault.role(token_ttl="1s", token_max_ttl="1s")
        sql(stack, "CREATE TABLE large AS SELECT n, encode(sha256(n::text::bytea), 'hex') AS h FROM generate_series(1, 1000000) n")
        started = time.monotonic()
        stack.devstack("apply", "--yes")
        must(time.monotonic() - started > 1, "the run was shorter than its token's life, so nothing would be shown")
        stack.devstack("restore", "postgres", "--in-place", "--yes", "--approve", "restore:postgres")


@scenario()
def a_certificate_is_trusted_by_the_authority_that_the_file_names_and_by_no_other(world: World) -> None:
    tls = {"tls_cert_file": "/vault/tls/server.pem", "tls_key_file": "/vault/tls/server.key"}
    declared = "vault: { address: %(address)s, ca: vault-tls/ca.pem, login: { token: { file: vault/token } } }\n"
    folder = world.folder / "stack/vault-tls"
    folder.mkdir(parents=True)
    for name in ("ca", "other"):
        authority(folder, name)
    issue(folder, "ca", "server")
    with vault_stack(world, [service()], [], listener=tls, declared=declared.replace("%(address)s", "ADDRESS")) as (stack, vault):
        address = vault.address.replace("http:", "https:")
        stack.file.write_text(stack.file.read_text().replace("ADDRESS", address))
        vault.lay("token", "no token of this server")
        wait_until(lambda: "does not take the token" in stack.devstack("plan", expect=None).said, "Vault to answer through TLS")
        stack.file.write_text(stack.file.read_text().replace("ca.pem", "other.pem"))
        said = stack.devstack("plan", expect=None).said
        must("is not trusted" in said and "vault.ca" in said, f"a foreign authority is not named: {said}")
        stack.file.write_text(stack.file.read_text().replace("vault-tls/other.pem", "docker-compose.yml"))
        must("authority file" in stack.devstack("plan", expect=None).said, "a file that is no certificate is not named")


def openssl(folder: object, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=str(folder), check=True, capture_output=True)


def authority(folder: object, name: str) -> None:
    openssl(folder, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.pem", "-days", "2", "-subj", f"/CN=throw-away {name}")


def issue(folder: object, by: str, name: str) -> None:
    openssl(folder, "req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", "/CN=vault")
    openssl(folder, "x509", "-req", "-in", f"{name}.csr", "-CA", f"{by}.pem", "-CAkey", f"{by}.key", "-CAcreateserial", "-out", f"{name}.pem", "-days", "2",
            "-extfile", str(subject(folder)))
    openssl(folder, "version")
    subprocess.run(["chmod", "-R", "a+rX", str(folder)], check=True)


def subject(folder: object) -> str:
    from pathlib import Path

    path = Path(str(folder)) / "names"
    path.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    return str(path)
