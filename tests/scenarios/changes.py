"""Single changes of a stack, by kind, each with what chance chooses of it: in the Compose files, in the variables, and in the folder.
Those of what runs, of data, of the repository, of devstack.yaml and of the clock are in changes_of_data.py."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from random import Random

from changed_stack import Changed
from compose_stack import images
from stack import wait_until

# What is done, and in words what chance has chosen.
Kind = Callable[[Changed, Random], str]
# What a person has to be told of: data that nothing takes, that is gone, that can't be read or can't come back.
GRAVE: dict[str, Kind] = {}
# What takes nothing from a recovery, or is a day's work: a look that is red over it is one that nobody reads.
SLIGHT: dict[str, Kind] = {}


def grave(made: Kind) -> Kind:
    GRAVE[made.__name__.replace("_", " ")] = made
    return made


def slight(made: Kind) -> Kind:
    SLIGHT[made.__name__.replace("_", " ")] = made
    return made


def word(chance: Random) -> str:
    return "".join(chance.choice("bdfgklmnprst") + chance.choice("aeiou") for _ in range(3))


def write(stack: Changed, name: str, text: str) -> None:
    path = stack.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def end(stack: Changed, name: str, text: str) -> None:
    with (stack.folder / name).open("a") as file:
        file.write(text)


# A line of each service's that another line can be put before or instead of.
MOUNTS = {
    "db": 'volumes: ["db:/var/lib/postgresql/data"]', "web": 'volumes: ["media:/media", ', "worker": 'volumes: ["media:/media", "cache:/cache"]',
}


def mount(stack: Changed, service: str, what: str) -> None:
    old = MOUNTS[service]
    stack.edit("compose.yaml", old, old.replace("[", f'["{what}", ', 1))


def named(stack: Changed, volume: str, how: str = "{}") -> None:
    stack.edit("compose.yaml", "  cache: {}\n", f"  cache: {{}}\n  {volume}: {how}\n")


def service(stack: Changed, line: str) -> None:
    stack.edit("compose.yaml", "  tool: {", f"  {line}\n  tool: {{")


# --- The Compose files.


@grave
def a_volume_is_added(stack: Changed, chance: Random) -> str:
    volume, to = word(chance), chance.choice([*MOUNTS])
    mount(stack, to, f"{volume}:/{volume}")
    named(stack, volume)
    return f"{volume} to {to}"


@grave
def an_external_volume_is_mounted(stack: Changed, chance: Random) -> str:
    volume, to = word(chance), chance.choice([*MOUNTS])
    mount(stack, to, f"{volume}:/{volume}{chance.choice(['', ':ro'])}")
    named(stack, volume, "{ external: true }")
    return f"{volume} to {to}"


def rename_volume(stack: Changed, old: str, new: str) -> None:
    """Wherever the Compose file names it."""
    stack.edit("compose.yaml", f'"{old}:/', f'"{new}:/')
    stack.edit("compose.yaml", f"  {old}: {{}}", f"  {new}: {{}}")


@grave
def a_volume_is_renamed(stack: Changed, chance: Random) -> str:
    old, new = chance.choice(["media", "cache"]), word(chance)
    rename_volume(stack, old, new)
    return f"{old} to {new}"


@slight
def a_database_s_volume_is_renamed(stack: Changed, chance: Random) -> str:
    new = word(chance)
    rename_volume(stack, "db", new)
    return new


@grave
def a_volume_key_stands_for_another_volume(stack: Changed, chance: Random) -> str:
    old, new = chance.choice(["media", "db"]), word(chance)
    stack.edit("compose.yaml", f"  {old}: {{}}", f"  {old}: {{ name: {stack.project}-{new} }}")
    return f"{old} to {new}"


@slight
def a_volume_is_mounted_elsewhere(stack: Changed, chance: Random) -> str:
    new = word(chance)
    stack.edit("compose.yaml", '"media:/media", "./conf', f'"media:/{new}", "./conf')
    return new


@grave
def a_volume_becomes_a_folder(stack: Changed, chance: Random) -> str:
    old, new = chance.choice(["media", "db"]), word(chance)
    stack.edit("compose.yaml", f'"{old}:/', f'"./{new}:/')
    (stack.folder / new).mkdir()
    return f"{old} to {new}"


@grave
def a_database_keeps_its_data_in_memory(stack: Changed, chance: Random) -> str:
    stack.edit("compose.yaml", MOUNTS["db"], "tmpfs: [/var/lib/postgresql/data]")
    return ""


@slight
def a_database_loses_its_mount(stack: Changed, chance: Random) -> str:
    stack.edit("compose.yaml", f"    {MOUNTS['db']}\n", "")
    return ""


@grave
def a_folder_is_bound(stack: Changed, chance: Random) -> str:
    new, to = word(chance), chance.choice([*MOUNTS])
    mount(stack, to, f"./{new}:/{new}{chance.choice(['', ':ro', ':z'])}")
    write(stack, f"{new}/file", "x\n")
    return f"{new} to {to}"


@grave
def a_folder_of_the_machine_is_bound(stack: Changed, chance: Random) -> str:
    new, to = word(chance), chance.choice([*MOUNTS])
    mount(stack, to, f"/opt/{new}:/{new}")
    return f"{new} to {to}"


@grave
def a_bound_folder_is_renamed(stack: Changed, chance: Random) -> str:
    old, new = chance.choice(["conf", "uploads"]), word(chance)
    stack.edit("compose.yaml", f'"./{old}:', f'"./{new}:')
    (stack.folder / old).rename(stack.folder / new)
    return f"{old} to {new}"


@grave
def a_service_is_put_into_a_profile(stack: Changed, chance: Random) -> str:
    profile = word(chance)
    if chance.random() < 0.5:
        stack.edit("more.yaml", "mail: {", f"mail: {{ profiles: [{profile}],")
        return "mail"
    stack.edit("compose.yaml", "  db:\n", f"  db:\n    profiles: [{profile}]\n")
    # Or Compose itself refuses the files.
    stack.edit("compose.yaml", "    depends_on: [db]\n", "")
    return "db"


@slight
def a_service_whose_data_others_hold_too_is_put_into_a_profile(stack: Changed, chance: Random) -> str:
    name = chance.choice(["web", "worker"])
    stack.edit("compose.yaml", f"  {name}:\n", f"  {name}:\n    profiles: [{word(chance)}]\n")
    return name


@grave
def a_service_in_a_profile_brings_a_volume(stack: Changed, chance: Random) -> str:
    name, volume = word(chance), word(chance)
    service(stack, f"{name}: {{ image: x, profiles: [{word(chance)}], volumes: ['{volume}:/{volume}'] }}")
    named(stack, volume)
    return volume


@grave
def a_database_server_is_added(stack: Changed, chance: Random) -> str:
    image = chance.choice(["mariadb:11", "mysql:9", "postgres:17", "mongo:8", "redis:8", "rabbitmq:4", "valkey/valkey:8", "hashicorp/vault:1.20"])
    service(stack, f"{word(chance)}: {{ image: '{image}', profiles: [later] }}")
    return image


@slight
def a_service_without_data_is_added(stack: Changed, chance: Random) -> str:
    service(stack, f"{word(chance)}: {{ image: '${{IMAGE}}', entrypoint: [sleep, infinity], init: true }}")
    return ""


@slight
def a_service_is_renamed(stack: Changed, chance: Random) -> str:
    old, new = chance.choice(["db", "web", "worker"]), word(chance)
    stack.edit("compose.yaml", f"  {old}:\n", f"  {new}:\n")
    if old == "db":
        stack.edit("compose.yaml", "depends_on: [db]", f"depends_on: [{new}]")
    return f"{old} to {new}"


@slight
def a_service_is_removed_from_the_file(stack: Changed, chance: Random) -> str:
    text = (stack.folder / "compose.yaml").read_text()
    name, after = chance.choice([("db", "web:\n"), ("web", "worker:\n"), ("worker", "tool: {")])
    start, stop = text.index(f"  {name}:\n"), text.index(f"  {after}")
    write(stack, "compose.yaml", (text[:start] + text[stop:]).replace("    depends_on: [db]\n", "" if name == "db" else "    depends_on: [db]\n"))
    return name


@slight
def a_health_check_is_broken(stack: Changed, chance: Random) -> str:
    name = chance.choice(["db", "worker"])
    if name == "db":
        stack.edit("compose.yaml", "-U shop -d shop\"], interval: 1s, retries: 30", f"-p {chance.randrange(2000, 5000)}\"], interval: 1s, retries: 1")
    else:
        test = chance.choice(["[CMD, 'false']", "[CMD, no-such-program]", "[CMD-SHELL, 'exit 3']"])
        stack.edit("compose.yaml", "  worker:\n", f"  worker:\n    healthcheck: {{ test: {test}, interval: 1s, retries: 1 }}\n")
    stack.undo.append(lambda: stack.up(name))
    stack.compose("up", "--detach", name)
    status = ("inspect", "--format", "{{.State.Health.Status}}", stack.container(name))
    # One that is broken in the file alone is seen by nobody before it is used.
    wait_until(lambda: stack.docker(*status).strip() == "unhealthy", "its health check to be red")
    return name


@grave
def an_env_file_is_added(stack: Changed, chance: Random) -> str:
    new = f"{word(chance)}/{word(chance)}.env"
    write(stack, new, "X=1\n")
    stack.edit("compose.yaml", "[web.env]", chance.choice([f"[{new}]", f"[web.env, {new}]"]))
    return new


@grave
def a_secret_file_is_added(stack: Changed, chance: Random) -> str:
    key = word(chance)
    write(stack, f"{key}/key", "x\n")
    stack.edit("compose.yaml", "secrets: [token]", f"secrets: [token, {key}]")
    stack.edit("compose.yaml", "  token: {", f"  {key}: {{ file: {key}/key }}\n  token: {{")
    return key


@grave
def a_config_file_is_added(stack: Changed, chance: Random) -> str:
    key = word(chance)
    write(stack, f"{key}.conf", "x\n")
    stack.edit("compose.yaml", "configs: [site]", f"configs: [site, {key}]")
    stack.edit("compose.yaml", "  site: {", f"  {key}: {{ file: {key}.conf }}\n  site: {{")
    return key


@grave
def another_file_is_included(stack: Changed, chance: Random) -> str:
    new = word(chance)
    write(stack, f"{new}.yaml", f"services:\n  {new}: {{ image: x }}\n")
    stack.edit("compose.yaml", "include: [more.yaml]", f"include: [more.yaml, {new}.yaml]")
    return new


@grave
def an_image_is_built_here(stack: Changed, chance: Random) -> str:
    new, of = word(chance), chance.choice(["web", "worker"])
    write(stack, f"{new}/Dockerfile", "FROM x\n")
    stack.edit("compose.yaml", f"  {of}:\n", f"  {of}:\n    build: {new}\n")
    return f"{new} for {of}"


@slight
def an_image_is_another(stack: Changed, chance: Random) -> str:
    of, other = chance.choice(["db", "worker"]), chance.choice(["MARIADB_IMAGE", "REDIS_IMAGE", "VAULT_IMAGE"])
    old = "${POSTGRES_IMAGE}" if of == "db" else "${IMAGE}"
    text = (stack.folder / "compose.yaml").read_text()
    start = text.index(f"  {of}:\n")
    write(stack, "compose.yaml", text[:start] + text[start:].replace(old, images()[other], 1))
    return f"{of} to {other}"


@grave
def the_compose_file_is_broken(stack: Changed, chance: Random) -> str:
    old, new = chance.choice([
        ("services:\n", "services: [\n"), ("volumes:\n  db", "volume:\n  db"), ("  cache: {}\n", ""), ("depends_on: [db]", "depends_on: [nothing]"),
        ("  token: {", "  other: {"), ("init: true", "init: perhaps"),
    ])
    stack.edit("compose.yaml", old, new)
    return new.strip()


@slight
def something_of_a_service_is_changed_that_holds_nothing(stack: Changed, chance: Random) -> str:
    line = chance.choice(["labels: { a: b }", "stop_grace_period: 3s", "environment: { MORE: x }", "restart: unless-stopped", "read_only: false", "hostname: other"])
    stack.edit("compose.yaml", "  worker:\n", f"  worker:\n    {line}\n")
    return line


@grave
def the_compose_file_is_gone_or_called_otherwise(stack: Changed, chance: Random) -> str:
    name = chance.choice(["compose.yaml", "more.yaml"])
    path = stack.folder / name
    if chance.random() < 0.5:
        path.unlink()
        return f"{name} gone"
    path.rename(path.with_name(f"docker-{name}"))
    return f"{name} renamed"


# --- The variables.


@grave
def a_variable_is_removed(stack: Changed, chance: Random) -> str:
    lines = (stack.folder / ".env").read_text().splitlines(True)
    gone = chance.choice(lines)
    write(stack, ".env", "".join(line for line in lines if line != gone))
    return gone.partition("=")[0]


@grave
def a_variable_is_renamed(stack: Changed, chance: Random) -> str:
    name = chance.choice(["IMAGE=", "KEY=", "POSTGRES_PASSWORD="])
    text = (stack.folder / ".env").read_text()
    write(stack, ".env", "".join(f"{word(chance).upper()}_{line}" if line.startswith(name) else line for line in text.splitlines(True)))
    return name


@slight
def a_variable_is_changed(stack: Changed, chance: Random) -> str:
    new = chance.choice(["KEY=other", "KEY=", "KEY='a $b'", f"KEY={word(chance)}"])
    stack.edit(".env", "KEY=k3y", new)
    return new


@slight
def a_variable_is_added(stack: Changed, chance: Random) -> str:
    line = chance.choice([f"{word(chance).upper()}=1", "COMPOSE_PROFILES=tools", "COMPOSE_PROJECT_NAME=other", "COMPOSE_FILE=more.yaml", "# remark"])
    end(stack, ".env", line + "\n")
    return line


@grave
def a_file_of_variables_is_gone(stack: Changed, chance: Random) -> str:
    name = chance.choice([".env", "web.env"])
    (stack.folder / name).unlink()
    return name


# --- The project's folder.

FILES = ("conf/web.conf", "conf/deep/er.conf", "one.conf", "site.conf", "secrets/token", "uploads/a.txt", "uploads/b/c.txt", "web.env")
# Without these nothing can be made anew.
NEEDED = ("one.conf", "site.conf", "secrets/token", "web.env", "data/notes.db", "more.yaml")


@grave
def a_file_that_is_needed_is_gone(stack: Changed, chance: Random) -> str:
    name = chance.choice(NEEDED)
    (stack.folder / name).unlink()
    return name


@slight
def a_file_in_a_folder_is_gone(stack: Changed, chance: Random) -> str:
    name = chance.choice(["conf/web.conf", "conf/deep/er.conf", "uploads/a.txt", "uploads/b/c.txt"])
    (stack.folder / name).unlink()
    return name


@slight
def a_file_is_emptied(stack: Changed, chance: Random) -> str:
    name = chance.choice(FILES)
    write(stack, name, "")
    return name


@grave
def a_file_of_compose_is_emptied(stack: Changed, chance: Random) -> str:
    name = chance.choice(["compose.yaml", ".env", "data/notes.db"])
    write(stack, name, "")
    return name


@slight
def a_file_is_changed(stack: Changed, chance: Random) -> str:
    name = chance.choice(FILES)
    end(stack, name, f"{word(chance)}=1\n")
    return name


@slight
def a_file_is_added(stack: Changed, chance: Random) -> str:
    name = f"{chance.choice(['conf', 'uploads', 'uploads/b', 'secrets'])}/{word(chance)}"
    write(stack, name, word(chance) * chance.randrange(1, 9000))
    return name


@grave
def a_folder_is_gone(stack: Changed, chance: Random) -> str:
    name = chance.choice(["conf", "uploads", "secrets", "data"])
    shutil.rmtree(stack.folder / name)
    return name


@slight
def a_folder_in_a_folder_is_gone(stack: Changed, chance: Random) -> str:
    name = chance.choice(["conf/deep", "uploads/b"])
    shutil.rmtree(stack.folder / name)
    return name


@grave
def a_folder_is_emptied(stack: Changed, chance: Random) -> str:
    name = chance.choice(["conf", "uploads", "secrets", "data"])
    for path in (stack.folder / name).iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return name


@grave
def a_file_is_a_folder_now(stack: Changed, chance: Random) -> str:
    name = chance.choice(["one.conf", "site.conf", "secrets/token", "web.env", "data/notes.db"])
    (stack.folder / name).unlink()
    (stack.folder / name).mkdir()
    return name


@slight
def devstack_s_own_folder_is_gone(stack: Changed, chance: Random) -> str:
    shutil.rmtree(stack.folder / ".devstack")
    return ""


@grave
def the_key_is_gone_or_another(stack: Changed, chance: Random) -> str:
    match chance.randrange(3):
        case 0:
            shutil.rmtree(stack.folder / "key")
            return "gone"
        case 1:
            stack.passphrase.write_text("another\n")
            return "another"
        case _:
            stack.passphrase.write_text("")
            return "empty"
