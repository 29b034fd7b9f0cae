//! `check` and `schema`: the file by itself.

use std::path::Path;

use super::error::{Exit, Failure};
use super::{TextOrJson, session};
use crate::spec::{read, schema};

pub(super) fn run(file: &Path, format: TextOrJson) -> Result<Exit, Failure> {
    match format {
        TextOrJson::Text => {
            let loaded = session::load(file)?;
            for warning in &loaded.warnings {
                eprintln!("warning: {}", warning.line());
            }
            println!(
                "{} is right: stack {}, {} services, {} repositories, {} policies, {} warnings.",
                file.display(),
                loaded.spec.stack,
                loaded.spec.services.len(),
                loaded.spec.repositories.len(),
                loaded.spec.backup.len(),
                loaded.warnings.len()
            );
            Ok(Exit::Done)
        }
        TextOrJson::Json => {
            let (exit, diagnostics) = match read::load(file) {
                Ok(loaded) => (Exit::Done, loaded.warnings),
                Err(rejected) => (Exit::Input, rejected.diagnostics),
            };
            println!("{}", serde_json::json!({ "format": 1, "right": exit == Exit::Done, "diagnostics": diagnostics }));
            Ok(exit)
        }
    }
}

pub(super) fn schema() -> Result<Exit, Failure> {
    print!("{}", schema::schema_json());
    Ok(Exit::Done)
}
