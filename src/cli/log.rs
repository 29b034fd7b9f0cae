//! `log`: what earlier applies did, from the journal.

use std::path::Path;

use super::error::{Exit, Failure};
use super::session::Session;
use super::{TextOrJson, lines};
use crate::apply::journal::{Ended, Entry, Journal};
use crate::plan::render::printable;

pub(super) fn run(file: &Path, count: usize, format: TextOrJson) -> Result<Exit, Failure> {
    let session = Session::open(file)?;
    let contents = Journal::read(&session.state)
        .map_err(|error| Failure::caused(Exit::Unexpected, "reading the journal", &error))?;
    let records = &contents.records;
    if records.is_empty() && format == TextOrJson::Text {
        println!("Nothing yet: no apply has run here.");
    }
    for record in records.iter().skip(records.len().saturating_sub(count)) {
        match format {
            TextOrJson::Json => println!("{}", serde_json::json!(record)),
            TextOrJson::Text => {
                println!("{}  {}", lines::time(record.at, &session.zone), printable(&sentence(&record.entry)))
            }
        }
    }
    Ok(Exit::Done)
}

fn sentence(entry: &Entry) -> String {
    match entry {
        Entry::ApplyStarted { plan, steps, pid, drill, .. } => {
            let what = if *drill { "drill by" } else { "apply of" };
            format!("{what} plan {}: {steps} steps, pid {pid}", plan.short())
        }
        Entry::StepStarted { step, verb, resource, .. } => format!("  {step} {verb} {resource} started"),
        Entry::StepEnded { step, verb, resource, ended, took, detail, .. } => {
            let word = match ended {
                Ended::Done => "done",
                Ended::Damaged => "found DAMAGE",
                Ended::AlreadyDone => "was done already",
                Ended::Failed(_) => "FAILED",
                Ended::Interrupted => "interrupted",
            };
            format!("  {step} {verb} {resource} {word} after {took}: {detail}")
        }
        Entry::ApplyEnded { took, counts, interrupted } => {
            let word = if *interrupted { "interrupted" } else { "ended" };
            format!(
                "apply {word} after {took}: {} done, {} failed, {} skipped, {} held",
                counts.done + counts.already_done,
                counts.failed,
                counts.skipped,
                counts.held
            )
        }
        Entry::RepositoryKnown { name, id } => format!("repository {name} is {}", id.short()),
    }
}
