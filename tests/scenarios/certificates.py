"""Certificates as openssl makes them: found in their files whatever shape they have, and told before they end."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from scenario import World, must, scenario
from secrecy import files_below, find
from stack import Stack, write_stack

SERVICE = "  tls: { source: { certificates: { paths: [certs/], warn: 10d } } }"
EC = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]


def openssl(folder: Path, *words: str) -> str:
    done = subprocess.run(["openssl", *words], cwd=folder, capture_output=True, text=True, check=False)
    must(done.returncode == 0, f"`openssl {' '.join(words)}`: {done.stderr}")
    return done.stdout


def make(folder: Path) -> None:
    """An authority, and certificates of it: an old one, one that ends soon, a good one with names, one in DER."""
    folder.mkdir()
    openssl(folder, "req", "-x509", *EC, "-keyout", "ca.key", "-out", "ca.pem", "-days", "3650", "-subj", "/O=Shop/CN=Throw-away CA")
    (folder / "names").write_text("subjectAltName=DNS:good.shop.example,IP:10.0.0.7\n")
    for name, days in {"old": "-1", "soon": "5", "good": "90", "binary": "5"}.items():
        openssl(folder, "req", *EC, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}.shop.example")
        form = "DER" if name == "binary" else "PEM"
        openssl(folder, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", days,
                "-extfile", "names", "-outform", form, "-out", f"{name}.pem")
    whole = (folder / "good.pem").read_bytes()
    (folder / "chain.pem").write_bytes((folder / "good.key").read_bytes() + whole + (folder / "ca.pem").read_bytes())
    (folder / "cut.pem").write_bytes(whole[: len(whole) // 2])
    (folder / "noise").write_bytes(b"\x30\x82\xff\xff" + bytes(range(256)))


def inventory(stack: Stack) -> dict[str, list[dict[str, Any]]]:
    """What the newest run has in it, by path."""
    [run] = stack.runs().values()
    found: dict[str, list[dict[str, Any]]] = {}
    for one in run.said["manifest"]["services"]["tls"]["taken"]["certificates"]:
        found.setdefault(one["path"], []).append(one)
    return found


def expiring(stack: Stack) -> dict[str, str]:
    """What a plan says of each, with its lines joined."""
    notes = stack.devstack("plan", "--format", "json").json()["report"].get("expiring", [])
    return {note["resource"]: note["text"] for note in notes}


@scenario("openssl")
def certificates_are_found_in_their_files_and_those_that_end_are_told(world: World) -> None:
    stack = write_stack(world, world.folder / "stack", services=[SERVICE])
    certs = stack.folder / "certs"
    make(certs)
    said = stack.devstack("apply", "--yes").said
    found = inventory(stack)
    must(set(found) == {f"certs/{name}.pem" for name in ("ca", "old", "soon", "good", "binary", "chain")}, f"found: {list(found)}")
    must([one["subject"] for one in found["certs/chain.pem"]] == ["CN=good.shop.example", "O=Shop, CN=Throw-away CA"], "the chain is not whole")
    [good], [ca], [binary] = found["certs/good.pem"], found["certs/ca.pem"], found["certs/binary.pem"]
    must((good["names"], good["is_ca"], ca["is_ca"]) == (["good.shop.example", "10.0.0.7"], False, True), f"not what it is: {good}, {ca}")
    for one, form in ((good, "PEM"), (ca, "PEM"), (binary, "DER")):
        seen = openssl(stack.folder, "x509", "-in", one["path"], "-inform", form, "-noout", "-serial", "-fingerprint", "-sha256").lower().replace(":", "")
        must(f"serial={one['serial']}\n" in seen and one["sha256"] in seen, f"openssl says {seen} of {one}")

    told = expiring(stack)
    must(set(told) == {f"tls/certs/{name}.pem" for name in ("old", "soon", "binary")}, f"told: {told}")
    must("CN=old.shop.example expired 24 h" in told["tls/certs/old.pem"], f"told: {told}")
    must("CN=soon.shop.example expires in 4 d 23 h (" in told["tls/certs/soon.pem"], f"told: {told}")
    must(all(text.endswith("(issuer O=Shop, CN=Throw-away CA)") for text in told.values()), f"told: {told}")
    # No drift, and no exit code but that of `status`, and of the others under --strict.
    stack.converged()
    for verb in ("plan", "status"):
        must(stack.devstack(verb, expect=8 if verb == "status" else 0).said.count("EXPIRES") == 3, f"`{verb}` does not tell all three")
    [run] = stack.runs()
    shown = stack.devstack("show", run).said
    must(shown.count(" until 20") == 7 and "certs/good.pem   CN=good.shop.example   until 20" in shown, f"shown: {shown}")
    keys = {path.name: path.read_text().splitlines()[1] for path in certs.glob("*.key")}
    where = files_below(stack.folder / ".devstack") | files_below(stack.repository) | {"the output": (said + shown + json.dumps(found)).encode()}
    for name, line in keys.items():
        must(not find(line, where), f"{name} shows in {find(line, where)}")


@scenario("openssl")
def a_folder_without_a_certificate_is_not_taken_and_what_was_taken_stays(world: World) -> None:
    stack = write_stack(world, world.folder / "stack", services=[SERVICE])
    make(stack.folder / "certs")
    stack.devstack("apply", "--yes")
    for path in (stack.folder / "certs").glob("*.pem"):
        path.write_bytes(path.read_bytes()[:100])
    said = " ".join(stack.devstack("backup", expect=7).said.split())
    must("no certificate can be read in any file of certs/" in said and "tls" in said, f"what is wrong is not said: {said}")
    must([run.verified for run in stack.runs().values()].count(True) == 1, "the good run is not the only one")
