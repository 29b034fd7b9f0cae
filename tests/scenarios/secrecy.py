"""No secret where it could be read: not in an argument list, an output, the journal, a plan, or the repository."""

from __future__ import annotations

import base64
import json
import os
import random
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from content import quickstart_data
from oracle import AgeKey, GpgKey
from scenario import World, must, scenario
from stack import PASSPHRASE, Stack, write_stack


# Short-lived programs are seen only by a watcher that is never kept waiting, and those that it must see at all are to be our
# own, not those of a scenario beside it.
ALONE = "the watcher samples all processes of the machine, and needs a processor to itself"


@dataclass
class Seen:
    argument_lists: list[bytes] = field(default_factory=list)
    passes: int = 0
    reads: int = 0


@contextmanager
def watching() -> Iterator[Seen]:
    """Every process's arguments, for as long as the block runs."""
    seen = Seen()
    watcher = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("argument_lists.py"))],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )
    assert watcher.stdout is not None
    try:
        must(watcher.stdout.readline() == "watching\n", "the watcher did not start")
        yield seen
        said = json.loads(watcher.communicate(timeout=60)[0])
    finally:
        if watcher.poll() is None:
            watcher.kill()
            watcher.communicate()
    seen.argument_lists = [base64.b64decode(line) for line in said["seen"]]
    seen.passes, seen.reads = said["passes"], said["reads"]


def shapes_of(secret: str) -> dict[str, bytes]:
    """The secret as it may stand somewhere: plain, hexadecimal, and base64 at each of its three alignments, of which only
    the part that does not depend on what stands beside it is looked for."""
    raw = secret.encode()
    shapes = {"plain": raw, "hex": raw.hex().encode(), "HEX": raw.hex().upper().encode()}
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + raw)
        inner = encoded[(shift * 8 + 5) // 6 : len(encoded) - 4]
        shapes[f"base64 at {shift}"] = inner
        shapes[f"url-safe base64 at {shift}"] = inner.replace(b"+", b"-").replace(b"/", b"_")
    return shapes


def find(secret: str, where: dict[str, bytes]) -> list[str]:
    return [
        f"{name} ({shape})" for name, text in where.items() for shape, look in shapes_of(secret).items() if look in text
    ]


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and not path.is_symlink()}


def must_be_private(folder: Path) -> None:
    """Nothing in here, and not the folder itself, can be read by anyone but its owner."""
    # A file in a closed folder cannot be reached; the folder's own mode is what closes it, and both are asked for.
    for path in [folder, *folder.rglob("*")]:
        mode = stat.S_IMODE(path.lstat().st_mode)
        must(path.is_symlink() or mode & 0o077 == 0, f"{path} has mode {mode:04o}: others can read it")


@scenario(alone=ALONE)
def the_watcher_sees_a_secret_in_an_argument_list(_: World) -> None:
    secret = random.SystemRandom().randbytes(16).hex()
    with watching() as seen:
        # It waits on its standard input, so it lives until it is told to end.
        child = subprocess.Popen(["cat", "--", "-", f"/dev/null/{secret}"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
        # A pass of the watcher takes milliseconds; its passes cannot be awaited from here, a moment of them can.
        with watching() as other:
            pass
        child.communicate()
    hits = find(secret, {"argument list": b"\n".join(seen.argument_lists)})
    must(hits, f"the watcher missed a secret in {seen.passes} passes ({other.passes} beside it)")


@scenario()
def the_search_finds_each_shape_of_a_secret(_: World) -> None:
    secret = "tr0ub4dor&3/+~~ÿ"
    raw = secret.encode()
    for before in (b"", b"x", b"xy", b"xyz"):
        must(find(secret, {"it": base64.b64encode(before + raw + b"and more")}), f"missed base64 after {before!r}")
        must(find(secret, {"it": base64.urlsafe_b64encode(before + raw)}), f"missed url-safe base64 after {before!r}")
    must(find(secret, {"it": b"a" + raw.hex().encode()}), "missed hexadecimal")
    must(not find(secret, {"it": base64.b64encode(b"something else altogether, and long")}), "found what is not there")


@scenario("age", "age-keygen", "gpg", alone=ALONE)
def no_secret_shows_in_arguments_output_journal_plan_or_repository(world: World) -> None:
    passphrase = random.SystemRandom().randbytes(18).hex()
    age, gpg = AgeKey.make(world.folder / "age"), GpgKey.make(world.folder / "gpg")
    try:
        keys = [PASSPHRASE, f"{{ age: {age.recipient} }}", f"{{ gpg: {gpg.recipient} }}"]
        stack = write_stack(world, world.folder / "stack", keys=keys, passphrase=passphrase)
        stack.environment["GNUPGHOME"] = str(gpg.home)
        quickstart_data(stack.folder / "data")
        output, seen = a_full_run(stack)
        sidecars = files_below(stack.repository / "devstack/keys")
        must(len(sidecars) == 2, f"two recipients should have two sidecars: {sorted(sidecars)}")
        secrets = {"the passphrase": passphrase}
        for name in sidecars:
            opener = gpg if b"BEGIN PGP" in sidecars[name] or not is_age(sidecars[name]) else age
            secrets[f"the password in {name}"] = opener.decrypt(Path(name)).rstrip("\n")
    finally:
        gpg.stop_agent()

    where = {f"output of {name}": text for name, text in output.items()}
    where |= {"an argument list": b"\n".join(seen.argument_lists)}
    where |= files_below(stack.folder / ".devstack") | files_below(stack.repository) | files_below(world.folder / "plans")
    for name, secret in secrets.items():
        must(len(secret) >= 16, f"{name} is too short to be looked for: {len(secret)} characters")
        hits = find(secret, where)
        must(not hits, f"{name} shows in {hits}")
    started = [line for line in seen.argument_lists if str(world.binary).encode() in line]
    must(started, "the watcher saw no devstack at all, so it proves nothing")
    must(any(b"gpg" in line.split(b"\0")[0] for line in seen.argument_lists), "the watcher saw no gpg at all")
    must_be_private(stack.passphrase.parent)
    must_be_private(stack.folder / ".devstack")
    must_be_private(stack.repository / "devstack/keys")
    world.note(f"{seen.passes} passes, {seen.reads} argument lists read, {len(where)} places, {len(secrets)} secrets")


def is_age(sidecar: bytes) -> bool:
    return sidecar.startswith((b"age-encryption.org/", b"-----BEGIN AGE"))


def a_full_run(stack: Stack) -> tuple[dict[str, bytes], Seen]:
    """Every verb that touches keys, watched; gives all that was printed, by command."""
    plan = stack.world.folder / "plans/plan.json"
    plan.parent.mkdir()
    restored = stack.world.folder / "restored"
    commands = [
        ["plan", "--out", str(plan)],
        ["apply", str(plan), "--yes"],
        ["plan", "--format", "json", "--all"],
        ["backup"],
        ["verify", "--all", "--data"],
        ["restore", "site", "--to", str(restored), "--yes"],
        ["backups", "--format", "json"],
        ["status", "--format", "json"],
        ["log"],
    ]
    stack.environment["RUST_LOG"] = "trace"  # what a person turns on when looking for a fault must not tell either
    with watching() as seen:
        output = {" ".join(command): stack.devstack(*command, expect=8 if command[0] == "status" else 0).said.encode() for command in commands}
        # A wrong passphrase is where a careless error message would show it. The gpg key still opens the repository.
        right = stack.passphrase.read_text()
        stack.passphrase.write_text(right.strip() + "x\n")
        output["verify with a wrong passphrase"] = stack.devstack("verify", expect=None).said.encode()
        stack.passphrase.write_text(right)
    os.sync()
    return output, seen
