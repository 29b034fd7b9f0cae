//! Every way in which a Compose file keeps hold of the live stack, and what a drill makes of it. The files are
//! `*.yaml` in this folder; beside each stands what `docker compose config --format json` prints for it.

mod models;
mod mounts;
mod reach;
mod services;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use devstack::drill::{DrillId, Isolated, LABEL, NotIsolated, Request, isolate};
use serde_json::{Value, json};

const ID: &str = "d7f3a9";
const SCRATCH: &str = "/scratch/d7f3a9";

/// The folder of the files, as the models beside them call it.
const BASE: &str = "/srv/shop";

/// What the files give where a password could be.
const SECRET: &str = "hunter2";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/drill_traps")
}

fn model(file: &str) -> Value {
    let text = std::fs::read(folder().join(format!("{file}.json"))).unwrap();
    serde_json::from_slice(&text).unwrap()
}

fn with(file: &str, services: &[&str], image_volumes: &[(&str, &str)]) -> Result<Isolated, NotIsolated> {
    let id: DrillId = ID.parse().unwrap();
    let mut images: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (service, target) in image_volumes {
        images.entry((*service).to_owned()).or_default().push((*target).to_owned());
    }
    let answer = isolate(&Request {
        model: &model(file),
        id: &id,
        services: &services.iter().map(|service| (*service).to_owned()).collect(),
        scratch: Path::new(SCRATCH),
        image_volumes: &images,
    });
    let said = match &answer {
        Ok(isolated) => format!("{isolated:?}{}", json!(isolated.provided)),
        Err(refused) => format!("{refused}{refused:?}"),
    };
    assert!(!said.contains(SECRET), "{file} {services:?}: the secret is shown: {said}");
    answer
}

#[track_caller]
fn drilled(file: &str, services: &[&str]) -> Isolated {
    with(file, services, &[]).unwrap_or_else(|refused| panic!("{file} {services:?}: {refused}"))
}

/// The places of the problems of a service, and all that is said of them.
#[track_caller]
fn refused(file: &str, service: &str) -> (Vec<String>, String) {
    let refused = with(file, &[service], &[]).expect_err(&format!("{file}: {service}"));
    (refused.problems.iter().map(|problem| problem.at.clone()).collect(), refused.to_string())
}

#[track_caller]
fn only_refused(file: &str, service: &str, place: &str, said: &str) {
    let (places, words) = refused(file, service);
    assert_eq!(places, [place], "{words}");
    assert!(words.contains(said), "`{said}` is not in {words}");
}

fn left_out(isolated: &Isolated) -> BTreeSet<&str> {
    isolated.provided.left_out.iter().map(|left| left.at.as_str()).collect()
}

/// The service as the drill makes it, without what is in every one.
fn service(isolated: &Isolated, name: &str) -> Value {
    let mut service = isolated.model["services"][name].clone();
    let keys = service.as_object_mut().unwrap();
    assert_eq!(keys.remove("labels"), Some(json!({ LABEL: ID })), "{name}");
    assert_eq!(keys.remove("pull_policy"), Some(json!("missing")), "{name}");
    // Whatever the engine's own default is.
    assert_eq!(keys.remove("logging").unwrap()["driver"], "json-file", "{name}");
    service
}

/// As `service`, for one that has nothing but its image and the drill's network.
#[track_caller]
fn bare(file: &str, name: &str, places: &[&str]) -> Isolated {
    let isolated = drilled(file, &[name]);
    assert_eq!(service(&isolated, name), json!({ "image": "a", "networks": { "d7f3a9-n1": {} } }), "{name}");
    assert_eq!(left_out(&isolated), BTreeSet::from_iter(places.iter().copied()), "{name}");
    isolated
}

fn inline(model: &Value, service: &str) -> Result<Isolated, NotIsolated> {
    isolate(&Request {
        model,
        id: &ID.parse().unwrap(),
        services: &BTreeSet::from([service.to_owned()]),
        scratch: Path::new(SCRATCH),
        image_volumes: &BTreeMap::new(),
    })
}
