"""Who is stopped for a backup runs afterwards, and is reached as before: services that share a network, a volume, or a name, and
what lies in memory meanwhile. One stack of a small image for all of it."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from compose_stack import images
from engine_coverage import Held
from scenario import World, must, scenario
from stack import wait_until, write_stack

COMPOSE = """\
x-box: &box
  image: {image}
  user: root
  init: true
  entrypoint: [sleep, infinity]
services:
  vpn: {{ <<: *box, volumes: ["vpn_data:/data"] }}
  leech: {{ <<: *box, network_mode: "service:vpn", depends_on: [vpn] }}
  watcher: {{ <<: *box, init: false, pid: "service:leech", depends_on: [leech] }}
  writer: {{ <<: *box, volumes: ["shared:/data"] }}
  reader: {{ <<: *box, volumes: ["shared:/data"], depends_on: [writer] }}
  many: {{ <<: *box, volumes: ["many_data:/data", "./folder:/folder"], deploy: {{ replicas: 3 }} }}
  memo: {{ <<: *box, volumes: ["mem:/mem", "kept:/data"], tmpfs: [/scratch] }}
  holder: {{ <<: *box, volumes: ["bound:/data"] }}
  binder: {{ <<: *box, volumes: ["./real:/elsewhere"] }}
volumes:
  vpn_data: {{}}
  shared: {{}}
  many_data: {{}}
  kept: {{}}
  mem: {{ driver_opts: {{ type: tmpfs, device: tmpfs }} }}
  bound: {{ driver_opts: {{ type: none, o: bind, device: "{folder}/real" }} }}
"""

SERVICES = [
    "  vpn: { source: { volume: { volume: vpn_data, stop: [vpn] } } }",
    "  shared: { source: { volume: { volume: shared, stop: [writer, reader] } } }",
    "  many: { source: { volume: { volume: many_data, stop: [many] } } }",
    "  folder: { source: { files: { paths: [folder], stop: [many] } } }",
    "  kept: { source: { volume: { volume: kept, stop: [memo] } } }",
]


@contextmanager
def groups(world: World) -> Iterator[Held]:
    folder = world.folder / "stack"
    made = Held(world, folder)
    write_stack(world, folder, services=SERVICES)
    made.project = f"ds-{random.SystemRandom().randbytes(4).hex()}"
    for name in ("folder", "real"):
        (folder / name).mkdir()
        (folder / name / "file").write_text("x")
    (folder / "compose.yaml").write_text(COMPOSE.format(image=images()["FORGEJO_IMAGE"], folder=folder))
    runtime = f"runtime: {{ docker: {{ compose: [compose.yaml], project: {made.project} }} }}\n"
    made.file.write_text(made.file.read_text().replace("services:\n", runtime + "services:\n", 1))
    try:
        yield made
    finally:
        made.docker("compose", "--project-name", made.project, "down", "--volumes", "--remove-orphans", "--timeout", "0", right=False)


def container(stack: Held, service: str) -> str:
    return f"{stack.project}-{service}-1"


def inside(stack: Held, service: str, *command: str) -> str:
    return stack.docker("exec", container(stack, service), *command).strip()


def up(stack: Held) -> int:
    return stack.docker("ps", "--quiet", "--filter", f"label=com.docker.compose.project={stack.project}").count("\n")


def started(stack: Held, service: str) -> str:
    return stack.docker("inspect", "--format", "{{.State.StartedAt}}", container(stack, service)).strip()


def must_be_joined(stack: Held, when: str) -> None:
    net = {service: inside(stack, service, "readlink", "/proc/self/ns/net") for service in ("vpn", "leech")}
    must(net["vpn"] == net["leech"], f"{when} leech is cut off from the network of vpn")
    pid = {service: inside(stack, service, "readlink", "/proc/self/ns/pid") for service in ("leech", "watcher")}
    must(pid["leech"] == pid["watcher"], f"{when} watcher is cut off from the processes of leech")


@scenario()
def nothing_is_down_or_cut_off_after_a_backup(world: World) -> None:
    with groups(world) as stack:
        stack.up()
        for service, path in {"vpn": "/data", "writer": "/data", "many": "/data", "memo": "/data"}.items():
            inside(stack, service, "sh", "-c", f"echo one >{path}/one")
        inside(stack, "memo", "sh", "-c", "echo kept >/mem/note; echo gone >/scratch/note")
        everybody = up(stack)
        must(everybody == 11, f"{everybody} containers run")
        must_be_joined(stack, "from the start")
        with world.part("a network and processes that are shared"):
            before = started(stack, "binder")
            stack.devstack("backup", "vpn", "--yes", expect={0, 8})
            must(up(stack) == everybody, "something is down")
            must_be_joined(stack, "after a backup")
            must(started(stack, "binder") == before, "one that shares nothing was stopped")
        with world.part("a volume that two write"):
            stack.devstack("backup", "shared", "--yes", expect={0, 8})
            must(up(stack) == everybody, "something is down")
            must(started(stack, "reader") > started(stack, "writer"), "what depends on another was started before it")
        with world.part("replicas, for their volume and for their folder"):
            stack.devstack("backup", "many", "folder", "--yes", expect={0, 8})
            must(up(stack) == everybody, "something is down")
        with world.part("what lies in memory is there as it was"):
            before = started(stack, "memo")
            stack.devstack("backup", "kept", "--yes", expect={0, 8})
            must(started(stack, "memo") > before, "it was not stopped")
            must(inside(stack, "memo", "cat", "/mem/note") == "kept", "the volume in memory was emptied")
            must("devstack-visitor" not in stack.docker("ps", "--all", "--format", "{{.Names}}"), "a container of devstack's own is left")
        with world.part("all at once"):
            stack.devstack("apply", "--yes", expect={0, 8})
            must(up(stack) == everybody, "something is down")
            must_be_joined(stack, "after all backups at once")
            must(inside(stack, "memo", "cat", "/mem/note") == "kept", "the volume in memory was emptied")
        with world.part("a source in memory is refused, and nobody is stopped for it"):
            before, text = started(stack, "memo"), stack.file.read_text()
            more = "  mem: { source: { volume: { volume: mem, stop: [memo] } } }\n"
            more += "  scratch: { source: { volume: { container: memo, path: /scratch, stop: [memo] } } }\n"
            stack.file.write_text(text.replace("repositories:", more + "repositories:", 1))
            for service in ("mem", "scratch"):
                said = stack.devstack("backup", service, "--yes", expect=7).said
                must("in memory" in said, f"why {service} is not taken is not told: {said}")
            must(started(stack, "memo") == before, "it was stopped for what lies in memory")
            must(inside(stack, "memo", "cat", "/mem/note") == "kept", "the volume in memory was emptied")
            stack.file.write_text(text)
        with world.part("a volume that is a folder which another container binds"):
            text = stack.file.read_text()
            for volume, stop, other in (("volume: bound", "holder", "binder"), ("container: binder, path: /elsewhere", "binder", "holder")):
                more = f"  bound: {{ source: {{ volume: {{ {volume}, stop: [{stop}] }} }} }}\n"
                stack.file.write_text(text.replace("repositories:", more + "repositories:", 1))
                said = stack.devstack("backup", "bound", "--yes", expect=7).said
                must(f"-{other}-1 may write to" in said, f"the second writer of {volume} is not named: {said}")
            more = "  bound: { source: { files: { paths: [real], stop: [binder] } } }\n"
            stack.file.write_text(text.replace("repositories:", more + "repositories:", 1))
            said = stack.devstack("backup", "bound", "--yes", expect=7).said
            must("-holder-1 may write to" in said, f"who writes through a volume is not named: {said}")
            stack.file.write_text(text)
        with world.part("killed in the middle, the next apply starts all of it in order"):
            inside(stack, "vpn", "sh", "-c", "head -c 300000000 /dev/urandom >/data/large")
            process = stack.start("backup", "vpn", "--yes")
            wait_until(lambda: up(stack) < everybody - 2, "all three to be stopped")
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            stack.devstack("apply", "--yes", expect=None)
            must(up(stack) == everybody, "something is down after a kill")
            must_be_joined(stack, "after a kill")
