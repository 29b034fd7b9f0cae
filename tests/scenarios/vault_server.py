"""A real Vault in a container of the stack: initialised, unsealed, and with a role for devstack. Asked by its own API."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from compose_stack import ComposeStack, compose_stack
from scenario import TOP, World, must
from stack import wait_until

SHARES, THRESHOLD = 5, 3

FILE_STORAGE = {"file": {"path": "/vault/file"}}
RAFT_STORAGE = {"raft": {"path": "/vault/file", "node_id": "one"}}

COMPOSE = """\
services:
  vault:
    profiles: [standard]
    image: ${VAULT_IMAGE:-hashicorp/vault:1.21}
    command: server
    environment:
      VAULT_LOCAL_CONFIG: '%(settings)s'
    ports: ["127.0.0.1:%(port)d:8200"]
    volumes: ["vault_data:/vault/file", "./vault-tls:/vault/tls:ro"]
    stop_grace_period: 20s
volumes:
  vault_data: {}
"""

DECLARED = """\
vault:
  address: %(address)s
  login: { approle: { role_id: { file: vault/role-id }, secret_id: { file: vault/secret-id } } }
"""


def free_port() -> int:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return int(door.getsockname()[1])


class Vault:
    stack: ComposeStack
    keys: list[str]
    root: str

    def __init__(self, port: int, authority: Path | None) -> None:
        self.port = port
        self.address = f"{'https' if authority else 'http'}://127.0.0.1:{port}"
        self.trust = ssl.create_default_context(cafile=authority) if authority else None
        self.keys, self.root = [], ""

    def ask(self, method: str, path: str, body: object = None, *, token: str | None = None, ok: bool = True) -> Any:
        """What the API answers, as JSON. `ok=False` gives the status instead."""
        request = urllib.request.Request(
            f"{self.address}/v1/{path}", method=method, data=None if body is None else json.dumps(body).encode(),
            headers={"X-Vault-Token": self.root if token is None else token},
        )
        try:
            with urllib.request.urlopen(request, timeout=30, context=self.trust) as answer:
                text = answer.read()
                return json.loads(text) if ok and text else answer.status
        except urllib.error.HTTPError as error:
            must(not ok, f"{method} {path} was answered with {error.code}: {error.read()[:500]!r}")
            return error.code

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.address}/v1/sys/seal-status", timeout=5, context=self.trust):
                return True
        except OSError:
            return False

    def is_open(self) -> bool:
        return self.answers() and self.ask("GET", "sys/health", ok=False) == 200

    def initialise(self) -> None:
        wait_until(self.answers, "Vault to answer")
        made = self.ask("PUT", "sys/init", {"secret_shares": SHARES, "secret_threshold": THRESHOLD})
        self.keys, self.root = made["keys_base64"], made["root_token"]
        self.unseal()

    def unseal(self) -> None:
        wait_until(self.answers, "Vault to answer")
        for key in self.keys[:THRESHOLD]:
            self.ask("PUT", "sys/unseal", {"key": key})
        wait_until(self.is_open, "Vault to be active")

    def accessors(self) -> set[str]:
        return set(self.ask("LIST", "auth/token/accessors")["data"]["keys"])

    def enable(self, policy: str, **role: object) -> None:
        """KV 2 at secret/, KV 1 at old/, and AppRole with devstack's role."""
        self.ask("POST", "sys/mounts/secret", {"type": "kv", "options": {"version": "2"}})
        self.ask("POST", "sys/mounts/old", {"type": "kv", "options": {"version": "1"}})
        self.ask("POST", "sys/auth/approle", {"type": "approle"})
        self.ask("PUT", "sys/policies/acl/devstack", {"policy": policy})
        self.role(**role)

    def role(self, **role: object) -> None:
        self.ask("POST", "auth/approle/role/devstack", {"token_policies": ["devstack"], "token_ttl": "20m", **role})

    def write(self, path: str, **fields: object) -> None:
        self.ask("POST", path, {"data": fields} if "/data/" in path else fields)

    def issue(self, **settings: object) -> str:
        """A secret-id for devstack."""
        return str(self.ask("POST", "auth/approle/role/devstack/secret-id", settings)["data"]["secret_id"])

    def role_id(self) -> str:
        return str(self.ask("GET", "auth/approle/role/devstack/role-id")["data"]["role_id"])

    def hand_out(self, **settings: object) -> tuple[str, str]:
        """Lays the role-id and a new secret-id where the file looks for them."""
        role_id, secret_id = self.role_id(), self.issue(**settings)
        self.lay("role-id", role_id)
        self.lay("secret-id", secret_id)
        return role_id, secret_id

    def lay(self, name: str, value: str) -> Path:
        path = self.stack.folder / "vault" / name
        path.parent.mkdir(mode=0o700, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(value + "\n")
        return path


def policy_of_the_docs() -> str:
    page = (TOP / "docs/vault.md").read_text()
    return page.split("```hcl\n", 1)[1].split("```", 1)[0]


@contextmanager
def vault_stack(
    world: World,
    services: list[str],
    up: list[str],
    *,
    storage: dict[str, Any] | None = None,
    tls: bool = False,
    declared: str = DECLARED,
    extra: str = "",
) -> Iterator[tuple[ComposeStack, Vault]]:
    """A stack with a Vault that is not initialised yet. With TLS its authority is `vault-tls/ca.pem`, and `other.pem` is one
    that has nothing to do with it."""
    folder = world.folder / "stack/vault-tls"
    folder.mkdir(parents=True, exist_ok=True)
    listener: dict[str, Any] = {"tls_disable": True}
    if tls:
        certificates(folder)
        listener = {"tls_cert_file": "/vault/tls/server.pem", "tls_key_file": "/vault/tls/server.key"}
    vault = Vault(free_port(), folder / "ca.pem" if tls else None)
    settings = {
        "storage": storage or FILE_STORAGE,
        "listener": [{"tcp": {"address": "0.0.0.0:8200", **listener}}],
        "disable_mlock": True, "api_addr": vault.address, "cluster_addr": "http://127.0.0.1:8201",
    }
    override = COMPOSE % {"settings": json.dumps(settings), "port": vault.port} + extra
    with compose_stack(world, services, ["vault", *up], override=override) as stack:
        vault.stack = stack
        text = stack.file.read_text().replace("services:\n", declared % {"address": vault.address} + "services:\n", 1)
        # A scenario takes the Vault itself, or only asks it.
        others = "  - { path: vault-tls, because: each scenario makes its own }\n"
        if "vault: {" not in "\n".join(services):
            others += "  - { service: vault, because: another scenario has it }\n"
        stack.file.write_text(text.replace("leave_out:\n", f"leave_out:\n{others}", 1))
        # The addresses of the world around must not be asked.
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = "127.0.0.1,localhost"
        yield stack, vault


def certificates(folder: Path) -> None:
    """Two authorities, and a server's certificate for 127.0.0.1 by the first."""

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    for name in ("ca", "other"):
        openssl("req", "-x509", *key, "-keyout", f"{name}.key", "-out", f"{name}.pem", "-days", "2", "-subj", f"/CN=throw-away {name}")
    openssl("req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=vault")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out", "server.pem",
            "-days", "2", "-extfile", "names")
    # Read by the server's own user.
    (folder / "server.key").chmod(0o644)


PASSWORD = "secret/postgres#password"


def service(reference: str = PASSWORD) -> str:
    """PostgreSQL by TCP as another user, so that a wrong password is refused: the image trusts its socket."""
    return f'  postgres: {{ source: {{ postgres: {{ container: postgres, user: shop, password: {{ vault: "{reference}" }} }} }} }}'


@contextmanager
def shop(world: World, *services: str, **more: Any) -> Iterator[tuple[ComposeStack, Vault]]:
    """PostgreSQL, whose password devstack finds in Vault alone. At the end no token may be left that was not there before."""
    with vault_stack(world, [*(services or [service()])], ["postgres"], **more) as (stack, vault):
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
        before = vault.accessors()
        yield stack, vault
        if vault.is_open():
            must(vault.accessors() <= before, f"tokens are left alive: {vault.accessors() - before}")


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


# One more service on the same server; steps go by their names, one at a time, so that it comes after `postgres`.
WAREHOUSE = service().replace("  postgres:", "  warehouse:", 1).replace(" } } } }", " }, databases: { include: [warehouse] } } } }")
STOCK = "CREATE DATABASE warehouse;\n\\connect warehouse\nCREATE TABLE stock AS SELECT 1 AS pieces;\n"
# Takes a while to be dumped.
LARGE = "CREATE TABLE large AS SELECT n, encode(sha256(n::text::bytea), 'hex') AS h FROM generate_series(1, %d) n;\n"


def dumps(stack: ComposeStack) -> bool:
    return "pg_dump" in stack.run(["docker", "top", stack.container("postgres"), "-eo", "pid,args"], expect=None).text
