"""Certificates that Vault's PKI issued: lost, put back with modes and owners, still of their authority, and told before they
end."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from certificates import expiring, inventory, openssl
from scenario import World, must, scenario
from secrecy import files_below, find
from vault_server import Vault, vault_stack

SERVICE = "  tls: { source: { certificates: { paths: [certs/], warn: 2d } } }"
# The user of a server in its image; without root they are our own.
OWNER = 999 if os.geteuid() == 0 else os.geteuid()


def authority(vault: Vault) -> None:
    vault.ask("POST", "sys/mounts/pki", {"type": "pki"})
    vault.ask("POST", "pki/root/generate/internal", {"common_name": "Shop CA", "ttl": "400h", "key_type": "ec"})
    vault.ask("POST", "pki/roles/web", {"allowed_domains": "shop.example", "allow_subdomains": True, "max_ttl": "200h", "key_type": "ec"})


def issue(vault: Vault, folder: Path, ttl: str) -> str:
    """As a service's certificates lie on a machine. Gives the serial number."""
    issued = vault.ask("POST", "pki/issue/web", {"common_name": "www.shop.example", "ip_sans": "10.0.0.7", "ttl": ttl})["data"]
    folder.mkdir(exist_ok=True)
    for name, text, mode, owner in (
        ("web.pem", issued["certificate"], 0o644, os.geteuid()),
        ("web.key", issued["private_key"], 0o640, OWNER),
        ("ca.pem", issued["issuing_ca"], 0o644, os.geteuid()),
    ):
        path = folder / name
        path.write_text(text + "\n")
        path.chmod(mode)
        os.chown(path, owner, owner if owner == OWNER else -1)
    return str(issued["serial_number"]).replace(":", "")


def as_it_is(folder: Path) -> dict[str, tuple[bytes, int, int, int]]:
    def one(path: Path) -> tuple[bytes, int, int, int]:
        seen = path.stat()
        return path.read_bytes() if path.is_file() else b"", seen.st_mode, seen.st_uid, seen.st_gid

    return {path.name: one(path) for path in [folder, *folder.iterdir()]}


@scenario("openssl")
def certificates_of_vaults_pki_come_back_with_modes_and_owners_and_are_told_before_they_end(world: World) -> None:
    # devstack has no business with this Vault: it only issues.
    with vault_stack(world, [SERVICE], [], declared="") as (stack, vault):
        vault.initialise()
        authority(vault)
        folder = stack.folder / "certs"
        serial = issue(vault, folder, "5h")
        folder.chmod(0o750)
        said = stack.devstack("apply", "--yes").said
        before = as_it_is(folder)
        must(before["web.key"][1:] == (0o100640, OWNER, OWNER), f"nothing is shown: {before['web.key'][1:]}")
        found = inventory(stack)
        [web] = found["certs/web.pem"]
        must((web["serial"], web["issuer"], web["names"]) == (serial, "CN=Shop CA", ["www.shop.example", "10.0.0.7"]), f"inventory: {found}")
        must(set(found) == {"certs/web.pem", "certs/ca.pem"}, f"inventory: {list(found)}")
        told = expiring(stack)
        must(set(told) == {"tls/certs/web.pem"} and "CN=www.shop.example expires in 4 h 5" in told["tls/certs/web.pem"], f"told: {told}")
        must("EXPIRES" in stack.devstack("plan").said, "a plan does not tell it")

        shutil.rmtree(folder)
        must("LOST" in stack.devstack("plan", expect=7).said, "that the folder is gone is not said")
        said += stack.devstack("restore", "tls", "--in-place", "--without-safety", "--yes", "--approve", "restore:tls").said
        must(as_it_is(folder) == before, f"another: {before} before, {as_it_is(folder)} after")
        must(openssl(folder, "verify", "-CAfile", "ca.pem", "web.pem").endswith("OK\n"), "it is not of its authority any more")
        fits = openssl(folder, "pkey", "-in", "web.key", "-pubout") == openssl(folder, "x509", "-in", "web.pem", "-noout", "-pubkey")
        must(fits, "the key is not the certificate's")
        where = files_below(stack.folder / ".devstack") | files_below(stack.repository) | {"the output": said.encode()}
        line = before["web.key"][0].decode().splitlines()[1]
        must(not find(line, where), f"the key shows in {find(line, where)}")

        issue(vault, folder, "150h")
        must(not expiring(stack), "one that was renewed is told")
