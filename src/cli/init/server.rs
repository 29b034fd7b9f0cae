//! The source of a server that devstack has an engine for, with who asks it and by which password.

use serde_json::Value;

use super::compose::{Found, words};
use super::password::{Asked, Place, variable, variable_of};
use super::quoted;
use crate::model::image::Server;

/// A source for one server, and what can't be decided about it.
pub struct Made {
    pub found: Found,
    pub questions: Vec<String>,
}

/// One Compose service.
#[derive(Clone, Copy)]
pub struct Node<'a> {
    pub name: &'a str,
    pub image: &'a str,
    pub asked: Asked<'a>,
}

/// None for Vault, which needs a login that no Compose file tells.
pub fn source(server: Server, node: Node<'_>) -> Option<Made> {
    let mut about = Vec::new();
    let mut questions = Vec::new();
    let fields = match server {
        Server::Postgres => postgres(node, &mut questions),
        Server::Mysql | Server::Mariadb => mysql(server, node, &mut questions),
        Server::Mongodb => mongodb(node, &mut questions),
        Server::Redis => return redis(&[node], false),
        Server::Rabbitmq => {
            about.push(
                "Definitions: queues, users, rights. Add `messages: true` for messages; the node then stops for it."
                    .to_owned(),
            );
            Vec::new()
        }
        Server::Vault => return None,
    };
    let fields: String = fields.into_iter().map(|field| format!(", {field}")).collect();
    let source = format!("{{ {}: {{ container: {}{fields} }} }}", server.engine(), quoted(node.name));
    let found =
        Found { name: node.name.to_owned(), about, source, made_of: vec![node.name.to_owned()], after: Vec::new() };
    Some(Made { found, questions })
}

fn postgres(node: Node<'_>, questions: &mut Vec<String>) -> Vec<String> {
    let image = node.image.to_ascii_lowercase();
    if image.contains("bitnami") {
        return bitnami_postgres(node, questions);
    }
    // Its superuser is another than the one that applications use.
    let own = image.contains("supabase/").then(|| "supabase_admin".to_owned());
    let user = own.or_else(|| user(node, &["POSTGRES_USER", "PGUSER_SUPERUSER"], questions));
    let user = user.unwrap_or_else(|| "postgres".to_owned());
    let place = node.asked.find(&["POSTGRES_PASSWORD", "PGPASSWORD_SUPERUSER"]);
    // The official image, and those made from it, trust who asks on the socket in the container.
    let arguments = variable(&node.asked.resolved["environment"], "POSTGRES_INITDB_ARGS").flatten().unwrap_or_default();
    let asks = ["--auth=", "--auth ", "--auth-local", "-A"].iter().any(|word| arguments.contains(word));
    let trusts = !asks && !["spilo", "supabase/", "sclorg", "crunchy"].iter().any(|other| image.contains(other));
    let password = match place {
        Some(place) if place.reference().is_none() && trusts => None,
        place => password(node, place, questions),
    };
    [Some(format!("user: {}", quoted(&user))), password].into_iter().flatten().collect()
}

/// Its superuser is always `postgres`; a user of another name may see the databases of its own alone.
fn bitnami_postgres(node: Node<'_>, questions: &mut Vec<String>) -> Vec<String> {
    let own = user(node, &["POSTGRESQL_USERNAME", "POSTGRES_USER", "POSTGRESQL_USER"], questions);
    let place = match own.as_deref() {
        None | Some("postgres") => {
            node.asked.find(&["POSTGRESQL_PASSWORD", "POSTGRES_PASSWORD", "POSTGRESQL_POSTGRES_PASSWORD"])
        }
        Some(_) => node.asked.find(&["POSTGRESQL_POSTGRES_PASSWORD", "POSTGRES_POSTGRES_PASSWORD"]),
    };
    if let (Some(own), None) = (&own, &place) {
        questions.push(format!(
            "{}: who may back it up? Its Compose file gives no password of postgres, and {own} may not read everything; set \
             POSTGRESQL_POSTGRES_PASSWORD, and refer to it here.",
            node.name
        ));
        return vec!["user: postgres".to_owned(), "password: { env: POSTGRESQL_POSTGRES_PASSWORD }".to_owned()];
    }
    [Some("user: postgres".to_owned()), password(node, place, questions)].into_iter().flatten().collect()
}

fn mysql(server: Server, node: Node<'_>, questions: &mut Vec<String>) -> Vec<String> {
    let names: &[&str] = match server {
        Server::Mysql => &["MYSQL_ROOT_PASSWORD", "MARIADB_ROOT_PASSWORD"],
        _ => &["MARIADB_ROOT_PASSWORD", "MYSQL_ROOT_PASSWORD"],
    };
    let root = "user: root".to_owned();
    let is_set = |names: &[&str]| {
        names.iter().any(|name| {
            let value = variable(&node.asked.resolved["environment"], name).flatten();
            value.is_some_and(|value| !value.is_empty())
        })
    };
    if let Some(place) = node.asked.find(names) {
        return [Some(root), password(node, Some(place), questions)].into_iter().flatten().collect();
    }
    if is_set(&["MYSQL_ALLOW_EMPTY_PASSWORD", "MARIADB_ALLOW_EMPTY_ROOT_PASSWORD", "ALLOW_EMPTY_PASSWORD"]) {
        return vec![root];
    }
    questions.push(format!(
        "{}: who may back it up? Its Compose file sets no password of root; write a user with its password, or `restore_as` \
         beside one that may only read.",
        node.name
    ));
    vec![root, "password: { env: MYSQL_ROOT_PASSWORD }".to_owned()]
}

fn mongodb(node: Node<'_>, questions: &mut Vec<String>) -> Vec<String> {
    let place = node.asked.find(&["MONGO_INITDB_ROOT_PASSWORD", "MONGODB_ROOT_PASSWORD"]);
    let user = user(node, &["MONGO_INITDB_ROOT_USERNAME", "MONGODB_ROOT_USER"], questions);
    // Without a password there are no users.
    let Some(place) = place else { return Vec::new() };
    let user = user.unwrap_or_else(|| "root".to_owned());
    [Some(format!("user: {}", quoted(&user))), password(node, Some(place), questions)].into_iter().flatten().collect()
}

/// The name of a user is no secret: it is written as Compose fills it in.
fn user(node: Node<'_>, names: &[&str], questions: &mut Vec<String>) -> Option<String> {
    for name in names {
        let value = variable(&node.asked.resolved["environment"], name).flatten();
        if let Some(value) = value.filter(|value| !value.is_empty() && !value.starts_with('$')) {
            return Some(value);
        }
        let file = format!("{name}_FILE");
        if let Some(path) = variable(&node.asked.resolved["environment"], &file).flatten() {
            questions.push(format!(
                "{}: which user? Its name lies in the file {path} in the container; write it here.",
                node.name
            ));
            return None;
        }
    }
    None
}

fn password(node: Node<'_>, place: Option<Place>, questions: &mut Vec<String>) -> Option<String> {
    let place = place?;
    if let Some(reference) = place.reference() {
        return Some(format!("password: {reference}"));
    }
    let name = match &place {
        Place::Literal(name) => {
            questions.push(format!(
                "{}: where does devstack find its password? It stands in the Compose file itself, and is not copied: move it to \
                 .env as {name}, or name a file.",
                node.name
            ));
            name.trim_end_matches("_FILE").to_owned()
        }
        Place::External(secret) => {
            questions.push(format!(
                "{}: where does devstack find its password? The Compose secret {secret} lies outside of the project.",
                node.name
            ));
            secret.to_ascii_uppercase().replace(|c: char| !c.is_ascii_alphanumeric(), "_")
        }
        Place::Environment(_) | Place::Variable(..) | Place::File(_) => return None,
    };
    Some(format!("password: {{ env: {name} }}"))
}

/// One Redis, or the nodes of one cluster.
pub fn redis(nodes: &[Node<'_>], cluster: bool) -> Option<Made> {
    let first = *nodes.first()?;
    let mut questions = Vec::new();
    let place = required_password(first).or_else(|| {
        // The official image knows no such variable, and an application's is called so too: it counts where the server's own
        // command or check uses it.
        let (written, image) = (first.asked.written, first.image.to_ascii_lowercase());
        let used = [&written["command"], &written["entrypoint"], &written["healthcheck"]["test"]];
        let uses = |name: &&str| image.contains("bitnami") || used.iter().any(|text| text.to_string().contains(*name));
        let names: Vec<&str> = ["REDIS_PASSWORD", "VALKEY_PASSWORD"].into_iter().filter(|name| uses(name)).collect();
        first.asked.find(&names)
    });
    let password = password(first, place, &mut questions);
    let names: Vec<String> = nodes.iter().map(|node| quoted(node.name)).collect();
    let shape = cluster.then(|| "cluster: true".to_owned());
    let fields: String = [shape, password].into_iter().flatten().map(|field| format!(", {field}")).collect();
    let found = Found {
        name: if cluster { "redis".to_owned() } else { first.name.to_owned() },
        about: Vec::new(),
        source: format!("{{ redis: {{ containers: [{}]{fields} }} }}", names.join(", ")),
        made_of: nodes.iter().map(|node| node.name.to_owned()).collect(),
        after: Vec::new(),
    };
    Some(Made { found, questions })
}

/// A Redis that is told its password by `--requirepass`, as an argument or in the variables that some images make arguments
/// of.
fn required_password(node: Node<'_>) -> Option<Place> {
    let written = node.asked.written;
    let environment = |name: &str| variable(&written["environment"], name).flatten().unwrap_or_default();
    let places = [words(&written["command"]), words(&written["entrypoint"])];
    let places = places.into_iter().chain(["REDIS_ARGS", "VALKEY_EXTRA_FLAGS"].map(environment));
    let given = places.into_iter().find_map(|text| {
        let (_, rest) = text.split_once("--requirepass")?;
        Some(rest.trim_start_matches([' ', '=']).to_owned())
    })?;
    let bare = given.trim_start_matches(['"', '\'', '\\']);
    // `$$(cat /run/secrets/NAME)` is for the shell in the container.
    if let Some(inner) =
        bare.strip_prefix("$$(cat ").or_else(|| bare.strip_prefix("$$(< ")).or_else(|| bare.strip_prefix("$$(<"))
    {
        let path = inner.split([')', ' ']).next().unwrap_or_default();
        return Some(node.asked.file_at(path).unwrap_or_else(|| Place::Literal("REDIS_PASSWORD".to_owned())));
    }
    let end = if bare.starts_with("${") || bare.starts_with("$${") {
        bare.find('}').map_or(bare.len(), |end| end + 1)
    } else {
        bare.find([' ', '"', '\'', '\\']).unwrap_or(bare.len())
    };
    let word = &bare[..end];
    // `$$NAME` is for the shell in the container, whose environment says where it comes from.
    if let Some(name) = word.strip_prefix("$$").and_then(|inner| variable_of(&format!("${inner}"))) {
        return Some(node.asked.find(&[&name]).unwrap_or(Place::Environment(name)));
    }
    Some(node.asked.value(word, "REDIS_PASSWORD"))
}

/// A node of a Redis Cluster: one without a place for its data is a helper that runs once.
pub fn is_cluster_node(resolved: &Value) -> bool {
    let environment = |name: &str| variable(&resolved["environment"], name).flatten().unwrap_or_default();
    let command = [words(&resolved["command"]), words(&resolved["entrypoint"]), environment("REDIS_ARGS")].join(" ");
    command.contains("--cluster-enabled yes") || !environment("REDIS_NODES").is_empty()
}

/// A server that copies its data from another of the stack: it is made again from that one.
pub fn is_replica(resolved: &Value) -> bool {
    let command = [words(&resolved["command"]), words(&resolved["entrypoint"])].join(" ");
    let is_told = ["--replicaof", "--slaveof", "pg_basebackup"].iter().any(|word| command.contains(word));
    const MODES: [&str; 8] = [
        "REDIS_REPLICATION_MODE",
        "VALKEY_REPLICATION_MODE",
        "POSTGRESQL_REPLICATION_MODE",
        "POSTGRES_REPLICATION_MODE",
        "MYSQL_REPLICATION_MODE",
        "MARIADB_REPLICATION_MODE",
        "MONGODB_REPLICA_SET_MODE",
        "REPLICATION_MODE",
    ];
    let mode = |name: &&str| {
        let value = variable(&resolved["environment"], name).flatten().unwrap_or_default();
        ["slave", "replica", "secondary", "arbiter", "hidden"].contains(&value.as_str())
    };
    is_told || MODES.iter().any(mode)
}

/// The replica set of MongoDB that a service says it belongs to.
pub fn replica_set(resolved: &Value) -> Option<String> {
    let command = [words(&resolved["entrypoint"]), words(&resolved["command"])].join(" ");
    let mut words = command.split_whitespace().skip_while(|word| !word.starts_with("--replSet"));
    let first = words.next()?;
    let name = match first.split_once('=') {
        Some((_, name)) => name,
        None => words.next()?,
    };
    Some(name.trim_matches(['"', '\'']).to_owned())
}
