//! Reading packs from end to end and hashing them against their names, a part of all at a time.

use std::time::Instant;

use super::world::{World, now, repository_error, store_error};
use crate::apply::runner::{StepContext, StepError};
use crate::model::cancel::Cancel;
use crate::model::evidence::{DataRead, Verdict};
use crate::model::ids::{RepositoryName, RunId, SnapshotId};
use crate::model::observation::RepositoryFacts;
use crate::model::outcome::Done;
use crate::model::record::Record;
use crate::model::run::RECORD_FORMAT;
use crate::model::units::{ByteSize, Span};
use crate::repository::{FileKind, RepositoryError, Site, Store};

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
    let read = read_parts(&site, &store, &facts, parts, &context.cancel, &progress).map_err(repository_error)?;
    let damage = match &read.verdict {
        Verdict::Passed => Vec::new(),
        Verdict::Failed(findings) => findings.clone(),
    };
    let summary = format!("{} in {} of 256 parts", read.read, parts.len());
    let bytes = read.read;
    world.record(repository, &Record::DataRead(read), &[])?;
    Ok(Done { bytes, summary, damage, ..Done::default() })
}

fn packs_of(parts: &[u8]) -> Vec<FileKind> {
    parts.iter().map(|part| FileKind::Pack(*part)).collect()
}

/// Hashes every pack whose id begins with one of `parts`, and finds the runs that a damaged one hurts.
pub fn read_parts(
    site: &Site,
    store: &Store,
    facts: &RepositoryFacts,
    parts: &[u8],
    cancel: &Cancel,
    progress: &(dyn Fn(ByteSize) + Sync),
) -> Result<DataRead, RepositoryError> {
    let since = Instant::now();
    let total = std::sync::atomic::AtomicU64::new(0);
    let counted = |bytes: ByteSize| {
        total.fetch_max(bytes.0, std::sync::atomic::Ordering::Relaxed);
        progress(bytes);
    };
    let damages = site.hash_files(&packs_of(parts), &counted, cancel)?;
    let packs: Vec<String> = damages.iter().map(|damage| damage.name.clone()).collect();
    let hurt = hurt_runs(store, facts, &packs)?;
    let verdict = if damages.is_empty() {
        Verdict::Passed
    } else {
        Verdict::Failed(damages.iter().map(ToString::to_string).collect())
    };
    Ok(DataRead {
        format: RECORD_FORMAT,
        at: now(),
        took: Span::from(since.elapsed()),
        read: ByteSize(total.into_inner()),
        parts: parts.to_vec(),
        verdict,
        hurt,
    })
}

/// The runs that need one of `packs`.
pub fn hurt_runs(store: &Store, facts: &RepositoryFacts, packs: &[String]) -> Result<Vec<RunId>, RepositoryError> {
    if packs.is_empty() {
        return Ok(Vec::new());
    }
    let snapshots_of = |run: &crate::model::observation::Run| -> Vec<SnapshotId> {
        let taken = run.manifest.taken().map(|(_, taken)| taken.snapshot.clone());
        taken.filter(|snapshot| !run.lost.contains(snapshot)).chain([run.record.clone()]).collect()
    };
    let all: Vec<SnapshotId> = facts.runs.iter().flat_map(snapshots_of).collect();
    let hurt = store.reader()?.snapshots_using_packs(packs, &all)?;
    let runs = facts.runs.iter().filter(|run| snapshots_of(run).iter().any(|snapshot| hurt.contains(snapshot)));
    Ok(runs.map(|run| run.manifest.run.clone()).collect())
}
