//! What `devstack init` makes of Compose files: an engine for each service whose image is known, a volume for the others.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::quoted;
use super::vault::{self, VaultFound};
use crate::runtime::{Compose, Containers, RuntimeError};
use crate::spec::file::{DockerRuntime, Runtime};

/// The files that Compose finds by itself, in its own order.
const FOUND_BY_COMPOSE: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"];
const OVERRIDES: [&str; 4] =
    ["compose.override.yaml", "compose.override.yml", "docker-compose.override.yaml", "docker-compose.override.yml"];

/// A stack as its Compose files describe it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ComposeFacts {
    pub files: Vec<PathBuf>,
    pub project: String,
    pub profiles: Vec<String>,
    pub services: Vec<Found>,
    pub vault: Option<VaultFound>,
}

/// One service of devstack.yaml, found in the Compose files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub name: String,
    /// What the person should know of it, a line each.
    pub about: Vec<String>,
    /// The text of its source: `{ postgres: { … } }`.
    pub source: String,
    /// The Compose services that it is made of, and those that it depends on.
    made_of: Vec<String>,
    depends_on: Vec<String>,
    pub after: Vec<String>,
}

/// Asks `docker compose` what the files in `folder` say. None where there is no Compose file.
pub fn look(folder: &Path) -> Result<Option<ComposeFacts>, RuntimeError> {
    let present = |names: &[&str]| names.iter().find(|name| folder.join(name).is_file()).map(PathBuf::from);
    let Some(file) = present(&FOUND_BY_COMPOSE) else { return Ok(None) };
    let files: Vec<PathBuf> = std::iter::once(file).chain(present(&OVERRIDES)).collect();
    // Services of every profile are looked at: without theirs Compose leaves them out without a word.
    let docker = DockerRuntime { compose: files.clone(), profiles: vec!["*".to_owned()], ..DockerRuntime::default() };
    let Some(compose) = Compose::declared(&docker, folder, None) else { return Ok(None) };
    let written = compose.as_written()?;
    // A variable that must be set and is not stops Compose here; the files as they are written say most of it.
    let filled = compose.resolved().unwrap_or_else(|_| written.clone());
    let mut facts = read(&written, &filled);
    facts.files = files;
    let runtime = Runtime {
        docker: Some(DockerRuntime { project: Some(facts.project.clone()), ..DockerRuntime::default() }),
        colima: None,
    };
    note_what_runs(&mut facts, &Containers::new(Some(&runtime), folder, None));
    Ok(Some(facts))
}

/// Pure: from what Compose prints, as written and with its variables filled in.
pub(super) fn read(written: &Value, filled: &Value) -> ComposeFacts {
    let mut facts = ComposeFacts {
        project: filled["name"].as_str().or(written["name"].as_str()).unwrap_or("stack").to_owned(),
        ..ComposeFacts::default()
    };
    let mut cluster: Vec<(&str, &Value, &Value)> = Vec::new();
    let mut vaults: Vec<(&str, &Value)> = Vec::new();
    let none = serde_json::Map::new();
    for (name, service) in written["services"].as_object().unwrap_or(&none) {
        let filled = if filled["services"][name].is_object() { &filled["services"][name] } else { service };
        for profile in service["profiles"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !facts.profiles.iter().any(|known| known == profile) {
                facts.profiles.push(profile.to_owned());
            }
        }
        let kind = kind(&text(&filled["image"]));
        if kind == Some("redis") && is_cluster_node(filled) {
            cluster.push((name, service, filled));
        } else if kind == Some("vault") {
            vaults.push((name, filled));
        } else if let Some(found) = service_source(name, kind, service, filled) {
            facts.services.push(found);
        }
    }
    if let Some(found) = redis(&cluster, true) {
        facts.services.push(found);
    }
    facts.vault = vault::find(vaults.into_iter());
    facts.services.sort_by(|a, b| a.name.cmp(&b.name));
    order(&mut facts.services);
    facts
}

/// `${NAME:-otherwise}` as far as it goes without an environment: what stands behind `:-`.
fn text(value: &Value) -> String {
    let text = value.as_str().unwrap_or("");
    let Some(inner) = text.strip_prefix("${").and_then(|text| text.strip_suffix('}')) else { return text.to_owned() };
    inner.split_once(":-").map_or("", |(_, otherwise)| otherwise).to_owned()
}

/// The engine for an image, by the last part of its name.
fn kind(image: &str) -> Option<&'static str> {
    let name = image.split('@').next()?.rsplit('/').next()?.split(':').next()?;
    const KNOWN: [(&str, &str); 11] = [
        ("postgres", "postgres"),
        ("postgis", "postgres"),
        ("timescaledb", "postgres"),
        ("pgvector", "postgres"),
        ("mysql", "mysql"),
        ("percona", "mysql"),
        ("mariadb", "mariadb"),
        ("mongo", "mongodb"),
        ("redis", "redis"),
        ("valkey", "redis"),
        ("rabbitmq", "rabbitmq"),
    ];
    // An exporter of a database's numbers is not the database.
    if ["exporter", "commander", "express", "insight", "admin"].iter().any(|other| name.contains(other)) {
        return None;
    }
    if vault::is_vault(name) {
        return Some("vault");
    }
    KNOWN.iter().find(|(image, _)| name.contains(image)).map(|(_, engine)| *engine)
}

fn is_cluster_node(service: &Value) -> bool {
    // Without a volume it is a helper that runs once.
    has_volume(service) && words(&service["command"]).contains("--cluster-enabled yes")
}

pub(super) fn words(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
        _ => String::new(),
    }
}

fn has_volume(service: &Value) -> bool {
    named_volumes(service).next().is_some()
}

fn named_volumes(service: &Value) -> impl Iterator<Item = (&str, &str)> {
    service["volumes"].as_array().into_iter().flatten().filter_map(|mount| {
        let named = mount["type"] == "volume";
        named.then(|| Some((mount["source"].as_str()?, mount["target"].as_str()?))).flatten()
    })
}

/// A variable of the service's environment that is set, among `names`: the first, with its value.
fn variable<'n>(service: &Value, names: &[&'n str]) -> Option<(&'n str, String)> {
    names.iter().find_map(|name| {
        let value = &service["environment"][*name];
        value.is_string().then(|| (*name, value.as_str().unwrap_or("").to_owned()))
    })
}

/// Where a password is found: by the variable that the Compose file takes it from.
fn password(written: &Value, names: &[&str], about: &mut Vec<String>) -> Option<String> {
    let (name, value) = variable(written, names)?;
    Some(password_in(&value, name, about))
}

/// The password that `value` is, or that it names as Compose does; `name` is what a person would call it.
fn password_in(value: &str, name: &str, about: &mut Vec<String>) -> String {
    let from = variable_of(value).unwrap_or_else(|| {
        about.push(format!("Its password stands in the Compose file: set {name} where devstack runs, or name a file."));
        name.to_owned()
    });
    format!("password: {{ env: {from} }}")
}

/// The name in `${NAME}`, `${NAME:-otherwise}` or `$NAME`.
fn variable_of(value: &str) -> Option<String> {
    let rest = value.strip_prefix('$')?;
    let rest = rest.strip_prefix('{').unwrap_or(rest);
    let name: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
    (!name.is_empty()).then_some(name)
}

/// A Redis that is told its password by `--requirepass`, as an argument or in the variables that some images make arguments of.
fn required_password(written: &Value, about: &mut Vec<String>) -> Option<String> {
    let environment = |name: &str| words(&written["environment"][name]);
    let places = [words(&written["command"]), words(&written["entrypoint"])];
    let places = places.into_iter().chain(["REDIS_ARGS", "VALKEY_EXTRA_FLAGS"].map(environment));
    let given = places.into_iter().find_map(|text| {
        let (_, rest) = text.split_once("--requirepass")?;
        Some(rest.trim_start_matches([' ', '=']).trim_start_matches(['"', '\'']).to_owned())
    })?;
    // `$$NAME` is for the shell in the container, whose environment says where it comes from.
    let value = match given.strip_prefix("$$").and_then(|inner| variable_of(&format!("${inner}"))) {
        Some(name) => environment(&name),
        None => given,
    };
    Some(password_in(&value, "REDIS_PASSWORD", about))
}

fn service_source(name: &str, kind: Option<&str>, written: &Value, filled: &Value) -> Option<Found> {
    let mut about = Vec::new();
    let user = |names: &[&str]| {
        variable(filled, names).map(|(_, value)| value).filter(|value| !value.is_empty() && !value.starts_with('$'))
    };
    let fields = match kind {
        Some("postgres") => {
            let user = user(&["POSTGRES_USER", "POSTGRESQL_USERNAME"]).unwrap_or_else(|| "postgres".to_owned());
            let password = password(written, &["POSTGRES_PASSWORD", "POSTGRESQL_PASSWORD"], &mut about);
            fields([Some(format!("user: {}", quoted(&user))), password])
        }
        Some("mysql" | "mariadb") => {
            let names = ["MYSQL_ROOT_PASSWORD", "MARIADB_ROOT_PASSWORD"];
            fields([Some("user: root".to_owned()), password(written, &names, &mut about)])
        }
        Some("mongodb") => {
            let user = user(&["MONGO_INITDB_ROOT_USERNAME", "MONGODB_ROOT_USER"]);
            let names = ["MONGO_INITDB_ROOT_PASSWORD", "MONGODB_ROOT_PASSWORD"];
            fields([user.map(|user| format!("user: {}", quoted(&user))), password(written, &names, &mut about)])
        }
        Some("redis") => return redis(&[(name, written, filled)], false),
        // It is not taken by the bytes in its volume; see `vault`.
        Some("vault") => return None,
        Some("rabbitmq") => {
            about.push(
                "Definitions: queues, users, rights. Add `messages: true` for messages; the node then stops for it."
                    .into(),
            );
            String::new()
        }
        _ => return volume(name, written, filled),
    };
    let engine = kind?;
    Some(Found {
        name: name.to_owned(),
        about,
        source: format!("{{ {engine}: {{ container: {}{fields} }} }}", quoted(name)),
        made_of: vec![name.to_owned()],
        depends_on: depends_on(filled),
        after: Vec::new(),
    })
}

fn fields<const N: usize>(fields: [Option<String>; N]) -> String {
    fields.into_iter().flatten().map(|field| format!(", {field}")).collect()
}

fn redis(nodes: &[(&str, &Value, &Value)], cluster: bool) -> Option<Found> {
    let (first, written, _) = nodes.first()?;
    // One that keeps nothing needs no backup.
    if !nodes.iter().any(|(_, _, filled)| has_volume(filled)) {
        return None;
    }
    let mut about = Vec::new();
    let password = required_password(written, &mut about)
        .or_else(|| password(written, &["REDIS_PASSWORD", "VALKEY_PASSWORD"], &mut about));
    let names: Vec<String> = nodes.iter().map(|(name, _, _)| quoted(name)).collect();
    let shape = cluster.then(|| "cluster: true".to_owned());
    Some(Found {
        name: if cluster { "redis".to_owned() } else { (*first).to_owned() },
        about,
        source: format!("{{ redis: {{ containers: [{}]{} }} }}", names.join(", "), fields([shape, password])),
        made_of: nodes.iter().map(|(name, _, _)| (*name).to_owned()).collect(),
        depends_on: nodes.iter().flat_map(|(_, _, filled)| depends_on(filled)).collect(),
        after: Vec::new(),
    })
}

/// A service of an unknown kind that keeps something in a named volume.
fn volume(name: &str, _: &Value, filled: &Value) -> Option<Found> {
    let (volume, target) = named_volumes(filled).next()?;
    let mut about =
        vec![format!("{target} in the container. It is stopped while its volume is read, and started again.")];
    for (other, target) in named_volumes(filled).skip(1) {
        about.push(format!("Its volume {other} ({target}) is not in here; declare a service for it if it matters."));
    }
    Some(Found {
        name: name.to_owned(),
        about,
        source: format!("{{ volume: {{ volume: {}, stop: [{}] }} }}", quoted(volume), quoted(name)),
        made_of: vec![name.to_owned()],
        depends_on: depends_on(filled),
        after: Vec::new(),
    })
}

fn depends_on(service: &Value) -> Vec<String> {
    match &service["depends_on"] {
        Value::Object(others) => others.keys().cloned().collect(),
        Value::Array(others) => others.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

/// From Compose's `depends_on`: services that devstack.yaml has too come back before those that need them.
fn order(services: &mut [Found]) {
    let owner: BTreeMap<String, String> =
        services.iter().flat_map(|found| found.made_of.iter().map(|part| (part.clone(), found.name.clone()))).collect();
    for found in services {
        let mut after: Vec<String> = found
            .depends_on
            .iter()
            .filter_map(|name| owner.get(name))
            .filter(|name| **name != found.name)
            .cloned()
            .collect();
        after.sort();
        after.dedup();
        found.after = after;
    }
}

/// What runs now, as a comment: a service that is down is Unknown to the first plan.
fn note_what_runs(facts: &mut ComposeFacts, containers: &Containers) {
    for found in &mut facts.services {
        for part in &found.made_of {
            match containers.look_for(part) {
                Ok(Some(container)) if container.running => {}
                Ok(Some(container)) => found.about.push(format!("{part} is {} now.", container.state)),
                Ok(None) => found.about.push(format!("{part} has no container now.")),
                // Without an engine nothing is known of any of them.
                Err(_) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn stack() -> ComposeFacts {
        let volume = |name: &str, target: &str| json!([{ "type": "volume", "source": name, "target": target }]);
        let node = |name: &str| {
            json!({ "image": "redis:8", "command": ["sh", "-c", "redis-server --cluster-enabled yes"], "profiles": ["standard"],
                    "environment": { "REDIS_PASSWORD": "${REDIS_PASSWORD:?set it}" }, "volumes": volume(name, "/data") })
        };
        let compose = json!({ "name": "shop", "services": {
            "db": { "image": "${PG_IMAGE:-postgres:17}", "environment": { "POSTGRES_USER": "shop", "POSTGRES_PASSWORD": "${PG_PASS}" },
                    "volumes": volume("pg", "/var/lib/postgresql/data"), "profiles": ["standard"] },
            "legacy": { "image": "mariadb:11", "environment": { "MARIADB_ROOT_PASSWORD": "in the file" } },
            "pg-exporter": { "image": "quay.io/prometheuscommunity/postgres-exporter" },
            "cache": { "image": "redis:8" },
            "redis-1": node("r1"), "redis-2": node("r2"),
            "redis-init": { "image": "redis:8", "command": "redis-cli --cluster create" },
            "queue": { "image": "rabbitmq:4-management" },
            "forgejo": { "image": "codeberg.org/forgejo/forgejo:12", "volumes": volume("git", "/data"), "depends_on": { "db": {}, "redis-1": {} } },
        }});
        read(&compose, &compose)
    }

    #[test]
    fn each_known_service_gets_its_engine_and_no_password_is_copied() {
        let facts = stack();
        let found = |name: &str| facts.services.iter().find(|found| found.name == name).unwrap().source.clone();
        assert_eq!(found("db"), "{ postgres: { container: db, user: shop, password: { env: PG_PASS } } }");
        assert_eq!(
            found("redis"),
            "{ redis: { containers: [redis-1, redis-2], cluster: true, password: { env: REDIS_PASSWORD } } }"
        );
        assert_eq!(
            found("legacy"),
            "{ mariadb: { container: legacy, user: root, password: { env: MARIADB_ROOT_PASSWORD } } }"
        );
        assert_eq!(found("queue"), "{ rabbitmq: { container: queue } }");
        assert_eq!(found("forgejo"), "{ volume: { volume: git, stop: [forgejo] } }");
        let names: Vec<&str> = facts.services.iter().map(|found| found.name.as_str()).collect();
        assert_eq!(names, ["db", "forgejo", "legacy", "queue", "redis"]);
        assert!(!format!("{facts:?}").contains("in the file\""));
    }

    #[test]
    fn a_redis_is_asked_with_the_password_that_its_command_sets() {
        let volume = json!([{ "type": "volume", "source": "r", "target": "/data" }]);
        for (command, environment, wanted, told) in [
            (
                json!("redis-server --requirepass ${CACHE_PASSWORD:?set it} --appendonly yes"),
                json!({}),
                "CACHE_PASSWORD",
                false,
            ),
            (json!(["redis-server", "--requirepass", "${CACHE_PASSWORD}"]), json!({}), "CACHE_PASSWORD", false),
            (
                json!(["redis-server", "--requirepass", "$CACHE_PASSWORD", "--save", ""]),
                json!({}),
                "CACHE_PASSWORD",
                false,
            ),
            (
                json!(["sh", "-c", "exec redis-server --requirepass \"$$PASS\""]),
                json!({ "PASS": "${CACHE_PASSWORD}" }),
                "CACHE_PASSWORD",
                false,
            ),
            (json!(["redis-server", "--requirepass", "hunter2"]), json!({}), "REDIS_PASSWORD", true),
            (json!(null), json!({ "REDIS_ARGS": "--requirepass ${CACHE_PASSWORD}" }), "CACHE_PASSWORD", false),
            (json!(null), json!({ "REDIS_PASSWORD": "${CACHE_PASSWORD-}" }), "CACHE_PASSWORD", false),
        ] {
            let service =
                json!({ "image": "redis:8", "command": command, "environment": environment, "volumes": volume });
            let compose = json!({ "name": "shop", "services": { "cache": service } });
            let facts = read(&compose, &compose);
            let found = &facts.services[0];
            assert_eq!(
                found.source,
                format!("{{ redis: {{ containers: [cache], password: {{ env: {wanted} }} }} }}"),
                "{command}"
            );
            assert_eq!(found.about.iter().any(|line| line.contains("stands in the Compose file")), told, "{command}");
            assert!(!format!("{facts:?}").contains("hunter2"));
        }
    }

    #[test]
    fn what_compose_depends_on_comes_before() {
        let facts = stack();
        let forgejo = facts.services.iter().find(|found| found.name == "forgejo").unwrap();
        assert_eq!(forgejo.after, ["db", "redis"]);
        assert_eq!(facts.profiles, ["standard"]);
    }
}
