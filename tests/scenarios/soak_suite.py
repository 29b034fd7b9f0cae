"""The recovery suite believes nobody: for each of its parts there is a devstack here that breaks just that, and says that all is well.
Run by `tests/soak`."""

from __future__ import annotations

import os
import sys

from recovery_suite import suite
from scenario import Broken, World, must, scenario

# A program that stands before devstack. `real()` is devstack itself; `verb`, `has` and the arguments say what was asked.
LIAR = """\
#!{python}
import os, re, subprocess, sys
arguments = sys.argv[1:]
has = lambda *words: all(word in arguments for word in words)
stack = os.path.dirname(arguments[arguments.index("--file") + 1])
# From an empty machine.
whole = has("recover", "--yes") and not has("--only") and not os.path.exists(os.path.join(stack, ".env"))
def real(arguments=arguments, **options):
    return subprocess.run(["{binary}", *arguments], **options)
def docker(service, *command):
    project = re.search(r"project: ([\\w-]+)", open(os.path.join(stack, "devstack.yaml")).read()).group(1)
    subprocess.run(["docker", "exec", f"{{project}}-{{service}}-1", *command], check=True, capture_output=True)
{lie}
sys.exit(real().returncode)
"""

LIES = {
    "test backup": """
if has("apply"):
    print("Apply complete: 1 run taken and proven")
    sys.exit(0)
""",
    "prerequisites": """
if has("recover"):
    os.environ.setdefault("MYSQL_ROOT_PASSWORD", "any")
""",
    "databases": """
if has("recover", "--yes", "--only", "postgres"):
    print("Recovery complete")
    sys.exit(0)
""",
    "vault": """
if has("recover", "--yes", "--only", "vault"):
    print("Recovery complete")
    sys.exit(0)
""",
    "automation": """
if has("recover") and not has("--yes") and not has("--dry-run"):
    arguments.append("--yes")
""",
    "complete environment with RTO": """
if whole:
    # Everything but the volume.
    done = real().returncode
    docker("forgejo", "sh", "-c", "rm -rf /data/*")
    sys.exit(done)
""",
    "service health": """
if has("recover", "--dry-run"):
    told = real(capture_output=True, text=True)
    print("\\n".join(line for line in told.stdout.splitlines() if "container/mongodb" not in line))
    sys.exit(told.returncode)
""",
    "vault access": """
if whole:
    done = real().returncode
    # Those of before are none any more, and no new one was handed out.
    open(os.path.join(stack, "secrets/shop-secret-id"), "w").write("11111111-2222-3333-4444-555555555555")
    sys.exit(done)
""",
    "database connectivity": """
if whole:
    done = real().returncode
    # The rows are there, and the application can't come in.
    docker("postgres", "psql", "-qU", "shop", "-d", "shop", "-c", "ALTER ROLE shop PASSWORD 'another'")
    sys.exit(done)
""",
    "drill": """
if has("drill") and not has("--help"):
    # Evidence without a drill, as its forerunner gave it: a sleep, and a tick.
    print('{"drill": {"id": "drill-0", "verdict": "passed", "took": "40s", "escrow": true, "partial": false, "services": [], "steps": [], "left_out": []}}')
    sys.exit(0)
""",
}


@scenario(alone="each of its stacks fills the machine")
def each_part_of_the_recovery_suite_fails_when_what_it_is_about_is_broken(world: World) -> None:
    only = os.environ.get("DEVSTACK_TEST_PARTS", "").split(",")
    for part, lie in LIES.items():
        if only != [""] and part not in only:
            continue
        folder = world.folder / part.replace(" ", "-")
        folder.mkdir()
        liar = folder / "devstack"
        liar.write_text(LIAR.format(python=sys.executable, binary=world.binary, lie=lie))
        liar.chmod(0o755)
        with world.part(part):
            try:
                suite(World(liar, folder))
            except Broken as broken:
                must(str(broken).startswith(f"{part}: "), f"another part failed: {broken}")
                print(f"{part}: {str(broken)[:300]}")
            else:
                raise Broken("nothing failed")
