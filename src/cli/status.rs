//! `status`: looks at the world and says where the stack stands; `--cached` answers at once, from what was last seen.

use std::path::{Path, PathBuf};

use clap::Args;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::error::{Exit, Failure};
use super::session::{Session, write_private};
use super::{TextOrJson, lines, tables};
use crate::model::evidence::{Level, Verdict};
use crate::model::ids::{Digest, RepositoryName};
use crate::model::observation::{Observation, Observed, RepositoryFacts, RepositoryState, Run};
use crate::model::plan::{Basis, Exposure, Note, Plan, Report, ServiceForecast};
use crate::model::record::Approved;
use crate::model::standing::{self, Finding, Kind, Standing, folded};
use crate::model::units::{ByteSize, Span};
use crate::plan::{Request, render};

#[derive(Debug, Args)]
pub(super) struct StatusArguments {
    /// Answer at once from what the last command saw, and say how old that is. Where nothing was kept, look.
    #[arg(long)]
    cached: bool,
    /// What it does anyway; kept for timers that were written when it did not.
    #[arg(long, hide = true, conflicts_with = "cached")]
    live: bool,
    /// What it does anyway, as `--live`.
    #[arg(long, hide = true)]
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
    /// The words that steps wait for, each with what waits.
    held: Vec<Note>,
    /// The last time that somebody approved more than a yes covers.
    #[serde(default)]
    approved: Option<Approved>,
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
    size: Option<ByteSize>,
    /// The oldest of the last readings of all parts: since then every byte has been read once. None: not all yet.
    all_data_read_since: Option<Timestamp>,
}

/// 2: `held` are notes; what is wrong with runs stands in the report.
const FORMAT: u32 = 2;

/// What the state of a repository begins with that could not be looked at; the reason follows.
const UNKNOWN: &str = "UNKNOWN: ";

pub(super) fn run(file: &Path, arguments: &StatusArguments) -> Result<Exit, Failure> {
    let session = Session::open(file)?;
    session.warn_of_recovery();
    let now = Timestamp::now();
    let recalled = if arguments.cached { recall(&session) } else { None };
    let is_cached = recalled.is_some();
    let remembered = match recalled {
        Some(remembered) => remembered,
        None => look(&session, now)?,
    };
    let standing = remembered.standing(now, is_cached);
    match arguments.format {
        TextOrJson::Text => print!("{}", text(&session, &remembered, &standing, now, is_cached)),
        TextOrJson::Json => println!(
            "{}",
            serde_json::json!({ "now": now, "verdict": standing, "cached": is_cached, "status": remembered })
        ),
    }
    Ok(session.judged(&standing, true))
}

fn look(session: &Session, now: Timestamp) -> Result<Remembered, Failure> {
    let observation = session.observe(now);
    let plan = session.plan(&observation, &Request::Converge, now)?;
    // Looking writes nothing, not even what would make the next answer quick: what commands that work have seen is kept.
    Ok(summarise(session, &observation, &plan, now))
}

impl Remembered {
    /// Where the stack stands, objectives held against `now`.
    fn standing(&self, now: Timestamp, is_cached: bool) -> Standing {
        let standing = Standing::of_report(&self.report, &self.held, now);
        // A slot that has come since the look is not in its report.
        let idle = is_cached && nobody_runs_it(self, now);
        let idle = idle.then(|| {
            Finding::new(
                Kind::MissedSlot,
                "apply",
                "nothing has run this schedule: no apply was seen since the last slot",
            )
        });
        Standing::of(standing.findings().iter().cloned().chain(idle))
    }
}

/// Keeps what was just seen, so that `status` answers at once.
pub(super) fn remember(session: &Session, observation: &Observation, plan: &Plan, now: Timestamp) {
    keep(session, &summarise(session, observation, plan, now));
}

fn keep(session: &Session, remembered: &Remembered) {
    if let Err(failure) = save(session, remembered) {
        eprintln!("warning: {}; `devstack status` looks anew", failure.text());
    }
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
        held: standing::held(plan),
        approved: observation.present().flat_map(|(_, facts)| &facts.approvals).max_by_key(|it| it.at).cloned(),
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
            size: Some(facts.size),
            all_data_read_since: all_data_read_since(facts),
            ..line
        },
    }
}

fn all_data_read_since(facts: &RepositoryFacts) -> Option<Timestamp> {
    (0..=u8::MAX)
        .map(|part| facts.data_reads.iter().rev().find(|read| read.parts.contains(&part)).map(|read| read.at))
        .collect::<Option<Vec<_>>>()?
        .into_iter()
        .min()
}

fn text(session: &Session, seen: &Remembered, standing: &Standing, now: Timestamp, is_cached: bool) -> String {
    let mut out = format!("{}\n", render::printable(&standing.line()));
    let looked = match is_cached {
        true => format!("CACHED: seen {}; `devstack status` looks now", lines::ago(seen.seen, now)),
        false => format!("seen {}", lines::ago(seen.seen, now)),
    };
    out.push_str(&format!("devstack status   stack {}   {looked}\n\n", session.loaded.spec.stack));
    let findings = standing.findings().iter().map(|it| (it.kind.word(), it.resource.as_str(), it.text.as_str()));
    let waiting = seen.report.waiting.iter().map(|it| ("waiting", it.resource.as_str(), it.text.as_str()));
    for (word, resources, text) in folded(findings.chain(waiting)) {
        let (resources, text) = (resources.join(", "), render::printable(text));
        out.push_str(&format!("  {word:<11} {}: {text}\n", render::printable(&resources)));
    }
    if !standing.findings().is_empty() || !seen.report.waiting.is_empty() {
        out.push('\n');
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
    let predicted = recovery.predicted.map_or("not measured yet".to_owned(), |time| format!("predicted {time}"));
    let target = recovery.rto.map_or(String::new(), |rto| format!(", objective {rto}"));
    out.push_str(&format!("\n  recovery of the stack: {predicted}{target}\n"));
    if let Some(drill) = &seen.report.drill {
        out.push_str(&format!("  {}\n", render::drilled(drill, now)));
    }
    if let Some(approved) = &seen.approved {
        let said = lines::approved(approved);
        out.push_str(&format!("  approved {} by {}\n", lines::ago(approved.at, now), render::printable(&said)));
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
