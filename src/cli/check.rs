//! `check` and `schema`: the file by itself.

use std::path::Path;

use super::error::{Exit, Failure};
use super::{TextOrJson, session};
use crate::spec::diagnostic::{self, Diagnostic, Severity};
use crate::spec::{read, schema};

pub(super) fn run(file: &Path, format: TextOrJson) -> Result<Exit, Failure> {
    match format {
        TextOrJson::Text => {
            let loaded = session::load(file)?;
            if !loaded.warnings.is_empty() {
                let name = file.display().to_string();
                eprintln!("{}", diagnostic::render(&name, &loaded.text, &loaded.warnings, session::look()).trim_end());
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
            let text = std::fs::read_to_string(file).unwrap_or_default();
            let described: Vec<_> = diagnostics.iter().map(|diagnostic| described(diagnostic, &text)).collect();
            println!("{}", serde_json::json!({ "format": 1, "right": exit == Exit::Done, "diagnostics": described }));
            Ok(exit)
        }
    }
}

pub(super) fn schema() -> Result<Exit, Failure> {
    print!("{}", schema::schema_json());
    Ok(Exit::Done)
}

/// Line and column count from 1, the column in characters.
fn described(diagnostic: &Diagnostic, text: &str) -> serde_json::Value {
    let before = text.get(..diagnostic.span.start).unwrap_or_default();
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    serde_json::json!({
        "severity": match diagnostic.severity { Severity::Error => "error", Severity::Warning => "warning" },
        "place": diagnostic.place,
        "line": before.matches('\n').count() + 1,
        "column": before[line_start..].chars().count() + 1,
        "message": diagnostic.message,
        "label": diagnostic.label,
        "help": diagnostic.help,
    })
}
