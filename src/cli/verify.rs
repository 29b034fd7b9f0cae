//! `verify`: hash the repository's own files first, look whether all that any snapshot in it needs is there, then read runs back.
//! Evidence is written, whatever it says, and what is damaged is remembered.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::error::{Exit, Failure};
use super::running::Running;
use super::session::{Access, Session};
use super::{TextOrJson, apply, backups, status};
use crate::apply::lease::Lease;
use crate::apply::steps::{ProofOf, Reading, hurt_runs, in_short, prove_run, read_parts};
use crate::model::cancel::Cancel;
use crate::model::damage::{Damaged, Looked, Subject};
use crate::model::evidence::{DATA_PARTS, Verdict};
use crate::model::ids::{RepositoryName, RunId, SnapshotId};
use crate::model::observation::{RepositoryFacts, Run};
use crate::model::record::Record;
use crate::model::standing::{Finding, Kind, Standing};
use crate::plan::Request;
use crate::plan::render::printable;
use crate::repository::{Damage, FileKind, Presence, Site, Store};

#[derive(Debug, Args)]
pub(super) struct VerifyArguments {
    /// This run, by its id or the beginning of it; the newest complete one of each policy if none is given.
    #[arg(conflicts_with = "all")]
    run: Option<RunId>,
    /// Every run.
    #[arg(long)]
    all: bool,
    /// Read and hash every byte of the repositories as well.
    #[arg(long)]
    data: bool,
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: TextOrJson,
}

/// What was found in one repository.
#[derive(Debug, Default)]
struct Found {
    /// Damaged files, by their own hashes.
    files: Vec<String>,
    /// Runs that were looked at, each with its findings.
    runs: Vec<(RunId, Vec<String>)>,
    /// Runs that were never complete, each with what it lacks.
    incomplete: Vec<(RunId, String)>,
    /// Runs hurt by damaged files, looked at or not.
    hurt: BTreeSet<RunId>,
    /// Snapshots hurt by damaged files that are of nobody's run: other stacks', or restic's own.
    foreign: BTreeSet<SnapshotId>,
    /// What was read, and what is to be remembered of it.
    looked: Looked,
    damage: Vec<Damaged>,
    /// What hindered the look itself.
    unfinished: Option<Failure>,
}

impl Found {
    fn is_clean(&self) -> bool {
        self.files.is_empty()
            && self.hurt.is_empty()
            && self.foreign.is_empty()
            && self.runs.iter().all(|(_, findings)| findings.is_empty())
    }
}

pub(super) fn run(file: &Path, arguments: &VerifyArguments) -> Result<Exit, Failure> {
    let session = Session::open(file)?;
    let running = Running::start()?;
    let cancel = &running.cancel;
    let _listening = running.listen()?;
    let lease = session.lease(Access::Reads, cancel)?;
    let names: Vec<RepositoryName> = session.stores.names().cloned().collect();
    let mut found = Vec::new();
    for name in names {
        let mut here = Found::default();
        if let Err(failure) = look(&session, &lease, &name, arguments, cancel, &mut here) {
            here.unfinished = Some(failure);
        }
        found.push((name, here));
    }
    let unknown_run = arguments.run.as_ref().filter(|run| {
        found
            .iter()
            .all(|(_, here)| here.unfinished.is_none() && !here.runs.iter().any(|(looked, _)| run.may_mean(looked)))
    });
    if let Some(run) = unknown_run {
        return Err(Failure::new(Exit::Input, format!("no repository holds a run {run}"))
            .hint("`devstack backups` lists the runs"));
    }
    let now = Timestamp::now();
    let observation = session.observe_beside(now, Some(lease.id()), &Request::Converge);
    if let Ok(plan) = session.plan(&observation, &Request::Converge, now) {
        status::remember(&session, &observation, &plan, now);
    }
    apply::release(lease)?;
    print(&found, arguments.format, &standing(&found, cancel.is_cancelled()));
    Ok(exit(&found, cancel.is_cancelled()))
}

/// What was looked at, in one word.
fn standing(found: &[(RepositoryName, Found)], interrupted: bool) -> Standing {
    let mut findings = Vec::new();
    for (name, here) in found {
        let of = |kind: Kind, text: String| Finding::new(kind, name.as_str(), text);
        findings.extend(here.files.iter().map(|file| of(Kind::Damaged, file.clone())));
        let is_told = |run: &&RunId| here.runs.iter().any(|(looked, told)| looked == *run && !told.is_empty());
        let hurt = here.hurt.iter().filter(|run| !is_told(run));
        findings.extend(hurt.map(|run| Finding::new(Kind::Hurt, format!("{name}/{run}"), "it holds damaged data")));
        for (run, told) in here.runs.iter().filter(|(_, told)| !told.is_empty()) {
            findings.push(Finding::new(Kind::FailedProof, format!("{name}/{run}"), told.join("; ")));
        }
        findings.extend(here.unfinished.as_ref().map(|failure| {
            let kind = if failure.exit() == Exit::Input { Kind::Shut } else { Kind::Unknown };
            of(kind, failure.text().to_owned())
        }));
    }
    if interrupted {
        findings.push(Finding::new(Kind::Stopped, "verify", "interrupted"));
    }
    if found.iter().all(|(_, here)| here.runs.is_empty()) {
        findings.push(Finding::new(Kind::Unknown, "verify", "there was no run to verify"));
    }
    Standing::of(findings)
}

/// 3 before 6 before 7 before 8, as everywhere.
fn exit(found: &[(RepositoryName, Found)], interrupted: bool) -> Exit {
    let unfinished =
        |wanted: Exit| found.iter().any(|(_, here)| here.unfinished.as_ref().is_some_and(|f| f.exit() == wanted));
    let damaged = found.iter().any(|(_, here)| !here.is_clean()) || unfinished(Exit::Verification);
    for exit in [Exit::Input, Exit::Locked, Exit::Stale] {
        if unfinished(exit) {
            // A file that is damaged is the reason why a key does not open it; damage is then what is to be told.
            return if exit == Exit::Input && damaged { Exit::Verification } else { exit };
        }
    }
    if interrupted || unfinished(Exit::Partly) || unfinished(Exit::Unexpected) {
        return if damaged && !interrupted { Exit::Verification } else { Exit::Partly };
    }
    if damaged {
        Exit::Verification
    } else if found.iter().all(|(_, here)| here.runs.is_empty()) {
        // Nothing was verified, which is no good word on anything.
        Exit::Partly
    } else {
        Exit::Done
    }
}

fn look(
    session: &Session,
    lease: &Lease,
    name: &RepositoryName,
    arguments: &VerifyArguments,
    cancel: &Cancel,
    here: &mut Found,
) -> Result<(), Failure> {
    let site = session.stores.site(name)?;
    if matches!(site.look(), Ok(Presence::Absent)) {
        return Err(Failure::new(
            Exit::Partly,
            format!("repository {name} is not made yet; there is nothing to verify"),
        ));
    }
    // Before anything is opened: what is damaged is told as damage, not as a wrong password.
    let damages = site.hash_files(&[FileKind::Key, FileKind::Snapshot, FileKind::Index], &|_| {}, cancel)?;
    here.files.extend(damages.iter().map(ToString::to_string));
    site.look()?;
    let broken = |kind: FileKind| damages.iter().any(|damage| damage.kind == kind);
    let store = session.stores.open_around(name, &damages)?;
    let (facts, unreadable) = store.facts_around(&session.loaded.spec.stack)?;
    for record in unreadable {
        let of = record.run.as_ref().map_or(String::new(), |run| format!(" of run {run}"));
        here.files.push(format!("the {}{of} cannot be read: {}", record.kind, crate::model::chain(&record.source)));
        here.hurt.extend(record.run);
    }
    let packs = store.reader()?.damaged_packs()?;
    here.files.extend(packs.iter().map(|(id, why)| format!("data/{}/{id} {why}", &id[..2])));
    let mut ids: Vec<String> = packs.into_iter().map(|(id, _)| id).collect();
    here.hurt.extend(hurt_runs(&store, &facts, &ids)?);
    let chosen = chosen(&facts, arguments)?;
    let snapshots: Vec<SnapshotId> = store.snapshots()?.into_iter().map(|(id, _)| id).collect();
    look_at_trees(&store, &facts, &snapshots, &chosen, here)?;
    if broken(FileKind::Index) {
        // The index is what finds every run's data: until it is rebuilt, none of them can be counted on.
        here.hurt.extend(facts.runs.iter().map(|run| run.manifest.run.clone()));
    }
    here.hurt.extend(hurt_by_snapshots(&facts, &damages));
    for unsealed in facts.unsealed.iter() {
        here.files
            .push(format!("run {} has snapshots and no manifest: interrupted, or its manifest is gone", unsealed.run));
        here.hurt.insert(unsealed.run.clone());
    }
    if arguments.data {
        read_data(session, lease, name, &site, &store, &facts, cancel, here)?;
        ids.extend(here.damage.iter().filter_map(|damaged| match &damaged.subject {
            Subject::Pack(id) => Some(id.clone()),
            Subject::Snapshot(_) => None,
        }));
    } else {
        // Not read now, and so no better than it was.
        let remembered =
            facts.damage.iter().filter(|damaged| matches!(&damaged.subject, Subject::Pack(id) if !ids.contains(id)));
        let text =
            |damaged: &Damaged| format!("{} (seen before, and not read now: `--all --data` does)", damaged.found);
        here.files.extend(remembered.map(text));
    }
    if !ids.is_empty() {
        let own = own_snapshots(&facts);
        // Listed anew: the reading has replaced the record of the one before.
        let snapshots: Vec<SnapshotId> = store.snapshots()?.into_iter().map(|(id, _)| id).collect();
        let hurt = store.reader()?.snapshots_using_packs(&ids, &snapshots)?;
        here.foreign.extend(hurt.into_iter().filter(|snapshot| !own.contains(snapshot)));
    }
    for run in chosen {
        prove(session, lease, name, &store, run, arguments.run.is_some(), cancel, here)?;
    }
    // That it can't be written was said.
    if lease.unwritable().contains_key(name) {
        return Ok(());
    }
    // Last of all: where this can't be written, all that was found has been told.
    lease.check(name).map_err(|error| Failure::caused(Exit::Locked, "the lease is lost", &error))?;
    store.note_damage(&session.loaded.spec.stack, &here.looked, std::mem::take(&mut here.damage))?;
    Ok(())
}

/// Whether every tree of every snapshot can be listed, and all that they need is in the index, in packs that are there: of this stack's and of
/// anybody's. What the proof of a chosen run will say itself is not said twice.
fn look_at_trees(
    store: &Store,
    facts: &RepositoryFacts,
    snapshots: &[SnapshotId],
    chosen: &[&Run],
    here: &mut Found,
) -> Result<(), Failure> {
    let own = own_snapshots(facts);
    let at = Timestamp::now();
    for (snapshot, findings) in store.reader()?.check_each(snapshots)? {
        let is_of = |run: &&Run| run.snapshots().any(|own| *own == snapshot);
        let proven = chosen.iter().any(|run| is_of(run) && run.manifest.is_complete());
        let found = in_short(&findings);
        if !proven {
            here.files.push(found.clone());
        }
        if own.contains(&snapshot) {
            here.hurt.extend(facts.runs.iter().filter(is_of).map(|run| run.manifest.run.clone()));
        } else {
            here.foreign.insert(snapshot.clone());
        }
        here.damage.push(Damaged { subject: Subject::Snapshot(snapshot), found, at });
    }
    here.looked.snapshots = snapshots.to_vec();
    Ok(())
}

fn own_snapshots(facts: &RepositoryFacts) -> BTreeSet<SnapshotId> {
    facts.runs.iter().flat_map(Run::snapshots).cloned().collect()
}

/// A damaged snapshot file hurts the run whose manifest names it.
fn hurt_by_snapshots(facts: &RepositoryFacts, damages: &[Damage]) -> Vec<RunId> {
    let damaged: BTreeSet<&str> =
        damages.iter().filter(|damage| damage.kind == FileKind::Snapshot).map(|damage| damage.name.as_str()).collect();
    let names = |run: &&Run| run.snapshots().any(|snapshot| damaged.contains(snapshot.as_str()));
    facts.runs.iter().filter(names).map(|run| run.manifest.run.clone()).collect()
}

fn chosen<'a>(facts: &'a RepositoryFacts, arguments: &VerifyArguments) -> Result<Vec<&'a Run>, Failure> {
    if let Some(given) = &arguments.run {
        let wanted = given.among(facts.runs.iter().map(|run| &run.manifest.run));
        let wanted = wanted.map_err(|misnamed| backups::misnamed_run(&misnamed))?;
        return Ok(facts.runs.iter().filter(|run| wanted.as_ref() == Some(&run.manifest.run)).collect());
    }
    if arguments.all {
        return Ok(facts.runs.iter().collect());
    }
    let policies: BTreeSet<_> = facts.runs.iter().map(|run| &run.manifest.policy).collect();
    let newest = policies
        .into_iter()
        .filter_map(|policy| {
            facts.runs.iter().rev().find(|run| run.manifest.policy == *policy && run.manifest.is_complete())
        })
        .collect();
    Ok(newest)
}

#[allow(clippy::too_many_arguments, reason = "one run in one repository, each part named")]
fn prove(
    session: &Session,
    lease: &Lease,
    name: &RepositoryName,
    store: &Arc<Store>,
    run: &Run,
    asked_for: bool,
    cancel: &Cancel,
    here: &mut Found,
) -> Result<(), Failure> {
    let id = run.manifest.run.clone();
    if !run.manifest.is_complete() {
        let missing: Vec<String> =
            run.manifest.missing().map(|(service, reason)| format!("{service}: {reason}")).collect();
        let finding = format!("incomplete, and never verified: {}", missing.join("; "));
        // Asked for by name, it fails. Among all runs it is what it was when it was sealed, and no damage.
        if asked_for {
            here.runs.push((id, vec![finding]));
        } else {
            here.incomplete.push((id, finding));
        }
        return Ok(());
    }
    let spec = &session.loaded.spec;
    let rooms = session.rooms();
    let of = ProofOf { spec, ground: &session.ground, rooms: &rooms };
    let proof = prove_run(&of, store, run, cancel, &|_| {})
        .map_err(|error| Failure::caused(Exit::of(error.kind()), &format!("proving run {id} in {name}"), &error))?;
    let findings: Vec<String> =
        proof.findings().map(|(level, finding)| format!("{}: {finding}", level.as_str())).collect();
    if !findings.is_empty() {
        here.hurt.insert(id.clone());
    }
    here.runs.push((id, findings));
    write(session, lease, name, store, &Record::Proof(proof))
}

#[allow(clippy::too_many_arguments, reason = "one look at one repository, each part named")]
fn read_data(
    session: &Session,
    lease: &Lease,
    name: &RepositoryName,
    site: &Site,
    store: &Arc<Store>,
    facts: &RepositoryFacts,
    cancel: &Cancel,
    here: &mut Found,
) -> Result<(), Failure> {
    let parts: Vec<u8> = (0..DATA_PARTS).filter_map(|part| u8::try_from(part).ok()).collect();
    // The trees have been walked, and what is missing has been told.
    let Reading { record: read, looked, found } = read_parts(site, store, facts, &parts, &[], cancel, &|_| {})?;
    if let Verdict::Failed(findings) = &read.verdict {
        let told: BTreeSet<String> = here.files.iter().cloned().collect();
        here.files.extend(findings.iter().filter(|finding| !told.contains(*finding)).cloned());
    }
    here.looked.packs = looked.packs;
    here.damage.extend(found);
    here.hurt.extend(read.hurt.iter().cloned());
    write(session, lease, name, store, &Record::DataRead(read))
}

/// Evidence into the repository it speaks of, if it can be written, which was said. Where the repository is too damaged to be written to, what was found is
/// still told.
fn write(
    session: &Session,
    lease: &Lease,
    name: &RepositoryName,
    store: &Arc<Store>,
    record: &Record,
) -> Result<(), Failure> {
    if lease.unwritable().contains_key(name) {
        return Ok(());
    }
    lease.check(name).map_err(|error| Failure::caused(Exit::Locked, "the lease is lost", &error))?;
    store.write_record(&session.loaded.spec.stack, record, &[]).map(|_| ()).map_err(Failure::from)
}

fn print(found: &[(RepositoryName, Found)], format: TextOrJson, standing: &Standing) {
    if format == TextOrJson::Json {
        let repositories: Vec<_> = found
            .iter()
            .map(|(name, here)| {
                json!({
                    "repository": name,
                    "clean": here.is_clean() && here.unfinished.is_none(),
                    "damaged_files": here.files,
                    "hurt_runs": here.hurt,
                    "hurt_snapshots": here.foreign,
                    "incomplete": here.incomplete.iter().map(|(run, _)| run).collect::<Vec<_>>(),
                    "runs": here.runs.iter().map(|(run, findings)| json!({ "run": run, "findings": findings })).collect::<Vec<_>>(),
                    "unfinished": here.unfinished.as_ref().map(Failure::text),
                })
            })
            .collect();
        println!("{}", json!({ "format": 1, "verdict": standing, "repositories": repositories }));
        return;
    }
    println!("{}\n", printable(&standing.line()));
    for (name, here) in found {
        for file in &here.files {
            println!("  DAMAGED  {name}: {}", printable(file));
        }
        for run in &here.hurt {
            println!("  HURT     {name}: run {run}");
        }
        for snapshot in &here.foreign {
            println!("  HURT     {name}: snapshot {}, of no run of this stack", snapshot.short());
        }
        for (run, findings) in &here.runs {
            for finding in findings {
                println!("  FAILED   {name}: run {run}: {}", printable(finding));
            }
        }
        for (run, finding) in &here.incomplete {
            println!("  left out {name}: run {run}: {}", printable(finding));
        }
        if let Some(failure) = &here.unfinished {
            println!("  STOPPED  {name}: {}", printable(failure.text()));
        }
        let good = here.runs.iter().filter(|(_, findings)| findings.is_empty()).count();
        println!("  {name}: {good} of {} runs verified, {} damaged files.", here.runs.len(), here.files.len());
    }
    if found.iter().any(|(_, here)| !here.is_clean()) {
        println!("\nVerification FAILED. Keep the repository as it is; runs that are not named can be restored.");
        println!("What helps against which damage: docs/damage.md.");
    }
}
