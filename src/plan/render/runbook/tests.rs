//! A runbook of a stack that has every kind of data, word by word.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;

use super::{Book, runbook};
use crate::model::compose::ComposeModel;
use crate::model::ids::Digest;
use crate::model::run::{Artifact, ArtifactKind, Count, ServiceResult};
use crate::model::units::{ByteSize, Span};
use crate::plan::fixtures::{NOW, World, at, run, service, small};
use crate::plan::{Recover, Request, Selection, as_if_lost};

/// The streams of each service, with what was counted in them.
const STREAMS: [(&str, &[&str], &str, u64); 9] = [
    ("broker", &["/definitions.json"], "queues", 2),
    ("cache", &["/dump.rdb"], "keys", 500),
    ("certificates", &[], "files", 4),
    ("config", &[], "files", 3),
    ("documents", &["/databases/admin.archive", "/databases/shop.archive"], "documents shop.orders", 7),
    ("ledger", &["/accounts.sql", "/databases.sql", "/grants.sql"], "rows books.entries", 12),
    ("postgres", &["/globals.sql", "/databases/my%20shop.dump"], "rows public.orders", 3),
    ("uploads", &["/volume.tar"], "files", 9),
    ("vault", &["/inventory.json", "/storage.snapshot", "/keys.age"], "policies", 5),
];

fn world() -> World {
    let mut spec = small();
    let env = |name: &str| json!({ "env": name });
    spec["runtime"] =
        json!({ "docker": { "compose": ["docker-compose.yml"], "profiles": ["standard"], "project": "p" } });
    spec["vault"] = json!({ "address": "http://127.0.0.1:8200", "login": { "token": { "file": "token" } }, "escrow": [ { "age": "age1escrow" } ] });
    spec["repositories"]["local"]["keys"] = json!([
        { "gpg": "ops@example.com" }, { "passphrase": { "file": "~/.config/devstack/passphrase" } },
        { "age_identity": { "file": "identity.txt" } }
    ]);
    let services = json!({
        "broker": { "rabbitmq": { "container": "rabbitmq" } },
        "cache": { "redis": { "containers": ["redis"], "password": env("REDIS_PASSWORD") } },
        "certificates": { "certificates": { "paths": ["certs/"] } },
        "config": { "files": { "paths": ["docker-compose.yml", "/etc/shop"] } },
        "documents": { "mongodb": { "container": "mongo", "user": "root", "password": { "file": "~/mongo password" } } },
        "ledger": { "mariadb": { "container": "books-db", "password": env("MARIADB_PASSWORD") } },
        "postgres": { "postgres": { "container": "db", "user": "shop", "password": { "vault": "secret/db#password" } } },
        "uploads": { "volume": { "volume": "uploads", "stop": ["web"] } },
        "vault": { "vault": { "container": "vault", "key_files": ["keys.json"], "canary": "secret/canary#value" } }
    });
    for (name, source) in services.as_object().unwrap() {
        spec["services"][name] = json!({ "source": source });
    }
    spec["services"]["postgres"]["after"] = json!(["vault"]);
    spec["recovery"] = json!({ "assert": [
        { "postgres": { "service": "postgres", "database": "my shop", "query": "select count(*) > 0 from orders" } },
        { "http": { "container": "web", "url": "http://127.0.0.1:3000/", "name": "the shop answers" } },
    ] });
    let mut world = World::settled(spec);
    let mut names = vec!["shop"];
    names.extend(STREAMS.map(|(name, ..)| name));
    let mut newest = run("daily", Span::from_hours(3).before(at(NOW)), &names);
    newest.manifest.compose = Some(ComposeModel::of(&json!({
        "name": "p",
        "services": {
            "vault": { "image": "hashicorp/vault:1.21" }, "redis": { "image": "redis:8" }, "mongo": { "image": "mongo:8" },
            "rabbitmq": { "image": "rabbitmq:4" }, "books": { "image": "mariadb:11.8", "container_name": "books-db" },
            "db": { "image": "postgres:17" },
            "init": { "image": "init", "depends_on": { "db": { "condition": "service_healthy" } } },
            "web": { "image": "web", "depends_on": { "init": { "condition": "service_completed_successfully" } },
                "volumes": [ { "type": "volume", "source": "uploads" } ] }
        },
        "volumes": { "uploads": { "name": "p_uploads" } }
    })));
    for (name, streams, what, count) in STREAMS {
        let Some(ServiceResult::Taken(taken)) = newest.manifest.services.get_mut(&service(name)) else {
            panic!("{name}")
        };
        let artifact = |stream: &str, kind| Artifact {
            name: stream.to_owned(),
            kind,
            bytes: ByteSize::mib(5),
            sha256: Digest::of(stream),
            counts: BTreeMap::from([(what.to_owned(), Count { value: count, exact: true })]),
        };
        taken.artifacts = streams.iter().map(|stream| artifact(stream, ArtifactKind::Stream)).collect();
        if streams.is_empty() {
            taken.artifacts.push(artifact("/", ArtifactKind::Tree));
        }
    }
    world = world.with_run("local", newest);
    world
}

#[test]
fn a_runbook_has_every_step_with_its_real_names() {
    let mut world = world();
    world.observation = as_if_lost(&world.spec, &world.observation);
    let asked = Request::Recover(Recover::lost(vec![], Selection::Newest, None));
    let plan = world.ask(&asked).unwrap();
    let book = Book { plan: &plan, spec: &world.spec, observation: &world.observation, base: Path::new("/srv/shop") };
    insta::assert_snapshot!(runbook(&book));
}
