"""A stack that hangs on its Vault: what stops and what does not where it can't be opened. How it comes back is in recovery_suite."""

from __future__ import annotations

import shutil

from compose_stack import ComposeStack
from oracle import AgeKey
from scenario import World, must, scenario
from vault_engine import DECLARED, RAFT, VAULT, fill, keep_keys
from vault_secrets import sql
from vault_server import service, vault_stack

FILES = "  configuration: { source: { files: { paths: [.env, docker-compose.yml, docker-compose.override.yml, configs/, vault-tls/] } } }"


def lose_everything(stack: ComposeStack) -> None:
    stack.compose("down", "--volumes", "--remove-orphans", "--timeout", "2")
    for path in stack.folder.iterdir():
        # What a person has elsewhere: the file itself and the key of the repository.
        if path.name not in {"devstack.yaml", "backups", "key"}:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@scenario()
def a_vault_that_cannot_be_opened_stops_what_hangs_on_it_and_nothing_else(world: World) -> None:
    key = AgeKey.make(world.folder / "age")
    postgres = service().rstrip().removesuffix("}") + ", after: [vault] }"
    declared = DECLARED % f"{{ age: {key.recipient} }}"
    with vault_stack(world, [VAULT, postgres, FILES], ["postgres"], storage=RAFT, declared=declared) as (stack, vault):
        vault.initialise()
        fill(vault)
        keep_keys(vault)
        vault.hand_out()
        vault.write("secret/data/postgres", password=stack.variables["POSTGRES_PASSWORD"])
        sql(stack, "CREATE TABLE t AS SELECT generate_series(1, 1000) AS x")
        stack.devstack("apply", "--yes")
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
