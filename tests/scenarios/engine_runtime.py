"""Where the engine is, and how it is started. Colima is a double here: the real one needs a Mac, and was not tried. So is systemd."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from engine_postgres import good_runs, postgres, sql
from scenario import World, must, scenario

HERE = Path(__file__).parent

# Says what it was asked, and starts what answers in the virtual machine's place: a door to the engine that runs here.
COLIMA = """\
#!/bin/sh
echo "$*" >>"$COLIMA_DOUBLE/asked"
case $1 in
status) test -S "$COLIMA_DOUBLE/docker.sock" ;;
start)
    python3 "$DOCKER_PROXY" "$COLIMA_DOUBLE/docker.sock" </dev/null >/dev/null 2>&1 &
    echo $! >"$COLIMA_DOUBLE/pid"
    while ! test -S "$COLIMA_DOUBLE/docker.sock"; do sleep 0.01; done
    ;;
esac
"""


@scenario()
def colima_is_started_as_declared_where_no_engine_answers(world: World) -> None:
    with postgres(world) as stack:
        sql(stack, "CREATE TABLE t AS SELECT 1 AS x")
        double = world.folder / "double"
        double.mkdir()
        (double / "colima").write_text(COLIMA)
        (double / "colima").chmod(0o755)
        stack.file.write_text(stack.file.read_text().replace("services:\n", "  colima: { profile: shop, cpu: 4, memory: 8GiB, disk: 61440MiB }\nservices:\n", 1))
        outside = dict(stack.environment)
        stack.environment |= {
            "PATH": f"{double}:{os.environ['PATH']}", "DOCKER_HOST": f"unix://{double}/docker.sock",
            "COLIMA_DOUBLE": str(double), "DOCKER_PROXY": str(HERE / "docker_proxy.py"),
        }
        try:
            seen = stack.devstack("plan", expect=7)
            must("runtime/colima" in seen.said and "start shop" in seen.said, "the plan does not start Colima")
            must("start" not in (double / "asked").read_text() if (double / "asked").exists() else True, "planning started it")
            stack.devstack("apply", "--yes")
            asked = (double / "asked").read_text().splitlines()
            must(asked == ["status --profile shop", "start --profile shop --cpu 4 --memory 8 --disk 60"], f"Colima was asked {asked}")
            must(len(good_runs(stack)) == 1, "nothing was taken after the start")
            stack.devstack("backup")
            must((double / "asked").read_text().splitlines() == asked, "a running engine was started again")
        finally:
            stack.environment = outside
            if (double / "pid").exists():
                os.kill(int((double / "pid").read_text()), signal.SIGTERM)


@scenario()
def the_engine_is_started_by_the_declared_program_where_none_answers(world: World) -> None:
    with postgres(world) as stack:
        sql(stack, "CREATE TABLE t AS SELECT 1 AS x")
        double = world.folder / "double"
        double.mkdir()
        # In the place of `systemctl`: it returns before the engine, which is a door to the one that runs here, answers.
        starter = double / "start"
        starter.write_text('#!/bin/sh\n(sleep 1; exec python3 "$DOCKER_PROXY" "$DOUBLE/docker.sock") </dev/null >/dev/null 2>&1 &\necho $! >"$DOUBLE/pid"\n')
        starter.chmod(0o755)
        text = stack.file.read_text()
        stack.file.write_text(text.replace("docker: {", f"docker: {{ start: [{starter}], ", 1))
        must("start:" in stack.file.read_text(), f"the file has no runtime to add to: {text}")
        outside = dict(stack.environment)
        stack.environment |= {
            "DOCKER_HOST": f"unix://{double}/docker.sock", "DOUBLE": str(double), "DOCKER_PROXY": str(HERE / "docker_proxy.py"),
        }
        try:
            seen = stack.devstack("plan", expect=7).said
            must("runtime/docker" in seen and f"start by `{starter}`" in seen, f"the plan does not start the engine: {seen}")
            must(not (double / "pid").exists(), "planning started it")
            stack.devstack("apply", "--yes")
            must(len(good_runs(stack)) == 1, "nothing was taken after the start")
            pid = (double / "pid").read_text()
            stack.devstack("backup")
            must((double / "pid").read_text() == pid, "a running engine was started again")
        finally:
            stack.environment = outside
            if (double / "pid").exists():
                os.kill(int((double / "pid").read_text()), signal.SIGTERM)


@scenario()
def without_an_engine_each_place_that_was_looked_at_is_named(world: World) -> None:
    with postgres(world) as stack:
        stack.environment["DOCKER_HOST"] = f"unix://{world.folder}/nobody.sock"
        plan = stack.devstack("plan", expect=7)
        must("no Docker engine answers" in plan.said and "nobody.sock" in plan.said, "the place is not named")
        failed = stack.devstack("apply", "--yes", expect=7)
        must("no Docker engine answers" in failed.said, "the cause is not named")
        del stack.environment["DOCKER_HOST"]


@scenario()
def several_compose_files_profiles_env_files_and_the_project_are_honoured(world: World) -> None:
    override = "services:\n  postgres:\n    environment:\n      POSTGRES_DB: ${OTHER_DB}\n"
    with postgres(world, override=override, env_file="OTHER_DB=elsewhere\n") as stack:
        sql(stack, "CREATE TABLE t AS SELECT 1 AS x", database="elsewhere")
        # Without `project` its name is what Compose makes of the files, their variables and the folder.
        text = stack.file.read_text().replace(f", project: {stack.project}", ", env_files: [.env, other.env]")
        must("env_files" in text, "the file was not changed")
        stack.file.write_text(text)
        compose = stack.folder / "docker-compose.yml"
        compose.write_text(f"name: {stack.project}\n" + compose.read_text())
        stack.devstack("apply", "--yes")
        [run] = stack.runs().values()
        must("/databases/elsewhere.dump" in str(run.said), "the database of the second Compose file was not taken")
        (stack.folder / "other.env").unlink()
        broken = stack.devstack("plan", expect=7)
        must("other.env is not there" in broken.said and "runtime.docker.env_files[1]" in broken.said, "the file that is missing is not named")
