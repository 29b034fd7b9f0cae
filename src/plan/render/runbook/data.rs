//! How each kind of data goes back by its server's own programs: what its engine does, as far as a person does it by hand on
//! a server that is new.

use std::path::Path;

use super::Book;
use super::shell::{path, quoted, secret, words};
use crate::model::run::{Artifact, Taken};
use crate::spec::file::{
    Login, MongodbSource, MysqlSource, PostgresSource, RabbitmqSource, RedisSource, SecretRef, Source, Tls,
    VaultSource, VolumeSource,
};

/// How many counts are asked for and shown of a service.
const SHOWN: usize = 8;

/// The one folder of an archive that was unpacked, whatever it is called: with its own owner and mode, which the folder that it
/// was unpacked into must not give to its place.
const UNPACKED: &str = "\"$STACK\"/.recovered/*/.";

/// One service's way back.
#[derive(Default)]
pub(super) struct Way {
    pub words: Vec<String>,
    pub commands: Vec<String>,
    /// Commands that show whether it worked.
    pub check: Vec<String>,
}

impl Book<'_> {
    /// `restic` is the shell's function that reads from the repository.
    pub(super) fn way(&self, source: &Source, restic: &str, taken: &Taken) -> Way {
        let stream = Streams { restic, taken };
        match source {
            Source::Files(_) | Source::Certificates(_) => files(&stream),
            Source::Sqlite(sqlite) => database_file(&sqlite.path, &stream),
            Source::Postgres(it) => self.postgres(it, &stream),
            Source::Mysql(it) => self.mysql(it, "mysql", &stream),
            Source::Mariadb(it) => self.mysql(it, "mariadb", &stream),
            Source::Mongodb(it) => self.mongodb(it, &stream),
            Source::Redis(it) => self.redis(it, &stream),
            Source::Rabbitmq(it) => self.rabbitmq(it, &stream),
            Source::Vault(it) => self.vault(it, &stream),
            Source::Volume(it) => self.volume(it, &stream),
        }
    }

    fn postgres(&self, source: &PostgresSource, streams: &Streams<'_>) -> Way {
        let (user, password) = login(source.restore_as.as_ref(), source.user.as_deref(), "postgres", &source.password);
        let mut variables = vec!["PGPASSWORD"];
        let mut way = Way::default();
        way.commands.push(format!("export PGPASSWORD={}", password.map_or("''".to_owned(), secret)));
        if let Some(Tls { ca, .. }) = &source.tls {
            way.commands.push(format!("export PGHOST=localhost PGSSLMODE=verify-ca PGSSLROOTCERT={}", quoted(ca)));
            variables.extend(["PGHOST", "PGSSLMODE", "PGSSLROOTCERT"]);
        }
        let container = self.container(&source.container);
        let program = |words: &[&str]| exec(&container, &variables, words);
        let psql = program(&["psql", "--no-psqlrc", "--quiet", "-U", user, "-d", "template1"]);
        // Roles first: what is in the databases belongs to them.
        if let Some(artifact) = streams.named("/globals.sql") {
            let known = "Roles that the server has already are reported as errors, and altered all the same.";
            way.words.push(known.to_owned());
            way.commands.push(format!("{} | {psql}", streams.dump(artifact)));
        }
        for artifact in &streams.taken.artifacts {
            let Some(database) = between(&artifact.name, "/databases/", ".dump") else { continue };
            let drop = format!("DROP DATABASE IF EXISTS \"{}\" WITH (FORCE);", database.replace('"', "\"\""));
            way.commands.push(format!("printf '%s\\n' {} | {psql}", quoted(&drop)));
            let load = ["pg_restore", "-U", user, "--create", "--exit-on-error", "-d", "template1"];
            way.commands.push(format!("{} | {}", streams.dump(artifact), program(&load)));
            for (table, rows) in counted(artifact, "rows ") {
                let sql = format!("SELECT count(*) FROM ONLY {table}");
                let count = ["psql", "--no-psqlrc", "-At", "-U", user, "-d", &database, "-c", &sql];
                way.check.push(format!("{}   # {rows}", program(&count)));
            }
        }
        way
    }

    fn mysql(&self, source: &MysqlSource, client: &str, streams: &Streams<'_>) -> Way {
        let (user, password) = login(source.restore_as.as_ref(), source.user.as_deref(), "root", &source.password);
        let mut way = Way::default();
        let container = self.container(&source.container);
        let user = format!("--user={user}");
        let tls = source.tls.as_ref().map(|tls| format!("--ssl-ca={}", tls.ca));
        let mut line = vec![
            client,
            &user,
            "--default-character-set=utf8mb4",
            "--max-allowed-packet=1G",
            "--binary-mode",
            "--comments",
        ];
        if let Some(ca) = &tls {
            line.extend(["--protocol=tcp", "--host=127.0.0.1", ca.as_str()]);
        }
        let load = exec(&container, &["MYSQL_PWD"], &line);
        way.commands.push(format!("export MYSQL_PWD={}", password.map_or("''".to_owned(), secret)));
        let sql = |sql: &str| format!("printf '%s\\n' {} | {load}", quoted(sql));
        way.commands.push(sql("SET GLOBAL max_allowed_packet = 1073741824; SET GLOBAL event_scheduler = OFF;"));
        for name in ["/accounts.sql", "/databases.sql", "/grants.sql"] {
            let Some(artifact) = streams.named(name) else { continue };
            // A grant of a table that is gone is no reason to stop.
            let force = if name == "/grants.sql" { " --force" } else { "" };
            way.commands.push(format!("{} | {load}{force}", streams.dump(artifact)));
            if name == "/accounts.sql" {
                way.words.push(format!(
                    "The accounts are those of the backup from its first lines on, that of {} with the password it had then.",
                    &user["--user=".len()..]
                ));
                way.commands.push(sql("FLUSH PRIVILEGES;"));
            }
            for (table, rows) in counted(artifact, "rows ") {
                way.check.push(format!("{}   # {rows}", sql(&format!("SELECT COUNT(*) FROM {table};"))));
            }
        }
        way.words.push(
            "Restart the server afterwards, or set the event scheduler as it was: `SET GLOBAL event_scheduler = ON;`"
                .to_owned(),
        );
        way
    }

    fn mongodb(&self, source: &MongodbSource, streams: &Streams<'_>) -> Way {
        let (user, password) = match &source.restore_as {
            Some(login) => (Some(login.user.as_str()), login.password.as_ref()),
            None => (source.user.as_deref(), source.password.as_ref()),
        };
        let mut way = Way::default();
        let container = self.container(&source.container);
        let user = user.map(|user| format!("--username={user}"));
        let database = format!("--authenticationDatabase={}", source.auth_database.as_deref().unwrap_or("admin"));
        let archives = streams.taken.artifacts.iter();
        let archives = archives.filter_map(|it| Some((between(&it.name, "/databases/", ".archive")?, it)));
        // Users last: from then on the login may be another.
        let (users, data): (Vec<_>, Vec<_>) = archives.partition(|(name, _)| name == "admin");
        for (name, artifact) in data.into_iter().chain(users) {
            let mut line = vec!["mongorestore"];
            if let Some(user) = &user {
                line.extend([user.as_str(), &database]);
            }
            line.push("--archive");
            // Of users and roles none is dropped, the one that is logged in least of all.
            if name != "admin" {
                line.push("--drop");
            }
            let load = exec(&container, &[], &line);
            let dump = streams.dump(artifact);
            way.commands.push(match password {
                Some(password) => format!("{{ printf '%s\\n' {}; {dump}; }} | {load}", secret(password)),
                None => format!("{dump} | {load}"),
            });
        }
        if password.is_some() {
            way.words.push("The first line that `mongorestore` reads is the password.".to_owned());
        }
        way
    }

    fn redis(&self, source: &RedisSource, streams: &Streams<'_>) -> Way {
        let mut way = Way::default();
        let mut places: Vec<(String, &Artifact)> = Vec::new();
        for artifact in &streams.taken.artifacts {
            if artifact.name == "/dump.rdb" {
                places.extend(source.containers.first().map(|name| (self.container(name), artifact)));
            } else if let Some(name) = between(&artifact.name, "/masters/", ".rdb") {
                let known = source.containers.iter().find(|it| **it == name || self.container(it) == name);
                places.push((known.map_or(name, |known| self.container(known)), artifact));
            }
        }
        let port = source.port.unwrap_or(6379).to_string();
        let password = source.restore_as.as_ref().map_or(source.password.as_ref(), |login| login.password.as_ref());
        way.commands.extend(password.map(|password| format!("export REDISCLI_AUTH={}", secret(password))));
        if let Some(slots) = streams.named("/slots.json") {
            let name = |artifact: &Artifact| between(&artifact.name, "/masters/", ".rdb").unwrap_or_default();
            let masters: Vec<_> = places.iter().map(|(container, it)| (name(it), container.as_str())).collect();
            way.words.push(
                "First the nodes, which are new and empty, form the cluster that they were: each gets the slots of its own dump, then they meet. \
                 Replicas are added afterwards: `CLUSTER REPLICATE`."
                    .to_owned(),
            );
            way.commands.extend(cluster(&streams.dump(slots), &masters, &port));
        }
        way.words.push(
            "The data is laid where Redis 7 and newer look for it with an append-only file (`appendonlydir/`) and where they look without \
             one (`dump.rdb`), in `/data`; mind `dir` and `appendfilename` of the server's settings."
                .to_owned(),
        );
        let containers: Vec<&str> = places.iter().map(|(container, _)| container.as_str()).collect();
        way.commands.push(format!("docker stop {}", words(containers.iter().copied())));
        for (container, artifact) in &places {
            way.commands.extend([
                "mkdir -p \"$STACK\"/.recovered/appendonlydir".to_owned(),
                format!("{} >\"$STACK\"/.recovered/dump.rdb", streams.dump(artifact)),
                "cp \"$STACK\"/.recovered/dump.rdb \"$STACK\"/.recovered/appendonlydir/appendonly.aof.1.base.rdb"
                    .to_owned(),
                ": >\"$STACK\"/.recovered/appendonlydir/appendonly.aof.1.incr.aof".to_owned(),
                "printf 'file appendonly.aof.1.%s type %s\\n' 'base.rdb seq 1' b 'incr.aof seq 1' i \
                 >\"$STACK\"/.recovered/appendonlydir/appendonly.aof.manifest"
                    .to_owned(),
                format!("docker cp \"$STACK\"/.recovered/dump.rdb {}:/data/", quoted(container)),
                format!("docker cp \"$STACK\"/.recovered/appendonlydir {}:/data/", quoted(container)),
                "rm -r \"$STACK\"/.recovered".to_owned(),
            ]);
        }
        way.commands.push(format!("docker start {}", words(containers.iter().copied())));
        for (container, artifact) in &places {
            let keys = artifact.counts.get("keys").map_or(0, |count| count.value);
            let ask = exec(container, &["REDISCLI_AUTH"], &["redis-cli", "-p", &port, "INFO", "keyspace"]);
            way.check.push(format!("{ask}   # {keys} keys; fewer where some have expired"));
        }
        way
    }

    fn rabbitmq(&self, source: &RabbitmqSource, streams: &Streams<'_>) -> Way {
        let container = self.container(&source.container);
        let mut way = Way::default();
        if let Some(artifact) = streams.named("/data.tar") {
            way.words.push(
                "The node's name must be what it was (`/node.json` of the snapshot has it), or RabbitMQ looks into another folder.".to_owned(),
            );
            way.commands.extend([
                format!("docker stop {}", quoted(&container)),
                unpacked(streams, artifact),
                format!("docker cp -a {UNPACKED} {}:/var/lib/rabbitmq/mnesia", quoted(&container)),
                "rm -r \"$STACK\"/.recovered".to_owned(),
                format!("docker start {}", quoted(&container)),
            ]);
        } else if let Some(artifact) = streams.named("/definitions.json") {
            way.words.push(
                "RabbitMQ 4.0 exports the objects inside operator policies and global parameters as lists of pairs and does not read them again: \
                 where the import complains of them, turn them into objects in the file first."
                    .to_owned(),
            );
            let import = exec(&container, &[], &["sh", "-c", "cat | rabbitmqctl import_definitions /dev/stdin"]);
            way.commands.push(format!("{} | {import}", streams.dump(artifact)));
        }
        way.check.push(exec(&container, &[], &["rabbitmqctl", "--quiet", "list_queues", "name", "messages"]));
        way
    }

    fn volume(&self, source: &VolumeSource, streams: &Streams<'_>) -> Way {
        let mut way = Way::default();
        let Some(artifact) = streams.named("/volume.tar") else { return way };
        let model = self.model();
        match (&source.volume, &source.container, &source.path) {
            (Some(volume), _, _) => {
                let full = model.map(|model| format!("{}_{volume}", model.project));
                let mounted = |name: &String| {
                    model.is_some_and(|model| model.services.values().any(|service| service.volumes.contains(name)))
                };
                let real = full.filter(mounted).unwrap_or_else(|| volume.clone());
                let by = model.and_then(|model| model.mounting(volume).next()).map(str::to_owned);
                let by = by.or_else(|| source.stop.first().cloned()).unwrap_or_else(|| volume.clone());
                way.words.push(format!(
                    "The volume `{real}` is filled by the `tar` of the image that mounts it; where that has none, name another image."
                ));
                way.commands.push(format!(
                    "IMAGE=$(docker inspect --format '{{{{.Image}}}}' {})",
                    quoted(&self.container(&by))
                ));
                way.commands.push(format!(
                    "{} |\n  docker run --rm --interactive --user 0 --network none --entrypoint tar --volume {}:/volume \"$IMAGE\" \
                     -x -p --numeric-owner -C / -f -",
                    streams.dump(artifact),
                    quoted(&real)
                ));
                way.check.push(format!(
                    "docker run --rm --user 0 --network none --entrypoint find --volume {}:/volume \"$IMAGE\" /volume -type f | wc -l{}",
                    quoted(&real),
                    artifact.counts.get("files").map_or_else(String::new, |files| format!("   # {}", files.value))
                ));
            }
            (None, Some(container), Some(folder)) => {
                way.commands.extend([
                    unpacked(streams, artifact),
                    format!("docker cp -a {UNPACKED} {}", quoted(&format!("{}:{folder}", self.container(container)))),
                    "rm -r \"$STACK\"/.recovered".to_owned(),
                ]);
            }
            (None, _, _) => {}
        }
        way
    }

    fn vault(&self, source: &VaultSource, streams: &Streams<'_>) -> Way {
        let mut way = Way::default();
        let container = self.container(&source.container);
        let address = self.spec.vault.as_ref().map_or("", |vault| vault.address.as_str());
        way.commands.push(format!("export VAULT_ADDR={}", quoted(address)));
        if let Some(ca) = self.spec.vault.as_ref().and_then(|vault| vault.ca.as_ref()) {
            way.commands.push(format!("export VAULT_CACERT={}", path(ca)));
        }
        let escrow = [
            (
                "/keys.age",
                "age --decrypt --identity age-identity.txt",
                "the age identity of the escrow, as the file `age-identity.txt`",
            ),
            ("/keys.gpg", "gpg --decrypt", "the secret gpg key of the escrow"),
        ];
        if let Some((artifact, decrypt, needs)) =
            escrow.iter().find_map(|(name, decrypt, needs)| Some((streams.named(name)?, decrypt, needs)))
        {
            way.words.push(format!(
                "Vault's key files come first: with {needs}. They are unpacked into `$PRIVATE/vault`, where `stack/` is the stack's folder, `home/` \
                 the home folder, and `root/` the root; put each in its place."
            ));
            way.commands.push(format!(
                "mkdir \"$PRIVATE\"/vault && {} | {decrypt} | tar -x -p -C \"$PRIVATE\"/vault",
                streams.dump(artifact)
            ));
        }
        if let Some(artifact) = streams.named("/storage.snapshot") {
            way.words.push(
                "A new, empty server is opened with a throw-away key, takes the snapshot, and is then the old Vault, with the old keys.".to_owned(),
            );
            way.commands.extend([
                format!("{} >\"$PRIVATE\"/vault.snapshot", streams.dump(artifact)),
                "vault operator init -key-shares=1 -key-threshold=1   # note the key and the root token: they are good for the next two lines".to_owned(),
                "vault operator unseal && vault login".to_owned(),
                "vault operator raft snapshot restore -force \"$PRIVATE\"/vault.snapshot".to_owned(),
                format!("docker restart {}", quoted(&container)),
            ]);
        }
        if let Some(artifact) = streams.named("/storage.tar") {
            let folder = source.path.as_deref().unwrap_or("/vault/file");
            way.commands.extend([
                format!("docker stop {}", quoted(&container)),
                unpacked(streams, artifact),
                format!("docker cp -a {UNPACKED} {}", quoted(&format!("{container}:{folder}"))),
                "rm -r \"$STACK\"/.recovered".to_owned(),
                format!("docker start {}", quoted(&container)),
            ]);
        }
        way.words.push(
            "Unseal with the old keys: as many different ones as the threshold (`\"threshold\"` in `/inventory.json` of the snapshot), one `vault operator unseal` \
             for each. Then issue the secret-ids of the services anew: `vault write -f auth/approle/role/ROLE/secret-id`."
                .to_owned(),
        );
        way.commands.push("vault operator unseal   # again and again, until `Sealed` is `false`".to_owned());
        way.check.push("vault status".to_owned());
        if let Some((secret, field)) = source.canary.as_ref().and_then(|canary| canary.rsplit_once('#')) {
            way.check.push(format!("vault kv get -field={} {}", quoted(field), quoted(secret)));
        }
        way
    }
}

/// The streams of one service's snapshot.
struct Streams<'a> {
    restic: &'a str,
    taken: &'a Taken,
}

impl<'a> Streams<'a> {
    fn dump(&self, artifact: &Artifact) -> String {
        format!("{} dump {} {}", self.restic, self.taken.snapshot.short(), quoted(&artifact.name))
    }

    fn named(&self, name: &str) -> Option<&'a Artifact> {
        self.taken.artifacts.iter().find(|artifact| artifact.name == name)
    }
}

/// A cluster of new nodes. `slots` prints which of the masters, by the names that the backup has for them, served which slots: what
/// stands between a name and the end of its ranges is read with no program beside those of any Unix.
fn cluster(slots: &str, masters: &[(String, &str)], port: &str) -> Vec<String> {
    let ask = |container: &str, line: &[&str]| {
        exec(container, &["REDISCLI_AUTH"], &[&["redis-cli", "-p", port, "CLUSTER"], line].concat())
    };
    let mut commands = vec![format!("SLOTS=$({slots} | tr -d ' \\n')")];
    for (nth, (name, master)) in masters.iter().enumerate() {
        let epoch = (nth + 1).to_string();
        commands.push(ask(master, &["SET-CONFIG-EPOCH", &epoch]));
        // Newer servers know ranges; all know single slots.
        commands.push(format!(
            "grep -o {} <<<\"$SLOTS\" | grep -o '[0-9]*,[0-9]*\\]' | tr ',]' '  ' |\n  \
             while read -r from to; do {} $(seq \"$from\" \"$to\") </dev/null; done",
            quoted(&format!("\"container\":\"{name}\"[^}}]*")),
            ask(master, &["ADDSLOTS"])
        ));
    }
    let Some(((_, first), others)) = masters.split_first() else { return commands };
    for (_, other) in others {
        commands.push(format!(
            "{} \"$(docker inspect --format '{{{{range .NetworkSettings.Networks}}}}{{{{.IPAddress}}}}{{{{end}}}}' {})\" {port}",
            ask(first, &["MEET"]),
            quoted(other)
        ));
    }
    commands.push(format!("until {} | grep -q cluster_state:ok; do sleep 1; done", ask(first, &["INFO"])));
    commands
}

fn files(streams: &Streams<'_>) -> Way {
    let restic = streams.restic;
    // Not `cp -a`: folders that are there, the root among them, keep their owners and modes.
    let put = |from: &str, to: &str| {
        let from = format!("\"$STACK\"/.recovered/{from}");
        format!(
            "[ ! -d {from} ] || tar -c --xattrs -C {from} . | tar -x -p --xattrs --numeric-owner --no-overwrite-dir -C {to}"
        )
    };
    let commands = vec![
        format!("{restic} restore {} --target \"$STACK\"/.recovered", streams.taken.snapshot.short()),
        put("stack", "\"$STACK\""),
        put("host", "/"),
        "rm -r \"$STACK\"/.recovered".to_owned(),
    ];
    let words = vec!["What lay in the stack's folder goes there, everything else to where it was. Files that are there are overwritten.".to_owned()];
    Way { words, commands, check: vec![format!("{restic} ls {} | tail -n 5", streams.taken.snapshot.short())] }
}

fn database_file(file: &Path, streams: &Streams<'_>) -> Way {
    let file_path = path(file);
    let mut way = Way::default();
    for artifact in &streams.taken.artifacts {
        way.commands.push(format!("mkdir -p \"$(dirname {file_path})\" && {} >{file_path}", streams.dump(artifact)));
    }
    way.check.push(format!("sqlite3 {file_path} 'PRAGMA integrity_check'   # ok"));
    way
}

/// Who is logged in as, and where the password is found.
fn login<'a>(
    restoring: Option<&'a Login>,
    user: Option<&'a str>,
    usual: &'a str,
    password: &'a Option<SecretRef>,
) -> (&'a str, Option<&'a SecretRef>) {
    match restoring {
        Some(login) => (&login.user, login.password.as_ref()),
        None => (user.unwrap_or(usual), password.as_ref()),
    }
}

/// A program in a container. Variables are handed on by their names, so that no value is an argument.
fn exec(container: &str, variables: &[&str], line: &[&str]) -> String {
    let handed: Vec<&str> = variables.iter().flat_map(|name| ["-e", name]).collect();
    words(["docker", "exec", "-i"].into_iter().chain(handed).chain([container]).chain(line.iter().copied()))
}

fn unpacked(streams: &Streams<'_>, artifact: &Artifact) -> String {
    format!(
        "mkdir \"$STACK\"/.recovered && {} | tar -x -p --numeric-owner -C \"$STACK\"/.recovered",
        streams.dump(artifact)
    )
}

/// The first counts of a kind whose names need no quotes in SQL.
fn counted<'a>(artifact: &'a Artifact, kind: &'a str) -> impl Iterator<Item = (&'a str, u64)> {
    let plain = |name: &str| {
        let lower = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || "_.".contains(letter);
        name.contains('.') && name.chars().all(lower)
    };
    let counts = artifact.counts.iter().filter_map(move |(name, count)| Some((name.strip_prefix(kind)?, count.value)));
    counts.filter(move |(name, _)| plain(name)).take(SHOWN)
}

/// What stands between the two, with percent escapes undone, as the names of artifacts have them.
fn between(name: &str, before: &str, after: &str) -> Option<String> {
    let escaped = name.strip_prefix(before)?.strip_suffix(after)?;
    let mut plain = Vec::with_capacity(escaped.len());
    let mut bytes = escaped.bytes();
    while let Some(byte) = bytes.next() {
        let pair = (byte == b'%').then(|| [bytes.next(), bytes.next()]);
        let decoded = pair.and_then(|pair| match pair {
            [Some(high), Some(low)] => u8::from_str_radix(std::str::from_utf8(&[high, low]).ok()?, 16).ok(),
            _ => None,
        });
        plain.push(decoded.unwrap_or(byte));
    }
    String::from_utf8(plain).ok()
}
