//! `check` and `schema`: the file by itself, and what the Compose files hold that it does not take.

use std::path::Path;

use super::error::{Exit, Failure};
use super::{TextOrJson, session};
use crate::engines::Ground;
use crate::model::standing::Kind;
use crate::observe;
use crate::plan::coverage::{Coverage, coverage_of};
use crate::plan::render::printable;
use crate::spec::diagnostic::{self, Diagnostic, Severity};
use crate::spec::read::{self, Loaded};
use crate::spec::schema;

pub(super) fn run(file: &Path, format: TextOrJson) -> Result<Exit, Failure> {
    match format {
        TextOrJson::Text => {
            let loaded = session::load(file)?;
            if !loaded.warnings.is_empty() {
                let name = file.display().to_string();
                eprintln!("{}", diagnostic::render(&name, &loaded.text, &loaded.warnings, session::look()).trim_end());
            }
            let coverage = compared(&loaded);
            let stale = read::stale(&loaded, &coverage.stale);
            if !stale.is_empty() {
                let name = file.display().to_string();
                let text = diagnostic::render(&name, &loaded.text, &stale, session::look());
                return Err(Failure::rendered(Exit::Input, text));
            }
            for note in &coverage.unprotected {
                eprintln!("{}: {}: {}", Kind::Unprotected.label(), printable(&note.resource), printable(&note.text));
            }
            let unprotected = match coverage.unprotected.len() {
                0 => String::new(),
                count => format!(", {count} unprotected"),
            };
            println!(
                "{} is right: stack {}, {} services, {} repositories, {} policies, {} warnings{unprotected}.",
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
            let (exit, diagnostics, coverage) = match read::load(file) {
                Ok(loaded) => {
                    let coverage = compared(&loaded);
                    let stale = read::stale(&loaded, &coverage.stale);
                    let exit = if stale.is_empty() { Exit::Done } else { Exit::Input };
                    (exit, [loaded.warnings, stale].concat(), coverage)
                }
                Err(rejected) => (Exit::Input, rejected.diagnostics, Coverage::default()),
            };
            let text = std::fs::read_to_string(file).unwrap_or_default();
            let described: Vec<_> = diagnostics.iter().map(|diagnostic| described(diagnostic, &text)).collect();
            println!(
                "{}",
                serde_json::json!({
                    "format": 1, "right": exit == Exit::Done, "diagnostics": described,
                    "unprotected": coverage.unprotected, "left_out": coverage.left_out,
                })
            );
            Ok(exit)
        }
    }
}

/// What the Compose files say that the stack holds, against what the file takes. No engine is asked.
fn compared(loaded: &Loaded) -> Coverage {
    let (spec, home) = (&loaded.spec, session::home());
    let ground = Ground::new(spec.runtime.as_ref(), spec.vault.as_ref(), &loaded.base, home.as_deref());
    coverage_of(spec, observe::stack_by_its_files(&ground, home.as_deref()).as_ref())
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
