"""Where the engine is, and how it is started. Colima is a double here: the real one needs a Mac, and was not tried. So is systemd."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from certificates import EC, openssl
from docker_proxy import tls_door
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


# In ssh's place: it notes where it was to go, and goes to the engine that runs here. No machine afar was tried.
SSH = """\
#!/bin/sh
echo "$*" >>"$SSH_DOUBLE/asked"
case "$*" in *nobody*) echo "ssh: connect to host nobody port 22: Connection refused" >&2; exit 255 ;; esac
unset DOCKER_HOST
exec docker system dial-stdio
"""


def make_certificates(folder: Path) -> None:
    """An authority with a server's and a client's certificate, and somebody else's."""
    folder.mkdir()
    for authority in ("ca", "other"):
        openssl(folder, "req", "-x509", "-days", "2", *EC, "-keyout", f"{authority}-key.pem", "-out", f"{authority}.pem", "-subj", f"/CN={authority}")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    for name, authority in (("server", "ca"), ("cert", "ca"), ("stranger", "other")):
        openssl(folder, "req", "-new", *EC, "-keyout", f"{name}-key.pem", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        openssl(
            folder, "x509", "-req", "-days", "2", "-in", f"{name}.csr", "-CA", f"{authority}.pem", "-CAkey", f"{authority}-key.pem",
            "-CAcreateserial", "-extfile", "names", "-out", f"{name}.pem",
        )


@scenario()
def an_engine_by_ssh_or_with_certificates_is_the_one_that_docker_talks_to(world: World) -> None:
    certificates = world.folder / "certificates"
    make_certificates(certificates)
    with postgres(world) as stack, tls_door(certificates / "ca.pem", certificates / "server.pem", certificates / "server-key.pem") as door:
        sql(stack, "CREATE TABLE t AS SELECT 1 AS x")
        stack.devstack("apply", "--yes")
        sql(stack, "INSERT INTO t VALUES (2)")
        outside = dict(stack.environment)

        def context(name: str, certificate: str) -> None:
            named = {"ca": "ca.pem", "cert": f"{certificate}.pem", "key": f"{certificate}-key.pem"}
            given = ",".join(f"{word}={certificates / file}" for word, file in named.items())
            stack.run(["docker", "context", "create", name, "--docker", f"host={door.address},{given}"])

        stack.environment["DOCKER_CONFIG"] = str(world.folder / "docker")
        context("far", "cert")
        context("stranger", "stranger")

        with world.part("a context with certificates"):
            stack.environment["DOCKER_CONTEXT"] = "far"
            stack.devstack("backup")
            must(door.served > 5, f"the door was used {door.served} times")
            sql(stack, "DROP TABLE t")
            stack.devstack("restore", "postgres", "--in-place", "--without-safety", "--yes", "--approve", "restore:postgres")
            del stack.environment["DOCKER_CONTEXT"]
            must(sql(stack, "SELECT sum(x) FROM t") == "3", "what was taken through the door did not come back")
            stack.environment["DOCKER_CONTEXT"] = "stranger"
            refused = stack.devstack("plan", expect=7).said
            must(door.address in refused and "certificate" in refused, f"the program's own words are missing: {refused}")

        with world.part("certificates by the environment"):
            stack.environment = outside | {"DOCKER_HOST": door.address, "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(world.folder / "path")}
            (world.folder / "path").mkdir()
            for name, file in (("ca", "ca"), ("cert", "cert"), ("key", "cert-key")):
                (world.folder / f"path/{name}.pem").symlink_to(certificates / f"{file}.pem")
            before = door.served
            stack.devstack("backup")
            must(door.served > before + 5, "the door was not used")
            far = stack.devstack("drill", expect=8).said
            must("runs on another" in far, f"a drill there: {far}")

        with world.part("ssh"):
            double = world.folder / "double"
            double.mkdir()
            (double / "ssh").write_text(SSH)
            (double / "ssh").chmod(0o755)
            stack.environment = outside | {
                "PATH": f"{double}:{os.environ['PATH']}", "SSH_DOUBLE": str(double), "DOCKER_HOST": "ssh://me@far:2222",
            }
            stack.devstack("backup")
            asked = (double / "asked").read_text()
            must("-l me -p 2222" in asked and "far docker system dial-stdio" in asked.replace("-- ", ""), f"ssh was asked {asked}")
            stack.environment["DOCKER_HOST"] = "ssh://nobody"
            refused = stack.devstack("plan", expect=7).said
            must("ssh://nobody" in refused and "Connection refused" in refused, f"ssh's own words are missing: {refused}")
        stack.environment = outside
        must(len(good_runs(stack)) == 4, "not every way has left a run")


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
