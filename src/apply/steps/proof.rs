//! Proving a run: structure, artifacts and content, with the evidence written beside it whatever it says.

use std::collections::BTreeMap;
use std::time::Instant;

use super::world::{World, engine_error, now};
use crate::apply::runner::{StepContext, StepError};
use crate::engines::{self, EngineError, Ground, Work, Workrooms};
use crate::model::cancel::Cancel;
use crate::model::evidence::{Level, Proof, Verdict};
use crate::model::ids::{RepositoryName, RunId, SnapshotId};
use crate::model::observation::Run;
use crate::model::outcome::{Done, FailureKind};
use crate::model::record::Record;
use crate::model::run::RECORD_FORMAT;
use crate::model::units::{ByteSize, Span};
use crate::repository::Store;
use crate::spec::file::{Service, Spec};

pub(super) fn prove(
    world: &World,
    repository: &RepositoryName,
    run: &RunId,
    context: &StepContext<'_>,
) -> Result<Done, StepError> {
    let held = world.run(repository, run)?;
    if !held.manifest.is_complete() {
        // An incomplete run is never verified, so there is nothing that a proof of it could say.
        return Err(StepError::new(
            FailureKind::NeedsReplan,
            format!("run {run} is not complete and cannot be proven"),
        ));
    }
    let progress = |bytes| context.progress(bytes);
    let of = ProofOf { spec: &world.spec, ground: &world.ground, rooms: &world.rooms };
    let proof = prove_run(&of, &*world.store(repository)?, &held, &context.cancel, &progress).map_err(engine_error)?;
    let damage: Vec<String> =
        proof.findings().map(|(level, finding)| format!("{}: {finding}", level.as_str())).collect();
    let (read, took, advice) = (proof.read, proof.took, proof.notes.clone());
    let kept = if world.is_recorded(repository) {
        world.record(repository, &Record::Proof(proof), &[])?;
        ""
    } else {
        " (not put on record: the repository can't be written here)"
    };
    let summary = match damage.len() {
        0 => format!("{read} read back and checked in {took}{kept}"),
        count => format!("DAMAGED: {count} findings{kept}"),
    };
    Ok(Done { bytes: read, summary, damage, advice, ..Done::default() })
}

/// What a proof needs to know of the stack.
pub struct ProofOf<'a> {
    pub spec: &'a Spec,
    pub ground: &'a Ground,
    pub rooms: &'a Workrooms,
}

/// Looks at one run and says what it found. Writes nothing.
///
/// # Errors
/// When the look itself could not be made (interrupted, no room for a private copy); damage is in the proof.
pub fn prove_run(
    of: &ProofOf<'_>,
    store: &Store,
    run: &Run,
    cancel: &Cancel,
    progress: &(dyn Fn(ByteSize) + Sync),
) -> Result<Proof, EngineError> {
    let since = Instant::now();
    let mut structure: Vec<String> =
        run.lost.iter().map(|snapshot| format!("snapshot {} is gone from the repository", snapshot.short())).collect();
    let mut artifacts = Vec::new();
    let mut content = Vec::new();
    let mut notes = Vec::new();
    let mut services = BTreeMap::new();
    let mut read = ByteSize(0);

    let reader = store.reader()?;
    let snapshots: Vec<SnapshotId> = run.present_snapshots().cloned().collect();
    structure.extend(reader.check_structure(&snapshots)?);

    for (service, taken) in run.manifest.taken() {
        if run.lost.contains(&taken.snapshot) {
            artifacts.push(format!("{service}: its snapshot is gone"));
            content.push(format!("{service}: its snapshot is gone"));
            continue;
        }
        let by_its_engine = |it: &&Service| it.source.engine() == taken.engine || taken.engine == engines::SAFETY;
        let Some(declared) = of.spec.services.get(service).filter(by_its_engine) else {
            // Its bytes are hashed all the same; only the engine that parses them is no longer declared.
            content.push(format!(
                "{service}: no {} service of that name is in the file, so its content was not parsed",
                taken.engine
            ));
            continue;
        };
        let engine = engines::of_taken(taken, &declared.source, of.ground);
        let started = Instant::now();
        let before = read;
        let told = |bytes: ByteSize| progress(before + bytes);
        let work = Work { cancel, progress: &told, rooms: of.rooms };
        match engine.prove(&reader, taken, &work) {
            Ok(proven) => {
                let named = |finding: String| format!("{service}: {finding}");
                artifacts.extend(proven.artifacts.into_iter().map(named));
                content.extend(proven.content.into_iter().map(named));
                notes.extend(proven.notes.into_iter().map(named));
                read = read + proven.read;
            }
            // What can't be read back is damage, not a check that could not run.
            Err(EngineError::Repository(error)) if error.kind() == FailureKind::Damage => {
                let finding = format!("{service}: {}", crate::model::chain(&error));
                artifacts.push(finding.clone());
                content.push(finding);
            }
            Err(error) => return Err(error),
        }
        services.insert(service.clone(), Span::from(started.elapsed()));
    }

    let snapshots = run.manifest.taken().map(|(_, taken)| taken.snapshot.clone());
    let snapshots = snapshots.filter(|snapshot| !run.lost.contains(snapshot)).collect();
    let verdict = |findings: Vec<String>| if findings.is_empty() { Verdict::Passed } else { Verdict::Failed(findings) };
    let levels = BTreeMap::from([
        (Level::Structure, verdict(structure)),
        (Level::Artifacts, verdict(artifacts)),
        (Level::Content, verdict(content)),
    ]);
    Ok(Proof {
        format: RECORD_FORMAT,
        run: run.manifest.run.clone(),
        at: now(),
        took: Span::from(since.elapsed()),
        read,
        levels,
        services,
        snapshots,
        notes,
    })
}
