//! `backups`: the runs in the repositories.

use std::path::Path;

use jiff::Timestamp;
use serde_json::json;

use super::error::{Exit, Failure};
use super::session::Session;
use super::{TextOrJson, lines, tables};
use crate::model::ids::{Misnamed, RepositoryName, RunId, ServiceName};
use crate::model::observation::{Observation, Observed, OtherStack, Run};
use crate::model::plan::Note;
use crate::plan::render::{self, printable};

pub(super) fn run(file: &Path, format: TextOrJson) -> Result<Exit, Failure> {
    let session = Session::open(file)?;
    session.stores.read_around_damage();
    let now = Timestamp::now();
    let observation = session.observe(now);
    match format {
        TextOrJson::Json => {
            let runs: Vec<_> = observation
                .present()
                .flat_map(|(name, facts)| facts.runs.iter().map(move |run| described(name, run)))
                .collect();
            let unreachable: Vec<_> = unreachable(&observation).collect();
            println!(
                "{}",
                json!({ "format": 1, "runs": runs, "other_stacks": others(&observation).map(|(name, other)| json!({"repository": name, "stack": other.stack, "runs": other.runs, "newest": other.newest})).collect::<Vec<_>>(), "unknown": unreachable.iter().map(|(name, reason)| json!({"repository": name, "reason": reason})).collect::<Vec<_>>() })
            );
        }
        TextOrJson::Text => {
            for (name, id) in observation.missing() {
                println!("  LOST     repository {name}: {}", Note::missing_repository(name, id).text);
            }
            for (name, reason) in unreachable(&observation) {
                println!("  UNKNOWN  repository {name}: {}", printable(reason));
            }
            let mut rows: Vec<(Timestamp, Vec<String>)> = observation
                .present()
                .flat_map(|(name, facts)| facts.runs.iter().map(move |run| (name, run)))
                .map(|(name, run)| (run.manifest.started, row(&session, name, run, now)))
                .collect();
            rows.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| a.1.cmp(&b.1)));
            let all_seen = unreachable(&observation).next().is_none() && observation.missing().next().is_none();
            if rows.is_empty() && all_seen {
                let stack = &session.loaded.spec.stack;
                println!("No runs of stack {stack} yet. `devstack apply` takes the first.");
            } else if !rows.is_empty() {
                let rows: Vec<Vec<String>> = rows.into_iter().map(|(_, row)| row).collect();
                print!("{}", tables::table(&["run", "repository", "started", "age", "size", "new", "state"], &rows));
            }
            for (name, other) in others(&observation) {
                let (runs, newest) = (render::count(other.runs, "run"), lines::ago(other.newest, now));
                let stack = printable(other.stack.as_str()).into_owned();
                println!(
                    "{name} also holds stack {stack}: {runs}, the newest {newest}. `stack: {stack}` in the file lists them."
                );
            }
        }
    }
    let missing = if observation.missing().next().is_some() { Exit::Partly } else { Exit::Done };
    Ok(session.unseen().or_worse(missing))
}

fn unreachable(observation: &Observation) -> impl Iterator<Item = (&RepositoryName, &str)> {
    observation.repositories.iter().filter_map(|(name, state)| match state {
        Observed::Unknown { reason } => Some((name, reason.as_str())),
        Observed::Known(_) => None,
    })
}

fn others(observation: &Observation) -> impl Iterator<Item = (&RepositoryName, &OtherStack)> {
    observation.present().flat_map(|(name, facts)| facts.others.iter().map(move |other| (name, other)))
}

fn row(session: &Session, repository: &RepositoryName, run: &Run, now: Timestamp) -> Vec<String> {
    let manifest = &run.manifest;
    vec![
        manifest.run.to_string(),
        repository.to_string(),
        lines::time(manifest.started, &session.zone),
        lines::ago(manifest.started, now),
        manifest.bytes().to_string(),
        manifest.taken().map(|(_, taken)| taken.added).sum::<crate::model::units::ByteSize>().to_string(),
        printable(&state(run)).into_owned(),
    ]
}

/// In one phrase: what the run is good for.
pub(super) fn state(run: &Run) -> String {
    let suspect: Vec<&str> = run
        .manifest
        .taken()
        .filter(|(_, taken)| taken.suspect.is_some())
        .map(|(service, _)| service.as_str())
        .collect();
    let suspect = if suspect.is_empty() { String::new() } else { format!(", SUSPECT: {} shrank", suspect.join(", ")) };
    if run.is_damaged() {
        return format!("DAMAGED{suspect}");
    }
    if !run.is_complete() {
        let missing: Vec<&str> = run.manifest.missing().map(|(service, _)| service.as_str()).collect();
        return format!("INCOMPLETE: without {}{suspect}", missing.join(", "));
    }
    let word = if run.is_verified() { "verified" } else { "complete, not proven" };
    if !run.manifest.policy.is_part() {
        return format!("{word}{suspect}");
    }
    let only: Vec<&str> = run.manifest.expected.iter().map(ServiceName::as_str).collect();
    format!("{word}, only {}{suspect}", only.join(", "))
}

/// A run with what is known of it, for programs.
pub(super) fn described(repository: &RepositoryName, run: &Run) -> serde_json::Value {
    json!({
        "repository": repository,
        "complete": run.is_complete(),
        "verified": run.is_verified(),
        "damaged": run.is_damaged(),
        "manifest": run.manifest,
        "record": run.record,
        "lost": run.lost,
        "proofs": run.proofs,
    })
}

/// The newest run of any policy, whatever is known of it. A safety copy is none.
pub(super) fn latest(observation: &Observation) -> Option<&RunId> {
    let runs = observation.present().flat_map(|(_, facts)| &facts.runs).map(|run| &run.manifest);
    let newest = runs.filter(|it| !it.policy.is_safety()).max_by(|a, b| (a.started, &a.run).cmp(&(b.started, &b.run)));
    newest.map(|manifest| &manifest.run)
}

/// The run that somebody means by its id, the beginning of it, or `latest`.
pub(super) fn named(observation: &Observation, given: &RunId) -> Result<RunId, Failure> {
    if given.is_latest() {
        return latest(observation).cloned().ok_or_else(|| {
            Failure::new(Exit::Input, "no repository that can be reached holds a run")
                .hint("`devstack apply` takes the first")
        });
    }
    let runs = observation.present().flat_map(|(_, facts)| &facts.runs).map(|run| &run.manifest.run);
    let found = given.among(runs).map_err(|misnamed| misnamed_run(&misnamed))?;
    found.ok_or_else(|| {
        Failure::new(Exit::Input, format!("no repository that can be reached holds a run {given}"))
            .hint("`devstack backups` lists the runs")
    })
}

pub(super) fn misnamed_run(misnamed: &Misnamed) -> Failure {
    Failure::new(Exit::Input, misnamed.to_string()).hint("`devstack backups` lists the runs")
}

/// Every copy of one run, by repository.
pub(super) fn copies<'a>(
    observation: &'a Observation,
    run: &'a RunId,
) -> impl Iterator<Item = (&'a RepositoryName, &'a Run)> {
    observation.present().flat_map(move |(name, facts)| {
        facts.runs.iter().filter(move |known| known.manifest.run == *run).map(move |known| (name, known))
    })
}
