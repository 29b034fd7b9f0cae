//! `status`: from the cache at once, with its age; `--live` looks again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::error::{Exit, Failure};
use super::session::{Session, write_private};
use super::{TextOrJson, lines, tables};
use crate::model::evidence::{Level, Verdict};
use crate::model::ids::{Digest, PolicyName, RepositoryName};
use crate::model::observation::{Observation, Observed, RepositoryFacts, RepositoryState, Run};
use crate::model::plan::{Basis, Exposure, Note, Plan, Report, ServiceForecast};
use crate::model::units::{ByteSize, Span};
use crate::plan::{Request, render};

#[derive(Debug, Args)]
pub(super) struct StatusArguments {
    /// Look at the world instead of answering from what the last command saw.
    #[arg(long)]
    live: bool,
    /// Exit 8 when an objective is missed or predicted to be missed.
    #[arg(long)]
    strict: bool,
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: TextOrJson,
}

/// What the last look saw. A cache: when it is lost, `status` looks again.
#[derive(Debug, Serialize, Deserialize)]
struct Remembered {
    format: u32,
    spec_digest: Digest,
    seen: Timestamp,
    last_apply: Option<Timestamp>,
    steps_pending: usize,
    held: Vec<String>,
    report: Report,
    services: Vec<ServiceProof>,
    repositories: Vec<RepositoryLine>,
}

/// The latest word on each level, of the run that a service would come back from.
#[derive(Debug, Serialize, Deserialize)]
struct ServiceProof {
    service: crate::model::ids::ServiceName,
    levels: Vec<(Level, Option<Timestamp>, bool)>,
}

#[derive(Debug, Serialize, Deserialize)]
struct RepositoryLine {
    repository: RepositoryName,
    state: String,
    runs: usize,
    verified: usize,
    damaged: Vec<String>,
    /// The newest run of a policy, where it is incomplete: what it is called, and without which services.
    #[serde(default)]
    failed: Vec<String>,
    /// Sources that shrank by more than half, which nobody has accepted yet.
    #[serde(default)]
    suspect: Vec<String>,
    size: Option<ByteSize>,
    /// The oldest of the last readings of all parts: since then every byte has been read once. None: not all yet.
    all_data_read_since: Option<Timestamp>,
}

const FORMAT: u32 = 1;

/// What the state of a repository begins with that could not be looked at; the reason follows.
const UNKNOWN: &str = "UNKNOWN: ";

pub(super) fn run(file: &Path, arguments: &StatusArguments) -> Result<Exit, Failure> {
    let session = Session::open(file)?;
    session.warn_of_recovery();
    let now = Timestamp::now();
    let remembered = match recall(&session).filter(|_| !arguments.live) {
        Some(remembered) => remembered,
        None => {
            let observation = session.observe(now);
            let plan = session.plan(&observation, &Request::Converge, now)?;
            let remembered = summarise(&session, &observation, &plan, now);
            // A look is worth having where nothing can be kept, as for somebody who may only read.
            if let Err(failure) = save(&session, &remembered) {
                eprintln!("warning: {}", failure.text());
            }
            remembered
        }
    };
    match arguments.format {
        TextOrJson::Text => print!("{}", text(&session, &remembered, now)),
        TextOrJson::Json => println!("{}", serde_json::json!({ "now": now, "status": remembered })),
    }
    let missed = remembered.report.is_missed(now)
        || remembered.repositories.iter().any(|line| !line.damaged.is_empty() || !line.failed.is_empty());
    let troubled = session.troubled(&remembered.report);
    Ok(if troubled != Exit::Done {
        troubled
    } else if arguments.strict && missed {
        Exit::Verification
    } else {
        Exit::Done
    })
}

/// Keeps what was just seen, so that `status` answers at once.
pub(super) fn remember(
    session: &Session,
    observation: &Observation,
    plan: &Plan,
    now: Timestamp,
) -> Result<(), Failure> {
    save(session, &summarise(session, observation, plan, now))
}

/// What was seen is no longer so.
pub(super) fn forget(session: &Session) {
    // Where it can't be removed the next apply writes it anew.
    let _ = std::fs::remove_file(cache(session));
}

fn cache(session: &Session) -> PathBuf {
    session.state.join("status.json")
}

fn save(session: &Session, remembered: &Remembered) -> Result<(), Failure> {
    let bytes = serde_json::to_vec(remembered)
        .map_err(|error| Failure::caused(Exit::Unexpected, "keeping the status", &error))?;
    write_private(&cache(session), &bytes)
        .map_err(|error| Failure::caused(Exit::Unexpected, "keeping the status", &error))
}

/// What does not parse, or belongs to another state of the file, is as good as not there.
fn recall(session: &Session) -> Option<Remembered> {
    let bytes = std::fs::read(cache(session)).ok()?;
    let remembered: Remembered = serde_json::from_slice(&bytes).ok()?;
    (remembered.format == FORMAT && remembered.spec_digest == session.loaded.digest).then_some(remembered)
}

fn summarise(session: &Session, observation: &Observation, plan: &Plan, now: Timestamp) -> Remembered {
    let services = plan
        .report
        .exposure
        .iter()
        .map(|exposure| ServiceProof { service: exposure.service.clone(), levels: levels(observation, exposure) })
        .collect();
    Remembered {
        format: FORMAT,
        spec_digest: session.loaded.digest.clone(),
        seen: now,
        last_apply: crate::apply::journal::Journal::history(&session.state).ok().and_then(|history| history.last_apply),
        steps_pending: plan.steps.len(),
        held: plan.held().map(|step| format!("{} {}", step.action.verb(), step.action.resource())).collect(),
        report: plan.report.clone(),
        services,
        repositories: observation.repositories.iter().map(|(name, state)| repository_line(name, state)).collect(),
    }
}

fn levels(observation: &Observation, exposure: &Exposure) -> Vec<(Level, Option<Timestamp>, bool)> {
    let run = exposure.last_good.as_ref().and_then(|(run, repository, _)| find(observation, repository, run));
    Level::PROOF
        .iter()
        .map(|level| match run.and_then(|run| run.latest(*level)) {
            Some((at, verdict)) => (*level, Some(at), *verdict == Verdict::Passed),
            None => (*level, None, false),
        })
        .collect()
}

fn find<'a>(
    observation: &'a Observation,
    repository: &RepositoryName,
    run: &crate::model::ids::RunId,
) -> Option<&'a Run> {
    match observation.repositories.get(repository)? {
        Observed::Known(RepositoryState::Present(facts)) => facts.runs.iter().find(|known| known.manifest.run == *run),
        Observed::Known(RepositoryState::Absent { .. }) | Observed::Unknown { .. } => None,
    }
}

fn repository_line(name: &RepositoryName, state: &Observed<RepositoryState>) -> RepositoryLine {
    let line = RepositoryLine {
        repository: name.clone(),
        state: String::new(),
        runs: 0,
        verified: 0,
        damaged: Vec::new(),
        failed: Vec::new(),
        suspect: Vec::new(),
        size: None,
        all_data_read_since: None,
    };
    match state {
        Observed::Unknown { reason } => RepositoryLine { state: format!("{UNKNOWN}{reason}"), ..line },
        Observed::Known(RepositoryState::Absent { .. }) => RepositoryLine { state: "not made yet".to_owned(), ..line },
        Observed::Known(RepositoryState::Present(facts)) => RepositoryLine {
            state: "open".to_owned(),
            runs: facts.runs.len(),
            verified: facts.runs.iter().filter(|run| run.is_verified()).count(),
            damaged: facts.damaged().map(|run| run.manifest.run.to_string()).collect(),
            failed: failed(facts),
            suspect: suspect(facts),
            size: Some(facts.size),
            all_data_read_since: all_data_read_since(facts),
            ..line
        },
    }
}

/// Policies whose newest run is not complete.
fn failed(facts: &RepositoryFacts) -> Vec<String> {
    let mut newest: BTreeMap<&PolicyName, &Run> = BTreeMap::new();
    for run in &facts.runs {
        newest.insert(&run.manifest.policy, run);
    }
    newest
        .into_values()
        .filter(|run| !run.manifest.is_complete())
        .map(|run| {
            let missing: Vec<&str> = run.manifest.missing().map(|(service, _)| service.as_str()).collect();
            format!("{}, without {}", run.manifest.run, missing.join(", "))
        })
        .collect()
}

/// What keeps older runs from retention until somebody accepts it.
fn suspect(facts: &RepositoryFacts) -> Vec<String> {
    let mut found = Vec::new();
    for run in &facts.runs {
        for (service, taken) in run.manifest.taken() {
            let accepted = facts.accepted_shrinks.contains(&(run.manifest.run.clone(), service.clone()));
            if let Some(shrink) = taken.suspect.filter(|_| !accepted) {
                found.push(format!(
                    "{service} shrank from {} to {} in run {}; if that is right: `devstack apply --approve accept:{service}`",
                    shrink.from, shrink.to, run.manifest.run
                ));
            }
        }
    }
    found
}

fn all_data_read_since(facts: &RepositoryFacts) -> Option<Timestamp> {
    (0..=u8::MAX)
        .map(|part| facts.data_reads.iter().rev().find(|read| read.parts.contains(&part)).map(|read| read.at))
        .collect::<Option<Vec<_>>>()?
        .into_iter()
        .min()
}

fn text(session: &Session, seen: &Remembered, now: Timestamp) -> String {
    let mut out =
        format!("devstack status   stack {}   seen {}\n\n", session.loaded.spec.stack, lines::ago(seen.seen, now));
    for repository in &seen.repositories {
        for run in &repository.damaged {
            out.push_str(&format!(
                "  DAMAGED  run {run} in {}; `devstack show {run}` says what\n",
                repository.repository
            ));
        }
    }
    // Of runs it is said above; here of what else is damaged, of anybody's.
    for note in seen.report.damaged.iter().filter(|note| note.resource.starts_with(Note::REPOSITORY)) {
        out.push_str(&format!("  DAMAGED  {}: {}\n", note.resource, render::printable(&note.text)));
    }
    for note in &seen.report.removed {
        out.push_str(&format!("  REMOVED  {}: {}\n", note.resource, render::printable(&note.text)));
    }
    if let Some(note) = render::failed_drill(seen.report.drill.as_ref(), now) {
        out.push_str(&format!("  FAILED   {}\n", render::printable(&note.text)));
    }
    for note in &seen.report.lost {
        out.push_str(&format!("  LOST     {}: {}\n", note.resource, render::printable(&note.text)));
    }
    for note in &seen.report.expiring {
        out.push_str(&format!("  EXPIRES  {}: {}\n", note.resource, render::printable(&note.text)));
    }
    for repository in &seen.repositories {
        if let Some(reason) = repository.state.strip_prefix(UNKNOWN) {
            out.push_str(&format!("  UNKNOWN  repository {}: {}\n", repository.repository, render::printable(reason)));
        }
        for run in &repository.failed {
            out.push_str(&format!("  FAILED   the newest run in {} is incomplete: {run}\n", repository.repository));
        }
        for source in &repository.suspect {
            out.push_str(&format!("  SUSPECT  {source}\n"));
        }
    }
    for note in seen.report.unknown.iter().filter(|note| !note.resource.starts_with(Note::REPOSITORY)) {
        out.push_str(&format!("  UNKNOWN  {}: {}\n", note.resource, render::printable(&note.text)));
    }
    for note in &seen.report.waiting {
        out.push_str(&format!("  OPEN     {}: {}\n", note.resource, render::printable(&note.text)));
    }
    for exposure in seen.report.exposure.iter().filter(|exposure| exposure.is_missed(now)) {
        let age = exposure.age(now).map_or(seen.report.no_good_run().to_owned(), |age| age.to_string());
        out.push_str(&format!(
            "  MISSED   {}: last good run {age}, objective {}\n",
            exposure.service,
            exposure.rpo.unwrap_or_default()
        ));
    }
    for held in &seen.held {
        out.push_str(&format!("  HELD     {held}; `devstack plan` says why\n"));
    }
    if nobody_runs_it(seen, now) {
        out.push_str("  IDLE     nothing has run this schedule: no apply was seen since the last slot\n");
    }
    let rows: Vec<Vec<String>> =
        seen.report.exposure.iter().map(|exposure| row(session, seen, exposure, now)).collect();
    out.push_str(&tables::table(
        &["service", "last good run", "age", "rpo", "proven", "next run", "recovery", "rto"],
        &rows,
    ));
    out.push('\n');
    let rows: Vec<Vec<String>> = seen
        .repositories
        .iter()
        .map(|line| {
            vec![
                line.repository.to_string(),
                if line.state.starts_with(UNKNOWN) { "unknown".to_owned() } else { line.state.clone() },
                format!("{} verified of {}", line.verified, line.runs),
                line.size.map_or("-".to_owned(), |size| size.to_string()),
                line.all_data_read_since.map_or("not all read yet".to_owned(), |at| {
                    format!("all read since {}", lines::time(at, &session.zone))
                }),
            ]
        })
        .collect();
    out.push_str(&tables::table(&["repository", "state", "runs", "size", "data"], &rows));
    let recovery = &seen.report.recovery;
    let only_read = recovery.services.iter().any(|service| service.basis == Basis::ReadBack);
    let basis = if only_read { " (some of it read back only, never restored)" } else { "" };
    let predicted = recovery.predicted.map_or("not measured yet".to_owned(), |time| format!("predicted {time}{basis}"));
    let target = recovery.rto.map_or(String::new(), |rto| format!(", objective {rto}"));
    out.push_str(&format!("\n  recovery of the stack: {predicted}{target}\n"));
    if let Some(drill) = &seen.report.drill {
        out.push_str(&format!("  {}\n", render::drilled(drill, now)));
    }
    if seen.steps_pending > 0 {
        let steps =
            if seen.steps_pending == 1 { "1 step is".to_owned() } else { format!("{} steps are", seen.steps_pending) };
        out.push_str(&format!("  {steps} pending; `devstack plan` shows what\n"));
    }
    out
}

/// A slot has passed since the last apply that this machine knows of.
fn nobody_runs_it(seen: &Remembered, now: Timestamp) -> bool {
    let last = seen.last_apply;
    seen.report
        .exposure
        .iter()
        .filter_map(|exposure| exposure.next)
        .any(|next| next <= now && last.is_none_or(|at| at < next))
}

fn row(session: &Session, seen: &Remembered, exposure: &Exposure, now: Timestamp) -> Vec<String> {
    let forecast = seen.report.recovery.services.iter().find(|forecast| forecast.service == exposure.service);
    let never = || seen.report.no_good_run().to_owned();
    let proven = seen.services.iter().find(|proof| proof.service == exposure.service).map_or(never(), |proof| {
        let passed: Option<Vec<Timestamp>> =
            proof.levels.iter().map(|(_, at, passed)| at.filter(|_| *passed)).collect();
        passed.and_then(|times| times.into_iter().min()).map_or(never(), |at| lines::time(at, &session.zone))
    });
    let span = |span: Option<Span>| span.map_or("-".to_owned(), |span| span.to_string());
    let predicted = match forecast.map(|forecast| (forecast.back(), forecast.basis)) {
        Some((Some(time), Basis::Restored)) if forecast.is_some_and(ServiceForecast::is_missed) => {
            format!("~{time}  MISSED")
        }
        Some((Some(time), Basis::Restored)) => format!("~{time}"),
        Some((Some(time), Basis::ReadBack)) => format!("~{time} (read back only)"),
        Some((_, Basis::NeverMeasured) | (None, _)) | None => "never measured".to_owned(),
    };
    vec![
        exposure.service.to_string(),
        exposure.last_good.as_ref().map_or(never(), |(run, _, _)| run.to_string()),
        span(exposure.age(now)),
        span(exposure.rpo),
        proven,
        exposure.next.map_or("-".to_owned(), |next| lines::time(next, &session.zone)),
        predicted,
        span(forecast.and_then(|forecast| forecast.rto)),
    ]
}
