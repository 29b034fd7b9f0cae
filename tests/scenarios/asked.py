"""What is asked for is what is done: one service, one policy, a run by the beginning of its id; and excludes as git has them."""

from __future__ import annotations

import json
import time

from content import quickstart_data
from scenario import World, must, scenario
from stack import FILES_SITE, SQLITE_SHOP, write_stack


@scenario()
def a_service_a_policy_and_a_run_are_taken_at_their_names(world: World) -> None:
    services = [SQLITE_SHOP, FILES_SITE, "  regular: { source: { files: { paths: [data/site/index.html] } } }"]
    stack = write_stack(world, world.folder / "stack", services=services)
    quickstart_data(stack.folder / "data")
    stack.file.write_text(stack.file.read_text().replace("backup:\n", "backup:\n  weekly: { services: [shop], to: [local] }\n"))
    stack.devstack("apply", "--yes")
    before = set(stack.runs())

    def new() -> list[str]:
        """The runs since the last look, with what each holds."""
        nonlocal before
        runs = stack.devstack("backups", "--format", "json").json()["runs"]
        found = {run["manifest"]["run"]: sorted(run["manifest"]["services"]) for run in runs}
        names = sorted(set(found) - before)
        before |= set(names)
        return [f"{name.split('-', 1)[1]}: {' '.join(found[name])}" for name in names]

    # A run's id is its second.
    time.sleep(1.05)
    stack.devstack("backup", "site")
    must(new() == ["regular.part: site"], "`backup SERVICE` takes something else than that service")
    must("only site" in stack.devstack("backups").out, "a run of one service is not marked")
    both = stack.devstack("backup", "regular")
    must("a service and a policy" in both.err and "--policy regular" in both.err, "a name of both is taken without a word")
    must(new() == ["regular.part: regular"], "a name that a service has is taken for a policy")
    policy = stack.devstack("backup", "weekly")
    must("--policy weekly" in policy.err, "a policy's name in a service's place is taken without a word")
    must(new() == ["weekly: shop"], "the policy that can only be meant was not run")
    stack.devstack("backup", "--policy", "regular", "shop", "site", "regular")
    must(new() == ["regular: regular shop site"], "all services of a policy are not its run")
    stack.devstack("backup", "shop", "--policy", "weekly", "--full")
    must(new() == ["weekly: shop"], "`--policy` does not narrow")
    for arguments, said in [
        (["weekly", "site"], "--policy weekly"),
        (["sites"], "there is no service sites"),
        (["--policy", "monthly"], "its policies are: regular, weekly"),
        (["site", "--policy", "weekly"], "not backed up by weekly"),
    ]:
        must(said in stack.devstack("backup", *arguments, expect=3).said, f"`backup {' '.join(arguments)}` is not refused with {said!r}")
    must(new() == [], "what was refused took a run")
    stack.converged()

    part = min(run for run in before if run.endswith(".part"))
    beginning = part[:16]
    shown = stack.devstack("show", beginning)
    must(f"run {part}" in shown.out, "the beginning of an id names no run")
    stack.devstack("verify", beginning)
    stack.devstack("restore", "site", "--backup", beginning, "--to", str(world.folder / "out"))
    must((world.folder / "out").exists(), "nothing came back")
    day = part[:8]
    for arguments in (["show"], ["verify"], ["forget"], ["restore", "site", "--backup"], ["recover", "--dry-run", "--backup"]):
        many = stack.devstack(*arguments, day, expect=3).said
        must("may be any of" in many and "more" in many, f"{arguments}: runs of one day are not told apart: {many}")
        must("too short" in stack.devstack(*arguments, day[:4], expect=3).said, f"{arguments}: a year names a run")
        must("too short" not in stack.devstack(*arguments, "nope", expect={0, 3}).said, f"{arguments}: what names none is too short")
    held = stack.devstack("forget", beginning, "--yes", expect=4)
    must(part in held.said, "the plan does not name the run that is meant")
    stack.devstack("forget", beginning, "--yes", "--approve", "forget:local")
    must(part not in stack.runs(), "the run that was named is still there")


@scenario()
def excludes_are_those_of_git_and_one_that_matches_nothing_is_told(world: World) -> None:
    stack = write_stack(world, world.folder / "stack", services=["  app: { source: { files: { paths: [app], exclude: EXCLUDE } } }"])
    for path in ["a.js", "node_modules/x/y.js", "web/node_modules/z.js", "cache/c", "web/cache/d", "debug.log", "keep.log", "web/tmp/t"]:
        file = stack.folder / "app" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(path)
    patterns = ["node_modules/", "./app/cache", "*.log", "!keep.log", "app/web/tmp/"]
    stack.file.write_text(stack.file.read_text().replace("EXCLUDE", json.dumps(patterns)))
    well = stack.devstack("apply", "--yes")
    must("leaves nothing out" not in well.said, "a pattern that matches is said to match nothing")
    out = world.folder / "out"
    stack.devstack("restore", "app", "--to", str(out))
    came = sorted(path.name for path in out.rglob("*") if path.is_file())
    must(came == ["a.js", "d", "keep.log"], f"not what git would leave in: {came}")
    stack.file.write_text(stack.file.read_text().replace('"node_modules/"', '"node_module/", "./cache"'))
    for verb in ("plan", "backup"):
        said = stack.devstack(verb).said
        for pattern in ("node_module/", "./cache"):
            must(f"`{pattern}`" in said and "leaves nothing out" in said, f"{verb}: {pattern} matches nothing, in silence")
        must("`*.log`" not in said, f"{verb}: a pattern that matches is told")
