//! Reading a part of all at a time: packs from end to end, hashed against their names; the trees of snapshots, and whether all that they
//! need is there.

use std::time::Instant;

use super::world::{World, now, repository_error, store_error};
use crate::apply::runner::{StepContext, StepError};
use crate::model::cancel::Cancel;
use crate::model::damage::{Damaged, Looked, Subject};
use crate::model::evidence::{DataRead, Verdict};
use crate::model::ids::{RepositoryName, RunId, SnapshotId};
use crate::model::observation::{RepositoryFacts, Run};
use crate::model::outcome::Done;
use crate::model::record::Record;
use crate::model::run::RECORD_FORMAT;
use crate::model::units::{ByteSize, Span};
use crate::repository::{FileKind, RepositoryError, Site, Store, What};

pub(super) fn read_data(
    world: &World,
    repository: &RepositoryName,
    parts: &[u8],
    context: &StepContext<'_>,
) -> Result<Done, StepError> {
    let site = world.stores.site(repository).map_err(store_error)?;
    let store = world.store(repository)?;
    let facts = world.facts(repository)?;
    let progress = |bytes| context.progress(bytes);
    // Snapshots of whoever writes here: what the index has lost of theirs, it may lose of ours.
    let mut snapshots: Vec<SnapshotId> =
        store.snapshots().map_err(repository_error)?.into_iter().map(|(id, _)| id).collect();
    let in_parts = |id: &SnapshotId| Subject::Snapshot(id.clone()).part().is_some_and(|part| parts.contains(&part));
    snapshots.retain(in_parts);
    let reading = read_parts(&site, &store, &facts, parts, &snapshots, &context.cancel, &progress);
    let Reading { record, looked, found } = reading.map_err(repository_error)?;
    let damage = match &record.verdict {
        Verdict::Passed => Vec::new(),
        Verdict::Failed(findings) => findings.clone(),
    };
    let summary = format!("{} in {} of 256 parts", record.read, parts.len());
    let bytes = record.read;
    world.check_lease(repository)?;
    store.note_damage(&world.spec.stack, &looked, found).map_err(repository_error)?;
    world.record(repository, &Record::DataRead(record), &[])?;
    Ok(Done { bytes, summary, damage, ..Done::default() })
}

fn packs_of(parts: &[u8]) -> Vec<FileKind> {
    parts.iter().map(|part| FileKind::Pack(*part)).collect()
}

/// What a reading came to.
pub struct Reading {
    pub record: DataRead,
    pub looked: Looked,
    /// What is to be remembered.
    pub found: Vec<Damaged>,
}

/// Hashes every pack whose id begins with one of `parts`, asks for those that the index names and that are not there, walks the trees
/// of `snapshots`, and finds the runs that are hurt.
pub fn read_parts(
    site: &Site,
    store: &Store,
    facts: &RepositoryFacts,
    parts: &[u8],
    snapshots: &[SnapshotId],
    cancel: &Cancel,
    progress: &(dyn Fn(ByteSize) + Sync),
) -> Result<Reading, RepositoryError> {
    let since = Instant::now();
    let total = std::sync::atomic::AtomicU64::new(0);
    let counted = |bytes: ByteSize| {
        total.fetch_max(bytes.0, std::sync::atomic::Ordering::Relaxed);
        progress(bytes);
    };
    let damages = site.hash_files(&packs_of(parts), &counted, cancel)?;
    let at = now();
    let mut findings: Vec<String> = damages.iter().map(ToString::to_string).collect();
    let mut packs: Vec<String> = damages.iter().map(|damage| damage.name.clone()).collect();
    let found = damages.iter().filter(|damage| damage.what != What::WrongName).map(|damage| Damaged {
        subject: Subject::Pack(damage.name.clone()),
        found: damage.to_string(),
        at,
    });
    let mut found: Vec<Damaged> = found.collect();
    let reader = store.reader()?;
    for (id, why) in reader.damaged_packs()? {
        let is_due = Subject::Pack(id.clone()).part().is_some_and(|part| parts.contains(&part));
        if is_due && !packs.contains(&id) {
            findings.push(format!("data/{}/{id} {why}", &id[..2]));
            packs.push(id);
        }
    }
    let mut hurt = hurt_runs(store, facts, &packs)?;
    let broken = reader.check_each(snapshots)?;
    for (snapshot, why) in &broken {
        let text = in_short(why);
        findings.push(text.clone());
        found.push(Damaged { subject: Subject::Snapshot(snapshot.clone()), found: text, at });
    }
    hurt.extend(runs_of(facts, broken.iter().map(|(snapshot, _)| snapshot)));
    hurt.sort();
    hurt.dedup();
    let verdict = if findings.is_empty() { Verdict::Passed } else { Verdict::Failed(findings) };
    let record = DataRead {
        format: RECORD_FORMAT,
        at,
        took: Span::from(since.elapsed()),
        read: ByteSize(total.into_inner()),
        parts: parts.to_vec(),
        verdict,
        hurt,
        remembered: true,
    };
    Ok(Reading { record, looked: Looked { packs: parts.to_vec(), snapshots: snapshots.to_vec() }, found })
}

/// The first of what was found in a snapshot, and how much more: one missing pack hurts thousands of files.
pub fn in_short(findings: &[String]) -> String {
    match findings {
        [] => String::new(),
        [only] => only.clone(),
        [first, more @ ..] => format!("{first}; and {} more of its files", more.len()),
    }
}

/// The runs that one of these snapshots belongs to.
fn runs_of<'a>(facts: &RepositoryFacts, snapshots: impl Iterator<Item = &'a SnapshotId>) -> Vec<RunId> {
    let snapshots: Vec<&SnapshotId> = snapshots.collect();
    let names = |run: &&Run| run.snapshots().any(|snapshot| snapshots.contains(&snapshot));
    facts.runs.iter().filter(names).map(|run| run.manifest.run.clone()).collect()
}

/// The runs that need one of `packs`.
pub fn hurt_runs(store: &Store, facts: &RepositoryFacts, packs: &[String]) -> Result<Vec<RunId>, RepositoryError> {
    if packs.is_empty() {
        return Ok(Vec::new());
    }
    let all: Vec<SnapshotId> = facts.runs.iter().flat_map(Run::present_snapshots).cloned().collect();
    let hurt = store.reader()?.snapshots_using_packs(packs, &all)?;
    let runs = facts.runs.iter().filter(|run| run.present_snapshots().any(|snapshot| hurt.contains(snapshot)));
    Ok(runs.map(|run| run.manifest.run.clone()).collect())
}
