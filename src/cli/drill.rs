//! `drill`: a recovery in isolation, measured, judged, put on record and removed again.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use jiff::Timestamp;

use super::error::{Exit, Failure};
use super::point::PointArguments;
use super::running::Running;
use super::session::{Access, Session};
use super::{Consent, TextOrJson, apply, recover, restore, status, tables};
use crate::apply::lease::Lease;
use crate::apply::progress::ProgressKind;
use crate::drill::{self, DrillError, DrillId, Means, Outcome, Point, VaultTerms};
use crate::engines::{KeyFiles, VaultRestore};
use crate::model::cancel::Cancel;
use crate::model::drill::Drill;
use crate::model::ids::RepositoryName;
use crate::model::listed;
use crate::model::observation::Observation;
use crate::model::plan::Note;
use crate::model::record::Record;
use crate::model::standing::{Finding, Kind, MISSED, Standing};
use crate::observe;
use crate::plan::{Recover, drills, render};

#[derive(Debug, Args)]
pub(super) struct DrillArguments {
    #[command(flatten)]
    point: PointArguments,
    /// How many steps run at once.
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64))]
    parallel: u8,
    /// Of a Vault: open it with the key files of the backup, as on an empty machine. FILE is the age identity that they were
    /// encrypted to; without it gpg is asked.
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    escrow: Option<Option<PathBuf>>,
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: TextOrJson,
}

pub(super) fn run(file: &Path, arguments: &DrillArguments) -> Result<Exit, Failure> {
    let session = Session::open(file)?;
    arguments.point.must_be_known(&session)?;
    let point = &arguments.point;
    let asked = Recover::lost(point.only.clone(), point.selection(), point.from.clone());
    let keys = keys(arguments.escrow.as_ref())?;
    carry_out(&session, &asked, keys, arguments.parallel, arguments.format, Exit::Verification)
}

/// Which keys open a Vault.
pub(super) fn keys(escrow: Option<&Option<PathBuf>>) -> Result<VaultRestore, Failure> {
    let Some(identity) = escrow else {
        return Ok(VaultRestore { keys: KeyFiles::OfMachine, ..VaultRestore::default() });
    };
    Ok(VaultRestore { escrow: identity.as_deref().map(restore::absolute).transpose()?, ..VaultRestore::default() })
}

/// The drill that the file's schedule asks for, if one is due. It changes nothing of what the apply did.
pub(super) fn after_apply(session: &Session, consent: &Consent, exit: Exit) -> Result<Exit, Failure> {
    let spec = &session.loaded.spec;
    if spec.recovery.as_ref().is_none_or(|recovery| recovery.drill.is_none()) {
        return Ok(exit);
    }
    let now = Timestamp::now();
    let is_due = drills::report(spec, &repositories(session, now), now).is_some_and(|report| report.due);
    if !is_due {
        return Ok(exit);
    }
    // Interrupted or in trouble: what goes on by itself then is in the way.
    if !matches!(exit, Exit::Done | Exit::NotApproved | Exit::Verification) {
        eprintln!("note: a drill is due and waits for an apply that ends well");
        return Ok(exit);
    }
    let drilled = carry_out(session, &Recover::everything(), keys(None)?, consent.parallel, consent.format, Exit::Done)
        .unwrap_or_else(|failure| {
            eprintln!("error: the drill could not be made: {}", failure.text());
            failure.exit()
        });
    Ok(exit.or_worse(drilled))
}

/// The repositories alone: of the services a drill knows that they are gone.
fn repositories(session: &Session, now: Timestamp) -> Observation {
    observe::observe(&session.loaded.spec, &session.ground, &session.stores, &session.history, now, &|_| false)
}

/// `degraded`: what it is to the shell that a drill did without a service, of which it then says nothing. An apply that is to
/// back up is not in trouble over it.
fn carry_out(
    session: &Session,
    asked: &Recover,
    keys: VaultRestore,
    parallel: u8,
    format: TextOrJson,
    degraded: Exit,
) -> Result<Exit, Failure> {
    let running = Running::start()?;
    // From here on, so that a signal never leaves containers behind.
    let _listening = running.listen()?;
    for id in drill::sweep(&session.state, || session.ground.containers.docker()).map_err(|error| failed(&error))? {
        eprintln!("note: removed what the drill {id} had left, which was killed");
    }
    let outcome = apart(session, asked, keys, None, parallel, format, &running)?;
    let stored = if outcome.interrupted { Ok(()) } else { store(session, &outcome, &running.cancel) };
    status::forget(session);
    let standing = standing(&outcome);
    match format {
        TextOrJson::Text => print!("{}", text(session, &outcome, &standing)),
        TextOrJson::Json => println!(
            "{}",
            serde_json::json!({
                "event": "finished", "verdict": standing, "drill": outcome.drill, "interrupted": outcome.interrupted,
            })
        ),
    }
    let mut exit = match (outcome.interrupted, outcome.drill.passed(), outcome.drill.is_whole()) {
        (true, ..) => Exit::Partly,
        (false, true, true) => Exit::Done,
        (false, true, false) => degraded,
        (false, false, _) => Exit::Verification,
    };
    if let Some(error) = &outcome.left_behind {
        eprintln!("error: something of the drill is still there: {}", crate::model::chain(error));
        eprintln!("  next: the next drill removes it; to do so now: `devstack drill`");
        exit = exit.or_worse(Exit::Partly);
    }
    if let Err(failure) = stored {
        eprintln!("error: the evidence of the drill could not be stored: {}", failure.text());
        exit = exit.or_worse(failure.exit());
    }
    Ok(exit)
}

/// A recovery in isolation; `kept` is the name under which it stays.
pub(super) fn apart(
    session: &Session,
    asked: &Recover,
    keys: VaultRestore,
    kept: Option<DrillId>,
    parallel: u8,
    format: TextOrJson,
    running: &Running,
) -> Result<Outcome, Failure> {
    if let Some(text) = recover::unset_passwords(session, &asked.only) {
        return Err(Failure::new(Exit::Input, format!("nothing was done: {text}")).hint("set it, then try again"));
    }
    let (now, since) = (Timestamp::now(), Instant::now());
    let seen = repositories(session, now);
    let (spec, digest) = (&session.loaded.spec, &session.loaded.digest);
    let of_vault = VaultTerms {
        hindrance: drill::hindrance(spec, &session.ground, std::io::stdin().is_terminal()),
        escrow: keys.keys == KeyFiles::InPlace,
    };
    let point = Point::choose(spec, digest, &seen, &session.history, now, asked, of_vault)
        .map_err(|error| chosen(session, &error))?;
    let means = Means {
        spec,
        spec_text: &session.loaded.text,
        ground: &session.ground,
        vault: keys,
        kept,
        stores: &session.stores,
        history: &session.history,
        state: &session.state,
        parallel: usize::from(parallel),
        progress: match format {
            TextOrJson::Json => ProgressKind::Json,
            TextOrJson::Text => ProgressKind::for_people(),
        },
        runtime: &running.runtime,
        cancel: &running.cancel,
    };
    Ok(means.carry_out(&point, since))
}

/// Why no recovery point could be chosen.
fn chosen(session: &Session, error: &DrillError) -> Failure {
    match error {
        DrillError::Plan(error) => {
            let exit = if error.is_of_the_world() { Exit::Partly } else { Exit::Input };
            let failure = Failure::new(session.unseen().or_worse(exit), crate::model::chain(error));
            error.next().into_iter().fold(failure, Failure::hint)
        }
        error => Failure::new(Exit::Input, crate::model::chain(error)),
    }
}

fn failed(error: &DrillError) -> Failure {
    Failure::caused(Exit::Partly, "removing what a killed drill has left", error)
        .hint("start Docker, then drill again: nothing new is made before the old is gone")
}

/// How long a backup that runs meanwhile is waited for with the evidence.
const PATIENCE: Duration = Duration::from_secs(600);
const BETWEEN_TRIES: Duration = Duration::from_secs(1);

/// The evidence, in every repository that a run came from. Only now is the lease taken: the drill itself reads, and no
/// backup waits for it.
fn store(session: &Session, outcome: &Outcome, cancel: &Cancel) -> Result<(), Failure> {
    let lease = patiently(session, cancel)?;
    let mut places: Vec<&RepositoryName> = outcome.drill.services.iter().map(|service| &service.repository).collect();
    places.sort();
    places.dedup();
    // Said already.
    let unwritable = lease.unwritable();
    places.retain(|name| !unwritable.contains_key(*name));
    let written = places.into_iter().try_for_each(|name| {
        let stack = &session.loaded.spec.stack;
        let store = session.stores.open(name)?;
        let held = || lease.check(name).map_err(|error| Failure::caused(Exit::Locked, "locked", &error));
        for (_, proof) in outcome.damaged.iter().filter(|(repository, _)| repository == name) {
            held()?;
            store.write_record(stack, &Record::Proof(proof.clone()), &[])?;
        }
        held()?;
        store.write_record(stack, &Record::Drill(Box::new(outcome.drill.clone())), &[])?;
        Ok(())
    });
    apply::release(lease)?;
    written
}

fn patiently(session: &Session, cancel: &Cancel) -> Result<Lease, Failure> {
    let since = Instant::now();
    loop {
        match session.lease(Access::Reads, cancel) {
            Err(failure) if failure.exit() == Exit::Locked && since.elapsed() < PATIENCE && !cancel.is_cancelled() => {
                std::thread::sleep(BETWEEN_TRIES);
            }
            taken => return taken,
        }
    }
}

/// An objective that was not met is one thing, a stack that did not come back another.
fn standing(outcome: &Outcome) -> Standing {
    let of = |finding: &String| match finding.strip_prefix(MISSED) {
        Some(text) => Finding::new(Kind::MissedDrill, "the drill", text),
        None => Finding::new(Kind::FailedDrill, "the drill", finding),
    };
    let stopped = outcome.interrupted.then(|| Finding::new(Kind::Stopped, "the drill", "interrupted"));
    let left = outcome
        .left_behind
        .as_ref()
        .map(|error| Finding::new(Kind::FailedStep, "removing what it made", crate::model::chain(error)));
    let without = &outcome.drill.without;
    let without = without.iter().map(|it| Finding::new(Kind::DrilledWithout, &it.resource, &it.text));
    let unprotected = &outcome.drill.unprotected;
    let unprotected = unprotected.iter().map(|it| Finding::new(Kind::Unprotected, &it.resource, &it.text));
    let findings = outcome.drill.findings().iter().map(of);
    Standing::of(findings.chain(stopped).chain(left).chain(without).chain(unprotected))
}

/// Danger first, then the times, then what the drill says nothing of.
fn text(session: &Session, outcome: &Outcome, standing: &Standing) -> String {
    let drill = &outcome.drill;
    let verdict = render::printable(&standing.line()).into_owned();
    let stack = &session.loaded.spec.stack;
    let mut out = format!("{verdict}\ndevstack drill   stack {stack}   {}\n\n{}", drill.id, told(drill));
    let of = drill.rto.map_or_else(String::new, |rto| format!(" of {rto}"));
    let part = if drill.partial { " Not every service of the file was in it." } else { "" };
    let word = match (outcome.interrupted, drill.passed(), drill.is_whole()) {
        (true, ..) => "Drill INTERRUPTED".to_owned(),
        (false, true, true) => "Drill passed".to_owned(),
        (false, true, false) => format!("Drill DEGRADED ({})", lacks(drill)),
        (false, false, _) => "Drill FAILED".to_owned(),
    };
    let _ = writeln!(out, "\n{word}: {}{of}.{part} The live stack was not touched.", drill.took);
    out
}

/// What a drill that passed did not bring back.
fn lacks(drill: &Drill) -> String {
    let names = |notes: &[Note]| notes.iter().map(|note| note.resource.as_str()).collect::<Vec<_>>().join(", ");
    let lists = [("left out", &drill.without), ("unprotected", &drill.unprotected)].into_iter();
    let lists = lists.filter(|(_, notes)| !notes.is_empty()).map(|(word, notes)| format!("{word}: {}", names(notes)));
    lists.collect::<Vec<_>>().join("; ")
}

/// What went wrong, each step with its time, when each service was back, what it went without.
pub(super) fn told(drill: &Drill) -> String {
    let mut out = String::new();
    for note in &drill.without {
        let _ = writeln!(
            out,
            "  WITHOUT  {} was left out, and nothing declared needs it: {}",
            note.resource,
            render::printable(&note.text)
        );
    }
    for note in &drill.unprotected {
        let _ = writeln!(out, "  UNPROTECTED  {}: {}", note.resource, render::printable(&note.text));
    }
    if !drill.without.is_empty() || !drill.unprotected.is_empty() {
        out.push('\n');
    }
    for finding in drill.findings() {
        let (word, rest) =
            finding.split_once(": ").filter(|(word, _)| *word == "MISSED").unwrap_or(("FAILED", finding));
        let _ = writeln!(out, "  {word:<8} {}", render::printable(rest));
    }
    if !drill.findings().is_empty() {
        out.push('\n');
    }
    let rows: Vec<Vec<String>> = drill
        .steps
        .iter()
        .map(|step| {
            let word = if step.succeeded { "" } else { "FAILED: " };
            let said = render::printable(&step.said);
            vec![step.resource.clone(), step.verb.clone(), step.took.to_string(), format!("{word}{said}")]
        })
        .collect();
    if !rows.is_empty() {
        out.push_str(&tables::table(&["resource", "step", "took", ""], &rows));
        out.push('\n');
    }
    let rows: Vec<Vec<String>> = drill
        .services
        .iter()
        .map(|it| {
            let or_dash =
                |span: Option<crate::model::units::Span>| span.map_or("-".to_owned(), |span| span.to_string());
            let back = it.back_after.map_or("NOT BACK".to_owned(), |span| span.to_string());
            vec![it.service.to_string(), back, it.run.to_string(), it.age.to_string(), or_dash(it.rpo)]
        })
        .collect();
    out.push_str(&tables::table(&["service", "back after", "run", "age", "rpo"], &rows));
    out.push_str(&left_out(drill));
    out
}

/// By reason: ten services without their ports are one line.
fn left_out(drill: &Drill) -> String {
    let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for note in &drill.left_out {
        reasons.entry(&note.text).or_default().push(&note.resource);
    }
    let mut out = String::new();
    for (why, places) in reasons {
        let _ = writeln!(out, "  without  {}: {}", render::printable(&listed(&places, SHOWN)), render::printable(why));
    }
    if out.is_empty() { out } else { format!("\n{out}") }
}

/// Places named for one reason; the evidence has them all.
const SHOWN: usize = 4;
