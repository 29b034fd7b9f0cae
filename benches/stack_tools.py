"""What `benches/stack` compares: devstack, borgmatic with borg, a script of dump, zstd and gpg, and the bare dumps."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from datetime import datetime
from pathlib import Path

from compose_stack import CACHE, ComposeStack
from stack_data import IMPORT, REDIS_NODES, Volume
from tools import PASSWORD, seconds

BACKUP, AGAIN, RESTORE = "backup", "second backup, 1 % changed", "restore in place"
BORGMATIC = CACHE / "borgmatic/bin/borgmatic"

# Words of a shell that say whom to ask: a container's id in a variable, passwords by name.
POSTGRES = 'docker exec -i "$C_postgres"'
MYSQL = 'MYSQL_PWD="$MYSQL_ROOT_PASSWORD" docker exec -i -e MYSQL_PWD "$C_mysql"'
MARIADB = 'MYSQL_PWD="$MARIADB_ROOT_PASSWORD" docker exec -i -e MYSQL_PWD "$C_mariadb"'
RABBITMQ = 'docker exec -i "$C_rabbitmq"'

# The password comes through a pipe, as the tools take it from a file only.
MONGO_INSIDE = 'tool=$1; shift; exec "$tool" --username=root --authenticationDatabase=admin --config=/dev/fd/3 "$@" 3<<END\npassword: "$P"\nEND\n'
MONGODB = f'P="$MONGO_ROOT_PASSWORD" docker exec -i -e P "$C_mongodb" sh -c {shlex.quote(MONGO_INSIDE)} sh'


def redis(node: str) -> str:
    return f'REDISCLI_AUTH="$REDIS_PASSWORD" docker exec -i -e REDISCLI_AUTH "$C_{variable(node)}"'


def variable(service: str) -> str:
    return service.replace("-", "_")


# How the same data is dumped by hand: a file's name, and the command that writes it.
DUMPS: dict[str, list[tuple[str, str]]] = {
    "postgres": [("postgres.sql", f"{POSTGRES} pg_dump -U shop --clean --if-exists shop")],
    "mysql": [("mysql.sql", f"{MYSQL} mysqldump -u root --single-transaction --set-gtid-purged=OFF --routines --events --databases shop")],
    "mariadb": [("mariadb.sql", f"{MARIADB} mariadb-dump -u root --single-transaction --routines --events --databases shop")],
    "mongodb": [("mongodb.archive", f"{MONGODB} mongodump --quiet --db=shop --archive")],
    # Behind the last byte redis-cli leaves the forty digits that its server marks the end with.
    "redis": [(f"{node}.rdb", f"{redis(node)} redis-cli --rdb - | head -c -40") for node in REDIS_NODES],
    "rabbitmq": [("rabbitmq.json", f"{RABBITMQ} rabbitmqctl -q export_definitions - --format json")],
    "volume": [("volume.tar", 'docker exec -i "$C_forgejo" tar -C /data -cf - .')],
}

# How they are put back: a command that reads the dump.
PUT_BACK = {
    "postgres.sql": f"{POSTGRES} psql -q -X -U shop -d shop -v ON_ERROR_STOP=1 --single-transaction -o /dev/null",
    "mysql.sql": f"{MYSQL} mysql -u root",
    "mariadb.sql": f"{MARIADB} mariadb -u root",
    "mongodb.archive": f"{MONGODB} mongorestore --quiet --drop --stopOnError --archive",
    **{f"{node}.rdb": f'put_rdb "$C_{variable(node)}"' for node in REDIS_NODES},
    "rabbitmq.json": f'docker exec -i --user rabbitmq "$C_rabbitmq" sh -c {shlex.quote(IMPORT)}',
    "volume.tar": 'docker exec -i "$C_forgejo" tar -C /data -xf -',
}

# A node loads the file that its append-only log begins with, so the dump becomes that; then the cluster has to agree.
REDIS_FUNCTIONS = r"""
put_rdb() {
  docker exec -i --user redis "$1" sh -c 'rm -rf /data/new && mkdir /data/new && cat >/data/new/appendonly.aof.1.base.rdb &&
    echo "file appendonly.aof.1.base.rdb seq 1 type b" >/data/new/appendonly.aof.manifest'
  docker stop "$1" >/dev/null
  docker run --rm --volumes-from "$1" --entrypoint sh "$REDIS_IMAGE" -c 'rm -rf /data/appendonlydir && mv /data/new /data/appendonlydir'
  docker start "$1" >/dev/null
}
await_cluster() {
  local node
  for node; do
    until REDISCLI_AUTH="$REDIS_PASSWORD" docker exec -e REDISCLI_AUTH "$node" redis-cli cluster info 2>/dev/null | grep -q cluster_state:ok; do
      sleep 0.1
    done
  done
}
"""
AWAIT_CLUSTER = "await_cluster " + " ".join(f'"$C_{variable(node)}"' for node in REDIS_NODES)

# What devstack runs, with the options of its engines.
MYSQL_OPTIONS = (
    "--max-allowed-packet=1G --single-transaction --quick --routines --events --triggers --hex-blob --complete-insert"
    " --no-tablespaces --tz-utc --skip-dump-date --comments"
)
PG_DUMP = "pg_dump --username=shop --format=custom --compress=0 shop"
BARE: dict[str, list[tuple[str, str]]] = {
    "postgres": [(POSTGRES, "pg_dumpall --username=shop --globals-only"), (POSTGRES, PG_DUMP)],
    "mysql": [(MYSQL, f"mysqldump --user=root {MYSQL_OPTIONS} --set-gtid-purged=OFF --column-statistics --databases shop")],
    "mariadb": [(MARIADB, f"mariadb-dump --user=root {MYSQL_OPTIONS} --databases shop")],
    "mongodb": [(MONGODB, f"mongodump --quiet --db={name} --numParallelCollections=1 --archive") for name in ("admin", "shop")],
    "redis": [(redis(node), "redis-cli --rdb -") for node in REDIS_NODES],
    "rabbitmq": [(RABBITMQ, "rabbitmqctl -q export_definitions - --format json")],
}
# tar writes nothing at all where it sees that it writes to /dev/null.
VOLUME_OUT, VOLUME_INSIDE = 'docker cp "$C_forgejo:/data" -', "docker exec \"$C_forgejo\" sh -c 'tar -C /data -cf - . | cat >/dev/null'"


class StackTool:
    """One tool for one round, with a home of its own."""

    name = "?"
    phases: tuple[str, ...] = (BACKUP, AGAIN, RESTORE)

    def __init__(self, home: Path, stack: ComposeStack, services: list[str], containers: dict[str, str]) -> None:
        self.home, self.stack, self.services = home, stack, services
        self.folder: Path | None = stack.folder
        self.environment = stack.whole_environment() | {f"C_{variable(k)}": v for k, v in containers.items()}
        self.environment |= {name: stack.variables[name] for name in stack.variables if "PASSWORD" in name or name == "REDIS_IMAGE"}

    @property
    def repository(self) -> Path | None:
        return self.home / "repository"

    def prepare(self) -> None:
        """What a user does once: not measured."""

    def command(self, phase: str) -> list[str]:
        raise NotImplementedError

    def inner(self, phase: str) -> dict[str, float]:
        """Times that the tool itself wrote down, by the name that they are shown under."""
        return {}

    def close(self) -> None:
        """Ends what runs on."""

    def script(self, name: str, text: str) -> Path:
        path = self.home / name
        path.write_text(f"#!/usr/bin/env bash\nset -euo pipefail\n{text}")
        path.chmod(0o700)
        return path

    def secret(self, name: str) -> Path:
        path = self.home / name
        path.touch(mode=0o600)
        path.write_text(PASSWORD + "\n")
        return path

    def once(self, command: list[str]) -> None:
        done = subprocess.run(command, env=self.environment, cwd=self.folder, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"`{' '.join(command)[:300]}` ended with {done.returncode}: {done.stderr[-2000:]}")

    @classmethod
    def missing(cls) -> list[str]:
        """Programs that it needs and that are not there."""
        return []


class Devstack(StackTool):
    """Its backups also make the repository, read every run back to prove it, and write manifests: that is in its times.
    The takes alone, from the first one's start to the last one's end in its journal, are told beside."""

    name = "devstack"

    @property
    def repository(self) -> Path:
        return self.stack.repository

    def prepare(self) -> None:
        for path in (self.stack.repository, self.stack.folder / ".devstack", self.stack.folder / ".cache"):
            shutil.rmtree(path, ignore_errors=True)

    def command(self, phase: str) -> list[str]:
        if phase == BACKUP:
            return self.stack.command("apply", "--yes")
        if phase == AGAIN:
            return self.stack.command("backup")
        approved = [word for service in self.services for word in ("--approve", f"restore:{service}")]
        return self.stack.command("restore", *self.services, "--in-place", "--yes", *approved)

    def inner(self, phase: str) -> dict[str, float]:
        records = [record for record in map(json.loads, self.stack.journal.read_text().splitlines()) if "apply" in record]
        if phase == RESTORE:
            ended = [entry for record in records if (entry := record["entry"].get("step_ended")) and entry["verb"] == "restore"]
            return {entry["resource"].split("/")[0]: seconds(entry["took"]) for entry in ended}
        told: dict[str, float] = {}
        for verb in ("take", "prove"):
            moments = [
                # Python reads no more than six digits.
                datetime.fromisoformat(re.sub(r"\.(\d{1,6})\d*", r".\1", record["at"]).replace("Z", "+00:00"))
                for record in records
                if record["apply"] == records[-1]["apply"] and next(iter(record["entry"].values())).get("verb") == verb
            ]
            if moments:
                told[verb] = (max(moments) - min(moments)).total_seconds()
        return told


class Script(StackTool):
    """The script that stacks have today: one service after the other, a file each."""

    name = "script"

    @classmethod
    def missing(cls) -> list[str]:
        return [program for program in ("zstd", "gpg") if shutil.which(program) is None]

    def prepare(self) -> None:
        (self.home / "gnupg").mkdir(mode=0o700)
        self.environment["GNUPGHOME"] = str(self.home / "gnupg")
        self.environment["PASSPHRASE"] = str(self.secret("passphrase"))
        gpg = 'gpg --batch --quiet --yes --pinentry-mode loopback --passphrase-file "$PASSPHRASE"'
        # Its first start makes a key ring and times itself.
        self.once(["bash", "-c", f"echo once | {gpg} --symmetric >/dev/null"])
        dumps = [dump for service in self.services for dump in DUMPS[service]]
        lines = [
            f'{command} | zstd -q -3 | {gpg} --symmetric --cipher-algo AES256 --compress-algo none -o "$1/{file}.zst.gpg"'
            for file, command in dumps
        ]
        self.script(BACKUP, "umask 077; mkdir -p \"$1\"\n" + "\n".join(lines) + "\n")
        lines = [f'{gpg} --decrypt "$1/{file}.zst.gpg" | zstd -q -d | {PUT_BACK[file]}' for file, _ in dumps]
        if "redis" in self.services:
            lines.append(AWAIT_CLUSTER)
        self.script(RESTORE, REDIS_FUNCTIONS + "\n".join(lines) + "\n")

    def command(self, phase: str) -> list[str]:
        assert self.repository
        folder = self.repository / ("first" if phase == BACKUP else "second")
        return [str(self.home / (RESTORE if phase == RESTORE else BACKUP)), str(folder)]

    def close(self) -> None:
        # gpg starts an agent, which would outlive its folder.
        subprocess.run(["gpgconf", "--kill", "gpg-agent"], env=self.environment, capture_output=True)


class Borgmatic(StackTool):
    """Its own hooks for databases, through `docker exec`; the volume as a folder; what it knows nothing of is dumped into a
    folder before. Options are chosen in its favour: dumps uncompressed, so that borg finds what it has."""

    name = "borgmatic"
    by_hand = ("redis", "rabbitmq")

    @classmethod
    def missing(cls) -> list[str]:
        there = [("borg", shutil.which("borg") is not None), ("borgmatic", BORGMATIC.exists())]
        return [name for name, is_there in there if not is_there]

    @property
    def dumped(self) -> Path:
        return self.home / "dumped"

    def prepare(self) -> None:
        for name in ("base", "run", "dumped"):
            (self.home / name).mkdir(mode=0o700)
        self.environment |= {"BORG_BASE_DIR": str(self.home / "base")}
        folders = [str(self.dumped)]
        volume = Volume(self.stack, 0).folder() if "volume" in self.services else None
        folders += [str(volume)] if volume else []
        config: dict[str, object] = {
            "source_directories": folders,
            "repositories": [{"path": str(self.repository), "label": "local"}],
            "encryption_passcommand": f"cat {self.secret('passphrase')}",
            "compression": "zstd,3",
            "user_runtime_directory": str(self.home / "run"),
            "user_state_directory": str(self.home / "state"),
            "archive_name_format": "bench-{now:%Y-%m-%dT%H:%M:%S.%f}",
        }
        by_hand = [dump for service in self.services if service in self.by_hand for dump in DUMPS[service]]
        if by_hand:
            lines = [f'{command} >"{self.dumped}/{file}"' for file, command in by_hand]
            before = self.script("dump-by-hand", "umask 077\n" + "\n".join(lines) + "\n")
            config["commands"] = [{"before": "action", "when": ["create"], "run": [str(before)]}]
        config |= self.databases()
        path = self.home / "config.yaml"
        # JSON is YAML.
        path.write_text(json.dumps(config, indent=1))
        path.chmod(0o600)
        self.base = [str(BORGMATIC), "--config", str(path)]
        self.once([*self.base, "repo-create", "--encryption", "repokey-blake2"])
        self.write_restore(by_hand, volume)

    def write_restore(self, by_hand: list[tuple[str, str]], volume: Path | None) -> None:
        borgmatic = shlex.join(self.base)
        lines = [f"{borgmatic} restore --archive latest"] if self.databases() else []
        if volume:
            lines.append(f"{borgmatic} extract --archive latest --destination / --path {str(volume).lstrip('/')}")
        if by_hand:
            out = self.home / "extracted"
            lines.append(f"mkdir {out}")
            lines.append(f"{borgmatic} extract --archive latest --destination {out} --path {str(self.dumped).lstrip('/')}")
            lines += [f'{PUT_BACK[file]} <"{out}{self.dumped}/{file}"' for file, _ in by_hand]
        if "redis" in self.services:
            lines.append(AWAIT_CLUSTER)
        self.script("put-back", REDIS_FUNCTIONS + "\n".join(lines) + "\n")

    def databases(self) -> dict[str, list[dict[str, object]]]:
        made: dict[str, list[dict[str, object]]] = {}

        def wrapper(name: str, text: str) -> str:
            return str(self.script(name, text))

        if "postgres" in self.services:
            made["postgresql_databases"] = [
                {
                    "name": "shop", "username": "shop", "format": "custom", "compression": 0,
                    "pg_dump_command": wrapper("pg_dump", f'{POSTGRES} pg_dump "$@"\n'),
                    "pg_restore_command": wrapper("pg_restore", f'{POSTGRES} pg_restore "$@"\n'),
                    "psql_command": wrapper("psql", f'{POSTGRES} psql "$@"\n'),
                }
            ]
        for service, key, inside, dump in (("mysql", "mysql", MYSQL, "mysqldump"), ("mariadb", "mariadb", MARIADB, "mariadb-dump")):
            if service in self.services:
                # It names its pipe, which lies on the host, to the program in the container.
                redirected = (
                    'given=(); out=/dev/stdout\nwhile (($#)); do case $1 in --result-file) out=$2; shift 2 ;;'
                    f' *) given+=("$1"); shift ;; esac; done\n{inside} {dump} "${{given[@]}}" >"$out"\n'
                )
                made[f"{key}_databases"] = [
                    {
                        "name": "shop", "username": "root", "password": f"${{{service.upper()}_ROOT_PASSWORD}}",
                        "password_transport": "environment",
                        f"{key}_dump_command": wrapper(dump, redirected),
                        # Without it a server that counts transactions refuses its own dump.
                        **({"options": "--set-gtid-purged=OFF"} if service == "mysql" else {}),
                        f"{key}_command": wrapper(f"{service}-client", f'{inside} {service} "$@"\n'),
                    }
                ]
        if "mongodb" in self.services:
            made["mongodb_databases"] = [
                {
                    "name": "shop",
                    "mongodump_command": wrapper("mongodump", f'{MONGODB} mongodump "$@"\n'),
                    "mongorestore_command": wrapper("mongorestore", f'{MONGODB} mongorestore "$@"\n'),
                }
            ]
        return made

    def command(self, phase: str) -> list[str]:
        return [str(self.home / "put-back")] if phase == RESTORE else [*self.base, "create"]


class Floor(StackTool):
    """devstack's dumps, all side by side, brought out of the containers and thrown away: nothing that backs up by dumps
    can be quicker."""

    name = "floor"
    phases = (BACKUP,)

    @property
    def repository(self) -> None:
        return None

    def lines(self) -> list[tuple[str, str]]:
        made = [(service, f"{inside} {dump} >/dev/null") for service in self.services for inside, dump in BARE.get(service, [])]
        return made + ([("volume", f"{VOLUME_OUT} >/dev/null")] if "volume" in self.services else [])

    def prepare(self) -> None:
        (self.home / "took").mkdir()
        jobs = "".join(
            f'{{ {line}; echo "$((($(date +%s%N) - began) / 1000000))" >"$took/{service}-{number}"; }} & jobs+=($!)\n'
            for number, (service, line) in enumerate(self.lines())
        )
        self.script("dump", f'took="{self.home}/took"; began=$(date +%s%N); jobs=()\n{jobs}for job in "${{jobs[@]}}"; do wait "$job"; done\n')

    def command(self, phase: str) -> list[str]:
        return [str(self.home / "dump")]

    def inner(self, phase: str) -> dict[str, float]:
        took: dict[str, float] = {}
        for path in (self.home / "took").iterdir():
            service = path.name.rsplit("-", 1)[0]
            took[service] = max(took.get(service, 0.0), int(path.read_text()) / 1000)
        return dict(sorted(took.items(), key=lambda one: -one[1]))


class FloorInside(Floor):
    """The same, thrown away inside of the containers already."""

    name = "floor inside"

    def lines(self) -> list[tuple[str, str]]:
        made = []
        for service in self.services:
            for inside, dump in BARE.get(service, []):
                # The client of MongoDB is started by a shell already.
                quiet = f"sh -c {shlex.quote(f'sh -c {shlex.quote(dump)} >/dev/null')}" if service != "mongodb" else dump.replace("--archive", "--archive=/dev/null")
                made.append((service, f"{inside} {quiet}"))
        return made + ([("volume", VOLUME_INSIDE)] if "volume" in self.services else [])


TOOLS: list[type[StackTool]] = [Devstack, Borgmatic, Script, Floor, FloorInside]


def version(tool: str, binary: Path) -> str:
    """What is measured, by its own words."""
    asked = {
        "devstack": [[str(binary), "--version"]],
        "borgmatic": [[str(BORGMATIC), "--version"], ["borg", "--version"]],
        "script": [["zstd", "--version"], ["gpg", "--version"]],
    }
    said = []
    for command in asked.get(tool, []):
        found = re.search(r"\d+(\.\d+)+", subprocess.run(command, capture_output=True, text=True, env=dict(os.environ)).stdout)
        said.append(f"{Path(command[0]).name} {found[0] if found else '?'}")
    return " + ".join(said)
