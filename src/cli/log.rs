//! `log`: what earlier applies did, from the journal; and who approved what, from the repositories.

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;

use super::error::{Exit, Failure};
use super::session::Session;
use super::{TextOrJson, lines};
use crate::apply::journal::{Ended, Entry, Journal};
use crate::model::record::Approved;
use crate::observe;
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

/// Who approved what, whatever machine it was said on. One that is on record in several repositories is told once.
pub(super) fn approvals(file: &Path, count: usize, format: TextOrJson) -> Result<Exit, Failure> {
    let session = Session::open(file)?;
    session.stores.read_around_damage();
    let (spec, now) = (&session.loaded.spec, Timestamp::now());
    let observation = observe::observe(spec, &session.ground, &session.stores, &session.history, now, &|_| false);
    let all = observation.present().flat_map(|(_, facts)| &facts.approvals);
    let all: BTreeMap<_, &Approved> = all.map(|it| ((it.at, it.plan.clone()), it)).collect();
    if all.is_empty() && format == TextOrJson::Text {
        println!("Nothing yet: no step has needed more than a yes, and nothing was brought back.");
    }
    for approved in all.values().skip(all.len().saturating_sub(count)) {
        match format {
            TextOrJson::Json => println!("{}", serde_json::json!(approved)),
            TextOrJson::Text => {
                println!("{}  {}", lines::time(approved.at, &session.zone), printable(&lines::approved(approved)));
            }
        }
    }
    Ok(session.unseen())
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
