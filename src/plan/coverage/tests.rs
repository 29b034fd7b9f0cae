//! Small stacks, each with one thing that is taken, left out or forgotten.

use serde_json::{Value, json};

use super::*;
use crate::model::holdings::ReadAs;
use crate::plan::fixtures::small;

fn mount(kind: &str, source: &str, target: &str) -> Value {
    json!({ "type": kind, "source": source, "target": target })
}

/// A shop: a server with its volume, an application with a volume, a folder, a file, a secret and an env_file, a build.
fn model() -> Value {
    json!({
        "name": "shop",
        "services": {
            "db": { "image": "postgres:17", "volumes": [mount("volume", "pg", "/var/lib/postgresql/data")] },
            "web": {
                "image": "shop/web", "build": { "context": "/srv/shop/web" }, "secrets": [{ "source": "token" }],
                "env_file": [{ "path": "/srv/shop/web.env" }],
                "volumes": [mount("volume", "media", "/media"), mount("bind", "/srv/shop/conf", "/etc/web"),
                    mount("bind", "/var/run/docker.sock", "/var/run/docker.sock"), mount("bind", "/etc/localtime", "/etc/localtime")],
            },
            "worker": { "image": "shop/web", "volumes": [mount("volume", "media", "/media")] },
        },
        "volumes": { "pg": { "name": "shop_pg" }, "media": { "name": "shop_media" } },
        "networks": { "proxy": { "name": "proxy", "external": true } },
        "secrets": { "token": { "file": "/srv/shop/secrets/token" } },
    })
}

/// All of it is taken.
fn file() -> Value {
    let mut spec = small();
    spec["runtime"] = json!({ "docker": { "compose": ["compose.yaml"] } });
    spec["services"] = json!({
        "database": { "source": { "postgres": { "container": "db" } } },
        "media": { "source": { "volume": { "volume": "media", "stop": ["web", "worker"] } } },
        "configuration": { "source": { "files": { "paths": ["conf", "secrets", "web", "*.env"] } } },
    });
    spec
}

fn seen(model: &Value) -> SeenStack {
    let read = [("/srv/shop/compose.yaml".into(), ReadAs::Compose), ("/srv/shop/.env".into(), ReadAs::Variables)];
    SeenStack { held: Holdings::of(model, &read), base: "/srv/shop".into(), home: None }
}

fn compared(file: &Value, model: &Value) -> Coverage {
    let spec: Spec = serde_json::from_value(file.clone()).unwrap();
    coverage(&spec, &seen(model))
}

fn resources(notes: &[Note]) -> Vec<&str> {
    notes.iter().map(|note| note.resource.as_str()).collect()
}

#[test]
fn what_a_backed_up_service_takes_is_taken_and_nothing_else_is_told() {
    let coverage = compared(&file(), &model());
    assert_eq!(resources(&coverage.unprotected), [] as [&str; 0]);
    assert_eq!((coverage.left_out.len(), coverage.stale.len()), (0, 0));
    let taken = resources(&coverage.taken);
    assert_eq!(
        taken,
        [
            "server db",
            "volume media",
            "bind ./conf",
            "file of variables ./.env",
            "Compose file ./compose.yaml",
            "secret file ./secrets/token",
            "env_file ./web.env",
            "build ./web"
        ]
    );
}

#[test]
fn what_nothing_takes_is_unprotected_each_once_with_what_to_write() {
    let mut spec = file();
    spec["services"] = json!({ "x": { "source": { "files": { "paths": ["nothing"] } } } });
    let told: Vec<String> =
        compared(&spec, &model()).unprotected.iter().map(|it| format!("{}: {}", it.resource, it.text)).collect();
    insta::assert_snapshot!(told.join("\n"));
}
