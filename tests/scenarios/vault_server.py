"""A real Vault in a container of the stack: initialised, unsealed, and with a role for devstack. Asked by its own API."""

from __future__ import annotations

import json
import os
import socket
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

    def __init__(self, port: int) -> None:
        self.port = port
        self.address = f"http://127.0.0.1:{port}"
        self.keys, self.root = [], ""

    def ask(self, method: str, path: str, body: object = None, *, token: str | None = None, ok: bool = True) -> Any:
        """What the API answers, as JSON. `ok=False` gives the status instead."""
        request = urllib.request.Request(
            f"{self.address}/v1/{path}", method=method, data=None if body is None else json.dumps(body).encode(),
            headers={"X-Vault-Token": self.root if token is None else token},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                text = answer.read()
                return json.loads(text) if ok and text else answer.status
        except urllib.error.HTTPError as error:
            must(not ok, f"{method} {path} was answered with {error.code}: {error.read()[:500]!r}")
            return error.code

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.address}/v1/sys/seal-status", timeout=5):
                return True
        except OSError:
            return False

    def initialise(self) -> None:
        wait_until(self.answers, "Vault to answer")
        made = self.ask("PUT", "sys/init", {"secret_shares": SHARES, "secret_threshold": THRESHOLD})
        self.keys, self.root = made["keys_base64"], made["root_token"]
        self.unseal()

    def unseal(self) -> None:
        wait_until(self.answers, "Vault to answer")
        for key in self.keys[:THRESHOLD]:
            self.ask("PUT", "sys/unseal", {"key": key})
        wait_until(lambda: self.ask("GET", "sys/health", ok=False) == 200, "Vault to be active")

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
    listener: dict[str, Any] | None = None,
    declared: str = DECLARED,
    extra: str = "",
) -> Iterator[tuple[ComposeStack, Vault]]:
    """A stack with a Vault that is unsealed and empty."""
    vault = Vault(free_port())
    settings = {
        "storage": storage or FILE_STORAGE,
        "listener": [{"tcp": {"address": "0.0.0.0:8200", **(listener or {"tls_disable": True})}}],
        "disable_mlock": True, "api_addr": vault.address, "cluster_addr": "http://127.0.0.1:8201",
    }
    override = COMPOSE % {"settings": json.dumps(settings), "port": vault.port} + extra
    (world.folder / "stack/vault-tls").mkdir(parents=True, exist_ok=True)
    with compose_stack(world, services, [], override=override) as stack:
        vault.stack = stack
        stack.file.write_text(stack.file.read_text().replace("services:\n", declared % {"address": vault.address} + "services:\n", 1))
        stack.up("vault", *up)
        # The addresses of the world around must not be asked.
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = "127.0.0.1,localhost"
        yield stack, vault
