"""The runbook: who has the printed pages, restic and Docker, and no devstack, brings the stack back by them."""

from __future__ import annotations

import re
import shutil
import stat

from compose_stack import ComposeStack
from engine_stack import look as look_at_all
from recovery_assert import SERVICES, shop
from recovery_disaster import shop as whole_shop
from scenario import World, must, scenario

FILES = "  configuration: { source: { files: { paths: [.env, docker-compose.yml, docker-compose.override.yml, configs/] } } }"
CONFIGURATION = (".env", "docker-compose.yml", "docker-compose.override.yml", "configs")


def look(stack: ComposeStack) -> dict[str, str]:
    sql = "SELECT count(*), sum(n) FROM orders; SELECT rolname FROM pg_roles WHERE rolname = 'clerk'"
    return {
        "rows": stack.inside("postgres", "psql", "-AtU", "shop", "-d", "shop", stdin=sql).text,
        "volume": stack.inside("app", "sh", "-c", "cd /data && find . -type f | sort | xargs sha256sum; stat -c '%a %u %g' order").text,
        ".env": (stack.folder / ".env").read_text(),
        "configs": "".join(path.read_text() for path in sorted((stack.folder / "configs").rglob("*")) if path.is_file()),
    }


def lose_everything(stack: ComposeStack) -> None:
    stack.compose("down", "--volumes", "--remove-orphans", "--timeout", "2")
    for name in (*CONFIGURATION, "devstack.yaml", ".devstack"):
        path = stack.folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def followed(stack: ComposeStack, pages: str, expect: int | None = 0) -> str:
    """Every block of commands, in order, in one session."""
    blocks = re.findall(r"^```bash\n(.*?)^```$", pages, re.MULTILINE | re.DOTALL)
    # A person stops where a command fails.
    ran = stack.run(["bash", "-c", "set -e\n" + "\n".join(blocks)], expect=expect)
    print(ran.text, ran.err)
    return ran.text


@scenario("restic")
def a_lost_stack_comes_back_by_the_printed_commands_alone(world: World) -> None:
    with shop(world, [SERVICES[0], SERVICES[-1], FILES], ["postgres"]) as stack:
        stack.inside("postgres", "psql", "-qU", "shop", "-d", "shop", stdin="CREATE ROLE clerk; GRANT SELECT ON orders TO clerk")
        stack.inside("app", "sh", "-c", "chmod 640 /data/order")
        stack.devstack("apply", "--yes")
        before = look(stack)
        printed = world.folder / "runbook.md"
        stack.devstack("recover", "--runbook", "--output", str(printed))
        must(stat.S_IMODE(printed.stat().st_mode) == 0o600, "everybody may read the runbook")
        pages = printed.read_text()
        must(not any(value in pages for name, value in stack.variables.items() if "PASSWORD" in name), "a password is in the runbook")
        must(stack.passphrase.read_text().strip() not in pages, "the passphrase is in the runbook")
        lose_everything(stack)
        # One page is missing: the rows are too, so that the comparison below is one.
        without = re.sub(r"^.*pg_restore.*$", "", pages, flags=re.MULTILINE)
        followed(stack, without, expect=None)
        must(stack.inside("postgres", "psql", "-AtU", "shop", "-d", "shop", "-c", "SELECT count(*) FROM orders", expect=None).code != 0, "there are rows without their restore")
        lose_everything(stack)
        followed(stack, pages)
        after = look(stack)
        for what, value in before.items():
            must(after[what] == value, f"{what} came back otherwise: {value!r} before, {after[what]!r} after")
        must("there is nothing to recover" in stack.devstack("recover", "--dry-run").out, "to devstack it is not back")
        left = [path.name for path in stack.folder.iterdir() if path.name.startswith(".recovered")]
        must(not left, f"left behind: {left}")


@scenario("restic", alone="nine servers that start at once fill the machine", long=True)
def every_kind_of_server_comes_back_by_the_printed_commands(world: World) -> None:
    with whole_shop(world) as stack:
        before = look_at_all(stack)
        pages = stack.devstack("recover", "--runbook").out
        lose_everything(stack)
        followed(stack, pages)
        after = look_at_all(stack)
        for what, value in before.items():
            must(after[what] == value, f"{what} came back otherwise: {value[:300]!r} before, {after[what][:300]!r} after")
        must("there is nothing to recover" in stack.devstack("recover", "--dry-run").out, "to devstack it is not back")
