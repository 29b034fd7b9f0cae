//! devstack's reading of `.env` files against Compose's: 200 files, with what `docker compose config` made of each
//! (`tests/scenarios/engine_env_files.py`, which asks Compose again).

use std::collections::BTreeMap;

use devstack::spec::dotenv::{self, Variables};
use serde::Deserialize;
use zeroize::Zeroizing;

#[derive(Deserialize)]
struct Cases {
    names: Vec<String>,
    outside: BTreeMap<String, String>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    text: String,
    /// None where Compose refuses the file.
    values: Option<BTreeMap<String, String>>,
}

#[test]
fn every_file_is_read_as_compose_reads_it() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/env_files/cases.json")).unwrap();
    let all: Cases = serde_json::from_str(&text).unwrap();
    let outside = |name: &str| all.outside.get(name).cloned().map(Zeroizing::new);
    let mut wrong = Vec::new();
    for case in &all.cases {
        let mut variables = Variables::default();
        let read = dotenv::read(&case.text, &mut variables, &outside).map(|()| {
            // The environment goes before what a file of Compose's own says.
            let value = |name: &String| {
                outside(name).or_else(|| variables.get(name).map(|text| Zeroizing::new(text.to_owned())))
            };
            let pairs = all.names.iter().filter_map(|name| Some((name.clone(), value(name)?.to_string())));
            pairs.collect::<BTreeMap<_, _>>()
        });
        if read.as_ref().ok() != case.values.as_ref() {
            wrong.push(format!("{:?}\n  devstack {read:?}\n  compose  {:?}", case.text, case.values));
        }
    }
    assert!(
        wrong.is_empty() && all.cases.len() == 200,
        "{} of {}:\n{}",
        wrong.len(),
        all.cases.len(),
        wrong.join("\n")
    );
}
